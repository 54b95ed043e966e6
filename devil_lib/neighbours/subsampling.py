"""Choosing among a generator's samples with a discriminator, so that those kept are distributed more like the real data.

Where D(x) is the probability that x is real and not generated, with as many of the one as of the other, D / (1 - D) is the ratio of the
two densities. A sampler that knows the ratio turns samples of the generator into samples of the data: Metropolis-Hastings
(Turner and others, arXiv 1811.11357) or rejection (Azadi and others, arXiv 1810.06758). A thief who has the target's discriminator
trains on what such a sampler keeps. But a discriminator is no probability before it is calibrated, and the one that a GAN's training
ends with was trained against a generator that moved: hence `refitted`, `calibrated` and, before a thief is trained, a look at whether
what is kept did come closer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from devil_lib.models import Discriminator, evaluating

_AT_ONCE = 1000
METHODS = ("isotonic", "logistic")


def logits(discriminator: Discriminator, x: Tensor) -> Tensor:
    """(n,) logits of samples (n, *sample_shape), in evaluation mode."""
    with evaluating(discriminator), torch.no_grad():
        return torch.cat([discriminator(part) for part in x.split(_AT_ONCE)])


# --- A discriminator worth asking ----------------------------------------------------------------------------------------------


def features(discriminator: Discriminator, x: Tensor) -> Tensor:
    """(n, k) what the last layer of a discriminator reads of samples (n, *sample_shape), in evaluation mode."""
    with evaluating(discriminator), torch.no_grad():
        return torch.cat([discriminator.layers[:-1](discriminator.eyes(part)) for part in x.split(_AT_ONCE)])


def refitted(discriminator: Discriminator, real: Tensor, generated: Tensor, freedom: float = 1e-5) -> Discriminator:
    """A copy of a discriminator whose last layer tells real from generated samples, (n, *sample_shape) each, anew.

    Ridge-penalised logistic regression (scikit-learn's) on the standardised features that the layer reads. freedom: the inverse
    weight C of the penalty. More of it tells the two apart better, by traces that have nothing to do with what a picture shows,
    and what a sampler then keeps is chosen by those traces: look at what is kept before you trust it.

    Raises:
        ValueError: samples of two shapes or of different numbers, or a discriminator that does not end in a dense layer.
    """
    if real.shape != generated.shape or not len(real):
        raise ValueError(
            f"give equally many real and generated samples of one shape, got {tuple(real.shape)} and {tuple(generated.shape)}"
        )
    if not isinstance(discriminator.layers[-1], nn.Linear):
        raise ValueError(
            f"the discriminator ends in {discriminator.layers[-1]}, and only a dense layer can be refitted"
        )
    seen = features(discriminator, torch.cat([real, generated])).double().numpy()
    centre, spread = seen.mean(0), seen.std(0) + 1e-6
    is_real = np.arange(len(seen)) < len(real)
    fitted = LogisticRegression(C=freedom, max_iter=300).fit((seen - centre) / spread, is_real)
    found, weight = copy.deepcopy(discriminator).eval(), fitted.coef_[0] / spread
    with torch.no_grad():
        found.layers[-1].weight.copy_(torch.from_numpy(weight)[None])
        found.layers[-1].bias.fill_(float(fitted.intercept_[0] - weight @ centre))
    return found


# --- From a logit to a probability ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibrated:
    """A discriminator whose logits were brought to probabilities on samples that it was not trained on; see `calibrated`."""

    discriminator: Discriminator
    curve: Callable[[np.ndarray], np.ndarray]
    least: float

    def __call__(self, x: Tensor) -> Tensor:
        """(n,) probabilities that samples (n, *sample_shape) are real, float64, never quite 0 or 1."""
        found = self.curve(logits(self.discriminator, x).double().numpy())
        return torch.from_numpy(found).clamp(self.least, 1.0 - self.least)


def calibrated(discriminator: Discriminator, real: Tensor, generated: Tensor, method: str = "isotonic") -> Calibrated:
    """The discriminator with the probability curve that fits equally many real and generated samples, (n, *sample_shape) each.

    Take samples that it was *not* trained on: on those that it knows it is surer than it may be. "isotonic": any curve that does not
    fall; "logistic": 1 / (1 + exp(-(a logit + b))). scikit-learn's, both.

    Raises:
        ValueError: an unknown method, fewer than 20 samples of a kind, or different numbers of them.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if len(real) != len(generated) or len(real) < 20:
        raise ValueError(
            f"give equally many real and generated samples, 20 or more, not {len(real)} and {len(generated)}"
        )
    found = logits(discriminator, torch.cat([real, generated])).double().numpy()
    is_real = (np.arange(len(found)) < len(real)).astype(float)
    if method == "isotonic":
        curve = IsotonicRegression(out_of_bounds="clip").fit(found, is_real).predict
    else:
        fitted = LogisticRegression().fit(found[:, None], is_real)

        def curve(values: np.ndarray) -> np.ndarray:
            return fitted.predict_proba(values[:, None])[:, 1]

    return Calibrated(discriminator, curve, 1.0 / (len(real) + 2.0))


def reliability(
    probability: Callable[[Tensor], Tensor], real: Tensor, generated: Tensor, bins: int = 10
) -> list[tuple[float, float, int]]:
    """Of equally many real and generated samples: for each bin of the stated probability that holds any, the mean of what was stated,
    the share that is real, and how many there are. On the diagonal, a probability means what it says."""
    stated = torch.cat([probability(real), probability(generated)]).double()
    is_real = torch.cat([torch.ones(len(real)), torch.zeros(len(generated))]).double()
    place = (stated * bins).long().clamp(0, bins - 1)
    members = [place == i for i in range(bins)]
    return [(stated[one].mean().item(), is_real[one].mean().item(), int(one.sum())) for one in members if one.any()]


# --- Two samplers -----------------------------------------------------------------------------------------------------------------


def metropolis_hastings(probabilities: Tensor, start: Tensor | float, chain: int = 10, seed: int = 0) -> Tensor:
    """(n // chain,) places of the samples that Metropolis-Hastings keeps of n generated ones with these probabilities (n,).

    Every `chain` samples in a row are the proposals of a chain of their own. x' is accepted over x with probability
    min(1, (1/D(x) - 1) / (1/D(x') - 1)), and the chain's last state is kept. `start`: D of the real sample that a chain starts from, one
    number or one for each chain, which spares the burn-in; a chain that accepted nothing keeps its best proposal, for the thief
    wants the generator's samples and not those that he has.

    Raises:
        ValueError: probabilities outside ]0, 1[, or fewer than one chain of them.
    """
    _check_probabilities(probabilities)
    chains = len(probabilities) // chain
    if chain < 1 or not chains:
        raise ValueError(f"{len(probabilities)} samples do not make a chain of {chain}")
    proposals = probabilities[: chains * chain].double().reshape(chains, chain)
    against = (1.0 - proposals) / proposals  # 1/D - 1
    state = torch.as_tensor(start, dtype=torch.float64).expand(chains)
    current = (1.0 - state) / state
    place = proposals.argmax(1)
    rng = torch.Generator().manual_seed(seed)
    for i in range(chain):
        accepted = torch.rand(chains, generator=rng, dtype=torch.float64) < current / against[:, i]
        current = torch.where(accepted, against[:, i], current)
        place = torch.where(accepted, i, place)
    return torch.arange(chains) * chain + place


def rejection(probabilities: Tensor, percentile: float = 95.0, epsilon: float = 1e-8, seed: int = 0) -> Tensor:
    """Places of the samples that discriminator rejection sampling keeps of n generated ones with these probabilities (n,).

    F = d - log(1 - exp(d - ε)) with d = logit D less its largest value; a sample is kept with probability sigmoid(F - γ), γ the given
    percentile of F. The lower the percentile, the more is kept, and the less it is changed.

    Raises:
        ValueError: probabilities outside ]0, 1[, or a percentile outside [0, 100].
    """
    _check_probabilities(probabilities)
    if not 0.0 <= percentile <= 100.0:
        raise ValueError(f"a percentile lies between 0 and 100, not at {percentile}")
    d = torch.logit(probabilities.double())
    d = d - d.max()
    f = d - torch.log1p(-torch.exp(d - epsilon))
    kept = torch.sigmoid(f - torch.quantile(f, percentile / 100.0))
    return (
        torch.rand(len(kept), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) < kept
    ).nonzero()[:, 0]


def _check_probabilities(probabilities: Tensor) -> None:
    if probabilities.ndim != 1 or not ((probabilities > 0.0) & (probabilities < 1.0)).all():
        raise ValueError("probabilities must be one number for each sample, above 0 and below 1: calibrate first")
