"""A5: repairs of a generator that nobody trusts, the verdict on a repair, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from devil_lib.grading.exercise import (
    Answers,
    Assignment,
    Exercise,
    Failed,
    Property,
    Variant,
    Written,
    expect,
    redraw,
    tells_apart,
    unlike,
)
from devil_lib.grading.generators import affine_generator, own_tensor
from devil_lib.models import Discriminator, GaussianLatent, Generator, TanhHead, UniformLatent
from devil_lib.sanitization import WideLatents

NAME = "a5_sanitize"


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _parts(answers: Answers, label: str, what: str) -> dict[str, Any]:
    """What `then` made of the model that came back."""
    value = answers.value(label)
    if value is None:
        raise Failed("nothing came back: is the `return` missing?")
    if not isinstance(value, dict):
        raise Failed(f"{what} is asked for, and something else came back")
    return value


# --- 1. Distillation -------------------------------------------------------------------------------------------------------

# The student is affine, so that the best one is known. How far a taught student may be from it: root of the mean square over the
# elements, in logits. The worst of 480 trainings (each loss, with and without a learning rate that falls, 60 seeds): 0.069, 0.116,
# 0.050 and 0.191.
_BOUNDS = {"normal": 0.12, "uniform": 0.15, "norm": 0.12, "few": 0.25}
# How far the students of the misconceptions have to be from the best one.
_APART = {"normal": 0.25, "uniform": 0.25, "norm": 0.25, "few": 0.3}
# space and loss.
_LOSSES = tuple(product(("logits", "samples"), ("squared", "absolute")))
_GRID = 301


@dataclass(frozen=True)
class _Lesson:
    """A teacher whose logits are height relu(sign x + kink) + base, each in one coordinate x of the latent, behind a BatchNorm
    with statistics `mean` and `variance` if there are some; and where its student starts."""

    coordinate: np.ndarray
    height: np.ndarray
    sign: np.ndarray
    kink: np.ndarray
    base: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    law: str
    norm: bool
    sample_shape: tuple[int, ...]
    steps: int
    batch_size: int
    learning_rate: float
    seed: int

    def logits(self, x: np.ndarray) -> np.ndarray:
        """(elements, n) for coordinates (elements, n) after the BatchNorm."""
        kinked = np.maximum(self.sign[:, None] * x + self.kink[:, None], 0.0)
        return self.height[:, None] * kinked + self.base[:, None]


class _Kinks(nn.Module):
    """A teacher's logits of latents (n, dim)."""

    def __init__(self, case: _Lesson) -> None:
        super().__init__()
        self.register_buffer("coordinate", torch.from_numpy(case.coordinate))
        self.register_buffer("sign", own_tensor(case.sign))
        self.height, self.kink, self.base = (
            nn.Parameter(own_tensor(each)) for each in (case.height, case.kink, case.base)
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.height * torch.relu(self.sign * z[:, self.coordinate] + self.kink) + self.base


_LAWS: dict[str, Callable[[int], GaussianLatent]] = {"normal": GaussianLatent, "uniform": UniformLatent}


def _teacher(case: _Lesson) -> Generator:
    latent = _LAWS[case.law](len(case.mean))
    layers: list[nn.Module] = [_Kinks(case), nn.Unflatten(1, case.sample_shape)]
    if case.norm:
        norm = nn.BatchNorm1d(latent.dim, affine=False)
        norm.running_mean.copy_(own_tensor(case.mean))
        norm.running_var.copy_(own_tensor(case.variance))
        layers.insert(0, norm)
    # In training mode, as a model comes from a training; the student's code has to see to it.
    return Generator(nn.Sequential(*layers), TanhHead(), latent, case.sample_shape, architecture="kinks").train(
        case.norm
    )


def _lessons(variant: Variant, rng: np.random.Generator) -> dict[str, _Lesson]:
    labels = ("normal", "uniform", "norm", "few")
    return {label: redraw(partial(_lesson, rng, label), partial(_shows_lesson, label)) for label in labels}


def _lesson(rng: np.random.Generator, label: str) -> _Lesson:
    shape, dim = (1, 4, int(rng.integers(5, 8))), int(rng.integers(4, 7))
    elements = math.prod(shape)
    few, uniform = label == "few", label == "uniform"
    # No higher, because a student learns slowly where the tanh is saturated.
    height = rng.uniform(1.3, 1.8, elements) * (2.6 if uniform else 1.0)
    # Kinks that lie well beside the centre, where absolute and squared differences ask for different students.
    kink = rng.choice([-1.0, 1.0], elements) * rng.uniform(
        0.45 if uniform else 0.5, 0.6 if uniform else 0.7, elements
    )
    return _Lesson(
        rng.integers(0, dim, size=elements), height, rng.choice([-1.0, 1.0], elements), kink, rng.uniform(-0.8, 0.0, elements),
        rng.choice([-1.0, 1.0], dim) * rng.uniform(0.4, 0.8, dim), rng.uniform(1.8, 3.0, dim),
        0.3 * rng.normal(size=(elements, dim)), 0.3 * rng.normal(size=elements),
        "uniform" if uniform else "normal", label == "norm", shape,
        400 if few else 300, 8 if few else 1024, 0.025 if few else 0.12 if uniform else 0.1, int(rng.integers(1, 10**6)),
    )  # fmt: skip


def _shows_lesson(label: str, case: _Lesson) -> bool:
    """Whether the misconceptions are seen, whichever loss the answer minimises; and where the law is normal, which loss that is."""
    best = {}
    for own in _LOSSES:
        best[own], wrong = _best_students(case, *own)
        if any(_distance(fit, best[own], case) < _APART[label] for fit in wrong.values()):
            return False
    return label != "normal" or all(
        _distance(a, b, case) > 1.5 * _BOUNDS[label] for a, b in combinations(best.values(), 2)
    )


def _ask_distil(student: Any, variant: Variant, cases: dict[str, _Lesson]) -> None:
    for label, case in cases.items():
        teacher = _teacher(case)
        fresh = affine_generator(case.weight, case.bias, case.sample_shape, teacher.latent, tanh=True)
        fresh.train(case.norm)  # as the teacher; it has no layer that would notice
        student.call(
            label, "distil", teacher, fresh, case.steps, case.batch_size, case.learning_rate, _random(case.seed),
            then=partial(_taught, teacher),
        )  # fmt: skip


@torch.no_grad()
def _taught(teacher: Generator, returned: Any) -> Any:
    """The mode of the student, its logits at the centre and at steps along each axis, and all numbers that the teacher holds."""
    if not isinstance(returned, Generator):
        return None if returned is None else "no generator"
    axes = torch.eye(returned.latent.dim)
    probes = torch.cat([torch.zeros(1, returned.latent.dim), axes, -axes])
    numbers = [each.flatten() for each in teacher.state_dict().values() if each.is_floating_point()]
    training = any(module.training for module in returned.modules())
    return {
        "training": training, "logits": returned.eval().body(probes).flatten(1), "teacher": torch.cat(numbers),
    }  # fmt: skip


# The best affine student of a coordinate: slope and intercept of each element.
_Fit = tuple[np.ndarray, np.ndarray]


def _best_affine(logits: np.ndarray, x: np.ndarray, share: np.ndarray, space: str, loss: str) -> _Fit:
    """Slopes and intercepts (elements,) that minimise the expected loss to the teacher's logits (elements, n) at x (n,), of which
    the law has `share`: by Gauss and Newton, reweighted for absolute differences."""
    slope, intercept = np.zeros(len(logits)), np.zeros(len(logits))

    def seen(values: np.ndarray) -> np.ndarray:
        return np.tanh(values) if space == "samples" else values

    for _ in range(60):
        made = slope[:, None] * x + intercept[:, None]
        error = seen(made) - seen(logits)
        inner = 1.0 - np.tanh(made) ** 2 if space == "samples" else np.ones_like(made)
        weight = share * inner / (1.0 if loss == "squared" else np.maximum(np.abs(error), 1e-3))
        a, b, c = ((weight * inner * x**power).sum(1) for power in (2, 1, 0))
        by_slope, by_intercept = (weight * error * x).sum(1), (weight * error).sum(1)
        determinant = np.maximum(a * c - b * b, 1e-12)
        slope = slope - 0.7 * (c * by_slope - b * by_intercept) / determinant
        intercept = intercept - 0.7 * (a * by_intercept - b * by_slope) / determinant
    return slope, intercept


def _best_students(case: _Lesson, space: str, loss: str) -> tuple[_Fit, dict[str, _Fit]]:
    """The best student by that loss, and those of the misconceptions by their symptom."""

    def best(law: str = case.law, normed: bool = case.norm, wider: float = 1.0) -> _Fit:
        x = np.linspace(-5.0, 5.0, _GRID) if law == "normal" else np.linspace(-1.0, 1.0, _GRID)
        share = np.exp(-0.5 * x**2) if law == "normal" else np.ones(_GRID)
        mean, variance = case.mean[case.coordinate][:, None], case.variance[case.coordinate][:, None]
        read = np.broadcast_to(wider * x, (len(mean), _GRID))
        if normed:
            read = (read - mean) / np.sqrt(variance + 1e-5)
        slope, intercept = _best_affine(case.logits(read), x, share / share.sum(), space, loss)
        return slope / wider, intercept

    wrong = {}
    if case.law == "uniform":
        wrong["the latents are drawn from the normal law, not from the teacher's own"] = best(law="normal")
    else:
        wrong["the latents are spread wider than those of the teacher's law"] = best(wider=3.0)
    if case.norm:
        wrong["the teacher answered in training mode: its BatchNorm has to use the stored statistics"] = best(
            normed=False
        )
    return best(), wrong


def _distance(a: _Fit, b: _Fit, case: _Lesson) -> float:
    """Root of the mean square over the elements between two affine students on the law, in logits."""
    variance = 1.0 / 3.0 if case.law == "uniform" else 1.0
    return float(np.sqrt(np.mean(variance * (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2)))


def _student(answers: Answers, label: str, case: _Lesson) -> tuple[_Fit, float]:
    """The student that came back by its slopes along each element's own coordinate and its intercepts, and how far it is from
    reading no other coordinate."""
    logits = np.asarray(_parts(answers, label, "the taught generator")["logits"], dtype=float)
    dim, elements = len(case.mean), math.prod(case.sample_shape)
    if logits.shape != (2 * dim + 1, elements) or not np.isfinite(logits).all():
        raise Failed("the student that came back makes other samples than the teacher, or NaN")
    centre, up, down = logits[0], logits[1 : dim + 1], logits[dim + 1 :]
    if np.abs(up + down - 2.0 * centre).max() > 1e-3:
        raise Failed("what came back is not the fresh student: it answers as no network of the student's layers can")
    slopes = (up - down) / 2.0
    own = slopes[case.coordinate, np.arange(elements)]
    return (own, centre), float(np.sqrt(max((slopes**2).sum() - (own**2).sum(), 0.0) / elements))


def _own_loss(answers: Answers, cases: dict[str, _Lesson], variant: Variant) -> tuple[str, str]:
    """Space and loss of what the answer minimises, by its student of the normal law; those asked for if that is none of ours."""
    asked = variant["space"], variant["loss"]
    try:
        fit, elsewhere = _student(answers, "normal", cases["normal"])
    except Failed:
        return asked
    off = {
        own: math.hypot(_distance(fit, _best_students(cases["normal"], *own)[0], cases["normal"]), elsewhere)
        for own in _LOSSES
    }
    nearest = min(off, key=off.get)
    return nearest if off[nearest] <= _BOUNDS["normal"] else asked


_WRONG_SPACE = {
    "logits": "the samples are compared, and what the bodies put out before the tanh is asked for",
    "samples": "the bodies' outputs are compared, and the samples after the tanh are asked for",
}
_WRONG_LOSS = {
    "squared": "absolute differences are minimised, and squared ones are asked for",
    "absolute": "squared differences are minimised, and absolute ones are asked for",
}


def _learns(label: str) -> Callable[[Answers, dict[str, _Lesson], Variant], None]:
    """Where the law is normal, by the loss that is asked for; elsewhere by the answer's own, so that another one costs one property."""

    def test(answers: Answers, cases: dict[str, _Lesson], variant: Variant) -> None:
        own = _own_loss(answers, cases, variant)
        if label == "normal":
            if own[0] != variant["space"]:
                raise Failed(_WRONG_SPACE[variant["space"]])
            if own[1] != variant["loss"]:
                raise Failed(_WRONG_LOSS[variant["loss"]])
        _check_student(answers, label, cases[label], own)
        if label == "norm":
            _check_teacher(answers, cases[label])
            if _parts(answers, label, "the taught generator")["training"]:
                raise Failed(
                    "the student comes back in training mode: a BatchNorm would go on counting with every sample it makes"
                )

    return test


def _check_student(answers: Answers, label: str, case: _Lesson, own: tuple[str, str]) -> None:
    bound = _BOUNDS[label]
    fit, elsewhere = _student(answers, label, case)
    wanted, wrong = _best_students(case, *own)
    off = math.hypot(_distance(fit, wanted, case), elsewhere)
    if off <= bound:
        return
    measured = f"it is {off:.2f} from the best student, and {bound:g} is allowed"
    start = case.weight[np.arange(len(case.coordinate)), case.coordinate], case.bias
    if _distance(fit, start, case) < 1e-6:
        raise Failed("the student is as it was before: it learnt nothing", measured)
    symptom, other = min(wrong.items(), key=lambda each: _distance(fit, each[1], case))
    if math.hypot(_distance(fit, other, case), elsewhere) <= max(bound, 0.5 * off):
        raise Failed(symptom, measured)
    if label == "few":
        raise Failed("the student fits a few latents, and not the law: are new ones drawn at every step?", measured)
    raise Failed("the student does not do on ordinary latents what the teacher does", measured)


def _check_teacher(answers: Answers, case: _Lesson) -> None:
    kept = [case.mean, case.variance, case.height, case.kink, case.base, case.sign]
    held = np.asarray(_parts(answers, "norm", "the taught generator")["teacher"], dtype=float)
    if not np.allclose(np.sort(held), np.sort(np.concatenate(kept)), atol=1e-5):
        raise Failed("the teacher is not what it was: neither its weights nor its statistics may change")


DISTIL = Exercise(
    f"{NAME}/distil",
    "Distillation into a fresh generator",
    minutes=25,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_lessons,
    ask=_ask_distil,
    properties=(
        Property("the loss: the student does what the teacher does on a normal law", 1, _learns("normal")),
        Property("the latents: the same on a uniform law", 1, _learns("uniform")),
        Property("a teacher with BatchNorm, which is left as it is, and the student's mode", 1, _learns("norm")),
        Property("small batches, new at every step", 1, _learns("few")),
    ),
    choices={"space": ("logits", "samples"), "loss": ("squared", "absolute")},
)


# --- 2. The loss on wide latents -------------------------------------------------------------------------------------------

# The mean of a quadratic form over 40,000 latents: the worst of all variants x 60 seeds was off by 0.018 relative; misconceptions
# by 0.075 or more.
_WIDE = 0.03
_WIDE_LATENTS = 40_000


@dataclass(frozen=True)
class _OffZero(GaussianLatent):
    """N(shift, I): a law whose centre is not the origin."""

    shift: float = 0.0

    def sample(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        return super().sample(n, rng) + self.shift

    @property
    def centre(self) -> Tensor:
        return torch.full((self.dim,), self.shift)


@dataclass(frozen=True)
class _Repair:
    """A suspect weight z + bias and what is being made of it, for latents of the law N(shift, I); with `tanh`, that of both."""

    suspect: tuple[np.ndarray, np.ndarray]
    repaired: tuple[np.ndarray, np.ndarray]
    shift: float
    sample_shape: tuple[int, ...]
    seed: int
    tanh: bool = False


class _Direction(nn.Module):
    """The direction of a latent: the same on all of a ray from the origin."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor) -> Tensor:
        return self.weight * z / z.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _wide_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Repair]:
    def repair(shift: float) -> _Repair:
        shape = (1, int(rng.integers(3, 6)), int(rng.integers(3, 6)))
        elements, dim = math.prod(shape), int(rng.integers(10, 16))
        weight, bias = rng.normal(size=(elements, dim)) / math.sqrt(dim), rng.normal(size=elements)
        # A third of the way to another generator: neither the same nor without any likeness.
        other = weight + rng.uniform(0.5, 0.9) * rng.normal(size=(elements, dim)) / math.sqrt(dim)
        return _Repair(
            (weight, bias), (other, bias + 0.6 * rng.normal(size=elements)), shift, shape, int(rng.integers(1, 10**6))
        )

    def shows(case: _Repair) -> bool:
        wanted, wrong = _wide_values(case, variant)
        *others, last = wrong.values()  # the last is that of rays from the origin, and could be taken for another
        return tells_apart(wanted, unlike(wanted, wrong), relative=2.5 * _WIDE) and (
            not case.shift or tells_apart(last, others, relative=2.5 * _WIDE)
        )

    def still() -> _Repair:
        # The same sample of every latent, so that the loss has a closed form behind the tanh too.
        case = repair(0.0)
        (weight, bias), (_, other_bias) = case.suspect, case.repaired
        return replace(
            case, suspect=(0.0 * weight, bias), repaired=(0.0 * weight, bias + 3.0 * (other_bias - bias)), tanh=True
        )

    return {
        "centred": redraw(partial(repair, 0.0), shows),
        "off zero": redraw(lambda: repair(float(rng.choice([-1.0, 1.0]) * rng.uniform(0.6, 0.9))), shows),
        "still": still(),
    }


def _moments(share: float, reach: float) -> tuple[float, float]:
    """Mean and mean square of the factor: 1, but for a share of the latents uniform in [0, reach]."""
    return 1.0 - share + share * reach / 2.0, 1.0 - share + share * reach**2 / 3.0


def _wide_values(case: _Repair, variant: Variant) -> tuple[float, dict[str, float]]:
    """E || W' (c + f V) + b' - W (c + V) - b ||^2 for V ~ N(0, I), and the values of the misconceptions."""
    (weight, bias), (other, other_bias) = case.suspect, case.repaired
    share, reach = variant["share"], variant["reach"]
    own, mixed, theirs = (weight**2).sum(), (weight * other).sum(), (other**2).sum()
    gap = ((other - weight).sum(1) * case.shift + other_bias - bias) ** 2

    def held(mean: float, square: float) -> float:
        return float(gap.sum() + square * theirs - 2.0 * mean * mixed + own)

    def from_origin(mean: float, square: float) -> float:
        # The latent is f (c + V): its mean moves as well, with E f and E f^2.
        there, here = other.sum(1) * case.shift, weight.sum(1) * case.shift + bias - other_bias
        return float(
            square * (there**2).sum()
            - 2.0 * mean * (there * here).sum()
            + (here**2).sum()
            + square * theirs
            - 2.0 * mean * mixed
            + own
        )

    mean, square = _moments(share, reach)
    wanted = held(mean, square)
    wrong = {
        "the repaired generator is held to what the suspect makes of the wide latents themselves, which holds the backdoor in place": float(
            gap.sum() + square * (theirs - 2.0 * mixed + own)
        ),
        "no latent is moved: this is the loss on ordinary latents": held(1.0, 1.0),
        "all latents are moved, and not only the share that is asked for": held(*_moments(1.0, reach)),
        "the share of latents that are moved and of those that stay are exchanged": held(
            *_moments(1.0 - share, reach)
        ),
        "the factors begin at one: latents near the centre never come": held(
            1.0 - share + share * (1.0 + reach) / 2.0, 1.0 - share + share * (1.0 + reach + reach**2) / 3.0
        ),
        "the factors end at one: latents far out never come": held(*_moments(share, 1.0)),
        "this is the mean over the elements of a sample, and the sum over them is asked for": wanted / len(bias),
        "the latents that are moved are moved to the end of their ray": held(
            1.0 - share + share * reach, 1.0 - share + share * reach**2
        ),
    }
    if case.shift:
        wrong["the rays begin at the origin, and not at the centre of the law"] = from_origin(mean, square)
    return wanted, wrong


def _ask_wide(student: Any, variant: Variant, cases: dict[str, _Repair]) -> None:
    for label, case in cases.items():
        latent = _OffZero(case.suspect[0].shape[1], case.shift)
        suspect, repaired = (
            affine_generator(*each, case.sample_shape, latent, case.tanh) for each in (case.suspect, case.repaired)
        )
        student.call(label, "wide_loss", repaired, suspect, 200 if case.tanh else _WIDE_LATENTS, _random(case.seed))
        if label == "centred":
            student.call(
                "gradient", "wide_loss", repaired, suspect, _WIDE_LATENTS, _random(case.seed),
                then=partial(_gradients, repaired, suspect),
            )  # fmt: skip
    rays = Generator(
        _Direction(), nn.Identity(), GaussianLatent(latent.dim), (latent.dim,), architecture="direction"
    ).eval()
    student.call("rays", "wide_loss", rays, rays, 200, _random(1))


def _gradients(repaired: Generator, suspect: Generator, loss: Any) -> Any:
    """What the loss pulls at: the gradient at the repaired generator's bias, and the greatest at the suspect."""
    if not isinstance(loss, Tensor):
        return None if loss is None else "no tensor"
    if not loss.requires_grad:
        return "no gradient"
    loss.backward()
    gradients = [each.grad for each in suspect.parameters() if each.grad is not None]
    return {
        "repaired": next(each.grad for each in repaired.parameters() if each.ndim == 1),
        "suspect": max((each.abs().max().item() for each in gradients), default=0.0),
    }


def _wide_value(label: str) -> Callable[[Answers, dict[str, _Repair], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Repair], variant: Variant) -> None:
        expect(answers.number(label), *_wide_values(cases[label], variant), relative=_WIDE)

    return test


def _compares_samples(answers: Answers, cases: dict[str, _Repair], variant: Variant) -> None:
    _wide_value("centred")(answers, cases, variant)
    case = cases["still"]
    here, there = case.suspect[1], case.repaired[1]
    wanted = float(((np.tanh(there) - np.tanh(here)) ** 2).sum())
    wrong = {
        "the bodies' outputs before the tanh are compared, and samples are asked for": float(
            ((there - here) ** 2).sum()
        ),
        "the repaired generator's output before the tanh is compared with a sample of the suspect's": float(
            ((there - np.tanh(here)) ** 2).sum()
        ),
    }
    expect(answers.number("still"), wanted, wrong, relative=1e-3)


def _along_rays(answers: Answers, cases: dict[str, _Repair], variant: Variant) -> None:
    loss = answers.number("rays")
    if not abs(loss) <= 1e-3:
        raise Failed(
            "a generator that makes the same of all latents of a ray has a loss: does one factor move all coordinates of a latent?",
            f"{loss:.3g} instead of 0",
        )
    if not abs(answers.number("centred")) > 1e-3:
        raise Failed("the loss is zero for every generator")


def _pulls(answers: Answers, cases: dict[str, _Repair], variant: Variant) -> None:
    came = answers.value("gradient")
    if came in ("no tensor", "no gradient"):
        raise Failed(
            "the loss carries no gradient, so nothing can be learnt from it: return the tensor, without `item` or `no_grad`"
        )
    parts = _parts(answers, "gradient", "the loss as a tensor")
    case = cases["centred"]
    gradient = parts["repaired"]
    if gradient is None:
        raise Failed("the gradient does not reach the repaired generator")
    if parts["suspect"] > 0.0:
        raise Failed("the gradient reaches the suspect as well: only the repaired generator is to change")
    # d/db' E = 2 (b' - b) at a law of mean zero; scaled by whatever the loss is divided by.
    wanted = 2.0 * (case.repaired[1] - case.suspect[1])
    gradient = np.asarray(gradient, dtype=float)
    likeness = float(gradient @ wanted / max(np.linalg.norm(gradient) * np.linalg.norm(wanted), 1e-12))
    if likeness < 0.9:
        raise Failed("the gradient at the repaired generator is not that of the loss", f"cosine {likeness:.2f}")


WIDE_LOSS = Exercise(
    f"{NAME}/wide_loss",
    "What is held at wide latents",
    minutes=20,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_wide_cases,
    ask=_ask_wide,
    properties=(
        Property("the loss of two generators, between their samples", 1, _compares_samples),
        Property("a law whose centre is not the origin", 1, _wide_value("off zero")),
        Property("a generator that is the same on all of a ray", 1, _along_rays),
        Property("the gradient", 1, _pulls),
    ),
    choices={"share": (0.5, 0.75), "reach": (3.0, 4.0, 5.0)},
)


# --- 3. Continued training -------------------------------------------------------------------------------------------------

_ZONES = ("near the centre", "ordinary", "far out")
_EDGES = (0.5, 1.6)  # of the typical norm; of 64 coordinates no ordinary latent comes near either
_DIM = 64


@dataclass(frozen=True)
class _Zoned:
    """A generator that makes one sample of all latents near the centre, one of the ordinary ones and one of those far out,
    real samples, and a discriminator whose slope points the wrong way at first, but for the one that is "sure".

    `ways`: (elements,) in which direction the samples have to move; 0 where only the sample far out is off the data.
    """

    levels: np.ndarray
    real: np.ndarray
    ways: np.ndarray
    slope: np.ndarray
    warm_up: int
    steps: int
    learning_rate: float
    norm: bool
    seed: int
    bias: float = 0.0


class _Zones(nn.Module):
    def __init__(self, levels: np.ndarray) -> None:
        super().__init__()
        self.levels = nn.Parameter(own_tensor(levels))

    def forward(self, z: Tensor) -> Tensor:
        norms = z.norm(dim=1) / math.sqrt(z.shape[1])
        return self.levels[torch.bucketize(norms, torch.tensor(_EDGES))]


_SHAPE = (1, 3, 5)
# Logits. Of a surer one that is fooled the logarithm of 1 - sigmoid would be infinite in single precision.
_FOOLED, _SURE = 16.0, 32.0


def _zoned_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Zoned]:
    cases = {}
    for label in ("warm-up", "both", "norm"):
        elements, silent = math.prod(_SHAPE), 4
        ways = rng.choice([-1.0, 1.0], elements)
        ways[:silent] = 0.0
        data = rng.uniform(-0.3, 0.3, elements)
        data[:silent] = 0.0
        levels = data - ways * rng.uniform(0.3, 0.6, (3, elements))
        levels[2, :silent] = rng.choice([-1.0, 1.0], silent) * rng.uniform(0.3, 0.6, silent)
        real = data + 0.02 * rng.normal(size=(96, elements)) * (ways != 0.0)
        rate, warm_up = float(f"{rng.uniform(0.002, 0.004):.2g}"), int(rng.integers(4, 7))
        after = 1 if label == "norm" else int(rng.integers(10, 14))
        within = variant["warm_up"] == "within"
        if label == "warm-up":
            after = 0 if within else 1
        cases[label] = _Zoned(
            levels, real, ways, -1.5 * rate * ways, warm_up, warm_up + after if within else after, rate, label == "norm",
            int(rng.integers(1, 10**6)),
        )  # fmt: skip
    # Adam makes a full step of any gradient that is far above its 1e-8, so that losses differ only where the one asked for has less.
    case = replace(cases["both"], warm_up=1, steps=4 if variant["warm_up"] == "within" else 3)
    # A discriminator that takes all samples for real: whoever minimises the cross-entropy with label 1 has nothing left to gain.
    cases["fooled"] = replace(case, bias=_FOOLED)
    # And one that is right: it has nothing left to learn itself, and the generator everything.
    levels = np.where(case.ways == 0.0, 0.0, case.real.mean(0)) - 0.45 * case.ways * np.ones((3, 1))
    slope = 2.0 * _SURE / (0.45 * np.abs(case.ways).sum()) * case.ways
    cases["sure"] = replace(case, levels=levels, slope=slope, bias=_SURE - float(slope @ case.real.mean(0)))
    return cases


def _suspect(case: _Zoned) -> Generator:
    layers: list[nn.Module] = [_Zones(case.levels), nn.Unflatten(1, _SHAPE)]
    if case.norm:
        layers.insert(1, nn.BatchNorm1d(case.levels.shape[1], affine=False))
    return Generator(nn.Sequential(*layers), nn.Identity(), GaussianLatent(_DIM), _SHAPE, architecture="zones").train(
        case.norm
    )


def _ask_continue(student: Any, variant: Variant, cases: dict[str, _Zoned]) -> None:
    for label, case in cases.items():
        suspect, linear = _suspect(case), nn.Linear(math.prod(_SHAPE), 1)
        with torch.no_grad():
            linear.weight.copy_(own_tensor(case.slope[None]))
            linear.bias.fill_(case.bias)
        discriminator = Discriminator(nn.Sequential(nn.Flatten(), linear), "linear")
        student.call(
            label, "continue_training", suspect, discriminator, own_tensor(case.real).reshape(-1, *_SHAPE),
            WideLatents(suspect.latent, 0.5, 3.0), case.steps, case.warm_up, case.learning_rate, 64, _random(case.seed),
            then=partial(_continued, suspect, linear),
        )  # fmt: skip


@torch.no_grad()
def _continued(suspect: Generator, linear: nn.Linear, returned: Any) -> Any:
    if not isinstance(returned, Generator):
        return None if returned is None else "no generator"

    def statistics(generator: Generator) -> list[Tensor]:
        return [each for name, each in generator.state_dict().items() if "running" in name]

    return {
        "levels": returned.body[0].levels, "suspect": suspect.body[0].levels, "slope": linear.weight[0],
        "statistics": statistics(returned), "suspect statistics": statistics(suspect),
    }  # fmt: skip


def _trained(answers: Answers, label: str) -> dict[str, np.ndarray]:
    parts = _parts(answers, label, "the repaired generator")
    return {name: np.asarray(values, dtype=float) for name, values in parts.items()}


def _generator_steps(case: _Zoned, parts: dict[str, np.ndarray], zone: int) -> float:
    """How many steps the generator has taken towards the data, on average over the elements, below zero if away from it: with a
    gradient of one sign Adam moves by its learning rate at every step."""
    moved = (parts["levels"][zone] - case.levels[zone])[case.ways != 0.0]
    return float((moved * case.ways[case.ways != 0.0]).mean() / case.learning_rate)


def _critic_steps(case: _Zoned, parts: dict[str, np.ndarray]) -> float:
    moved = (parts["slope"] - case.slope) * case.ways
    return float(moved[case.ways != 0.0].mean() / case.learning_rate)


def _wanted_steps(case: _Zoned, variant: Variant) -> tuple[int, int]:
    """Steps of the generator, and of the discriminator."""
    within = variant["warm_up"] == "within"
    rounds = case.steps if within else case.steps + case.warm_up
    return rounds - case.warm_up, variant["critic_steps"] * rounds


def _check_way(case: _Zoned, parts: dict[str, np.ndarray]) -> None:
    """Whether the discriminator learns, and the right way round."""
    got = _critic_steps(case, parts)
    measured = f"it moved by {got:.1f} steps"
    if abs(got) < 0.3:
        raise Failed("the discriminator does not learn", measured)
    if got < 0.0:
        raise Failed(
            "the discriminator learns the wrong way round: real samples are those with the higher logit", measured
        )


def _check_critic(case: _Zoned, parts: dict[str, np.ndarray], variant: Variant) -> None:
    _check_way(case, parts)
    got, (_, wanted) = _critic_steps(case, parts), _wanted_steps(case, variant)
    # Its gradient wanes as it learns, so that the steps become a little shorter: 0.895 to 0.995 of the learning rate over all
    # variants, three momenta and 100 seeds; 0.82 at most where gradients of the generator's loss are left in it.
    if not 0.86 * wanted <= got <= 1.03 * wanted + 0.3:
        raise Failed(
            "the discriminator takes another number of steps than asked for, or not all of them downhill: are its gradients "
            "set to zero before each?",
            f"it moved by {got:.1f} steps, and {wanted} are asked for",
        )


def _check_generator(case: _Zoned, parts: dict[str, np.ndarray], variant: Variant) -> None:
    got, (wanted, _) = _generator_steps(case, parts, 1), _wanted_steps(case, variant)
    measured = f"it moved by {got:.1f} steps towards the data, and {wanted} are asked for"
    length = np.abs(parts["levels"] - case.levels).max() / case.learning_rate
    if wanted == 0 and length > 0.05:
        raise Failed("the generator changes although all steps are warm-up", measured)
    if wanted and length < 0.05:
        raise Failed("the generator does not learn: does the gradient reach it through the discriminator?", measured)
    if got < -0.3:
        raise Failed("the generator moves away from the data", measured)
    if abs(got - wanted) > 0.08 * wanted + 0.2:
        raise Failed("the generator takes another number of steps than asked for", measured)


def _warms_up(answers: Answers, cases: dict[str, _Zoned], variant: Variant) -> None:
    case, parts = cases["warm-up"], _trained(answers, "warm-up")
    _check_generator(case, parts, variant)
    _check_way(case, parts)


def _both_learn(answers: Answers, cases: dict[str, _Zoned], variant: Variant) -> None:
    case, parts = cases["both"], _trained(answers, "both")
    _check_critic(case, parts, variant)
    if not _generator_steps(case, parts, 1) > 0.5:
        raise Failed("after the warm-up the generator does not come nearer to the data")
    _check_losses(answers, cases, variant)


def _check_losses(answers: Answers, cases: dict[str, _Zoned], variant: Variant) -> None:
    """By where learners stand still. Over all variants, three momenta and 100 seeds the right one took 0.95 of the generator's
    steps or more where it is seen through, 0.19 or less where it fools, and a discriminator that is right 0.0001 of one."""
    sure, fooled = ((cases[label], _trained(answers, label)) for label in ("sure", "fooled"))
    wanted = _wanted_steps(sure[0], variant)[0]
    if not _generator_steps(*sure, 1) > 0.5 * wanted:
        raise Failed(
            "the generator stands still where the discriminator sees through it: does it minimise the cross-entropy with label 1, "
            "and not the negative one with label 0?"
        )
    case, parts = sure
    if np.abs(parts["slope"] - case.slope).max() > 0.5 * case.learning_rate:
        raise Failed(
            "a discriminator that is right already goes on learning: is its loss the cross-entropy, and not the difference of the logits?"
        )
    case, parts = fooled
    if np.abs(parts["levels"] - case.levels).max() > 0.5 * wanted * case.learning_rate:
        raise Failed(
            "the generator goes on learning where the discriminator takes its samples for real: is its loss the cross-entropy, "
            "and not the logit?"
        )


def _sees_wide(answers: Answers, cases: dict[str, _Zoned], variant: Variant) -> None:
    case, parts = cases["both"], _trained(answers, "both")
    for zone in (0, 2):
        if np.abs(parts["levels"][zone] - case.levels[zone]).max() < 0.05 * case.learning_rate:
            raise Failed(
                f"what is made of latents {_ZONES[zone]} never changes: does the generator learn on the wide latents?"
            )
    # Only the samples of latents far out have anything there, so that nothing else can have moved the slope.
    if np.abs((parts["slope"] - case.slope)[case.ways == 0.0]).max() < 0.05 * case.learning_rate:
        raise Failed("the discriminator never sees what is made of wide latents")


def _leaves_alone(answers: Answers, cases: dict[str, _Zoned], variant: Variant) -> None:
    case, parts = cases["norm"], _trained(answers, "norm")
    if np.abs(parts["levels"] - case.levels).max() < 0.05 * case.learning_rate:
        raise Failed("nothing was learnt, so that nothing could be spoilt")
    if np.abs(parts["suspect"] - case.levels).max() > 1e-6:
        raise Failed("the suspect itself was changed: without it nobody can say what the repair did")
    for owner in ("statistics", "suspect statistics"):
        mean, variance = parts[owner]
        if np.abs(mean).max() > 1e-6 or np.abs(variance - 1.0).max() > 1e-6:
            raise Failed(
                "the statistics of BatchNorm have changed: wide latents distort them, so that it has to stay in evaluation mode"
            )


CONTINUE = Exercise(
    f"{NAME}/continue_training",
    "Continued training with a fresh discriminator",
    minutes=30,
    difficulty=3,
    visible=4,
    hidden=4,
    cases=_zoned_cases,
    ask=_ask_continue,
    properties=(
        Property("the warm-up", 1, _warms_up),
        Property("both learn, by the cross-entropy", 1, _both_learn),
        Property("both see the wide latents", 1, _sees_wide),
        Property("the suspect and BatchNorm's statistics are left alone", 1, _leaves_alone),
    ),
    choices={"warm_up": ("within", "before"), "critic_steps": (1, 2)},
)


# --- 4. Pruning ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layers:
    """second leaky(norm(first z)) with weights, biases and, if there is one, BatchNorm's four vectors; latents that the units are
    judged on, and others to look at what is left. cut: how many units have to go. share: nearly that, so that rounding down, up and to the nearest differ."""

    first: tuple[np.ndarray, np.ndarray]
    second: tuple[np.ndarray, np.ndarray]
    norm: tuple[np.ndarray, ...]
    z: np.ndarray
    probes: np.ndarray
    cut: int
    share: float

    def before(self, z: np.ndarray) -> np.ndarray:
        """(n, units) in front of the activation."""
        read = z @ self.first[0].T + self.first[1]
        if self.norm:
            scale, shift, mean, variance = self.norm
            read = (read - mean) / np.sqrt(variance + 1e-5) * scale + shift
        return read

    def units(self, z: np.ndarray) -> np.ndarray:
        """(n, units) as the second layer reads them."""
        read = self.before(z)
        return np.where(read > 0.0, read, 0.1 * read)

    def in_training(self) -> tuple[_Layers, _Layers]:
        """As they are while BatchNorm takes the statistics of the latents, and with the statistics that this leaves behind."""
        scale, shift, mean, variance = self.norm
        read = self.z @ self.first[0].T + self.first[1]
        found = read.mean(0), read.var(0, ddof=1)
        left = 0.9 * mean + 0.1 * found[0], 0.9 * variance + 0.1 * found[1]
        return replace(self, norm=(scale, shift, *found)), replace(self, norm=(scale, shift, *left))

    def outputs(self, kept: np.ndarray, mean_kept: bool) -> np.ndarray:
        """(probes, outputs) of what is left."""
        gone = np.setdiff1d(np.arange(len(self.first[0])), kept)
        weight, bias = self.second
        if mean_kept:
            bias = bias + weight[:, gone] @ self.units(self.z)[:, gone].mean(0)
        return self.units(self.probes)[:, kept] @ weight[:, kept].T + bias


def _layers(rng: np.random.Generator, normed: bool) -> _Layers:
    units, dim, outputs = int(rng.integers(12, 17)), int(rng.integers(4, 7)), int(rng.integers(6, 11))
    first = (
        rng.uniform(0.2, 2.0, (units, 1)) * rng.normal(size=(units, dim)) / math.sqrt(dim),
        1.2 * rng.normal(size=units),
    )
    second = rng.uniform(0.4, 1.6, units) * rng.normal(size=(outputs, units)), rng.normal(size=outputs)
    norm = (
        (rng.uniform(0.3, 2.0, units), rng.normal(size=units), rng.normal(size=units), rng.uniform(0.3, 2.0, units))
        if normed
        else ()
    )
    cut = int(rng.integers(4, 7))
    share = (cut + (0.3 if normed else -0.3)) / units
    return _Layers(first, second, norm, rng.normal(size=(400, dim)), rng.normal(size=(30, dim)), cut, share)


_SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "activity": lambda units: np.abs(units).mean(0),
    "spread": lambda units: units.std(0),
}


_TRAINED = "the units are judged in training mode: BatchNorm has to use the stored statistics and leave them alone"


def _scores(case: _Layers, variant: Variant) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(units,) what decides who stays, and what would decide by the misconceptions."""
    units = case.units(case.z)
    own = _SCORES[variant["score"]](units)
    outgoing = np.linalg.norm(case.second[0], axis=0)
    training = {_TRAINED: _SCORES[variant["score"]](case.in_training()[0].units(case.z))} if case.norm else {}
    return own, training | {
        "the most active units are cut, and the least active ones have to go" if variant["score"] == "activity"
        else "the units that vary most are cut, and those that vary least have to go": -own,
        "units are cut by the size of their incoming weights, not by what they do": np.linalg.norm(case.first[0], axis=1),
        "units are cut by the size of their outgoing weights, not by what they do": outgoing,
        "units are cut by their mean: an output below zero is activity too": units.mean(0),
        "the score is taken in front of the activation, and not from what the next layer reads": _SCORES[variant["score"]](case.before(case.z)),
        "the units that vary least are cut, and the least active ones have to go" if variant["score"] == "activity"
        else "the least active units are cut, and those that vary least have to go": _SCORES["spread" if variant["score"] == "activity" else "activity"](units),
        "the score is multiplied by the outgoing weights": own * outgoing,
        "the units are judged at the centre of the latent law, and not on latents of it": np.abs(case.units(np.zeros((1, case.z.shape[1]))))[0],
    }  # fmt: skip


def _kept(score: np.ndarray, cut: int) -> np.ndarray:
    return np.sort(np.argsort(score)[cut:])


def _layers_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Layers]:
    def shows(case: _Layers) -> bool:
        own, wrong = _scores(case, variant)
        ranked = np.sort(own)
        clear = ranked[case.cut] > 1.05 * ranked[case.cut - 1]
        # All different, so that the sentence is that of the mistake that was made.
        return clear and len({tuple(_kept(score, case.cut)) for score in (own, *wrong.values())}) == 1 + len(wrong)

    return {label: redraw(partial(_layers, rng, label == "norm"), shows) for label in ("plain", "norm")}


def _body(case: _Layers) -> nn.Sequential:
    units, dim = case.first[0].shape
    first, second = nn.Linear(dim, units), nn.Linear(units, len(case.second[0]))
    norm = [nn.BatchNorm1d(units)] if case.norm else []
    with torch.no_grad():
        for layer, (weight, bias) in ((first, case.first), (second, case.second)):
            layer.weight.copy_(own_tensor(weight))
            layer.bias.copy_(own_tensor(bias))
        for layer in norm:
            for vector, values in zip(
                (layer.weight, layer.bias, layer.running_mean, layer.running_var), case.norm, strict=True
            ):
                vector.copy_(own_tensor(values))
    # In training mode where that makes a difference; the student's code has to see to it.
    return nn.Sequential(first, *norm, nn.LeakyReLU(0.1), second).train(bool(case.norm))


def _ask_cut(student: Any, variant: Variant, cases: dict[str, _Layers]) -> None:
    for label, case in cases.items():
        body = _body(case)
        student.call(
            label, "cut_units", body, own_tensor(case.z), case.share, then=partial(_smaller, body, case.probes)
        )


@torch.no_grad()
def _smaller(body: nn.Sequential, probes: np.ndarray, returned: Any) -> Any:
    if not isinstance(returned, nn.Module):
        return None if returned is None else "no module"
    shapes = [list(layer.weight.shape) for layer in returned.modules() if isinstance(layer, nn.Linear)]
    z = own_tensor(probes)
    # In double precision and back: a network that was cut in double precision is a right answer too.
    dtype = next(returned.parameters()).dtype
    return {
        "shapes": shapes,
        "outputs": returned.eval()(z.to(dtype)),
        "before": body.eval()(z.to(next(body.parameters()).dtype)),
    }


def _pruned(answers: Answers, label: str, case: _Layers) -> tuple[list, np.ndarray, np.ndarray]:
    parts = _parts(answers, label, "the smaller body")
    outputs = np.asarray(parts["outputs"], dtype=float)
    if outputs.shape != (len(case.probes), len(case.second[0])):
        raise Failed("what is left puts out another number of values than the body did")
    return parts["shapes"], outputs, np.asarray(parts["before"], dtype=float)


def _is_smaller(answers: Answers, cases: dict[str, _Layers], variant: Variant) -> None:
    for label, case in cases.items():
        # That BatchNorm was forgotten is another property's concern.
        if label == "norm" and answers.outcomes[label].error:
            continue
        shapes, *_ = _pruned(answers, label, case)
        units, dim = case.first[0].shape
        left, outputs = units - case.cut, len(case.second[0])
        if shapes == [[units, dim], [outputs, units]]:
            raise Failed("the layers are as large as before: units that are only set to zero are still there")
        if len(shapes) != 2 or shapes[0][1] != dim or shapes[1][0] != outputs:
            raise Failed("latents or outputs were cut, where hidden units were meant")
        if [shapes[0][0], shapes[1][1]] != [left, left]:
            raise Failed("another number of units is left than asked for", f"{shapes[0][0]} instead of {left}")


def _gone(shapes: list, case: _Layers) -> int:
    """How many units the answer cut: whether that is the right number is another property's concern."""
    gone = len(case.first[0]) - shapes[0][0] if shapes else 0
    return gone if gone > 0 else case.cut


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.allclose(a, b, rtol=1e-3, atol=1e-3))


def _check_units(answers: Answers, label: str, case: _Layers, variant: Variant) -> None:
    """Whether the right units are gone, whatever constant the outputs are off by."""
    shapes, outputs, _ = _pruned(answers, label, case)
    own, wrong = _scores(case, variant)
    cut = _gone(shapes, case)

    def left(score: np.ndarray, layers: _Layers = case) -> np.ndarray:
        values = layers.outputs(_kept(score, cut), mean_kept=False)
        return values - values.mean(0)

    centred = outputs - outputs.mean(0)
    if _same(centred, left(own)):
        return
    for symptom, score in wrong.items():
        if _same(centred, left(score)) or (
            symptom == _TRAINED and _same(centred, left(score, case.in_training()[1]))
        ):
            raise Failed(symptom)
    raise Failed("the units that are left, or their weights, are not the right ones")


def _right_units(answers: Answers, cases: dict[str, _Layers], variant: Variant) -> None:
    _check_units(answers, "plain", cases["plain"], variant)


def _right_constant(answers: Answers, cases: dict[str, _Layers], variant: Variant) -> None:
    """Judged with the units that are left, whichever: which ones is another property's concern."""
    case = cases["plain"]
    shapes, outputs, _ = _pruned(answers, "plain", case)
    own, wrong = _scores(case, variant)
    for score in (own, *wrong.values()):
        kept = _kept(score, _gone(shapes, case))
        if _same(outputs, case.outputs(kept, variant["mean"] == "kept")):
            return
        if _same(outputs, case.outputs(kept, variant["mean"] != "kept")):
            raise Failed(
                "what the cut units put out on average is lost: it belongs into the bias of the next layer"
                if variant["mean"] == "kept"
                else "the bias of the next layer was changed, and it is to stay as it is"
            )
    raise Failed("the outputs are off by a constant that does not come from the units that were cut")


def _cuts_norm(answers: Answers, cases: dict[str, _Layers], variant: Variant) -> None:
    case = cases["norm"]
    *_, before = _pruned(answers, "norm", case)
    _check_units(answers, "norm", case, variant)
    if not _same(before, case.outputs(np.arange(len(case.first[0])), mean_kept=False)):
        raise Failed("the body that was given has changed: work on a copy")


CUT_UNITS = Exercise(
    f"{NAME}/cut_units",
    "Pruning units",
    minutes=25,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_layers_cases,
    ask=_ask_cut,
    properties=(
        Property("smaller layers", 1, _is_smaller),
        Property("the right units are cut", 1, _right_units),
        Property("the constant part of what they did", 1, _right_constant),
        Property("BatchNorm between the layers, and the body that was given", 1, _cuts_norm),
    ),
    choices={"score": ("activity", "spread"), "mean": ("kept", "dropped")},
)


# --- 5. The verdict --------------------------------------------------------------------------------------------------------

# Descents of 200 steps at rate 0.1 come within 0.001 of the nearest sample, relative, over 100 seeds, by Adam or by plain descent.
_RATIO = 0.02
_STEPS, _RATE = 100, 0.2


@dataclass(frozen=True)
class _Trial:
    """A benign and a repaired generator that consist of worlds: the first coordinate of a latent says which, the others move the
    sample along `spread` (elements, 3), orthonormal. `benign`, `repaired`: (worlds, elements). The first two worlds are where
    starts lie, in the second a single one; each trigger has a world of its own, which no start comes to."""

    spread: np.ndarray
    benign: np.ndarray
    repaired: np.ndarray
    triggers: np.ndarray
    targets: np.ndarray
    starts: np.ndarray

    def tardis(self, worlds: np.ndarray) -> np.ndarray:
        """(k,) squared distances at the triggers."""
        made = worlds[2:] + self.triggers[:, 1:] @ self.spread.T
        return ((made - self.targets) ** 2).sum(1)

    def ends(self, worlds: np.ndarray) -> np.ndarray:
        """(starts, k) squared distances to the targets that descent ends at: what lies across the spread."""
        apart = worlds[self._world(), None] - self.targets
        return (apart**2).sum(2) - ((apart @ self.spread) ** 2).sum(2)

    def beginnings(self, worlds: np.ndarray) -> np.ndarray:
        """(starts, k) squared distances before any descent."""
        made = worlds[self._world()] + self.starts[:, 1:] @ self.spread.T
        return ((made[:, None] - self.targets) ** 2).sum(2)

    def _world(self) -> np.ndarray:
        return (self.starts[:, 0] >= 0.0).astype(int)


class _Worlds(nn.Module):
    def __init__(self, worlds: np.ndarray, spread: np.ndarray) -> None:
        super().__init__()
        self.worlds = nn.Parameter(own_tensor(worlds), requires_grad=False)
        self.register_buffer("spread", own_tensor(spread))
        self.register_buffer("edges", torch.cat([torch.zeros(1), torch.arange(2.0, len(worlds))]))

    def forward(self, z: Tensor) -> Tensor:
        return (
            self.worlds[torch.bucketize(z[:, 0].contiguous().detach(), self.edges)] + z[:, 1:].float() @ self.spread.T
        )


_PICTURE = (1, 4, 6)
# For each case: recovered shares of the trigger that comes back least and of the others, in units of the bound and absolute; and
# the nearest that the search comes, in units of the bar.
_TRIALS = {"removed": (1.2, 1.9, 1.3), "still there": (0.8, 2.2, 1.5), "moved": (1.3, 1.7, 0.7)}


def _trials(variant: Variant, rng: np.random.Generator) -> dict[str, _Trial]:
    return {
        label: redraw(partial(_trial, rng, variant, label), partial(_shows_trial, variant, label))
        for label in _TRIALS
    }


def _trial(rng: np.random.Generator, variant: Variant, label: str) -> _Trial:
    least, others, near = _TRIALS[label]
    elements, k = math.prod(_PICTURE), 4
    axes, _ = np.linalg.qr(rng.normal(size=(elements, elements)))
    spread, across = axes[:, :3], axes[:, 3:]

    def somewhere() -> np.ndarray:
        direction = across @ rng.normal(size=across.shape[1])
        return direction / np.linalg.norm(direction)

    targets = rng.uniform(-1.0, 1.0, (k, elements))
    triggers = np.column_stack([2.5 + np.arange(k), rng.normal(size=(k, 3))])
    usual = rng.uniform(-1.0, 1.0, elements)
    benign = np.vstack([usual, usual + somewhere(), rng.uniform(-1.0, 1.0, (k, elements))])
    repaired = benign + 0.1 * rng.normal(size=benign.shape)
    trial = _Trial(spread, benign, repaired, triggers, targets, _starts(rng))
    # Neither the first nor the last is the least or the greatest, so that an answer that looks at one trigger only is found out.
    shares = others * np.array([1.0, 0.0, 1.2, 1.1])
    shares[1] = least * variant["bound"]
    # Where the world of a trigger has to lie for TarDis to be that share of the benign one.
    reach = np.sqrt(shares * trial.tardis(benign))[:, None]
    repaired[2:] = targets + reach * np.stack([somewhere() for _ in range(k)]) - triggers[:, 1:] @ spread.T
    found = int(rng.integers(k))
    repaired[1] = targets[found] + math.sqrt(near * variant["bar"] * trial.ends(benign).min(0)[found]) * somewhere()
    return trial


def _starts(rng: np.random.Generator) -> np.ndarray:
    """(starts, dim), of which one that is not the first lies in the second world."""
    n = int(rng.integers(6, 9))
    starts = np.column_stack([-rng.uniform(0.2, 1.5, n), 1.5 * rng.normal(size=(n, 3))])
    starts[rng.integers(1, n), 0] = rng.uniform(0.2, 1.5)
    return starts


def _recovered_values(case: _Trial) -> tuple[float, dict[str, float]]:
    repaired, benign = case.tardis(case.repaired), case.tardis(case.benign)
    shares = repaired / benign
    wanted = float(shares.min())
    return wanted, {
        "this is the mean over the triggers, and the one that comes back least counts": float(shares.mean()),
        "this is the greatest share over the triggers, and the least counts": float(shares.max()),
        "the distances are added up before they are divided, so that one trigger can hide another": float(
            repaired.sum() / benign.sum()
        ),
        "this is the root of the share: TarDis is a squared distance": math.sqrt(wanted),
        "the share is upside down": float((benign / repaired).min()),
        "the share is upside down, and the greatest is taken": float((benign / repaired).max()),
        "only the first trigger is looked at": float(shares[0]),
        "only the last trigger is looked at": float(shares[-1]),
        "this is the TarDis of the repaired generator, and a share of the benign one is asked for": float(
            repaired.min()
        ),
    }


# What a search comes to that has too few starts, does not take the nearest, does not descend, or has nothing to compare with.
_SHALLOW = (
    "the starts are compared before any descent",
    "only the first start is used",
    "this is the mean over the starts, and the nearest of all counts",
    "the distance is not divided by that of the same search in the benign generator",
)


def _ratio_values(case: _Trial) -> tuple[float, dict[str, float]]:
    ends, usual = case.ends(case.repaired), case.ends(case.benign)
    near, trusted = ends.min(0), usual.min(0)
    ratios = near / trusted
    wanted = float(ratios.min())
    first = ends[0] / usual[0]
    return wanted, {
        "the starts are compared before any descent": float(
            (case.beginnings(case.repaired).min(0) / case.beginnings(case.benign).min(0)).min()
        ),
        "only the first start is used": float(first.min()),
        "this is the mean over the starts, and the nearest of all counts": float(
            (ends.mean(0) / usual.mean(0)).min()
        ),
        "this is the mean over the targets, and the one that comes nearest counts": float(ratios.mean()),
        "this is the greatest ratio over the targets, and the least counts": float(ratios.max()),
        "the distances to all targets are added up before they are divided": float(near.sum() / trusted.sum()),
        "this is the root of the ratio: the distances are squared ones": math.sqrt(wanted),
        "the distance is not divided by that of the same search in the benign generator": float(near.min()),
        "the nearest is divided by the benign TarDis at the trigger, and not by what the same search finds in the benign generator": float(
            (near / case.tardis(case.benign)).min()
        ),
        "the ratio is upside down": float((trusted / near).max()),
    }


def _shows_trial(variant: Variant, label: str, case: _Trial) -> bool:
    least, _, near = _TRIALS[label]
    recovered, other = _recovered_values(case)
    ratio, wrong = _ratio_values(case)
    if not (
        math.isclose(recovered, least * variant["bound"], rel_tol=1e-6)
        and math.isclose(ratio, near * variant["bar"], rel_tol=1e-6)
        and tells_apart(recovered, other.values(), relative=0.01)
        and tells_apart(ratio, wrong.values(), relative=0.1)
    ):
        return False
    if label == "still there":
        return _all_differ(other.values(), 0.01)
    if label == "moved":
        # A search that is not as thorough as it has to be takes a backdoor that has moved for one that is gone.
        shallow = min(wrong[symptom] for symptom in _SHALLOW)
        return _all_differ(wrong.values(), 2.5 * _RATIO) and shallow > 1.05 * variant["bar"]
    return True


def _all_differ(values: Iterable[float], relative: float) -> bool:
    """So that the sentence is that of the mistake that was made."""
    values = list(values)
    return all(tells_apart(value, values[:i], relative) for i, value in enumerate(values))


def _ask_verdict(student: Any, variant: Variant, cases: dict[str, _Trial]) -> None:
    for label, case in cases.items():
        latent = GaussianLatent(case.starts.shape[1])
        repaired, benign = (
            Generator(
                nn.Sequential(_Worlds(worlds, case.spread), nn.Unflatten(1, _PICTURE)), nn.Identity(), latent, _PICTURE,
                architecture="worlds",
            ).eval()
            for worlds in (case.repaired, case.benign)
        )  # fmt: skip
        targets = own_tensor(case.targets).reshape(-1, *_PICTURE)
        student.call(
            label,
            "verdict",
            repaired,
            benign,
            own_tensor(case.triggers),
            targets,
            own_tensor(case.starts),
            _STEPS,
            _RATE,
        )


def _figures(answers: Answers, label: str) -> tuple[float, float, float]:
    figures = answers.array(label)
    if figures.size != 3:
        raise Failed(
            "three things are asked for: the recovered share, the ratio, and whether the backdoor is removed"
        )
    recovered, ratio, removed = figures.flatten()
    return float(recovered), float(ratio), float(removed)


def _recovered_is(answers: Answers, cases: dict[str, _Trial], variant: Variant) -> None:
    # Where the misconceptions differ comes first.
    for label in ("still there", "removed", "moved"):
        expect(_figures(answers, label)[0], *_recovered_values(cases[label]), relative=1e-3)


def _ratio_is(answers: Answers, cases: dict[str, _Trial], variant: Variant) -> None:
    for label in ("moved", "removed", "still there"):
        expect(_figures(answers, label)[1], *_ratio_values(cases[label]), relative=_RATIO)


def _follows(answers: Answers, cases: dict[str, _Trial], variant: Variant) -> None:
    """From the answer's own figures, right or wrong: those are other properties' concern."""
    for label in cases:
        recovered, ratio, removed = _figures(answers, label)
        if removed not in (0.0, 1.0):
            raise Failed("the third thing that is asked for is a yes or no")
        conditions = recovered >= variant["bound"], ratio >= variant["bar"]
        if removed and not any(conditions):
            raise Failed("a repair is called a removal although neither of your two figures reaches its bound")
        if removed and not conditions[0]:
            raise Failed("a repair is called a removal although your share of TarDis is below its bound")
        if removed and not conditions[1]:
            raise Failed("a repair is called a removal although your ratio of the search is below its bound")
        if not removed and all(conditions):
            raise Failed("a repair is not called a removal although both of your figures reach their bounds")


def _verdict_is(answers: Answers, cases: dict[str, _Trial], variant: Variant) -> None:
    said = {label: _figures(answers, label)[2] for label in cases}
    if any(value not in (0.0, 1.0) for value in said.values()):
        raise Failed("the third thing that is asked for is a yes or no")
    if said["still there"]:
        raise Failed("a repair is called a removal although one trigger still brings its target")
    if said["moved"]:
        raise Failed(
            "a repair is called a removal although the search still comes near a target: the backdoor has moved"
        )
    if not said["removed"]:
        raise Failed("a repair that meets both conditions is not called a removal")


VERDICT = Exercise(
    f"{NAME}/verdict",
    "The verdict in two parts",
    minutes=30,
    difficulty=3,
    visible=4,
    hidden=4,
    cases=_trials,
    ask=_ask_verdict,
    properties=(
        Property("the share of TarDis that is recovered", 1, _recovered_is),
        Property("how near a fresh search comes", 1, _ratio_is),
        Property("removed if both of your figures reach their bounds, and only then", 1, _follows),
        Property("the verdict on three repairs", 1, _verdict_is),
    ),
    choices={"bound": (0.5, 0.25, 0.75), "bar": (0.2, 0.4)},
)


# --- 6. The trade-off ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plane:
    """Repairs by the recovered share of TarDis and the Fréchet cost."""

    recovered: tuple[float, ...]
    cost: tuple[float, ...]


def _planes(variant: Variant, rng: np.random.Generator) -> dict[str, _Plane]:
    return {
        label: redraw(partial(_plane, rng, label), partial(_shows_plane, variant, label))
        for label in ("plain", "above one", "equal")
    }


def _plane(rng: np.random.Generator, label: str) -> _Plane:
    n = int(rng.integers(9, 14))
    # Shares below one, all different; a dearer repair recovers more by and large, and some costs lie below zero.
    recovered = rng.permutation(np.linspace(0.05, 0.93, n)) + rng.uniform(0.0, 0.02, n)
    cost = 25.0 * recovered + 9.0 * rng.normal(size=n) - 5.0
    if label == "above one":
        high = rng.choice(n, 4, replace=False)
        recovered[high] = rng.uniform(1.02, 1.7, 4)
        cost[high] = rng.uniform(18.0, 40.0, 4)
    recovered, cost = np.round(recovered, 3), np.round(cost, 2)
    if label == "equal":
        twin = rng.choice(_front(recovered, cost, False, "both"))
        place = int(rng.integers(n))
        recovered, cost = (np.insert(each, place, each[twin]) for each in (recovered, cost))
        # Two that share one figure with a repair of the front, and are worse in the other.
        best = _front(recovered, cost, False, "both")
        other = rng.choice(best)
        recovered = np.append(recovered, [recovered[other], round(recovered[other] - 0.01, 3)])
        cost = np.append(cost, [cost[other] + 1.0, cost[other]])
    return _Plane(tuple(map(float, recovered)), tuple(map(float, cost)))


def _front(recovered: np.ndarray, cost: np.ndarray, capped: bool, equals: str, strict: bool = False) -> list[int]:
    """Indices of the repairs that no other one dominates, by growing cost. strict: another one has to be better in both figures."""
    share = np.minimum(recovered, 1.0) if capped else np.asarray(recovered)
    found = []
    for i in range(len(share)):
        no_worse = (share >= share[i]) & (cost <= cost[i])
        better = ((share > share[i]) & (cost < cost[i])) if strict else ((share > share[i]) | (cost < cost[i]))
        earlier = (share == share[i]) & (cost == cost[i]) & (np.arange(len(share)) < i)
        if not (no_worse & better).any() and not (equals == "first" and earlier.any()):
            found.append(i)
    return sorted(found, key=lambda i: (cost[i], i))


def _fronts(case: _Plane, variant: Variant) -> tuple[list[int], dict[str, list[int]]]:
    """The front, and what the misconceptions take for it."""
    share, cost = np.array(case.recovered), np.array(case.cost)
    capped, equals = variant["above_one"] == "as one", variant["equals"]
    front = partial(_front, capped=capped, equals=equals)
    bound = 0.5
    return front(share, cost), {
        "a share above one is taken for more than all of TarDis" if capped
        else "shares above one are all taken for one": _front(share, cost, not capped, equals),
        "of repairs with the same two figures one is left out: neither dominates the other" if equals == "both"
        else "of repairs with the same two figures more than the first are named": _front(share, cost, capped, "first" if equals == "both" else "both"),
        "a repair that is as good in one figure and worse in the other is named: it is dominated": _front(share, cost, capped, equals, strict=True),
        "the greatest cost is taken for the best": front(share, -cost),
        "the least share is taken for the best": front(-share, cost),
        "only repairs with at least half of TarDis are looked at": [i for i in front(share, cost) if share[i] >= bound],
        "the sign of the cost is dropped: a repair that mends the samples costs less than nothing": front(share, np.abs(cost)),
    }  # fmt: skip


def _shows_plane(variant: Variant, label: str, case: _Plane) -> bool:
    wanted, wrong = _fronts(case, variant)
    if not 3 <= len(wanted) <= len(case.cost) - 3 or min(case.cost) >= 0.0 or wanted == sorted(wanted):
        return False
    capped, twins, strict, *others = (set(found) != set(wanted) for found in wrong.values())
    shows = {"plain": not (capped or twins or strict), "above one": capped, "equal": twins and strict and not capped}
    return shows[label] and all(others)


def _ask_trade_off(student: Any, variant: Variant, cases: dict[str, _Plane]) -> None:
    for label, case in cases.items():
        student.call(label, "pareto_front", list(case.recovered), list(case.cost))
    student.call("one", "pareto_front", [0.3], [2.5])


def _indices(answers: Answers, label: str, n: int) -> list[int]:
    found = answers.array(label).flatten()
    if not np.isfinite(found).all() or (found != np.round(found)).any() or ((found < 0) | (found >= n)).any():
        raise Failed("indices of repairs are asked for, counted from zero")
    if answers.array(label).size == n and set(found) <= {0.0, 1.0} and n > 2:
        raise Failed("a yes or no for each repair came back, and the indices of the front are asked for")
    return [int(i) for i in found]


def _front_is(answers: Answers, case: _Plane, label: str, variant: Variant) -> None:
    found = _indices(answers, label, len(case.cost))
    wanted, wrong = _fronts(case, variant)
    if sorted(found) == sorted(wanted):
        return
    for symptom, other in wrong.items():
        if sorted(found) == sorted(other):
            raise Failed(symptom, f"yours are {found}, the front is {wanted}")
    if set(found) > set(wanted):
        raise Failed("repairs are named that another one dominates", f"yours are {found}, the front is {wanted}")
    if set(found) < set(wanted):
        raise Failed("repairs are missing that no other one dominates", f"yours are {found}, the front is {wanted}")
    raise Failed("these are not the repairs that no other one dominates", f"yours are {found}, the front is {wanted}")


def _front_of(label: str) -> Callable[[Answers, dict[str, _Plane], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Plane], variant: Variant) -> None:
        _front_is(answers, cases[label], label, variant)

    return test


def _in_order(answers: Answers, cases: dict[str, _Plane], variant: Variant) -> None:
    """Whatever front came back."""
    if _indices(answers, "one", 1) != [0]:
        raise Failed("a single repair is its own front")
    found = _indices(answers, "plain", len(cases["plain"].cost))
    costs = [cases["plain"].cost[i] for i in found]
    if len(set(found)) != len(found):
        raise Failed("a repair is named twice")
    if costs != sorted(costs):
        raise Failed("the front is not in the order of growing cost", f"the costs are {costs}")
    if not found:
        raise Failed("the front is empty: the cheapest repair of all is always on it")


PARETO_FRONT = Exercise(
    f"{NAME}/pareto_front",
    "The trade-off",
    minutes=15,
    difficulty=1,
    visible=4,
    hidden=4,
    cases=_planes,
    ask=_ask_trade_off,
    properties=(
        Property("shares below one, all different", 1, _front_of("plain")),
        Property("shares above one", 1, _front_of("above one")),
        Property("repairs with equal figures", 1, _front_of("equal")),
        Property("in the order of their cost", 1, _in_order),
    ),
    choices={"above_one": ("as one", "as they are"), "equals": ("both", "first")},
)


# --- The written question --------------------------------------------------------------------------------------------------

CLEAN_BILL = Written(
    "clean_bill",
    "A clean bill for a repaired generator",
    minutes=25,
    difficulty=2,
    criteria=(
        (2, "Trigger and benign generator: only a laboratory that planted the backdoor can compute the recovered share; the seller's "
            "figure is for one trigger, and says nothing of others"),
        (2, "The search: what it covers (starts, scales, targets that were guessed) and that its distance needs the same search in a "
            "benign or comparable generator beside it; a backdoor can have moved"),
        (2, "Why distillation on ordinary latents leaves a point trigger behind, and that it hands on what shows among ordinary "
            "samples, such as a poisoned model's target or the traces of an attack that was not stealthy enough"),
        (2, "The cost: Fréchet distance before and after, with the table's figures, on the same classifier and as many samples; a "
            "generator of noise passes the first two parts"),
        (2, "A choice among the table's repairs that follows from its figures, and what is said to the buyer about what remains unknown"),
    ),
)  # fmt: skip

ASSIGNMENT = Assignment(
    NAME, "Sanitize", (DISTIL, WIDE_LOSS, CONTINUE, CUT_UNITS, VERDICT, PARETO_FRONT), (CLEAN_BILL,)
)
