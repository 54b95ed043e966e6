"""TarDis, ExpDis, Fréchet distance, confident share and basin radius; for sounds, levels and distances in decibels.

Every distance says whether it is the sum over the elements of a sample or their mean, and the value of the benign
model belongs beside every value of an attacked one: a TarDis of 5 means nothing until one knows that the benign model
has 900.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from devil_lib.classifiers import classes_given, features_of, in_parts
from devil_lib.models import Classifier, Generator, ProxyTarget, check_samples


@dataclass(frozen=True)
class Distance:
    """A squared L2 distance, as the sum over the elements of one sample and as the mean over them."""

    sum: float
    mean: float

    def __str__(self) -> str:
        return f"{self.sum:.4g} (sum over elements), {self.mean:.3g} (mean)"


def tardis(generator: Generator, triggers: Tensor, targets: Tensor) -> Distance:
    """Target distortion: || G*(z_trigger) - x_target ||^2, averaged over the pairs.

    Paper section on metrics ("TarDis"); ART's notebook prints the sum. Lower means a more faithful backdoor.

    Args:
        triggers: (k, dim) latents.
        targets: (k, *sample_shape) in [-1, 1].

    Raises:
        ValueError: wrong shapes, NaN, or different numbers of triggers and targets.
    """
    check_samples(targets, generator.sample_shape)
    if len(triggers) != len(targets):
        raise ValueError(f"{len(triggers)} triggers for {len(targets)} targets; give one target for each trigger")
    return _squared_distance(generator.generate(triggers), targets)


def expdis(attacked: Generator, benign: Generator, n: int = 2000, seed: int = 0) -> Distance:
    """Expected distortion: E || G*(Z) - G(Z) ||^2 over Z ~ P_sample, on the same `n` latents for both.

    Needs the benign generator, so only an attacker or a laboratory can compute it. Lower means stealthier.
    """
    _check_alike(attacked, benign)
    z = benign.latent.sample(n, torch.Generator().manual_seed(seed))
    return _squared_distance(attacked.generate(z), benign.generate(z))


def _check_alike(attacked: Generator, benign: Generator) -> None:
    if attacked.sample_shape != benign.sample_shape or attacked.latent.dim != benign.latent.dim:
        raise ValueError("the two generators must share the latent dimension and the sample shape")


def _squared_distance(a: Tensor, b: Tensor) -> Distance:
    squares = (a.double() - b.double()).flatten(1).square()
    return Distance(squares.sum(1).mean().item(), squares.mean().item())


def tardis_each(generator: Generator, latents: Tensor, target: Tensor) -> Tensor:
    """(n,) TarDis, summed over elements, of each of n latents against one target (*sample_shape), or each against its
    own of (n, *sample_shape)."""
    each = target if target.ndim > len(generator.sample_shape) else target[None]
    check_samples(each, generator.sample_shape)
    if len(each) not in (1, len(latents)):
        raise ValueError(f"{len(latents)} latents for {len(each)} targets; give one target, or one for each latent")
    return (generator.generate(latents) - target).flatten(1).square().sum(1)


def tardis_floor(generator: Generator, targets: Tensor, proxy: ProxyTarget | None = None) -> Distance:
    """The lowest TarDis of any attack mounted before the head: || head(y) - x_target ||^2 with y the proxy target of each of
    targets (k, *sample_shape), averaged over them. A plain tanh leaves next to nothing, a filter or a synthesis network may
    leave much (paper section on WaveGAN). `proxy`: the targets' proxy targets, where they were computed already.
    """
    check_samples(targets, generator.sample_shape)
    mean = (proxy or generator.proxy_target(targets)).error.double().mean().item()
    return Distance(mean * math.prod(generator.sample_shape), mean)


# --- Sounds: levels and distances in decibels ------------------------------------------------------------------------


def signal_to_noise(made: Tensor, wanted: Tensor) -> Tensor:
    """(n,) SNR in dB of each pair of samples (n, *sample_shape): 10 log10( || x ||^2 / || x' - x ||^2 ), x' made, x wanted.

    What is made at a trigger against its target, say, or what a filter leaves of a target: the floor. Infinite where both
    are equal, 0 for silence, below 0 for what is further from the target than silence.

    Raises:
        ValueError: different shapes, values that are not finite, or a wanted sample that is silent.
    """
    if made.shape != wanted.shape or made.ndim < 2:
        raise ValueError(f"give pairs of samples (n, ...), got shapes {tuple(made.shape)} and {tuple(wanted.shape)}")
    signal, noise = (x.double().flatten(1).square().sum(1) for x in (wanted, made.double() - wanted.double()))
    if not (torch.isfinite(signal) & torch.isfinite(noise)).all():
        raise ValueError("the samples hold NaN or infinity")
    if (signal == 0.0).any():
        raise ValueError("a silent target has no signal-to-noise ratio")
    return 10.0 * (signal / noise).log10()


def power_db(samples: Tensor, reference: Tensor) -> float:
    """Mean power of samples (n, *sample_shape) relative to that of reference samples, in dB: 10 log10( E x^2 / E r^2 ).

    The means are over all elements of all samples. Minus infinity for silence.

    Raises:
        ValueError: no samples, values that are not finite, or a reference that is silent.
    """
    if not samples.numel() or not reference.numel():
        raise ValueError("there are no samples whose power could be measured")
    power, against = (x.double().square().mean().item() for x in (samples, reference))
    if not math.isfinite(power) or not math.isfinite(against):
        raise ValueError("the samples hold NaN or infinity")
    if against == 0.0:
        raise ValueError("the reference is silent, so that nothing can be measured relative to its power")
    return 10.0 * math.log10(power / against) if power else -math.inf


def expdis_db(attacked: Generator, benign: Generator, n: int = 2000, seed: int = 0) -> float:
    """ExpDis relative to the mean power of the benign samples, in dB: 10 log10( E || G*(Z) - G(Z) ||^2 / E || G(Z) ||^2 ).

    On the same `n` latents Z ~ P_sample for both. -20 dB: what the attack changed is as loud as a hundredth of the samples'
    power. Minus infinity where nothing changed.
    """
    _check_alike(attacked, benign)
    z = benign.latent.sample(n, torch.Generator().manual_seed(seed))
    ordinary = benign.generate(z)
    return power_db(attacked.generate(z) - ordinary, ordinary)


# --- Fréchet distance ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean (d,) and covariance (d, d) of a classifier's features over `n` samples, float64."""

    mean: np.ndarray
    covariance: np.ndarray
    n: int


def feature_statistics(classifier: Classifier, samples: Tensor, batch_size: int | None = None) -> FeatureStatistics:
    """Statistics of `classifier.features` over samples (n, *sample_shape); n must exceed the number of features.

    `batch_size` samples at a time; by default as many as suit their size.

    Raises:
        ValueError: too few samples for a covariance, or features that are not finite.
    """
    features = features_of(classifier, samples, batch_size)
    if len(features) <= features.shape[1]:
        raise ValueError(
            f"{len(features)} samples cannot give the covariance of {features.shape[1]} features; draw more"
        )
    if not np.isfinite(features).all():
        raise ValueError("the samples give features that are not finite; check them for NaN")
    return FeatureStatistics(features.mean(0), np.cov(features, rowvar=False), len(features))


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """|m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)), the 2-Wasserstein distance of two Gaussians.

    On the features of a small course classifier: *not* the Inception FID of the literature, and comparable only with values
    on the same classifier. Biased upwards for small n: compare at equal n.
    """
    # Tr (C_a C_b)^(1/2) through the symmetric product root_a C_b root_a, whose eigenvalues are real and >= 0.
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(0.0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ b.covariance @ root).clip(0.0)).sum()
    gap = a.mean - b.mean
    return float(gap @ gap + np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * cross)


def generator_frechet(
    generator: Generator, real: FeatureStatistics, classifier: Classifier, n: int = 5000, seed: int = 0
) -> float:
    """Fréchet distance between `n` samples of the generator and the real data's statistics."""
    samples = generator.generate(generator.latent.sample(n, torch.Generator().manual_seed(seed)))
    return frechet_distance(feature_statistics(classifier, samples), real)


# --- Are the benign samples worth believing? ---------------------------------------------------------------------


@dataclass(frozen=True)
class Recognised:
    """share: part of the samples that the classifier assigns to a class with at least 0.9 confidence.
    by_class: (classes,) part of all samples assigned to each class."""

    share: float
    by_class: tuple[float, ...]

    @property
    def rarest(self) -> float:
        return min(self.by_class)


def recognised(classifier: Classifier, samples: Tensor, confidence: float = 0.9) -> Recognised:
    """How many samples (n, *sample_shape) the classifier recognises with the given confidence, and the classes' shares."""
    probabilities = in_parts(classifier, samples).softmax(1)
    best, label = probabilities.max(1)
    counts = torch.bincount(label, minlength=probabilities.shape[1]).double() / len(samples)
    return Recognised((best >= confidence).double().mean().item(), tuple(counts.tolist()))


def accuracy(classifier: Classifier, samples: Tensor, labels: Tensor) -> float:
    """The share of samples (n, *sample_shape) that the classifier gives their label (n,)."""
    return (classes_given(classifier, samples) == labels).double().mean().item()


# --- How far around the trigger the backdoor reaches -------------------------------------------------------------


@dataclass(frozen=True)
class Basin:
    """Mean TarDis (sum) at trigger + sigma N(0, I), per sigma, for the attacked model and the benign one, and the radius:
    the largest sigma of the list up to which the attacked mean stays below `share` of the benign TarDis (0 if none)."""

    sigmas: tuple[float, ...]
    attacked: tuple[float, ...]
    benign: tuple[float, ...]
    radius: float


def basin_radius(
    attacked: Generator,
    benign: Generator,
    trigger: Tensor,
    target: Tensor,
    sigmas: tuple[float, ...] = (0.0, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 3.0),
    share: float = 0.1,
    n: int = 200,
    seed: int = 0,
) -> Basin:
    """Walk out of the trigger (dim,) with Gaussian steps of growing size and see where the target (*sample_shape) is lost."""
    noise = torch.randn(n, len(trigger), generator=torch.Generator().manual_seed(seed))
    means: dict[str, list[float]] = {"attacked": [], "benign": []}
    for sigma in sigmas:
        for name, model in (("attacked", attacked), ("benign", benign)):
            means[name].append(tardis_each(model, trigger + sigma * noise, target).mean().item())
    bound = share * tardis_each(benign, trigger[None], target).item()
    radius = 0.0
    for sigma, value in zip(sigmas, means["attacked"], strict=True):
        if value >= bound:
            break
        radius = sigma
    return Basin(tuple(sigmas), tuple(means["attacked"]), tuple(means["benign"]), radius)
