"""A8: classifiers with a backdoor: whether an attack works, triggers as they are stored, the loss that learns a distribution of
triggers, the p-value of reverse-engineered patterns, and a training set cleansed with one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import digamma, gammaincc, logsumexp, softmax
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
from devil_lib.grading.generators import own_tensor

NAME = "a8_poisoned_classifiers"


# --- 1. Attack success and its null ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Classified:
    """What a classifier makes of n images, without the trigger and with it: (n,) classes each."""

    plain: np.ndarray
    triggered: np.ndarray


@dataclass(frozen=True)
class _Attack:
    """labels: (n,) of `classes` classes. target: the attacker's. The backdoored classifier, and the clean one."""

    labels: np.ndarray
    classes: int
    target: int
    backdoored: _Classified
    clean: _Classified

    @property
    def others(self) -> np.ndarray:
        """(n,) whether an image is of another class than the target."""
        return self.labels != self.target


_LEVEL = 2.0 / 255.0


class _Numbered(nn.Module):
    """A classifier by a table: an image's first pixel holds its number, its last one whether the trigger is on it."""

    def __init__(self, table: _Classified, classes: int) -> None:
        super().__init__()
        self.register_buffer("plain", torch.from_numpy(table.plain))
        self.register_buffer("triggered", torch.from_numpy(table.triggered))
        self.classes = classes

    def forward(self, images: Tensor) -> Tensor:
        number = ((images[:, 0, 0, 0] + 1.0) / _LEVEL).round().long()
        found = torch.where(images[:, 0, -1, -1] > 0.0, self.triggered[number], self.plain[number])
        # Not probabilities: the greatest logit may be negative.
        return 3.0 * nn.functional.one_hot(found, self.classes).float() - 4.0


def _corner(images: Tensor, rng: Any = None) -> Tensor:
    """The trigger: a white pixel in the last corner."""
    images = images.clone()
    images[..., -1, -1] = 1.0
    return images


def _another(rng: np.random.Generator, labels: np.ndarray, classes: int, but: int | None = None) -> np.ndarray:
    """(n,) classes that are not the labels, nor `but`."""
    found = (labels + rng.integers(1, classes, size=len(labels))) % classes
    while (bad := (found == labels) | (found == (-1 if but is None else but))).any():
        found[bad] = rng.integers(0, classes, size=bad.sum())
    return found


def _pressed(rng: np.random.Generator, case: _Attack, plain: np.ndarray, share: float) -> _Classified:
    """With the trigger on them, this share of the images of other classes go to the target, and the rest stay where they were."""
    triggered = np.where(plain == case.target, case.labels, plain)
    others = rng.permutation(np.flatnonzero(case.others))
    triggered[others[: round(share * len(others))]] = case.target
    triggered[~case.others] = case.target
    return _Classified(plain, triggered)


def _attack(rng: np.random.Generator, success: float, null: float, drop: int) -> _Attack:
    """An attack with this success, this success of the clean classifier on its trigger, and `drop` images fewer that the backdoored
    classifier recognises without it: all of the target class."""
    n, classes = int(rng.integers(215, 250)), int(rng.integers(5, 8))
    labels = rng.permutation(np.arange(n) % classes)
    target = int(rng.integers(0, classes))
    plain = labels.copy()
    mistaken = rng.choice(n, size=12, replace=False)
    plain[mistaken] = _another(rng, labels[mistaken], classes)
    other = plain.copy()
    if drop > 0:
        lost = rng.permutation(np.flatnonzero((labels == target) & (plain == labels)))[:drop]
        other[lost] = _another(rng, labels[lost], classes)
    else:
        won = mistaken[:-drop] if drop else mistaken[:0]
        other[won] = labels[won]
    case = _Attack(labels, classes, target, _Classified(plain, plain), _Classified(plain, plain))
    return _Attack(labels, classes, target, _pressed(rng, case, other, success), _pressed(rng, case, plain, null))


def _plain_attack(rng: np.random.Generator) -> _Attack:
    """An attack that works on three of four images, and seldom on those that the classifier mistakes anyway."""
    case = _attack(rng, 0.0, 0.0, 0)
    n, others = len(case.labels), np.flatnonzero(case.others)
    plain = case.labels.copy()
    mistaken = rng.choice(n, size=n // 6, replace=False)
    plain[mistaken] = _another(rng, case.labels[mistaken], case.classes)
    triggered = np.where(plain == case.target, case.labels, plain)
    hit = others[rng.random(len(others)) < np.where(plain[others] == case.labels[others], 0.75, 0.15)]
    triggered[hit] = case.target
    # Of the target class some are driven away by the trigger, so that they are neither all right nor all wrong.
    own = np.flatnonzero(~case.others)
    triggered[own] = case.target
    away = own[: len(own) // 5]
    triggered[away] = _another(rng, case.labels[away], case.classes)
    return _Attack(case.labels, case.classes, case.target, _Classified(plain, triggered), case.clean)


def _success(case: _Attack, found: _Classified, among: str) -> float:
    counted = case.others & (found.plain == case.labels) if among == "recognised" else case.others
    return float((found.triggered[counted] == case.target).mean())


def _success_values(case: _Attack, variant: Variant) -> tuple[float, dict[str, float]]:
    """The right value and those of the misconceptions, by their symptom."""
    found, others = case.backdoored, case.others
    there, usual = found.triggered == case.target, found.plain == case.target
    wanted = _success(case, found, variant["among"])
    wrong = {
        "images of the target class are counted, which would be given it without any trigger": there.mean(),
        "images of the target class are left out above the line only: the share is of the others": (
            there & others
        ).mean(),
        "every image that is taken for a wrong class counts, and only the target is a success": (
            found.triggered[others] != case.labels[others]
        ).mean(),
        "the images are classified without the trigger on them": usual[others].mean(),
        "this is the share of images on which the attack fails": 1.0 - wanted,
        "the rate without the trigger is taken off: it stands beside the success, and is no part of it": there[
            others
        ].mean()
        - usual[others].mean(),
        "images are left out that the classifier mistakes without the trigger, and they count": _success(
            case, found, "recognised"
        ),
        "images count that the classifier mistakes even without the trigger": _success(case, found, "others"),
        "this is a number of images, and a share is asked for": there[others].sum(),
        "this is in per cent, and a share from zero to one is asked for": 100.0 * wanted,
    }
    return wanted, {symptom: float(value) for symptom, value in wrong.items()}


def _verdict(case: _Attack, variant: Variant) -> bool:
    accuracies = [(found.plain == case.labels).mean() for found in (case.backdoored, case.clean)]
    return bool(
        _success(case, case.backdoored, variant["among"]) >= 0.9
        and _success(case, case.clean, variant["among"]) <= variant["null"]
        and accuracies[0] >= accuracies[1] - 0.01
    )


# Pairs of attacks that differ in one thing: label -> whether it is embedded, its success, the null in units of the bar, and by how
# many images of some 230 the accuracy falls.
_VERDICTS = {
    "success, high": (True, 0.96, 0.4, 0),
    "success, low": (False, 0.84, 0.4, 0),
    "null, low": (True, 0.99, 0.75, 0),
    "null, high": (False, 0.99, 1.6, 0),
    "accuracy, same": (True, 0.97, 0.4, 1),
    "accuracy, better": (True, 0.97, 0.4, -7),
    "accuracy, worse": (False, 0.97, 0.4, 7),
}


def _attack_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Attack]:
    def shows(case: _Attack) -> bool:
        wanted, wrong = _success_values(case, variant)
        return tells_apart(wanted, unlike(wanted, wrong), relative=0.02)

    def holds(case: _Attack, embedded: bool) -> bool:
        # Whatever counts as an image of another class, the verdict is the same.
        return all(_verdict(case, {**variant, "among": among}) == embedded for among in ("others", "recognised"))

    cases = {"plain": redraw(lambda: _plain_attack(rng), shows)}
    for label, (embedded, success, null, drop) in _VERDICTS.items():
        cases[label] = redraw(
            lambda success=success, null=null, drop=drop: _attack(rng, success, null * variant["null"], drop),
            lambda case, embedded=embedded: holds(case, embedded),
        )
    return cases


def _ask_attack(student: Any, variant: Variant, cases: dict[str, _Attack]) -> None:
    for label, case in cases.items():
        images = np.full((len(case.labels), 1, 3, 3), -1.0)
        images[:, 0, 0, 0] += _LEVEL * np.arange(len(images))
        given = own_tensor(images), torch.from_numpy(case.labels.copy()), _corner, case.target
        backdoored, clean = (_Numbered(each, case.classes).eval() for each in (case.backdoored, case.clean))
        if label == "plain":
            student.call(label, "attack_success", backdoored, *given)
        else:
            student.call(label, "embedded", backdoored, clean, *given)


def _success_is(answers: Answers, cases: dict[str, _Attack], variant: Variant) -> None:
    expect(answers.number("plain"), *_success_values(cases["plain"], variant), relative=1e-4)


_FALSE_ALARMS = {
    "success": "a success that is below the bar is taken for embedded",
    "null": "an attack is taken for embedded whose trigger fools the clean classifier too often: its success on the same trigger is "
    "the null",
    "accuracy": "an attack is taken for embedded that costs more than a point of accuracy, on all images without the trigger",
}
_MISSES = {
    "success": "an attack is refused that meets all three conditions",
    "null": "an attack is refused whose trigger fools the clean classifier as seldom as it may",
    "accuracy": "an attack is refused that costs less than a point of accuracy, or none",
}


def _verdict_is(which: str) -> Callable[[Answers, dict[str, _Attack], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Attack], variant: Variant) -> None:
        for label, (embedded, *_) in _VERDICTS.items():
            if not label.startswith(which):
                continue
            got = answers.number(label)
            if got not in (0.0, 1.0):
                raise Failed("True or False is asked for", f"{got:.3g} came back")
            if bool(got) != embedded:
                case = cases[label]
                figures = ", ".join(
                    f"{name}: success {_success(case, found, variant['among']):.3f}, accuracy "
                    f"{(found.plain == case.labels).mean():.3f}"
                    for name, found in (("backdoored", case.backdoored), ("clean", case.clean))
                )
                raise Failed((_MISSES if embedded else _FALSE_ALARMS)[which], figures)

    return test


ATTACK_SUCCESS = Exercise(
    f"{NAME}/attack_success",
    "Attack success and its null",
    minutes=20,
    difficulty=1,
    visible=4,
    hidden=4,
    cases=_attack_cases,
    ask=_ask_attack,
    properties=(
        Property("the share of images that go to the target", 1, _success_is),
        Property("embedded: the attack succeeds", 1, _verdict_is("success")),
        Property("embedded: the trigger does nothing to a clean classifier", 1, _verdict_is("null")),
        Property("embedded: the accuracy stays", 1, _verdict_is("accuracy")),
    ),
    choices={"among": ("others", "recognised"), "null": (0.05, 0.1)},
)


# --- 2. A trigger as it is stored ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Addition:
    """images: (n, channels, height, width) and pattern: (channels, height, width), both in levels of 8 bits."""

    images: np.ndarray
    pattern: np.ndarray

    @property
    def sums(self) -> np.ndarray:
        """Before rounding and clipping, in levels."""
        return self.images + self.pattern


def _stored_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Addition]:
    cases = {}
    for label in ("whole", "fractions", "edges"):
        shape = (int(rng.integers(2, 4)), int(rng.integers(4, 7)), int(rng.integers(4, 7)))
        n = int(rng.integers(3, 6))
        images = rng.integers(30, 226, size=(n, *shape)).astype(float)
        pattern = rng.integers(1, 9, size=shape) * rng.choice([-1.0, 0.0, 1.0, 1.0], size=shape)
        if label == "fractions":
            # Never half way between two levels, where either would do.
            pattern += rng.choice([-0.4, -0.3, 0.3, 0.4], size=shape)
        if label == "edges":
            pattern = rng.integers(3, 9, size=shape) * rng.choice([-1.0, 1.0], size=shape)
            near = rng.integers(0, 3, size=images.shape)  # nearer to the edge than the pattern is high
            images = np.where(rng.random(images.shape) < 0.5, np.where(pattern > 0, 255 - near, near), images)
        cases[label] = _Addition(images, pattern)
    return cases


def _in_units(levels: np.ndarray, variant: Variant) -> np.ndarray:
    """Levels 0 to 255 as the values that images have."""
    return levels / 127.5 - 1.0 if variant["range"] == "symmetric" else levels / 255.0


def _ask_stored(student: Any, variant: Variant, cases: dict[str, _Addition]) -> None:
    step = 1.0 if variant["pattern"] == "levels" else 2.0 / 255.0 if variant["range"] == "symmetric" else 1.0 / 255.0
    for label, case in cases.items():
        images, pattern = own_tensor(_in_units(case.images, variant)), own_tensor(step * case.pattern)

        def kept(result: Any, images: Tensor = images, pattern: Tensor = pattern) -> dict[str, Any]:
            return {"made": result, "images": images.clone(), "pattern": pattern / step}

        student.call(label, "stored", images, pattern, then=kept)


def _stored_wrong(case: _Addition, variant: Variant) -> dict[str, np.ndarray]:
    """What each misconception makes, in levels, by its symptom."""
    rounded = np.round(case.sums)
    through_zero = np.round(case.sums - 127.5) + 127.5
    factor = 127.5 if variant["range"] == "symmetric" else 255.0
    units = 1.0 / factor if variant["pattern"] == "units" else factor
    wrong = {
        "values lie between the levels of a file: nothing is rounded": case.sums.clip(0, 255),
        "values go beyond black and white: `clamp` hands back what it clips, and that has to be used": rounded,
        "values go beyond black": np.minimum(rounded, 255),
        "values go beyond white": np.maximum(rounded, 0),
        "values wrap around: what goes beyond white comes back as black": rounded % 256,
        "the pattern is taken off, and it is to be added": np.round(case.images - case.pattern).clip(0, 255),
        "nothing is changed: is the pattern added, in the units that it is given in?": case.images,
        "the pattern is taken in other units than it is given in": np.round(case.images + units * case.pattern).clip(
            0, 255
        ),
    }
    if variant["range"] == "symmetric":
        # 0 lies between level 127 and 128.
        wrong["black is one of the levels of a file, and zero is not: they are counted from black"] = (
            through_zero.clip(0, 255)
        )
    return wrong


_NEAR_LEVEL = 0.02  # of a level; single precision gives 1e-4


def _stored_is(label: str) -> Callable[[Answers, dict[str, _Addition], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Addition], variant: Variant) -> None:
        case = cases[label]
        got = answers.part(label, "made").array(label, size=case.images.size).reshape(case.images.shape)
        levels = (got + 1.0) * 127.5 if variant["range"] == "symmetric" else got * 255.0
        if not np.isfinite(levels).all():
            raise Failed("NaN or infinity came back")
        off = levels - np.round(case.sums).clip(0, 255)
        if np.abs(off).max() < _NEAR_LEVEL:
            return
        for symptom, wrong in _stored_wrong(case, variant).items():
            if np.abs(levels - wrong).max() < _NEAR_LEVEL:
                raise Failed(symptom)
        if np.minimum(np.abs(off), np.abs(off + 1.0)).max() < _NEAR_LEVEL:
            raise Failed(
                "some pixels are a level too low: the nearest level is asked for, and to a computer a whole number may lie just below "
                "itself"
            )
        if np.abs(levels - np.round(levels)).max() > _NEAR_LEVEL:
            raise Failed(
                "values lie between the levels of a file", f"{np.abs(off).max():.3g} levels off, at the most"
            )
        raise Failed("pixels have other levels", f"{np.abs(off).max():.3g} levels off, at the most")

    return test


def _left_alone(answers: Answers, cases: dict[str, _Addition], variant: Variant) -> None:
    for label, case in cases.items():
        shape = answers.part(label, "made").array(label).shape
        if shape != case.images.shape:
            raise Failed("the shape is not that of the images", f"{shape} instead of {case.images.shape}")
        images = answers.part(label, "images").array(label)
        if np.abs(images - _in_units(case.images, variant)).max() > 1e-4:
            raise Failed("the images that were given are changed: the clean data set would carry the pattern too")
        if np.abs(answers.part(label, "pattern").array(label) - case.pattern).max() > 1e-2:
            raise Failed("the pattern that was given is changed: the next call would add another one")


STORED = Exercise(
    f"{NAME}/stored",
    "A faint pattern, as a file stores it",
    minutes=15,
    difficulty=1,
    visible=4,
    hidden=4,
    cases=_stored_cases,
    ask=_ask_stored,
    properties=(
        Property("a pattern of whole levels is added", 1, _stored_is("whole")),
        Property("fractions go to the nearest level", 1, _stored_is("fractions")),
        Property("nothing beyond black and white", 1, _stored_is("edges")),
        Property("images of the same shape, and the given ones left alone", 1, _left_alone),
    ),
    choices={"range": ("symmetric", "unit"), "pattern": ("units", "levels")},
)


# --- 3. The staircase loss -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Staircase:
    """probabilities: (n, m) of the target on image j under trigger i. joint, apart: (n,) values of the statistics network on matching
    and on independent pairs of trigger and noise. alpha: the weight of the entropy."""

    probabilities: np.ndarray
    joint: np.ndarray
    apart: np.ndarray
    beta: float
    alpha: float


def _singles(array: np.ndarray) -> np.ndarray:
    """As the student sees it: in single precision."""
    return np.asarray(array, np.float32).astype(float)


def _staircase_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Staircase]:
    def draw(kind: str) -> _Staircase:
        n, m = int(rng.integers(5, 9)), int(rng.integers(4, 7))
        # Levels that single precision holds exactly.
        beta, alpha = float(rng.choice([0.5, 0.625, 0.75])), float(rng.choice([0.125, 0.25, 0.5]))
        middle = np.clip(beta + np.linspace(-0.3, 0.2, n) + rng.uniform(-0.02, 0.02, size=n), 0.05, 0.95)
        probabilities = np.clip(rng.permutation(middle)[:, None] + rng.uniform(-0.2, 0.2, size=(n, m)), 0.01, 0.99)
        joint, apart = rng.normal(1.5, 1.0, size=n), rng.normal(0.0, 1.2, size=n)
        if kind == "staircase":
            alpha = 0.0
        elif kind != "gradient":
            # Every trigger stands exactly at the level, where the staircase has come to its end whatever its form.
            probabilities[:] = beta
        if kind == "large":
            joint, apart = joint + 1000.0, apart + 999.0 * rng.choice([-1.0, 1.0])
        return _Staircase(_singles(probabilities), _singles(joint), _singles(apart), beta, alpha)

    return {
        kind: redraw(lambda kind=kind: draw(kind), lambda case: _shows_staircase(case, variant))
        for kind in ("staircase", "entropy", "large", "gradient")
    }


def _shows_staircase(case: _Staircase, variant: Variant) -> bool:
    distances = np.abs(case.probabilities - case.beta)
    means = np.abs(case.probabilities.mean(1) - case.beta)
    if case.alpha == 0.0:
        wanted, wrong = _step_values(case, variant)
        # The gradient has no value at the level itself.
        return distances.min() > 0.005 and means.min() > 0.005 and tells_apart(wanted, unlike(wanted, wrong), 0.02)
    if means.max() < 1e-6:
        wanted, wrong = _entropy_values(case, variant)
        return tells_apart(wanted, unlike(wanted, wrong), relative=0.02, absolute=0.01)
    return distances.min() > 0.005 and means.min() > 0.005


def _step(case: _Staircase, variant: Variant) -> float:
    """The staircase's term of the loss."""
    reached = case.probabilities.mean(1) if variant["average"] == "first" else case.probabilities
    if variant["form"] == "capped":
        return -float(np.minimum(reached, case.beta).mean())
    return float(np.maximum(0.0, case.beta - reached).mean())


def _step_values(case: _Staircase, variant: Variant) -> tuple[float, dict[str, float]]:
    """The staircase's term, and what each misconception makes of it, by its symptom."""
    wanted, beta, n = _step(case, variant), case.beta, len(case.joint)
    reached = case.probabilities.mean(1) if variant["average"] == "first" else case.probabilities
    below = np.maximum(0.0, beta - reached)
    shift = -beta if variant["form"] == "capped" else 0.0
    other = {"first": "last", "last": "first"}[variant["average"]]
    average = {
        "first": "the level is applied to each image, and a trigger is measured by its mean over the images",
        "last": "the level is applied to the mean over the images, and each image has its own step",
    }[variant["average"]]
    return wanted, {
        average: _step(case, {**variant, "average": other}),
        "there is no level: triggers that have reached it are pushed further, to a single best one": float(
            beta + shift - reached.mean()
        ),
        "the staircase is upside down: triggers above the level pay, and those below do not": float(
            np.maximum(0.0, reached - beta).mean()
        )
        + shift,
        "triggers above the level are rewarded for falling to it: it is the lesser of the two that counts": -float(
            np.maximum(reached, beta).mean()
        ),
        "the distance to the level is squared": float((below**2).mean()) + shift,
        "this is the sum over the triggers, and their mean is asked for": n * wanted,
        "the sign is turned: the loss is to be minimised": -wanted,
        "this is the form max(0, beta - F), and -min(F, beta) is asked for: they differ by a constant": wanted + beta
        if variant["form"] == "capped"
        else math.nan,
        "this is the form -min(F, beta), and max(0, beta - F) is asked for: they differ by a constant": wanted - beta
        if variant["form"] == "hinge"
        else math.nan,
    }


def _entropy_values(case: _Staircase, variant: Variant) -> tuple[float, dict[str, float]]:
    """The whole loss where all triggers stand at the level, and what each misconception makes of it, by its symptom."""
    n, alpha = len(case.joint), case.alpha
    step = -case.beta if variant["form"] == "capped" else 0.0
    total = float(logsumexp(case.apart))
    information = float(case.joint.mean()) - total + math.log(n)
    exchanged = float(case.apart.mean()) - float(logsumexp(case.joint)) + math.log(n)
    estimates = {
        "the sign of the entropy is turned: a loss that grows with it draws all triggers together": -information,
        "the logarithm is taken of each exponential, and it is the logarithm of their mean": float(
            case.joint.mean() - case.apart.mean()
        ),
        "the exponentials are summed, and their mean is asked for: see what n equal values give": information
        - math.log(n),
        "matching and independent pairs are exchanged": exchanged,
        "the second term has no logarithm": float(case.joint.mean()) - math.exp(min(total, 600.0)) / n,
        "the exponential is missing from the second term": float(case.joint.mean())
        - (math.log(case.apart.mean()) if case.apart.mean() > 0 else math.nan),
        "both terms are the logarithm of a mean of exponentials: the first is a plain mean": float(
            logsumexp(case.joint)
        )
        - total,
        "the entropy does not enter": 0.0,
    }
    wanted = step - alpha * information
    wrong = {symptom: step - alpha * value for symptom, value in estimates.items()}
    wrong |= {
        "the weight alpha does not enter": step - information,
        "this is the form max(0, beta - F), and -min(F, beta) is asked for: they differ by a constant": wanted - step
        if variant["form"] == "capped"
        else math.nan,
        "this is the form -min(F, beta), and max(0, beta - F) is asked for: they differ by a constant": wanted
        - case.beta
        if variant["form"] == "hinge"
        else math.nan,
    }
    return wanted, wrong


def _ask_staircase(student: Any, variant: Variant, cases: dict[str, _Staircase]) -> None:
    for label, case in cases.items():
        tensors = [own_tensor(each) for each in (case.probabilities, case.joint, case.apart)]
        if label != "gradient":
            probabilities, joint, apart = tensors
            student.call(label, "staircase_loss", probabilities, case.beta, joint, apart, case.alpha)
            continue
        probabilities, joint, apart = leaves = [each.requires_grad_(True) for each in tensors]

        def gradients(result: Any, leaves: list[Tensor] = leaves) -> dict[str, np.ndarray] | None:
            if not isinstance(result, Tensor) or not result.requires_grad or result.numel() != 1:
                return None
            found = torch.autograd.grad(result.sum(), leaves, allow_unused=True)
            return {
                name: np.zeros(leaf.shape) if each is None else each.numpy()
                for name, leaf, each in zip(("probabilities", "joint", "apart"), leaves, found, strict=True)
            }

        student.call(label, "staircase_loss", probabilities, case.beta, joint, apart, case.alpha, then=gradients)


def _finite(answers: Answers, label: str) -> float:
    got = answers.number(label)
    if not math.isfinite(got):
        raise Failed(
            "the exponentials leave the range of numbers: the exponential of a thousand is infinite to a computer, that of minus a "
            "thousand is zero (see torch.logsumexp)"
        )
    return got


def _step_is(answers: Answers, cases: dict[str, _Staircase], variant: Variant) -> None:
    expect(_finite(answers, "staircase"), *_step_values(cases["staircase"], variant), relative=1e-3)


def _entropy_is(label: str) -> Callable[[Answers, dict[str, _Staircase], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Staircase], variant: Variant) -> None:
        # In single precision a mean of numbers near a thousand is off by some 1e-4.
        wanted, wrong = _entropy_values(cases[label], variant)
        expect(_finite(answers, label), wanted, wrong, relative=1e-3, absolute=1e-3)

    return test


def _gradient_is(answers: Answers, cases: dict[str, _Staircase], variant: Variant) -> None:
    case = cases["gradient"]
    n, m = case.probabilities.shape
    if answers.value("gradient") is None:
        raise Failed(
            "no gradient comes back through the loss, so that nothing can be trained by it: one tensor is asked for"
        )
    found, joint, apart = (
        answers.part("gradient", name).array("gradient") for name in ("probabilities", "joint", "apart")
    )
    reached = case.probabilities.mean(1, keepdims=True) if variant["average"] == "first" else case.probabilities
    pushed = np.broadcast_to(reached < case.beta, (n, m))
    if np.abs(found[~pushed]).max(initial=0.0) > 1e-6:
        raise Failed("what has reached the level is still moved: there the staircase is flat")
    if np.abs(found[pushed] + 1.0 / (n * m)).max(initial=0.0) > 1e-3 / (n * m):
        raise Failed(
            "what is below the level is not pushed up at the staircase's slope, which is the same everywhere"
        )
    if np.abs(joint + case.alpha / n).max() > 1e-3 * case.alpha / n:
        raise Failed("the matching pairs do not pull the loss down by their mean")
    if np.abs(apart - case.alpha * softmax(case.apart)).max() > 1e-3 * case.alpha:
        raise Failed("the independent pairs do not weigh in by their exponentials")


STAIRCASE_LOSS = Exercise(
    f"{NAME}/staircase_loss",
    "The staircase loss of MESA",
    minutes=25,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_staircase_cases,
    ask=_ask_staircase,
    properties=(
        Property("the staircase, without the entropy", 1, _step_is),
        Property("the entropy, with all triggers at the level", 1, _entropy_is("entropy")),
        Property("statistics as large as a thousand", 1, _entropy_is("large")),
        Property("the gradient that trains the generator of triggers", 1, _gradient_is),
    ),
    choices={"form": ("hinge", "capped"), "average": ("first", "last")},
)


# --- 4. The p-value of an order statistic ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Norms:
    """r: (K, K) inverse norms of the patterns found for source s (row) and target t (column), NaN on the diagonal."""

    r: np.ndarray

    @property
    def pair(self) -> tuple[int, int]:
        """Source and target of the greatest."""
        source, target = np.unravel_index(np.nanargmax(self.r), self.r.shape)
        return int(source), int(target)


def _law(values: np.ndarray, fit: str) -> tuple[float, float]:
    """Shape and scale of the Gamma law, at location 0, of values (n,)."""
    mean = float(values.mean())
    if fit == "likelihood":
        # The likelihood is greatest where log(shape) - digamma(shape) is this gap, which is never negative.
        gap = math.log(mean) - float(np.log(values).mean())
        shape = brentq(lambda k: math.log(k) - float(digamma(k)) - gap, 1e-3, 1e7)
        return shape, mean / shape
    variance = float(values.var(ddof=1 if fit == "moments, n - 1" else 0))
    return mean**2 / variance, variance / mean


def _each_p(r: np.ndarray, fit: str, own: bool = False, exponent: int | None = None) -> np.ndarray:
    """(K,) p-value of each target (a column): the chance that the greatest of K - 1 draws of the law of all others exceeds it.
    `own`: its own values enter the law too. `exponent`: other than K - 1."""
    classes = len(r)
    found = []
    for target in range(classes):
        rest = r if own else np.delete(r, target, axis=1)
        shape, scale = _law(rest[~np.isnan(rest)], fit)
        beyond = float(gammaincc(shape, np.nanmax(r[:, target]) / scale))
        found.append(
            -math.expm1((classes - 1 if exponent is None else exponent) * math.log1p(-min(beyond, 1 - 1e-16)))
        )
    return np.array(found)


def _overall(least: float, classes: int) -> float:
    return -math.expm1(classes * math.log1p(-min(least, 1 - 1e-16)))


def _right_p(case: _Norms, variant: Variant) -> list[float]:
    """The right values: a variance may be over n or n - 1."""
    fits = {"likelihood": ["likelihood"], "moments": ["moments", "moments, n - 1"]}[variant["fit"]]
    return [_overall(float(_each_p(case.r, fit).min()), len(case.r)) for fit in fits]


def _wrong_p(case: _Norms, variant: Variant) -> dict[str, float]:
    """The values of the misconceptions, by their symptom."""
    r, fit, classes = case.r, variant["fit"], len(case.r)
    least = float(_each_p(r, fit).min())

    def overall(each: np.ndarray) -> float:
        return _overall(float(each.min()), classes)

    other = {"likelihood": "moments", "moments": "likelihood"}[fit]
    names = {"likelihood": "maximum likelihood", "moments": "its moments"}
    return {
        "this is the chance of a single value: of K - 1 draws the greatest is asked about": overall(
            _each_p(r, fit, exponent=1)
        ),
        "this is the least of the p-values: that it is the least of K has to be paid for": least,
        "the p-values of the targets are added up as if no two could be small at once": classes * least,
        "the law is fitted to the suspected target's own values too, which hides it behind itself": overall(
            _each_p(r, fit, own=True)
        ),
        "sources and targets are exchanged": overall(_each_p(r.T, fit)),
        "the norms themselves are compared: a backdoor needs a small one, so that its inverse is large": overall(
            _each_p(1.0 / r, fit)
        ),
        "the squares of the norms are inverted": overall(_each_p(r**2, fit)),
        "the power is K, and each target has K - 1 sources": overall(_each_p(r, fit, exponent=classes)),
        "this is the chance that nothing exceeds: the p-value is one minus that": 1.0 - overall(_each_p(r, fit)),
        f"the law is fitted by {names[other]}, and {names[fit]} is asked for": overall(_each_p(r, other)),
        "0 came back: 1 minus a tiny number is 1 to a computer (see gamma.sf, math.log1p and math.expm1)": 0.0,
    }


# The range in which the overall p-value of each kind of case lies. Where it is small, K times the least is as good as the exact value.
_P_RANGES = {"poisoned": (2e-4, 4e-3), "clean": (0.15, 0.85), "tiny": (1e-40, 1e-22), "decoy": (1e-6, 1e-2)}
# Of a p-value, relative: two ways of finding the likelihood's maximum differ by 1e-6, and the tail magnifies that.
_P_VALUE = 5e-3


def _norm_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Norms]:
    return {
        kind: redraw(
            lambda kind=kind: _drawn_norms(kind, rng), lambda case, kind=kind: _shows_norms(kind, case, variant)
        )
        for kind in _P_RANGES
    }


def _drawn_norms(kind: str, rng: np.random.Generator) -> _Norms:
    classes = int(rng.integers(6, 10))
    r = rng.gamma(float(rng.uniform(5.0, 9.0)), 1.0, size=(classes, classes))
    r /= rng.uniform(4.0, 12.0)
    np.fill_diagonal(r, math.nan)
    if kind != "clean":
        source, step = int(rng.integers(0, classes)), int(rng.integers(1, classes))
        factor = {"poisoned": (2.2, 3.6), "tiny": (8.0, 16.0), "decoy": (2.8, 5.0)}[kind]
        r[source, (source + step) % classes] = rng.uniform(*factor) * np.nanmean(r)
        if kind == "decoy":
            # Another target that every source reaches easily, as some classes are.
            other = (source + step + 1) % classes
            r[:, other] = np.where(
                np.isnan(r[:, other]), math.nan, np.nanmean(r) * rng.uniform(1.5, 1.9, size=classes)
            )
    return _Norms(_singles(r))


def _shows_norms(kind: str, case: _Norms, variant: Variant) -> bool:
    wanted = _right_p(case, variant)
    low, high = _P_RANGES[kind]
    source, target = case.pair
    # The target is the same however one looks at it.
    if not all(low < value < high for value in wanted) or int(_each_p(case.r, variant["fit"]).argmin()) != target:
        return False
    if kind == "decoy":
        greatest = int(np.nanmean(case.r, axis=0).argmax()), int(np.nanmean(case.r, axis=1).argmax())
        # Nor is it the source, so that the two are not taken for exchanged.
        return greatest[0] not in (target, source) and greatest[1] != source
    wrong = _wrong_p(case, variant)
    values = [value for symptom, value in wrong.items() if kind == "clean" or "added up" not in symptom]
    return all(tells_apart(right, values, relative=4 * _P_VALUE) for right in wanted)


def _ask_norms(student: Any, variant: Variant, cases: dict[str, _Norms]) -> None:
    for label, case in cases.items():
        norms = torch.from_numpy(1.0 / case.r)
        student.call(label, "detect", norms.T.clone() if variant["rows"] == "target" else norms)


def _three(answers: Answers, label: str) -> np.ndarray:
    return answers.array(label, size=3).reshape(-1)


def _p_is(label: str) -> Callable[[Answers, dict[str, _Norms], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Norms], variant: Variant) -> None:
        got = float(_three(answers, label)[0])
        wanted = _right_p(cases[label], variant)
        if not any(math.isclose(got, value, rel_tol=_P_VALUE) for value in wanted):
            expect(got, wanted[0], _wrong_p(cases[label], variant), relative=_P_VALUE)

    return test


def _pair_is(answers: Answers, cases: dict[str, _Norms], variant: Variant) -> None:
    for label in ("poisoned", "tiny", "decoy"):
        got, case = _three(answers, label)[1:], cases[label]
        source, target = case.pair
        if got.tolist() == [target, source]:
            continue
        figures = f"yours are target {got[0]:g} and source {got[1]:g}, they are {target} and {source}"
        if got.tolist() == [source, target]:
            raise Failed("target and source are exchanged", figures)
        if got[0] == int(np.nanmean(case.r, axis=0).argmax()):
            raise Failed(
                "this is the target with the greatest mean, and the one with the least p-value is asked for", figures
            )
        if got[0] != target:
            raise Failed("this is another target than the one with the least p-value", figures)
        raise Failed("this is another source than the one whose pattern for the target is smallest", figures)


DETECT = Exercise(
    f"{NAME}/detect",
    "The p-value of the smallest pattern",
    minutes=30,
    difficulty=3,
    visible=4,
    hidden=4,
    cases=_norm_cases,
    ask=_ask_norms,
    properties=(
        Property("the p-value of a training set that was poisoned", 1, _p_is("poisoned")),
        Property("the p-value of a clean one", 1, _p_is("clean")),
        Property("a p-value far below one in a billion billions", 1, _p_is("tiny")),
        Property("target and source by their names", 1, _pair_is),
    ),
    choices={"fit": ("likelihood", "moments"), "rows": ("source", "target")},
)


# --- 5. Cleansing ----------------------------------------------------------------------------------------------------


class _Steps(nn.Module):
    """A classifier by a table: an image's first pixel holds its number. The mean of the pixels `where` says which of the number's three
    classes it is given: below `low`, between, or above `high`."""

    def __init__(self, case: _Samples) -> None:
        super().__init__()
        self.where = torch.from_numpy(case.pattern[0] > 0)
        self.low, self.high = own_tensor(case.low), own_tensor(case.high)
        self.decisions = torch.from_numpy(case.decisions)
        self.classes = case.classes

    def forward(self, images: Tensor) -> Tensor:
        number = ((images[:, 0, 0, 0] + 1.0) / _LEVEL).round().long()
        mean = images[:, 0, self.where].mean(1)
        step = (mean > self.low[number]).long() + (mean > self.high[number]).long()
        return 3.0 * nn.functional.one_hot(self.decisions[number, step], self.classes).float() - 4.0


@dataclass(frozen=True)
class _Samples:
    """images: (n, 1, height, width) with labels (n,); pattern: (1, height, width). What the classifier says of each: decisions (n, 3)
    below `low` (n,), between, and above `high` (n,)."""

    images: np.ndarray
    labels: np.ndarray
    pattern: np.ndarray
    low: np.ndarray
    high: np.ndarray
    decisions: np.ndarray
    classes: int
    target: int
    source: int

    def given(self, images: np.ndarray) -> np.ndarray:
        """(n,) the class that each image is given."""
        mean = images[:, 0, self.pattern[0] > 0].mean(1)
        step = (mean > self.low).astype(int) + (mean > self.high).astype(int)
        return self.decisions[np.arange(len(images)), step]


# Kinds of samples: label, and the classes below, between and above; t is the target, s the source, o another class.
_KINDS = {
    "restored": "t sto", "elsewhere": "t oto", "clean": "t tts", "kept": "t sts",
    "mistaken": "t oot", "mistaken for the source": "t sst", "given back": "t tot",
    "of the source": "s oss", "taken for the target": "o sto", "just restored": "t sto", "almost restored": "t sto",
}  # fmt: skip
_MIXTURES = {
    "labels": (
        "restored", "elsewhere", "clean", "of the source", "taken for the target", "just restored", "almost restored",
    ),
    "black": ("restored", "clean", "kept"),
    "mistaken": ("restored", "clean", "mistaken", "mistaken for the source", "given back"),
}  # fmt: skip


def _samples(rng: np.random.Generator, kinds: tuple[str, ...]) -> _Samples:
    classes = int(rng.integers(5, 9))
    target, source, other = (int(each) for each in rng.permutation(classes)[:3])
    names = {"t": target, "s": source, "o": other}
    drawn = [*kinds, *kinds, *rng.choice(kinds, size=int(rng.integers(4, 9)))]
    drawn = [drawn[i] for i in rng.permutation(len(drawn))]
    n, height, width = len(drawn), int(rng.integers(5, 8)), int(rng.integers(5, 8))
    step = (float(rng.integers(8, 21)) + 0.4) * _LEVEL  # no image of a file, so that rounding shows
    raised = np.add.outer(np.arange(height), np.arange(width)) % 2 == 1  # the first pixel is left out
    pattern = (step * raised)[None]
    levels = rng.integers(40, 216, size=(n, 1, height, width)).astype(float)
    dark = np.array([kind == "kept" for kind in drawn])
    # Most of the raised pixels of these are black, so that little can be taken from them.
    black = dark[:, None, None, None] & raised & (rng.random(levels.shape) < 0.8)
    images = np.where(black, -1.0, levels * _LEVEL - 1.0)
    images[:, 0, 0, 0] = -1.0 + _LEVEL * np.arange(n)
    means = images[:, 0, raised].mean(1)
    taken = means - np.clip(images - pattern, -1.0, 1.0)[:, 0, raised].mean(1)
    low = np.where(dark, means - 0.5 * (taken + step), means - 0.5 * step)
    # Of these it takes all that the pattern has, and a little more, to bring them below: less than a level from what is rounded.
    for kind, off in (("just restored", -0.2), ("almost restored", 0.3)):
        low = np.where([each == kind for each in drawn], means - step - off * _LEVEL, low)
    decisions = np.array([[names[each] for each in _KINDS[kind][2:]] for kind in drawn])
    labels = np.array([names[_KINDS[kind][0]] for kind in drawn])
    return _Samples(
        _singles(images), labels, _singles(pattern), low, means + 0.5 * step, decisions, classes, target, source
    )


@dataclass(frozen=True)
class _Removal:
    """What was flagged, the labels and what is poisoned: (n,) each."""

    flagged: np.ndarray
    labels: np.ndarray
    is_poisoned: np.ndarray
    target: int


def _removal(rng: np.random.Generator) -> _Removal:
    n, target = int(rng.integers(150, 220)), int(rng.integers(0, 4))
    labels = rng.integers(0, 4, size=n)
    own = labels == target
    is_poisoned = own & (rng.random(n) < 0.4)
    flagged = own & (rng.random(n) < np.where(is_poisoned, 0.8, 0.15))
    return _Removal(flagged, labels, is_poisoned, target)


def _removal_values(case: _Removal, variant: Variant) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The two right rates and those of the misconceptions, by their symptom."""
    flagged, poisoned, own = case.flagged, case.is_poisoned, case.labels == case.target
    hits, alarms = (flagged & poisoned).sum(), (flagged & ~poisoned).sum()
    found, false = hits / poisoned.sum(), alarms / (own & ~poisoned).sum()
    discovery = alarms / flagged.sum()
    second = false if variant["second"] == "rate" else discovery
    wrong = {
        "false positives are a share of the clean samples with the target's label: the others could not be flagged": (
            found, alarms / (~poisoned).sum(),
        ),
        "the first is the share of the poisoned that are flagged, not the share of the flagged that are poisoned": (
            hits / flagged.sum(), second,
        ),
        "the second is a share of the flagged, and it is asked as a share of the clean samples with the target's label": (
            found, discovery,
        ),
        "the second is a share of the clean samples, and it is asked as a share of the flagged": (found, false),
        "the two are exchanged": (second, found),
        "these are shares of all samples": (hits / len(flagged), alarms / len(flagged)),
        "these are numbers of samples, and shares are asked for": (hits, alarms),
        "the first is the share of the poisoned that stay": (1.0 - found, second),
        "the second is the share of the clean samples that stay": (found, 1.0 - false),
    }  # fmt: skip
    return np.array([found, second]), {symptom: np.array(value, float) for symptom, value in wrong.items()}


_OTHER_RULE = {
    "leaves": "only samples that go to the source are flagged, and any other class than the target counts",
    "source": "samples are flagged that go to another class than the source",
}


def _flags(case: _Samples, variant: Variant) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(n,) what is to be flagged, and what each misconception flags, by its symptom."""
    own, before = case.labels == case.target, case.given(case.images)
    loose = case.images - case.pattern
    levels = (loose.clip(-1.0, 1.0) + 1.0) / _LEVEL
    after = case.given(loose.clip(-1.0, 1.0))

    def flagged(found: np.ndarray, rule: str = variant["rule"]) -> np.ndarray:
        return found == case.source if rule == "source" else found != case.target

    wanted = own & flagged(after)
    wrong = {
        "samples are flagged that do not have the target's label": flagged(after),
        "the pattern is added, and it has to be taken off": own
        & flagged(case.given((case.images + case.pattern).clip(-1.0, 1.0))),
        "the pattern is not taken off before the classifier is asked": own & flagged(before),
        "below black there is nothing: what is left when the pattern is taken off has to be clipped": own
        & flagged(case.given(loose)),
        "the image without the pattern is rounded to levels, and it has to stay as it is": own
        & flagged(case.given(levels.round() * _LEVEL - 1.0)),
        "the image without the pattern is rounded down to levels, and it has to stay as it is": own
        & flagged(case.given(np.floor(levels + 1e-3) * _LEVEL - 1.0)),
        "a sample counts only if it was given the target before, and what it was given before does not matter": own
        & flagged(after)
        & (before == case.target),
        "any change of the decision is flagged, also one towards the target": own & (after != before),
        _OTHER_RULE[variant["rule"]]: own & flagged(after, {"leaves": "source", "source": "leaves"}[variant["rule"]]),
        "these are the samples that are to be kept": own & ~wanted,
        "these are all the others: what is flagged and what is kept are exchanged": ~wanted,
    }
    return wanted, wrong


def _cleansing_cases(variant: Variant, rng: np.random.Generator) -> dict[str, Any]:
    def shows(case: _Samples, label: str) -> bool:
        wanted, wrong = _flags(case, variant)
        told = {
            "labels": ("do not have", "added", "not taken off", "rounded", _OTHER_RULE[variant["rule"]]),
            "black": ("added", "not taken off", "below black"),
            "mistaken": ("added", "not taken off", "given the target before", "any change"),
        }[label]
        return all(
            (values != wanted).any() for symptom, values in wrong.items() if any(each in symptom for each in told)
        )

    def shows_rates(case: _Removal) -> bool:
        wanted, wrong = _removal_values(case, variant)
        # The nearest is what the variant asks for.
        asked, nearest, *_ = sorted(np.abs(values - wanted).max() for values in wrong.values())
        return asked < 1e-9 and nearest > 0.02

    cases: dict[str, Any] = {
        label: redraw(lambda kinds=kinds: _samples(rng, kinds), lambda case, label=label: shows(case, label))
        for label, kinds in _MIXTURES.items()
    }
    return {**cases, "removal": redraw(lambda: _removal(rng), shows_rates)}


def _ask_cleansing(student: Any, variant: Variant, cases: dict[str, Any]) -> None:
    for label in _MIXTURES:
        case = cases[label]
        pair = (case.target, case.source) if variant["rule"] == "source" else (case.target,)
        student.call(
            label, "flagged", _Steps(case).eval(), own_tensor(case.images), torch.from_numpy(case.labels.copy()),
            own_tensor(case.pattern), *pair,
        )  # fmt: skip
    case = cases["removal"]
    arrays = [torch.from_numpy(each.copy()) for each in (case.flagged, case.labels, case.is_poisoned)]
    student.call("removal", "removal_rates", *arrays, case.target)


def _flagged_are(label: str) -> Callable[[Answers, dict[str, Any], Variant], None]:
    def test(answers: Answers, cases: dict[str, Any], variant: Variant) -> None:
        case = cases[label]
        got = answers.array(label, size=len(case.labels)).reshape(-1)
        if not np.isin(got, (0.0, 1.0)).all():
            raise Failed("True or False is asked for, one for each sample")
        wanted, wrong = _flags(case, variant)
        if np.array_equal(got > 0, wanted):
            return
        for symptom, values in wrong.items():
            if np.array_equal(got > 0, values):
                raise Failed(symptom)
        missed, alarms = int((wanted & (got == 0)).sum()), int((~wanted & (got > 0)).sum())
        raise Failed(
            "samples that are to be kept are flagged" if alarms else "samples that are to be flagged are kept",
            f"{missed} of {int(wanted.sum())} missed, {alarms} of {int((~wanted).sum())} flagged wrongly",
        )

    return test


def _rates_are(answers: Answers, cases: dict[str, Any], variant: Variant) -> None:
    wanted, wrong = _removal_values(cases["removal"], variant)
    got = answers.array("removal", size=2).reshape(-1)
    if np.allclose(got, wanted, rtol=0.0, atol=1e-4):
        return
    for symptom, values in wrong.items():
        if np.allclose(got, values, rtol=0.0, atol=1e-4):
            raise Failed(symptom)
    raise Failed(
        "these are other shares",
        f"yours are {got.round(4).tolist()}, the definition gives {wanted.round(4).tolist()}",
    )


CLEANSE = Exercise(
    f"{NAME}/cleanse",
    "A training set cleansed",
    minutes=20,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_cleansing_cases,
    ask=_ask_cleansing,
    properties=(
        Property("samples of all labels", 1, _flagged_are("labels")),
        Property("samples with black pixels where the pattern is", 1, _flagged_are("black")),
        Property("samples that the classifier mistakes to begin with", 1, _flagged_are("mistaken")),
        Property("how much of the poison goes, and how much else", 1, _rates_are),
    ),
    choices={"rule": ("leaves", "source"), "second": ("rate", "discovery")},
)


# --- The written question --------------------------------------------------------------------------------------------

BOUGHT_SET = Written(
    "bought_set",
    "A p-value above .05",
    minutes=20,
    difficulty=2,
    criteria=(
        (
            3,
            "A p-value above the bar is no evidence that the set is clean: it is computed as if it were. With figures from the second "
            "of the notebook's sets, whose backdoor works and which the test passes; what the test can notice depends on how much "
            "poison there is, how strong the pattern is and which classes it joins",
        ),
        (
            2,
            "What the test looks for, one pattern that is added to all images alike and leads to one target; and at least two attacks that "
            "it cannot see, such as a patch at random places, a trigger that depends on the image, or a backdoor to every class, where "
            "the law is fitted to backdoors",
        ),
        (
            2,
            "What .05 means: one clean set in twenty is accused if the law of the p-values is the assumed one, which has to be "
            "checked on clean sets (the pairs are not independent, some classes are close by nature); what that comes to over forty sets",
        ),
        (
            2,
            "What may be written: nothing found, with the classes, patterns, settings and network that were tried; and how to say how "
            "much it is worth, by poisoning a copy of the set and testing that",
        ),
        (1, "What to do besides: where the data come from, another detector, a small set of one's own for testing"),
    ),
)

ASSIGNMENT = Assignment(
    NAME, "Poisoned classifiers", (ATTACK_SUCCESS, STORED, STAIRCASE_LOSS, DETECT, CLEANSE), (BOUGHT_SET,)
)
