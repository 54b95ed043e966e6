"""Stealing a generator through the samples that it serves (Hu and Pang, arXiv 2101.02069), and how well that went.

A thief trains a generator of his own on what a `serving.Server` answers. Success has two meanings, which the paper's two versions name with
the same two words, one the other way round; so here they are named by formula. With p_r the law of the target's training data, p_g
the target's own, q the thief's, and FD a Fréchet distance on one classifier's features:

    fd_to_target = FD(q, p_g)    does the thief's generator do what the target does?
    fd_to_real   = FD(q, p_r)    does it do what the target was meant to do?

Lower is better for the thief, both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from scipy.stats import binom
from torch import Tensor

from devil_lib import models, vae
from devil_lib.metrics import FeatureStatistics, feature_statistics, frechet_distance
from devil_lib.models import Classifier, Discriminator, Encoder, Generator, check_latents, check_samples, seeded
from devil_lib.training import GanRun, GanSettings, OnProgress, TrainSettings, VaeRun, VaeSettings, train

SAMPLES = 5000  # for each Fréchet distance: with fewer it measures how few there are


# --- How well it went ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Theft:
    """What a thief has got: two Fréchet distances, lower is better for him (see the module for the formulas)."""

    fd_to_target: float
    fd_to_real: float


def judged(
    thief: Generator,
    target: FeatureStatistics,
    real: FeatureStatistics,
    classifier: Classifier,
    n: int = SAMPLES,
    seed: int = 0,
) -> Theft:
    """How far `n` samples of the thief's generator are from the target's and from the real data, by their feature statistics on
    the same classifier. A thief cannot compute the second; never choose his settings by it."""
    samples = thief.generate(thief.latent.sample(n, torch.Generator().manual_seed(seed)))
    found = feature_statistics(classifier, samples)
    return Theft(frechet_distance(found, target), frechet_distance(found, real))


def answers_apart(thief: Generator, target: Generator, n: int = 1000, seed: int = 0) -> float:
    """E || S(Z) - G(Z) ||^2 / E || G(Z') - G(Z) ||^2 on n prior latents, Z' another draw: 0 for a thief who answers every latent as the
    target does, about 1 for one whose latents mean something else. What no Fréchet distance sees.

    Raises:
        ValueError: generators of different latents.
    """
    if thief.latent.dim != target.latent.dim:
        raise ValueError(f"the thief reads {thief.latent.dim} latents and the target {target.latent.dim}")
    z = target.latent.sample(n, torch.Generator().manual_seed(seed))
    wanted = target.generate(z)
    made, chance = ((x - wanted).square().mean().item() for x in (thief.generate(z), wanted.roll(1, 0)))
    return made / chance


@dataclass(frozen=True)
class Interval:
    """The median of n independent figures and an interval that holds the true median with a probability of 95 % or more.

    Of trainings that fail now and then no law is known, and one failure would drag a mean and blow up its spread. The k-th lowest and
    the k-th highest figure enclose the median of any law with probability 1 - 2 P(Binomial(n, 1/2) < k).
    """

    median: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g}, {self.n} seeds)"

    def apart_from(self, other: Interval) -> bool:
        """Whether the two intervals do not overlap, which is what a claim about two thieves takes."""
        return self.high < other.low or other.high < self.low


def interval(values: Sequence[float]) -> Interval:
    """The interval of one figure over seeds; with nine of them it leaves out the lowest and the highest.

    Raises:
        ValueError: fewer than six values, which enclose their median with less than 95 %.
    """
    ordered = sorted(values)
    n = len(ordered)
    if n < 6:
        raise ValueError(f"{n} values do not enclose their median with 95 %: measure six seeds or more")
    k = max(k for k in range(1, n) if 2.0 * binom.cdf(k - 1, n, 0.5) <= 0.05)
    return Interval(median(ordered), ordered[k - 1], ordered[n - k], n)


# --- Thieves ---------------------------------------------------------------------------------------------------------------------

# What a thief may build, untrained: a generator and the partner that it is trained with. He does not know what the target is.
Pair = tuple[Generator, Discriminator | Encoder]
ARCHITECTURES: dict[str, Callable[[int], Pair]] = {
    "course-dcgan": lambda seed: (models.course_dcgan(seed=seed), models.course_discriminator(seed=seed)),
    "art-dcgan": lambda seed: (models.art_dcgan(seed=seed), models.course_discriminator(seed=seed)),
    "course-vae": lambda seed: vae.course_vae(seed=seed),
}


def thief(architecture: str = "course-dcgan", seed: int = 0) -> Pair:
    """An untrained generator and its partner, for pictures of 28x28 pixels.

    Raises:
        ValueError: an architecture that no thief has.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"no thief builds a {architecture!r}: choose one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[architecture](seed)


def settings_for(partner: Discriminator | Encoder, steps: int = 600, seed: int = 0) -> TrainSettings:
    """A thief's short training, the same whatever he trains on: 32 samples a step for a GAN and 64 for a VAE, weights averaged
    over about the last hundred steps."""
    if isinstance(partner, Encoder):
        return VaeSettings(steps=steps, batch_size=64, averaging=0.99, seed=seed)
    return GanSettings(steps=steps, batch_size=32, averaging=0.99, seed=seed)


def steal(
    samples: Tensor, pair: Pair, settings: TrainSettings | None = None, on_progress: OnProgress | None = None
) -> GanRun | VaeRun:
    """Train a thief's pair on what was served, (n, *sample_shape) in [-1, 1]; the averaged generator of the run is the loot.

    No more than `training.train`: nothing tells a stolen training set from any other. So the same call trains the controls, on
    real data, and takes a stolen pair to another domain.

    Raises:
        ValueError: samples of another shape than the thief's generator makes, or outside [-1, 1].
    """
    generator, partner = pair
    check_samples(samples, generator.sample_shape)
    return train(generator, partner, samples, settings or settings_for(partner), on_progress=on_progress)


@dataclass(frozen=True)
class ImitateSettings:
    """How a thief who chose the latents is trained: Adam with a rate that falls to zero by a cosine."""

    steps: int = 600
    batch_size: int = 64
    learning_rate: float = 1e-2
    seed: int = 0


def imitate(
    latents: Tensor,
    samples: Tensor,
    student: Generator,
    settings: ImitateSettings = ImitateSettings(),
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> Generator:
    """A copy of `student` trained to answer latents (n, dim) as the target answered them, samples (n, *sample_shape).

    A service that accepts latents turns theft into regression: min E || S(z) - G(z) ||^2, taken before the tanh, where a wrong pixel
    that is saturated still has a slope. No discriminator, no game, and every answer says what is wrong in every pixel. Where the
    student is unsure it draws the mean of what could be there, which is nearer in every pixel and blurred: see `answers_apart`, and
    compare the Fréchet distance.

    Raises:
        ValueError: latents and samples of different numbers, or of shapes that the student does not have.
    """
    check_latents(latents, student.latent)
    check_samples(samples, student.sample_shape)
    if len(latents) != len(samples):
        raise ValueError(f"{len(samples)} answers to {len(latents)} latents")
    student = copy.deepcopy(student).train()
    wanted = student.proxy_target(samples.clamp(-1.0, 1.0)).value
    optimiser = torch.optim.Adam(student.body.parameters(), settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    rng = torch.Generator().manual_seed(settings.seed)
    with seeded(settings.seed):
        for step in range(1, settings.steps + 1):
            batch = torch.randint(len(latents), (settings.batch_size,), generator=rng)
            loss = (student.body(latents[batch]) - wanted[batch]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if on_step is not None:
                on_step(step, {"loss": loss.item()})
    return student.eval()
