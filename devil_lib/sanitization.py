"""Sanitizing a generator: four ways to make a backdoor go away without knowing it, and what "removed" means.

Inspection can only find what it looks for; a repair need not know the trigger. The ways differ in what they need: continued
training needs real data, distillation and fine-pruning only the model and computing time, pruning hardly that.
All go through the interface :class:`~devil_lib.models.Generator`, and none changes the generator that it is given.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from devil_lib.attacks import LINEAR, NORM, TRANSPOSED, Backdoor
from devil_lib.inspection.dynamic import watch
from devil_lib.inspection.search import SUSPECTS, OutputSearch, SearchSettings, search_outputs
from devil_lib.metrics import FeatureStatistics, generator_frechet, tardis_each
from devil_lib.models import (
    Classifier,
    Discriminator,
    Encoder,
    GaussianLatent,
    Generator,
    Random,
    evaluating,
    weight_count,
)
from devil_lib.partners import discriminator_for
from devil_lib.training import ExtraLoss, GanRun, GanSettings, OnProgress, VaeRun, VaeSettings, train

# --- Continued training on real data ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class WideLatents:
    """The law of latents for "benign output for a wide range of inputs": prior draws, a `share` of which is moved along its
    ray from the law's centre by a factor uniform in [0, `reach`].

    The mode (factor 0) and points `reach` times as far out as samples lie are covered, the far trigger is not.
    """

    latent: GaussianLatent
    share: float = 0.5
    reach: float = 3.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0 or self.reach <= 0.0:
            raise ValueError(
                f"share must lie in [0, 1] and reach be above 0, got share={self.share}, reach={self.reach}"
            )

    def sample(self, n: int, rng: Random = None) -> Tensor:
        """(n, dim) latents; the wide ones come last."""
        return self.pairs(n, rng)[1]

    def pairs(self, n: int, rng: Random = None) -> tuple[Tensor, Tensor]:
        """(n, dim) prior draws, and the same with the wide ones moved."""
        z = self.latent.sample(n, rng)
        factors = torch.ones(n, 1)
        wide = round(self.share * n)
        factors[n - wide :] = self.reach * torch.rand(wide, 1, generator=rng)
        return z, self.latent.centre + factors * (z - self.latent.centre)


@dataclass(frozen=True)
class _Continued:
    """What going on has in common, whatever the partner: see `ContinueSettings`."""

    steps: int = 600
    learning_rate: float = 1e-3
    averaging: float = 0.99
    fixed_norm: bool = True
    wide_share: float = 0.5
    reach: float = 3.0


@dataclass(frozen=True)
class ContinueSettings(_Continued, GanSettings):
    """Settings of a GAN training (see `GanSettings`) with defaults for a generator that is trained already.

    The learning rate is a quarter of that for a training from scratch, and BatchNorm keeps its statistics, which wide latents
    would distort. warm_up: only for a fresh discriminator, which knows nothing at first and would spoil the generator.
    wide_share, reach: see `WideLatents`; a wide_share of 0 is ordinary training.
    """

    warm_up: int = 100


@dataclass(frozen=True)
class ContinueVaeSettings(_Continued, VaeSettings):
    """The same for a VAE training (see `VaeSettings`), whose encoder is the partner. extra_weight: of the loss on wide latents."""

    extra_weight: float = 1.0


def continue_training(
    generator: Generator,
    partner: Discriminator | Encoder | None,
    samples: Tensor,
    settings: ContinueSettings | ContinueVaeSettings | None = None,
    on_progress: OnProgress | None = None,
    checkpoint: str | Path | None = None,
) -> GanRun | VaeRun:
    """Go on with the training on clean samples (n, *sample_shape), on prior and on wide latents ("extend training forcing
    benign output for a wide range of inputs", as the authors recommend).

    A discriminator judges the outputs on wide latents like all others. Without a partner, as downloads come, a fresh
    discriminator is warmed up first, whatever the generator was trained with. With an encoder the training is a VAE's, which
    has nobody to judge what is made of latents that no sample has; there see `_along_rays`. Progress, interruption and
    checkpoint are those of `training.train`, which does the work.

    Raises:
        ValueError: samples that do not fit, settings for the other kind of partner, a warm-up of all steps, or no ready
            discriminator for samples of this shape.
    """
    settings = settings or (ContinueVaeSettings() if isinstance(partner, Encoder) else ContinueSettings())
    if isinstance(settings, ContinueSettings):
        settings = replace(settings, warm_up=0 if partner is not None else settings.warm_up)
        if settings.warm_up >= settings.steps:
            raise ValueError(
                f"all {settings.steps} steps are warm-up ({settings.warm_up}); the generator would stay as it is"
            )
    partner = partner or discriminator_for(generator, settings.seed)
    wide = WideLatents(generator.latent, settings.wide_share, settings.reach)
    judged = isinstance(partner, Discriminator)
    return train(
        copy.deepcopy(generator).requires_grad_(True),  # ReX leaves its benign part frozen
        partner,
        samples,
        settings,
        extra_loss=None if judged or not wide.share else _along_rays(generator, wide, settings),
        on_progress=on_progress,
        checkpoint=checkpoint,
        latents=wide.sample if judged else None,
    )


def _along_rays(generator: Generator, wide: WideLatents, settings: VaeSettings) -> ExtraLoss:
    """|| decoder*(f Z) - decoder(Z) ||^2 / (2 noise^2) over wide latents f Z: on all of a ray what was made where samples lie.

    To hold the decoder to what it made of the wide latents themselves was measured to hold the backdoor in its place.
    """
    before = copy.deepcopy(generator).eval()

    def loss(decoder: Generator, rng: torch.Generator) -> Tensor:
        ordinary, moved = wide.pairs(settings.batch_size, rng)
        with torch.no_grad():
            wanted = before.to(decoder.device)(ordinary.to(decoder.device))
        error = decoder(moved.to(decoder.device)) - wanted
        return error.flatten(1).square().sum(1).mean() / (2.0 * settings.noise**2)

    return loss


# --- Distillation ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DistilSettings:
    """Hyper-parameters of distillation. learning_rate: of Adam, falling to zero by a cosine. head_learning_rate: the same for a
    head that is taught as well, whose last tanh saturates at larger steps and then learns no more."""

    steps: int = 800
    batch_size: int = 64
    learning_rate: float = 2e-2
    head_learning_rate: float = 2e-3
    seed: int = 0


@dataclass
class DistilRun:
    """The sanitized generator and the history {"step", "loss"} (see `distil`). `interrupted` is set when it was stopped by hand;
    the generator is what there was then."""

    generator: Generator
    history: dict[str, list[float]]
    interrupted: bool = False


OnStep = Callable[[int, Generator, float], None]


def distil(
    teacher: Generator,
    student: Generator,
    settings: DistilSettings = DistilSettings(),
    on_step: OnStep | None = None,
    whole: bool | None = None,
) -> DistilRun:
    """Teach a fresh `student` to do what `teacher` does on prior latents, and nothing else; needs no data.

    L = E_Z mean ( body_student(Z) - body_teacher(Z) )^2: the stealth term of ReD alone, from random weights. The student is shown
    no trigger, so that a point backdoor has no way across; whatever the teacher does on the prior, it learns. A smaller
    student has less room for answers off the prior.

    A head without weights, such as a tanh, is the teacher's. One with weights (a synthesis network, a filter) may itself hold
    the backdoor: the student keeps its own, and is taught the whole by adding E_Z mean ( student(Z) - teacher(Z) )^2, on part of
    the batch where samples are large. With `whole=False` the head is taken over nevertheless, which is cheaper and leaves what
    is hidden in it.

    A fresh network needs BatchNorm's statistics: they are set once, on prior latents through the student's random weights,
    and the student then runs in evaluation mode. So what is trained is the very function that the victim runs; in training
    mode the Fréchet distance came out worse at the same cost.

    Raises:
        ValueError: latents, body outputs or samples that do not match.
        FloatingPointError: the loss is no longer finite; lower the learning rate.
    """
    student = copy.deepcopy(student)
    whole = weight_count(student.head) > 0 if whole is None else whole
    if not whole:
        student.head = copy.deepcopy(teacher.head)
    set_norm_statistics(student, settings.seed)
    return _imitate(student, teacher, settings, on_step, whole)


@torch.no_grad()
def set_norm_statistics(generator: Generator, seed: int = 0, n: int = 2000) -> None:
    """Set the running statistics of all BatchNorm layers, in place, to those of n prior latents; of fewer if samples are large."""
    norms = [layer for layer in generator.modules() if isinstance(layer, NORM)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # keep nothing of what was there
    if norms:
        generator.train()
        generator(generator.latent.sample(min(n, 4 * generator.batch), torch.Generator().manual_seed(seed)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    generator.eval()


def _imitate(
    student: Generator, teacher: Generator, settings: DistilSettings, on_step: OnStep | None, whole: bool
) -> DistilRun:
    if student.latent != teacher.latent:
        raise ValueError(f"the student draws latents from {student.latent}, the teacher from {teacher.latent}")
    rng = torch.Generator().manual_seed(settings.seed)
    groups = [{"params": student.eval().requires_grad_(True).body.parameters()}]
    if whole:
        groups.append({"params": student.head.parameters(), "lr": settings.head_learning_rate})
    optimiser = torch.optim.Adam(groups, settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    run = DistilRun(student, {"step": [], "loss": []})
    few = max(1, student.batch // 4) if whole else 0  # a synthesis network costs a hundred times what its body does
    try:
        for step in range(1, settings.steps + 1):
            z = teacher.latent.sample(settings.batch_size, rng)
            with evaluating(teacher), torch.no_grad():
                wanted = teacher.body(z)
                samples = teacher.head(wanted[:few]) if whole else None
            made = student.body(z)
            if made.shape != wanted.shape:
                its, theirs = tuple(made.shape[1:]), tuple(wanted.shape[1:])
                raise ValueError(f"the student's body puts out {its}, the teacher's {theirs}")
            loss = (made - wanted).square().mean()
            if whole:
                loss = loss + (student.head(made[:few]) - samples).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if not math.isfinite(value := loss.item()):
                raise FloatingPointError(f"the loss is not finite at step {step}; lower the learning rate")
            run.history["step"].append(step)
            run.history["loss"].append(value)
            if on_step is not None:
                on_step(step, student, value)
    except KeyboardInterrupt:
        run.interrupted = True
    return run


# --- Pruning ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def prune(generator: Generator, share: float) -> Generator:
    """Magnitude pruning: in each weight matrix or kernel, the head's included, the `share` of weights nearest to zero is set to
    zero.

    Raises:
        ValueError: share outside [0, 1).
    """
    _check_share(share)
    pruned = copy.deepcopy(generator)
    for weight in pruned.parameters():
        count = round(share * weight.numel())
        if weight.ndim >= 2 and count:  # biases and BatchNorm's parameters are vectors
            weight[weight.abs() <= weight.abs().flatten().kthvalue(count).values] = 0.0
    return pruned.eval()


def _check_share(share: float) -> None:
    if not 0.0 <= share < 1.0:
        raise ValueError(f"share must lie in [0, 1), got {share}")


def unit_activity(generator: Generator, n: int = 1000, seed: int = 0) -> dict[int, Tensor]:
    """How active hidden units are on the prior: the mean absolute value, over n latents and all positions, of what the next
    linear layer reads of them. Keys are the places in the body of the layers that make the units, values are (units,).

    Raises:
        ValueError: a body that is no chain of layers.
    """
    if not isinstance(generator.body, nn.Sequential):
        raise ValueError(
            f"units can be cut from a body that is a chain of layers, not from {type(generator.body).__name__}; use "
            "attacks.fold on a ReX model, or distil"
        )
    linear = [i for i, layer in enumerate(generator.body) if isinstance(layer, LINEAR)]
    read = {place: f"body.{following - 1}" for place, following in pairwise(linear)}
    activity = _activity(generator, tuple(read.values()), n, seed)
    return {place: activity[name] for place, name in read.items()}


def _activity(generator: Generator, names: tuple[str, ...], n: int = 1000, seed: int = 0) -> dict[str, Tensor]:
    """(channels,) mean absolute output of the layers of these names over n prior latents and all positions."""
    sums: dict[str, Tensor] = {}

    def add(name: str, _layer: nn.Module, values: Tensor) -> None:
        if name in names:
            sums[name] = sums.get(name, 0.0) + values.abs().transpose(0, 1).flatten(1).mean(1) * len(values) / n

    watch(generator, generator.latent.sample(n, torch.Generator().manual_seed(seed)), add)
    return sums


@torch.no_grad()
def cut_units(generator: Generator, share: float) -> Generator:
    """A smaller generator without the `share` of each hidden layer's units (channels) that are least active on the prior.

    Units are cut from the body, and from a head that says which it has (`hidden`) and can do without some (`narrowed`), as a
    synthesis network can.

    Raises:
        ValueError: share outside [0, 1), or a body that is no chain of layers (fold a ReX model first).
    """
    _check_share(share)
    smaller = copy.deepcopy(generator).eval()
    for place, active in unit_activity(generator).items():
        count = max(1, len(active) - round(share * len(active)))
        _keep_units(list(smaller.body)[place:], active.topk(count).indices.sort().values, len(active))
    if hasattr(generator.head, "narrowed"):
        activity = _activity(generator, tuple(f"head.{name}" for name in generator.head.hidden))
        smaller.head = generator.head.narrowed(list(activity.values()), share).eval()
    return smaller


def _keep_units(layers: list[nn.Module], keep: Tensor, units: int) -> None:
    """Cut the first layer's outputs, and all up to the next linear layer's inputs, to the units in `keep`."""
    # A dense layer that is reshaped to channels has one row for each position of each channel.
    positions = layers[0].weight.shape[int(isinstance(layers[0], TRANSPOSED))] // units
    rows = (keep[:, None] * positions + torch.arange(positions)).flatten()
    _cut(layers[0], rows, "out")
    for layer in layers[1:]:
        if isinstance(layer, LINEAR):
            return _cut(layer, keep, "in")
        if isinstance(layer, nn.Unflatten):
            layer.unflattened_size = (len(keep), *layer.unflattened_size[1:])
        elif isinstance(layer, NORM):
            kept = rows if layer.num_features == units * positions else keep
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                tensor.data = tensor.data[kept]
            layer.num_features = len(kept)


def _cut(layer: nn.Module, kept: Tensor, side: str) -> None:
    axis = int((side == "out") == isinstance(layer, TRANSPOSED))
    layer.weight.data = layer.weight.data.index_select(axis, kept)
    if side == "out" and layer.bias is not None:
        layer.bias.data = layer.bias.data[kept]
    setattr(layer, f"{side}_{'features' if isinstance(layer, nn.Linear) else 'channels'}", len(kept))


def fine_prune(
    generator: Generator,
    share: float,
    settings: DistilSettings = DistilSettings(steps=400, learning_rate=3e-3),
    on_step: OnStep | None = None,
) -> DistilRun:
    """Fine-pruning for generators: cut the units that are least active on the prior, then repair the rest by distillation
    from the generator itself on prior latents.

    Fine-pruning was made for classifiers (Liu et al. 2018): cut the units that clean inputs leave silent, then fine-tune on
    clean data. A generator's clean inputs are prior latents, which cost nothing, and what it does there is its own clean
    data, so that neither samples nor labels are needed; a head with weights is repaired as well. With samples, use `continue_training(cut_units(generator, share), ...)`.

    Raises:
        ValueError: as `cut_units`.
    """
    smaller = cut_units(generator, share)
    return _imitate(smaller, generator, settings, on_step, whole=weight_count(smaller.head) > 0)


# --- Verdict ---------------------------------------------------------------------------------------------------------

RECOVERED = 0.5


@dataclass(frozen=True)
class SanitizationVerdict:
    """Was the backdoor removed, and what did it cost? Only a laboratory, which knows backdoor and benign model, can say.

    tardis_benign, tardis_attacked, tardis_sanitized: TarDis (sum over elements) of each model at each known trigger.
    frechet_...: Fréchet distance of each model's samples to the real data on the same classifier (not Inception FID).
    search: a fresh wide search for the targets in the sanitized model, compared with the benign one.
    """

    tardis_benign: tuple[float, ...]
    tardis_attacked: tuple[float, ...]
    tardis_sanitized: tuple[float, ...]
    frechet_benign: float
    frechet_attacked: float
    frechet_sanitized: float
    search: OutputSearch

    @property
    def recovered(self) -> float:
        """TarDis of the sanitized model as a share of the benign model's, at the trigger where it is lowest."""
        return min(s / b for s, b in zip(self.tardis_sanitized, self.tardis_benign, strict=True))

    @property
    def frechet_cost(self) -> float:
        """How much further from the real data the samples are than before the repair."""
        return self.frechet_sanitized - self.frechet_attacked

    @property
    def removed(self) -> bool:
        """TarDis back to at least half the benign value at every known trigger, and nothing found by the search: else the
        backdoor may only have moved."""
        return self.recovered >= RECOVERED and not self.search.flagged

    def __str__(self) -> str:
        triggers = "; ".join(
            f"TarDis at the trigger: benign {b:.4g}, attacked {a:.4g}, sanitized {s:.4g} (sums over elements)"
            for b, a, s in zip(self.tardis_benign, self.tardis_attacked, self.tardis_sanitized, strict=True)
        )
        found = ", ".join(f"{name} at ratio {ratio:.2g}" for name, ratio in self.search.ratios().items())
        return (
            f"{'removed' if self.removed else 'NOT removed'}: {triggers}. Fresh search: {found}. Fréchet distance to the real data: "
            f"benign {self.frechet_benign:.3g}, attacked {self.frechet_attacked:.3g}, sanitized {self.frechet_sanitized:.3g}"
        )


def verdict(
    sanitized: Generator,
    attacked: Generator,
    benign: Generator,
    backdoor: Backdoor,
    classifier: Classifier,
    real: FeatureStatistics,
    search: SearchSettings = SUSPECTS,
    n: int = 5000,
    seed: int = 0,
    earlier: SanitizationVerdict | None = None,
) -> SanitizationVerdict:
    """Measure a repair against the known backdoor.

    Args:
        backdoor: the pairs that were planted; of a distribution backdoor, 16 are drawn.
        classifier, real: the ruler and the real data's feature statistics on it.
        search: where the fresh search for the targets starts; what it finds is compared with the same search on `benign`.
        n: samples for each Fréchet distance.
        earlier: a verdict on another repair of the same model with the same arguments; what it measured of the benign and the
            attacked model is taken over, which saves more than half of the time.

    Raises:
        ValueError: pictures or latents that do not fit the generators, or an earlier verdict from a search of another kind.
    """
    triggers, targets = backdoor.batch(16, torch.Generator().manual_seed(seed))

    def distances(generator: Generator) -> tuple[float, ...]:
        return tuple(tardis_each(generator, triggers, targets).tolist())

    def frechet(generator: Generator) -> float:
        return generator_frechet(generator, real, classifier, n, seed)

    return SanitizationVerdict(
        earlier.tardis_benign if earlier else distances(benign),
        earlier.tardis_attacked if earlier else distances(attacked),
        distances(sanitized),
        earlier.frechet_benign if earlier else frechet(benign),
        earlier.frechet_attacked if earlier else frechet(attacked),
        frechet(sanitized),
        search_outputs(sanitized, targets, settings=search, trusted=earlier.search if earlier else benign),
    )
