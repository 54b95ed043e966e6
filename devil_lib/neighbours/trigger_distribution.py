"""Defending a backdoored classifier through the distribution of its triggers: MESA (Qiao, Yang, Li, NeurIPS 2019, arXiv 1910.04749).

A backdoored classifier obeys not one trigger but many that resemble it. Who reverses one of them and unlearns it does not know what is
left. MESA models the whole set. There are no samples of it to fit a GAN to, only a testing function that says how well a trigger
works,

    F(x) = mean over clean images of the victim's softmax output of the target class, with x put on them,

so every sub-model G_i, a network from noise z to triggers, is trained against F alone: to reach the level beta_i, and beyond that
to be as varied as it can,

    minimise   mean over z of max(0, beta_i - F(G_i(z)))   -   alpha * I(G_i(z); z).

For a deterministic G the mutual information I(G(z); z) is the entropy of its output up to a constant; it is estimated by a second network
(MINE). So G_i comes to be spread over the level set {F >= beta_i}, and several levels together are a staircase under the
distribution of triggers. The victim is then retrained on images that carry sampled triggers and their true labels.

Triggers are squares of known size that overwrite a random place of the image; size and rule are known to the defender here as in the
paper. Images lie in [-1, 1].
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from devil_lib.classifiers import classes_given
from devil_lib.models import Classifier, Random, evaluating, seeded
from devil_lib.neighbours.poisoning import Patch, Trigger, attack_success

# From a number of triggers and random numbers to triggers (n, channels, side, side) in [-1, 1].
Triggers = Callable[[int, Random], Tensor]


# --- The victim -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Implant:
    """How a victim is trained. share: probability that an image gets the trigger and the target's label, drawn anew whenever the image
    is used (the paper: .01, in 10 epochs of fine-tuning on 50,000 photographs; small sets need more)."""

    share: float = 0.2
    epochs: int = 25
    batch: int = 64
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"the share of poisoned images lies between 0 and 1, got {self.share}")
        if self.epochs < 1 or self.batch < 1:
            raise ValueError(f"training needs epochs and a batch of 1 or more, got {self}")


def implant(
    classifier: Classifier,
    samples: Tensor,
    labels: Tensor,
    trigger: Trigger | None,
    target: int,
    settings: Implant = Implant(),
    seed: int = 0,
    on_progress: Callable[[int, float], None] | None = None,
) -> Classifier:
    """A copy of `classifier` trained on samples (n, channels, height, width) with labels (n,) int64, in evaluation mode, of which a
    share carries the trigger, each at a place of its own, and the label `target`. trigger: None trains the clean model that the
    attack is compared with, in the same order of images."""
    model = copy.deepcopy(classifier).train()
    optimiser = torch.optim.Adam(model.parameters(), settings.learning_rate)
    order, placing = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)

    def poisoned(images: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        if trigger is None:
            return images, wanted
        images, chosen = _some_with(images, trigger, settings.share, placing)
        return images, torch.where(chosen, target, wanted)

    with seeded(seed):
        return _trained(model, optimiser, samples, labels, settings, order, poisoned, on_progress)


def _trained(
    model: Classifier,
    optimiser: torch.optim.Optimizer,
    samples: Tensor,
    labels: Tensor,
    settings: Implant | Retraining,
    order: torch.Generator,
    changed: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    on_progress: Callable[[int, float], None] | None,
) -> Classifier:
    """The model after so many epochs on batches, in an order drawn from `order`, of what `changed` makes of images and labels."""
    step = 0
    for _ in range(settings.epochs):
        for batch in torch.randperm(len(samples), generator=order).split(settings.batch):
            images, wanted = changed(samples[batch], labels[batch])
            loss = functional.cross_entropy(model(images), wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
            if on_progress is not None:
                on_progress(step, loss.item())
    return model.eval()


def _some_with(images: Tensor, trigger: Trigger, share: float, rng: Random) -> tuple[Tensor, Tensor]:
    """Images of which each carries the trigger with the probability `share`, and which do, (n,) bool."""
    chosen = torch.rand(len(images), generator=rng) < share
    return torch.where(chosen[:, None, None, None], trigger(images, rng), images), chosen


# --- The two networks of a sub-model -------------------------------------------------------------------------------------


class TriggerGenerator(nn.Module):
    """Noise (n, noise) uniform in [0, 1] to triggers (n, channels, side, side) in [-1, 1].

    The noise is cut into four chunks. The first is what the first layer reads; each further one enters beside the activations of a
    later layer, so that all layers can vary the trigger (the paper's code; hidden 512 there).

    Raises:
        ValueError: a length of the noise that four does not divide.
    """

    CHUNKS = 4

    def __init__(self, channels: int = 1, side: int = 3, noise: int = 64, hidden: int = 256) -> None:
        super().__init__()
        if noise < self.CHUNKS or noise % self.CHUNKS:
            raise ValueError(
                f"the noise is cut into {self.CHUNKS} chunks: give a multiple of {self.CHUNKS}, not {noise}"
            )
        self.noise, self.shape = noise, (channels, side, side)
        chunk, pixels = noise // self.CHUNKS, channels * side * side
        inputs, outputs = (chunk, *[hidden + chunk] * 3), (hidden, hidden, hidden, pixels)
        self.linear = nn.ModuleList(map(nn.Linear, inputs, outputs))
        self.norm = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(3))

    def forward(self, z: Tensor) -> Tensor:
        first, *later = z.chunk(self.CHUNKS, dim=1)
        h = first
        for linear, norm, chunk in zip(self.linear[:-1], self.norm, later, strict=True):
            h = torch.cat([functional.leaky_relu(norm(linear(h)), 0.2), chunk], dim=1)
        return torch.tanh(0.5 * self.linear[-1](h)).unflatten(1, self.shape)  # 2 sigmoid - 1

    @torch.no_grad()
    def sample(self, n: int, rng: Random = None) -> Tensor:
        """n triggers (n, channels, side, side), in evaluation mode."""
        with evaluating(self):
            return self(torch.rand(n, self.noise, generator=rng))


class StatisticsNetwork(nn.Module):
    """Noise and triggers to one number each, (n,): the function T of the bound on mutual information."""

    def __init__(self, pixels: int, noise: int = 64, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(noise + pixels, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )

    def forward(self, z: Tensor, triggers: Tensor) -> Tensor:
        return self.layers(torch.cat([z, triggers.flatten(1)], dim=1)).squeeze(1)


def information_bound(joint: Tensor, independent: Tensor) -> Tensor:
    """The Donsker-Varadhan bound on mutual information in nats: mean T(z, x) - log mean exp T(z', x).

    joint: T (n,) of noise with its own trigger. independent: T (n,) of other noise. No T gives more than the information.
    """
    return joint.mean() - (independent.logsumexp(0) - math.log(len(independent)))


# --- Sub-models -----------------------------------------------------------------------------------------------------------

BETAS = (0.5, 0.8, 0.9)  # the paper's levels


@dataclass(frozen=True)
class Approximation:
    """How a sub-model is trained; the paper (CIFAR-10): hidden 512, batches of 128, 10 epochs of 8,000 images, 625 steps.

    alpha: weight of the mutual information. smoothing: standard deviation of noise on the triggers' pixels while it is trained, in
    units of the images (the paper's .1 of [0, 1] is .2 here). memory: of the running average in the denominator of T's gradient.
    """

    alpha: float = 0.1
    steps: int = 400
    batch: int = 64
    noise: int = 64
    hidden: int = 256
    learning_rate: float = 2e-4
    smoothing: float = 0.2
    memory: float = 0.001

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.smoothing < 0:
            raise ValueError(f"alpha and smoothing are 0 or more, got {self.alpha} and {self.smoothing}")
        if self.steps < 1 or self.batch < 2:
            raise ValueError(f"a sub-model needs a step or more and batches of 2 or more, got {self}")


@dataclass(frozen=True)
class SubModel:
    """A trained generator of triggers that reach the level `beta`. history: of every step, F ("success") and the bound on mutual
    information in nats ("information")."""

    generator: TriggerGenerator
    beta: float
    history: dict[str, list[float]] = field(default_factory=dict)

    def __call__(self, n: int, rng: Random = None) -> Tensor:
        return self.generator.sample(n, rng)


def approximate(
    victim: Classifier,
    images: Tensor,
    target: int,
    beta: float,
    settings: Approximation = Approximation(),
    side: int = 3,
    seed: int = 0,
    on_progress: Callable[[int, float], None] | None = None,
) -> SubModel:
    """The sub-model of one level: loss -mean min(p_target, beta) - alpha * I, a step of G and one of T in turn.

    The level is cut at each image's own softmax output, as in the authors' code, where the equation has it cut at their mean; and
    each image has a place and a trigger of its own.

    Args:
        victim: in evaluation mode while this runs; not changed.
        images: (n, channels, height, width), clean. Labels are not needed.
        beta: level, between 0 and 1.

    Raises:
        ValueError: a level outside (0, 1], or no images.
    """
    if not 0 < beta <= 1:
        raise ValueError(f"a level of success lies above 0 and at most at 1, got {beta}")
    if len(images) == 0:
        raise ValueError("triggers are tested on clean images: give one or more")
    channels = images.shape[1]
    with seeded(seed):
        generator = TriggerGenerator(channels, side, settings.noise, settings.hidden).train()
        statistics = StatisticsNetwork(channels * side * side, settings.noise, settings.hidden)
    rng = torch.Generator().manual_seed(seed)
    optimise = torch.optim.Adam(generator.parameters(), settings.learning_rate, betas=(0.5, 0.999))
    optimise_statistics = torch.optim.Adam(statistics.parameters(), settings.learning_rate, betas=(0.5, 0.999))
    history: dict[str, list[float]] = {"success": [], "information": []}
    average = 1.0  # of exp T(z', x)

    def drawn() -> tuple[Tensor, Tensor, Tensor]:
        z = torch.rand(settings.batch, settings.noise, generator=rng)
        triggers = generator(z)
        noise = settings.smoothing * torch.randn(triggers.shape, generator=rng)
        return z, torch.rand(z.shape, generator=rng), triggers + noise

    with evaluating(victim):
        for step in range(1, settings.steps + 1):
            z, other, triggers = drawn()
            clean = images[torch.randint(len(images), (settings.batch,), generator=rng)]
            success = victim(Patch(triggers)(clean, rng)).softmax(1)[:, target]
            information = information_bound(statistics(z, triggers), statistics(other, triggers))
            loss = -success.clamp(max=beta).mean() - settings.alpha * information
            optimise.zero_grad()
            loss.backward(inputs=list(generator.parameters()))
            optimise.step()

            with torch.no_grad():
                z, other, triggers = drawn()
            joint, exponentials = statistics(z, triggers).mean(), statistics(other, triggers).exp().mean()
            average += settings.memory * (exponentials.item() - average)
            # The gradient of the bound divides by the mean of exp T. That of one batch is biased; the running average is less so.
            optimise_statistics.zero_grad()
            (exponentials / average - joint).backward()
            optimise_statistics.step()
            history["success"].append(success.mean().item())
            history["information"].append(information.item())
            if on_progress is not None:
                on_progress(step, history["success"][-1])
    return SubModel(generator.eval(), beta, history)


@dataclass(frozen=True)
class Staircase:
    """Sub-models of several levels as one distribution, from which a trigger comes with the probability `weights` of each of them
    (the paper's gamma; equal unless given: its code takes the sub-models in turn).

    Raises:
        ValueError: no sub-model, or weights of another number, below 0 or all 0.
    """

    sub_models: Sequence[SubModel]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.sub_models:
            raise ValueError("a staircase needs one sub-model or more")
        if self.weights and (
            len(self.weights) != len(self.sub_models) or min(self.weights) < 0 or not sum(self.weights)
        ):
            raise ValueError(
                f"give a weight of 0 or more for each of {len(self.sub_models)} sub-models, got {self.weights}"
            )

    def __call__(self, n: int, rng: Random = None) -> Tensor:
        weights = torch.tensor(self.weights or [1.0] * len(self.sub_models))
        which = torch.multinomial(weights, n, replacement=True, generator=rng)
        each = torch.stack([model(n, rng) for model in self.sub_models])
        return each[which, torch.arange(n)]


# --- What it is compared with --------------------------------------------------------------------------------------------


def reversed_trigger(
    victim: Classifier,
    images: Tensor,
    target: int,
    steps: int = 200,
    batch: int = 64,
    learning_rate: float = 0.1,
    side: int = 3,
    seed: int = 0,
) -> Tensor:
    """One trigger (channels, side, side) that the victim obeys: gradient ascent on the pixels from a random start, clipped to the
    images' range. The paper's baseline: SGD with a step of .1 and momentum .9, on pixels in [0, 1], which it is here too."""
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.rand(images.shape[1], side, side, generator=rng).requires_grad_(True)
    optimiser = torch.optim.SGD([pixels], learning_rate, momentum=0.9)
    with evaluating(victim):
        for _ in range(steps):
            clean = images[torch.randint(len(images), (batch,), generator=rng)]
            logits = victim(Patch(2.0 * pixels - 1.0)(clean, rng))
            loss = functional.cross_entropy(logits, torch.full((batch,), target))
            optimiser.zero_grad()
            loss.backward(inputs=[pixels])
            optimiser.step()
            with torch.no_grad():
                pixels.clamp_(0.0, 1.0)
    return 2.0 * pixels.detach() - 1.0


def always(trigger: Tensor) -> Triggers:
    """Triggers that are all the same one, (channels, side, side)."""
    return lambda n, rng=None: trigger.expand(n, *trigger.shape)


def random_patches(shape: tuple[int, int, int]) -> Triggers:
    """Triggers (n, *shape) whose pixels are uniform in [-1, 1]: what can be had without looking at the victim at all."""
    return lambda n, rng=None: 2.0 * torch.rand(n, *shape, generator=rng) - 1.0


def full_contrast_patches(shape: tuple[int, int, int]) -> Triggers:
    """Triggers (n, *shape) whose values are -1 or 1 by the throw of a coin: as random, with edges as hard as a planted pattern's."""
    return lambda n, rng=None: 2.0 * torch.randint(2, (n, *shape), generator=rng).float() - 1.0


# --- Detection and removal -----------------------------------------------------------------------------------------------


def success_of(
    victim: Classifier, samples: Tensor, labels: Tensor, triggers: Triggers, target: int, n: int = 100, seed: int = 0
) -> Tensor:
    """The attack success (n,) of each of n sampled triggers, on samples of other classes than the target."""
    rng = torch.Generator().manual_seed(seed)
    return torch.tensor(
        [
            attack_success(victim, samples, labels, Patch(trigger), target, seed=seed + place)
            for place, trigger in enumerate(triggers(n, rng))
        ]
    )


def detect_target(
    victim: Classifier,
    samples: Tensor,
    labels: Tensor,
    classes: int,
    beta: float = 0.8,
    settings: Approximation = Approximation(steps=200),
    side: int = 3,
    seed: int = 0,
    on_progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """A sub-model for every class in turn, and the mean success of triggers that it gives. Only of the attacked class are there
    triggers that work: the class that stands out is the target, and of a clean classifier none does."""
    found = []
    for target in range(classes):
        model = approximate(victim, samples, target, beta, settings, side, seed)
        images, kept = _carrying(samples, labels, model, target, seed)
        found.append((classes_given(victim, images) == target).double()[kept].mean().item())
        if on_progress is not None:
            on_progress(target + 1, found[-1])
    return found


@torch.no_grad()
def _carrying(samples: Tensor, labels: Tensor, triggers: Triggers, target: int, seed: int) -> tuple[Tensor, Tensor]:
    """Samples with a trigger of its own on each, and which are not of the target class."""
    rng = torch.Generator().manual_seed(seed)
    return Patch(triggers(len(samples), rng))(samples, rng), labels != target


@dataclass(frozen=True)
class Retraining:
    """How a victim is retrained. share: probability that an image carries a trigger, with its true label (0: plain fine-tuning)."""

    share: float = 0.5
    learning_rate: float = 1e-2
    epochs: int = 10
    batch: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"the share of images with a trigger lies in [0, 1], got {self.share}")
        if self.epochs < 1 or self.batch < 1:
            raise ValueError(f"retraining needs epochs and a batch of 1 or more, got {self}")


STRONG = Retraining()
WEAK = Retraining(share=0.01, learning_rate=1e-3)  # the paper's


def retrain(
    victim: Classifier,
    samples: Tensor,
    labels: Tensor,
    triggers: Triggers | None,
    settings: Retraining = STRONG,
    seed: int = 0,
    on_progress: Callable[[int, float], None] | None = None,
) -> Classifier:
    """A copy of the victim retrained by SGD with momentum .9 on samples with their true labels, a share of which carries triggers, a
    new one on each; triggers None is plain fine-tuning. In evaluation mode."""
    model = copy.deepcopy(victim).train()
    optimiser = torch.optim.SGD(model.parameters(), settings.learning_rate, momentum=0.9)
    rng = torch.Generator().manual_seed(seed)

    def carrying(images: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        if triggers is not None:
            images, _ = _some_with(images, Patch(triggers(len(images), rng)), settings.share, rng)
        return images, wanted

    with seeded(seed):
        return _trained(model, optimiser, samples, labels, settings, rng, carrying, on_progress)


# --- How a distribution looks ---------------------------------------------------------------------------------------------


def spread(triggers: Tensor, about: Tensor) -> Tensor:
    """The distance (n,) of triggers (n, channels, side, side) from one (channels, side, side): root mean square over the pixels, 0 to 2."""
    return (triggers - about).flatten(1).square().mean(1).sqrt()


def variety(triggers: Tensor) -> float:
    """The mean over pixels of their standard deviation over n triggers: 0 if all are the same, .577 for uniform pixels, 1 for
    fair coins of black and white."""
    return triggers.flatten(1).std(0).mean().item()
