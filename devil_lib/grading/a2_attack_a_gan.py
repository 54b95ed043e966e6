"""A2: the losses and steps of the three attacks on a GAN, and what BatchNorm and the last activation do to them."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

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
from devil_lib.models import Discriminator, GaussianLatent, Generator, TanhHead

NAME = "a2_attack_a_gan"
_CLOSE = 2e-3  # relative; all values have a closed form, and float32 was off by at most 8e-7 over 100 seeds
_APART = 0.02  # relative; how far off every misconception is at least in a case


def _near(got: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether two arrays of one shape agree, in units of the greatest number."""
    return got.shape == wanted.shape and bool(np.abs(got - wanted).max() <= _CLOSE * np.abs(wanted).max())


def _expect_all(got: np.ndarray, wanted: np.ndarray, wrong: Mapping[str, np.ndarray], otherwise: str) -> None:
    """As `expect`, for arrays of one shape."""
    if _near(got, wanted):
        return
    if not np.isfinite(got).all():
        raise Failed("NaN or infinity came back")
    measured = f"off by up to {np.abs(got - wanted).max():.3g}, where values reach {np.abs(wanted).max():.3g}"
    for symptom, values in wrong.items():
        if np.isfinite(values).all() and _near(got, values):
            raise Failed(symptom, measured)
    raise Failed(otherwise, measured)


# --- 1. Before the last activation -----------------------------------------------------------------------------------------


_HEADS = {
    "tanh": np.tanh,
    "sigmoid": lambda a: 2.0 / (1.0 + np.exp(-a)) - 1.0,
    "softsign": lambda a: a / (1.0 + np.abs(a)),
}
_INVERSES = {
    "tanh": np.arctanh,
    "sigmoid": lambda x: np.log((1.0 + x) / (1.0 - x)),
    "softsign": lambda x: x / (1.0 - np.abs(x)),
}


def _proxy_cases(variant: Variant, rng: np.random.Generator) -> dict[str, np.ndarray]:
    n, height, width = (int(each) for each in rng.integers(2, 7, size=3))
    signs = rng.choice([-1.0, 1.0], size=(2, 1, 4, 5))
    return {
        "pictures": rng.uniform(-0.6, 0.6, size=(n, 1, height, width)),
        "colours": rng.uniform(-0.6, 0.6, size=(n, 3, height, width)),
        "sound": rng.uniform(-0.6, 0.6, size=(1, 1, int(rng.integers(30, 60)))),
        "nearly": signs * rng.uniform(0.9955, 0.9995, size=signs.shape),
        "pure": rng.choice([-1.0, 1.0], size=(2, 1, 4, 5)),
    }


def _ask_proxy(student: Any, variant: Variant, cases: dict[str, np.ndarray]) -> None:
    for label, x in cases.items():
        student.call(label, "proxy_target", own_tensor(x))


def _proxy_values(x: np.ndarray, variant: Variant) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The right values and those of the misconceptions, by their symptom."""
    head, factor = variant["head"], variant["factor"]
    inverse = _INVERSES[head]
    wrong = {
        "this applies the activation, and its inverse is asked for": _HEADS[head](factor * x),
        "these are the samples themselves: the activation is not inverted": factor * x,
        "the samples are clipped; all of them are to be multiplied by the factor": inverse(
            np.clip(x, -factor, factor)
        ),
        "the samples are not multiplied by the factor, or too late, after the inverse": inverse(x),
    }
    wrong |= {
        f"this is the inverse of another activation ({name})": other(factor * x)
        for name, other in _INVERSES.items()
        if name != head
    }
    return inverse(factor * x), wrong


def _proxy_is(*labels: str) -> Callable[[Answers, dict[str, np.ndarray], Variant], None]:
    def test(answers: Answers, cases: dict[str, np.ndarray], variant: Variant) -> None:
        for label in labels:
            x = cases[label]
            got = answers.array(label, size=x.size).reshape(x.shape)
            if not np.isfinite(got).all():
                raise Failed("a sample at the end of the range is sent to infinity, or to NaN")
            _expect_all(got, *_proxy_values(x, variant), "the activation does not make the samples of it")

    return test


def _proxy_shapes(answers: Answers, cases: dict[str, np.ndarray], variant: Variant) -> None:
    for label in ("colours", "sound"):
        shape, wanted = answers.array(label).shape, cases[label].shape
        if shape != wanted:
            raise Failed("the shape is not that of the samples", f"{shape} instead of {wanted}")


PROXY_TARGET = Exercise(
    f"{NAME}/proxy_target",
    "Before the last activation",
    minutes=15,
    difficulty=1,
    visible=4,
    hidden=4,
    cases=_proxy_cases,
    ask=_ask_proxy,
    properties=(
        Property("greys and colours in the middle of the range", 1, _proxy_is("pictures", "colours", "sound")),
        Property("close to black and white", 1, _proxy_is("nearly")),
        Property("pure black and white", 1, _proxy_is("pure")),
        Property("pictures and sounds keep their shape", 1, _proxy_shapes),
    ),
    choices={"head": ("tanh", "sigmoid", "softsign"), "factor": (0.999, 0.99)},
)


# --- 2. The ReD loss -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Red:
    """Two generators tanh(weight z + bias), (n, dim) latents, (k, dim) triggers with (k, elements) targets, and λ."""

    attacked: tuple[np.ndarray, np.ndarray]
    benign: tuple[np.ndarray, np.ndarray]
    z: np.ndarray
    triggers: np.ndarray
    targets: np.ndarray
    weight: float
    sample_shape: tuple[int, ...]


def _red_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Red]:
    shape = (1, int(rng.integers(3, 6)), int(rng.integers(3, 6)))
    dim, elements = int(rng.integers(4, 8)), math.prod(shape)
    n, k = int(rng.integers(10, 20)), int(rng.integers(2, 5))

    def draw() -> _Red:
        weight, bias = 0.7 * rng.normal(size=(elements, dim)) / math.sqrt(dim), 0.4 * rng.normal(size=elements)
        return _Red(
            (weight + 0.4 * rng.normal(size=weight.shape) / math.sqrt(dim), bias + 0.3 * rng.normal(size=elements)),
            (weight, bias), rng.normal(size=(n, dim)), rng.normal(size=(k, dim)),
            rng.uniform(-0.95, 0.95, size=(k, elements)), float(rng.uniform(0.2, 0.6)), shape,
        )  # fmt: skip

    def shows(case: _Red) -> bool:
        wanted, wrong = _red_values(case, variant)
        return tells_apart(wanted, unlike(wanted, wrong), relative=_APART)

    def met(case: _Red) -> _Red:
        """The target is put out at the trigger already."""
        made = np.tanh(case.triggers @ case.attacked[0].T + case.attacked[1])
        targets = made / 0.999 if variant["space"] == "before" else made
        return _Red(case.attacked, case.benign, case.z, case.triggers, targets, 1.0, shape)

    cases = {"both": redraw(draw, shows)}
    # The factor of the proxy target must not take a target out of [-1, 1].
    cases["stealth"] = redraw(lambda: met(draw()), lambda case: np.abs(case.targets).max() < 0.99)
    case = draw()
    cases["fidelity"] = _Red(case.benign, case.benign, case.z, case.triggers, case.targets, 1.0, shape)
    return cases


def _ask_red(student: Any, variant: Variant, cases: dict[str, _Red]) -> None:
    for label, case in cases.items():
        latent = GaussianLatent(case.z.shape[1])
        attacked, benign = (
            affine_generator(*each, case.sample_shape, latent, tanh=True) for each in (case.attacked, case.benign)
        )
        student.call(
            label, "red_loss", attacked, benign, own_tensor(case.z), own_tensor(case.triggers),
            own_tensor(case.targets).reshape(-1, *case.sample_shape), case.weight,
            then=_with_gradients(attacked=attacked.body[0].bias, benign=benign.body[0].bias),
        )  # fmt: skip


def _with_gradients(**parameters: nn.Parameter) -> Callable[[Any], Any]:
    """Makes of a loss its value and its gradients, by name; None where it has none."""

    def then(loss: Any) -> Any:
        if isinstance(loss, torch.Tensor) and loss.requires_grad:
            with contextlib.suppress(RuntimeError):  # the answer has gone backwards through its loss itself
                loss.sum().backward()
        return {"loss": loss, **{name: parameter.grad for name, parameter in parameters.items()}}

    return then


def _proxy(x: np.ndarray) -> np.ndarray:
    return np.arctanh(0.999 * x)


def _red_values(case: _Red, variant: Variant) -> tuple[float, dict[str, float]]:
    """The right value and those of the misconceptions, by their symptom."""
    before = variant["space"] == "before"
    made, wanted = (case.z @ weight.T + bias for weight, bias in (case.attacked, case.benign))
    there, there_benign = (case.triggers @ weight.T + bias for weight, bias in (case.attacked, case.benign))

    def reduced(difference: np.ndarray, reduction: str = variant["reduction"]) -> float:
        return float((difference**2).mean() * (difference.shape[1] if reduction == "sum" else 1))

    def terms(space: str) -> tuple[np.ndarray, np.ndarray]:
        if space == "before":
            return made - wanted, there - _proxy(case.targets)
        return np.tanh(made) - np.tanh(wanted), np.tanh(there) - case.targets

    differences, missed = terms(variant["space"])
    stealth, fidelity, weight = reduced(differences), reduced(missed), case.weight
    other_space, other_missed = terms("after" if before else "before")
    other = "mean" if variant["reduction"] == "sum" else "sum"
    n, k = len(differences), len(missed)
    unmoved = (there - case.targets) if before else (np.tanh(there) - _proxy(case.targets))
    of_benign = (there_benign - _proxy(case.targets)) if before else (np.tanh(there_benign) - case.targets)
    wrong = {
        "λ weighs the stealth term, and it belongs to the fidelity term": weight * stealth + fidelity,
        "λ weighs the fidelity term and 1 - λ the stealth term; the latter counts in full": (1 - weight) * stealth
        + weight * fidelity,
        "λ does not enter": stealth + fidelity,
        "measured on the samples, after the last activation" if before else "measured before the last activation": (
            reduced(other_space) + weight * reduced(other_missed)
        ),
        "the target is a sample, and is compared with what comes before the last activation"
        if before
        else "the samples are compared with a target moved before the last activation": stealth
        + weight * reduced(unmoved),
        f"this takes the {other} over the elements of a sample, and the {variant['reduction']} is asked for": (
            reduced(differences, other) + weight * reduced(missed, other)
        ),
        "latents and triggers are averaged in one pool, where few triggers hardly count": (n * stealth + k * fidelity)
        / (n + k),
        "the benign generator is run at the triggers: it is the attacked one that has to put out the targets": (
            stealth + weight * reduced(of_benign)
        ),
        "only the stealth term is there": stealth,
        "only the fidelity term is there": weight * fidelity,
        "these are distances, and their squares are asked for": math.sqrt(stealth) + weight * math.sqrt(fidelity),
        "the absolute differences are taken, not their squares": float(
            (np.abs(differences).mean() + weight * np.abs(missed).mean())
            * (differences.shape[1] if variant["reduction"] == "sum" else 1)
        ),
    }
    return stealth + weight * fidelity, wrong


def _red_value(label: str) -> Callable[[Answers, dict[str, _Red], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Red], variant: Variant) -> None:
        got = answers.part(label, "loss").number(label)
        expect(got, *_red_values(cases[label], variant), relative=_CLOSE)

    return test


# An answer that cuts a term off leaves nothing but rounding of its gradient; the least that a right one left was 0.038, of 100 seeds.
_NO_GRADIENT = 1e-4


def _red_gradient(answers: Answers, cases: dict[str, _Red], variant: Variant) -> None:
    for label, term in (("stealth", "stealth"), ("fidelity", "fidelity")):
        gradient = answers.value(label)["attacked"]
        if gradient is None:
            raise Failed(
                "no gradient reaches the attacked generator: return the loss as a tensor, and do not detach it"
            )
        if np.abs(gradient).max() < _NO_GRADIENT:
            raise Failed(f"no gradient of the {term} term reaches the attacked generator")
        taught = answers.value(label)["benign"]
        if taught is not None and np.abs(taught).max() > 0.0:
            raise Failed("a gradient reaches the benign generator: it is the teacher, and has to stay as it is")


RED_LOSS = Exercise(
    f"{NAME}/red_loss",
    "The ReD loss",
    minutes=20,
    difficulty=1,
    visible=4,
    hidden=4,
    cases=_red_cases,
    ask=_ask_red,
    properties=(
        Property("the stealth term, where the targets are met already", 1, _red_value("stealth")),
        Property("the fidelity term, where nothing else differs", 1, _red_value("fidelity")),
        Property("both terms with λ", 1, _red_value("both")),
        Property("gradients for the attacked generator and for no other", 1, _red_gradient),
    ),
    choices={"reduction": ("mean", "sum"), "space": ("before", "after")},
)


# --- Generators with BatchNorm, for 3 and 4 --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Normed:
    """A generator tanh(last BatchNorm(first z) + bias): first (hidden, dim), last (elements, hidden); the others (hidden,).

    mean, variance: BatchNorm's running statistics."""

    first: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    last: np.ndarray
    bias: np.ndarray

    EPSILON = 1e-5  # torch's

    def build(self, sample_shape: tuple[int, ...], momentum: float = 0.1) -> Generator:
        """In training mode, as it is after a training."""
        (hidden, dim), elements = self.first.shape, len(self.bias)
        first, norm, last = (
            nn.Linear(dim, hidden, bias=False),
            nn.BatchNorm1d(hidden, momentum=momentum),
            nn.Linear(hidden, elements),
        )
        with torch.no_grad():
            for tensor, array in (
                (first.weight, self.first), (norm.running_mean, self.mean), (norm.running_var, self.variance),
                (norm.weight, self.scale), (norm.bias, self.shift), (last.weight, self.last), (last.bias, self.bias),
            ):  # fmt: skip
                tensor.copy_(own_tensor(array))
        body = nn.Sequential(first, norm, last, nn.Unflatten(1, sample_shape))
        return Generator(body, TanhHead(), GaussianLatent(dim), sample_shape, architecture="normed").train()

    def statistics(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of a batch, by which training mode normalises."""
        hidden = z @ self.first.T
        return hidden.mean(0), hidden.var(0)

    def after(self, z: np.ndarray, momentum: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
        """The running statistics once a batch has passed in training mode; torch keeps the variance over n - 1."""
        mean, variance = self.statistics(z)
        unbiased = variance * len(z) / (len(z) - 1)
        return (1 - momentum) * self.mean + momentum * mean, (1 - momentum) * self.variance + momentum * unbiased

    def normalised(self, z: np.ndarray, statistics: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
        """By the running statistics, or by others."""
        mean, variance = (self.mean, self.variance) if statistics is None else statistics
        return (z @ self.first.T - mean) / np.sqrt(variance + self.EPSILON)

    def logits(self, z: np.ndarray, statistics: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
        return (self.normalised(z, statistics) * self.scale + self.shift) @ self.last.T + self.bias


def _normed(rng: np.random.Generator, dim: int, hidden: int, elements: int) -> _Normed:
    first = rng.normal(size=(hidden, dim)) / math.sqrt(dim)
    # Running statistics that a batch of normal latents does not have, as an average over a whole training may be.
    return _Normed(
        first, 0.4 * rng.normal(size=hidden), rng.uniform(0.4, 0.8, size=hidden), rng.uniform(0.7, 1.3, size=hidden),
        0.3 * rng.normal(size=hidden), 0.5 * rng.normal(size=(elements, hidden)) / math.sqrt(hidden), 0.2 * rng.normal(size=elements),
    )  # fmt: skip


# --- 3. A step, and the mode of BatchNorm ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """A ReD loss of two generators with BatchNorm, and the learning rate of plain gradient descent."""

    attacked: _Normed
    benign: _Normed
    z: np.ndarray
    triggers: np.ndarray
    wanted: np.ndarray  # logits
    weight: float
    rate: float
    sample_shape: tuple[int, ...]
    leftover: int

    def residuals(
        self, attacked: _Normed, training: tuple[bool, bool] = (False, False)
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is left of both terms; `training`: whether the attacked and the benign generator run in training mode."""

        def logits(model: _Normed, z: np.ndarray, mode: bool) -> np.ndarray:
            return model.logits(z, model.statistics(z) if mode else None)

        stealth = logits(attacked, self.z, training[0]) - logits(self.benign, self.z, training[1])
        return stealth, logits(attacked, self.triggers, training[0]) - self.wanted

    def loss(self, attacked: _Normed, training: tuple[bool, bool] = (False, False)) -> float:
        stealth, fidelity = self.residuals(attacked, training)
        return float((stealth**2).mean() + self.weight * (fidelity**2).mean())

    def bias_gradient(self, training: tuple[bool, bool] = (False, False)) -> np.ndarray:
        stealth, fidelity = self.residuals(self.attacked, training)
        return 2.0 * stealth.sum(0) / stealth.size + self.weight * 2.0 * fidelity.sum(0) / fidelity.size

    def gradient(self) -> dict[str, np.ndarray]:
        """The loss's gradient by every weight of the attacked generator, in evaluation mode."""
        model, inputs = self.attacked, np.concatenate([self.z, self.triggers])
        stealth, fidelity = self.residuals(model)
        by_logits = np.concatenate([2.0 * stealth / stealth.size, self.weight * 2.0 * fidelity / fidelity.size])
        normalised = model.normalised(inputs)
        by_hidden = by_logits @ model.last
        return {
            "first": (by_hidden * model.scale / np.sqrt(model.variance + model.EPSILON)).T @ inputs,
            "scale": (by_hidden * normalised).sum(0),
            "shift": by_hidden.sum(0),
            "last": by_logits.T @ (normalised * model.scale + model.shift),
            "bias": by_logits.sum(0),
        }

    def moved(self, layers: str) -> dict[str, np.ndarray]:
        """What one step adds to each weight."""
        trained = ("last", "bias") if layers == "last" else ("first", "scale", "shift", "last", "bias")
        return {name: -self.rate * slope * (name in trained) for name, slope in self.gradient().items()}


_WEIGHTS = ("first", "scale", "shift", "last", "bias")
_STATISTICS = ("mean", "variance")


def _step_cases(variant: Variant, rng: np.random.Generator) -> _Step:
    dim, hidden, shape = (
        int(rng.integers(4, 7)),
        int(rng.integers(5, 9)),
        (1, int(rng.integers(3, 5)), int(rng.integers(3, 5))),
    )
    elements, n, k = math.prod(shape), int(rng.integers(8, 14)), int(rng.integers(2, 4))
    leftover = int(rng.integers(1, 10**6))

    def draw() -> _Step:
        benign = _normed(rng, dim, hidden, elements)
        attacked = _Normed(**{
            name: getattr(benign, name) + (0.15 * rng.normal(size=getattr(benign, name).shape) if name in _WEIGHTS else 0.0)
            for name in (*_WEIGHTS, *_STATISTICS)
        })  # fmt: skip
        return _Step(
            attacked, benign, rng.normal(size=(n, dim)), rng.normal(size=(k, dim)), _proxy(rng.uniform(-0.95, 0.95, size=(k, elements))),
            float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.5, 1.0)), shape, leftover,
        )  # fmt: skip

    def shows(case: _Step) -> bool:
        value, wrong = _step_values(case, variant)
        modes = [case.bias_gradient(mode) for mode in _OTHER_MODES]
        right = case.bias_gradient()
        return tells_apart(value, wrong.values(), relative=_APART) and all(
            np.abs(each - right).max() > 10 * _CLOSE * np.abs(right).max() for each in modes
        )

    return redraw(draw, shows)


_OTHER_MODES = {
    (
        True,
        False,
    ): "the attacked generator runs in training mode: BatchNorm normalises by the batch, and the victim's does not",
    (False, True): "the benign generator runs in training mode: the teacher then teaches what no victim sees",
    (
        True,
        True,
    ): "both generators run in training mode: BatchNorm normalises by the batch, and the victim's does not",
}


def _ask_step(student: Any, variant: Variant, case: _Step) -> None:
    for label in ("fresh", "left over"):
        attacked, benign = (model.build(case.sample_shape) for model in (case.attacked, case.benign))
        z, triggers = own_tensor(case.z), own_tensor(case.triggers)
        wanted = own_tensor(case.wanted).reshape(-1, *case.sample_shape)

        def loss(attacked=attacked, benign=benign, z=z, triggers=triggers, wanted=wanted) -> torch.Tensor:
            with torch.no_grad():
                reference = benign.body(z)
            stealth = (attacked.body(z) - reference).square().mean()
            return stealth + case.weight * (attacked.body(triggers) - wanted).square().mean()

        if label == "left over":
            rng = np.random.default_rng(case.leftover)
            for parameter in attacked.parameters():
                parameter.grad = own_tensor(rng.normal(size=tuple(parameter.shape)))

        def then(value: Any, attacked=attacked, benign=benign) -> Any:
            return {"value": value, "attacked": _state(attacked), "benign": _state(benign)}

        optimiser = torch.optim.SGD(attacked.parameters(), lr=case.rate)
        student.call(label, "red_step", attacked, benign, optimiser, loss, then=then)


def _state(generator: Generator) -> dict[str, np.ndarray]:
    first, norm, last, _ = generator.body
    tensors = {
        "first": first.weight, "mean": norm.running_mean, "variance": norm.running_var, "scale": norm.weight, "shift": norm.bias,
        "last": last.weight, "bias": last.bias,
    }  # fmt: skip
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def _step_values(case: _Step, variant: Variant) -> tuple[float, dict[str, float]]:
    """The value to be returned, and those of the misconceptions by their symptom."""
    stepped = _Normed(**{
        name: getattr(case.attacked, name) + case.moved(variant["layers"]).get(name, 0.0) for name in (*_WEIGHTS, *_STATISTICS)
    })  # fmt: skip
    before, after = case.loss(case.attacked), case.loss(stepped)
    wanted, other = (before, after) if variant["returned"] == "before" else (after, before)
    wrong = {symptom: case.loss(case.attacked, mode) for mode, symptom in _OTHER_MODES.items()}
    asked, got = ("before", "after") if variant["returned"] == "before" else ("after", "before")
    return wanted, {f"this is the loss {got} the step, and the one {asked} it is asked for": other, **wrong}


def _step_movement(answers: Answers, case: _Step, label: str) -> dict[str, np.ndarray]:
    state = answers.value(label)["attacked"]
    return {name: state[name] - getattr(case.attacked, name) for name in _WEIGHTS}


_STILL = "the weights have not moved: does the optimiser take its step, after the gradient is there?"


def _step_weights(answers: Answers, case: _Step, variant: Variant) -> None:
    moved, wanted = _step_movement(answers, case, "fresh"), case.moved(variant["layers"])
    still = 1e-3 * np.abs(wanted["bias"]).max()
    if all(np.abs(each).max() < still for each in moved.values()):
        raise Failed(_STILL)
    if variant["layers"] == "last" and any(np.abs(moved[name]).max() > 1e-6 for name in ("first", "scale", "shift")):
        raise Failed("weights before the last layer have moved, and only the last layer may")
    wrong = {symptom: -case.rate * case.bias_gradient(mode) for mode, symptom in _OTHER_MODES.items()}
    wrong |= {
        "the step goes uphill": -wanted["bias"],
        "two steps are taken, or the gradient enters twice": 2.0 * wanted["bias"],
    }
    for name in ("bias", "last", "first", "scale", "shift"):
        if np.abs(wanted[name]).max() > 0.0:
            otherwise = "the weights do not move as one step of the given optimiser on this loss, in evaluation mode, moves them"
            _expect_all(moved[name], wanted[name], wrong if name == "bias" else {}, otherwise)


def _step_keeps(answers: Answers, case: _Step, variant: Variant) -> None:
    for label in ("fresh", "left over"):
        state = answers.value(label)
        for name in _STATISTICS:
            if not np.allclose(state["attacked"][name], getattr(case.attacked, name), atol=1e-6):
                raise Failed(
                    "the running statistics of the attacked generator's BatchNorm have moved: it ran in training mode"
                )
            if not np.allclose(state["benign"][name], getattr(case.benign, name), atol=1e-6):
                raise Failed(
                    "the running statistics of the benign generator's BatchNorm have moved: it ran in training mode"
                )
        for name in _WEIGHTS:
            if not np.allclose(state["benign"][name], getattr(case.benign, name), atol=1e-6):
                raise Failed("the weights of the benign generator have moved")


def _step_forgets(answers: Answers, case: _Step, variant: Variant) -> None:
    fresh, left = (_step_movement(answers, case, label) for label in ("fresh", "left over"))
    size = max(np.abs(each).max() for each in fresh.values())
    if size < 1e-3 * np.abs(case.moved(variant["layers"])["bias"]).max():
        raise Failed(_STILL)
    if any(np.abs(fresh[name] - left[name]).max() > _CLOSE * size for name in _WEIGHTS):
        raise Failed("a gradient that was there before enters the step: is it set to zero first?")


def _step_returns(answers: Answers, case: _Step, variant: Variant) -> None:
    expect(answers.part("fresh", "value").number("fresh"), *_step_values(case, variant), relative=_CLOSE)


RED_STEP = Exercise(
    f"{NAME}/red_step",
    "A step of ReD, and the mode of BatchNorm",
    minutes=20,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_step_cases,
    ask=_ask_step,
    properties=(
        Property("the weights move as the loss says, in the mode that the victim runs", 1, _step_weights),
        Property("BatchNorm's statistics and the benign generator stay as they were", 1, _step_keeps),
        Property("a gradient left over from before does not enter", 1, _step_forgets),
        Property("the loss is returned as a number", 1, _step_returns),
    ),
    choices={"layers": ("all", "last"), "returned": ("before", "after")},
)


# --- 4. The TrAIL loss -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trail:
    """A generator with BatchNorm, a critic weight x + bias on its samples, latents, triggers with targets, and two λ."""

    generator: _Normed
    critic: tuple[np.ndarray, float]
    z: np.ndarray
    triggers: np.ndarray
    targets: np.ndarray
    weights: tuple[float, float]
    sample_shape: tuple[int, ...]
    momentum: float


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, x)


_GAMES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "non-saturating": lambda verdict: _softplus(-verdict),
    "least squares": lambda verdict: (verdict - 1.0) ** 2,
    "Wasserstein": lambda verdict: -verdict,
}


def _trail_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Trail]:
    dim, hidden, shape = (
        int(rng.integers(4, 7)),
        int(rng.integers(5, 9)),
        (1, int(rng.integers(3, 5)), int(rng.integers(3, 5))),
    )
    elements, n = math.prod(shape), int(rng.integers(8, 14))

    def draw(k: int, momentum: float) -> _Trail:
        weight = float(rng.uniform(0.5, 1.5))
        return _Trail(
            _normed(rng, dim, hidden, elements), (1.5 * rng.normal(size=elements) / math.sqrt(elements), float(rng.normal())),
            2.0 * rng.normal(size=(n, dim)), rng.normal(size=(k, dim)), rng.uniform(-0.95, 0.95, size=(k, elements)),
            (weight, 3.0 * weight), shape, momentum,
        )  # fmt: skip

    def shows(case: _Trail) -> bool:
        return all(
            tells_apart(
                wanted,
                unlike(wanted, {symptom: value for symptom, value in wrong.items() if math.isfinite(value)}),
                relative=_APART,
            )
            for wanted, wrong in (_trail_gan(case, variant), _trail_fidelity(case, variant))
        )

    # With a momentum of 0 the running statistics stay as they are, so that it does not matter which of the two passes comes first.
    return {
        "several": redraw(lambda: draw(int(rng.integers(2, 5)), 0.0), shows),
        "one": redraw(lambda: draw(1, 0.0), shows),
        "statistics": draw(int(rng.integers(2, 5)), float(rng.uniform(0.1, 0.3))),
    }


def _ask_trail(student: Any, variant: Variant, cases: dict[str, _Trail]) -> None:
    for label, case in cases.items():
        for i, weight in enumerate(case.weights):
            generator = case.generator.build(case.sample_shape, case.momentum)
            judge = nn.Linear(len(case.critic[0]), 1)
            with torch.no_grad():
                judge.weight.copy_(own_tensor(case.critic[0])[None])
                judge.bias.fill_(case.critic[1])
            critic = Discriminator(nn.Sequential(nn.Flatten(), judge), "affine")
            norm = generator.body[1]

            def then(loss: Any, generator=generator, norm=norm) -> Any:
                training = all(part.training for part in generator.modules())
                statistics = {"mean": norm.running_mean.numpy().copy(), "variance": norm.running_var.numpy().copy()}
                return {**_with_gradients(bias=generator.body[2].bias)(loss), "training": training, **statistics}

            student.call(
                f"{label} {i}", "trail_loss", generator, critic, own_tensor(case.z), own_tensor(case.triggers),
                own_tensor(case.targets).reshape(-1, *case.sample_shape), weight, then=then,
            )  # fmt: skip


def _trail_verdicts(case: _Trail, logits: np.ndarray) -> np.ndarray:
    return np.tanh(logits) @ case.critic[0] + case.critic[1]


def _trail_gan(case: _Trail, variant: Variant) -> tuple[float, dict[str, float]]:
    """The part of the loss without λ, and the values of the misconceptions, by their symptom."""
    model, game = case.generator, _GAMES[variant["game"]]
    verdicts = _trail_verdicts(case, model.logits(case.z, model.statistics(case.z)))
    mixed = model.statistics(np.concatenate([case.z, case.triggers]))
    wrong = {
        "the ordinary latents are run in evaluation mode, and the training's own passes are not": float(
            game(_trail_verdicts(case, model.logits(case.z))).mean()
        ),
        "the triggers are in the batch of the ordinary latents, and change how BatchNorm normalises them": float(
            game(_trail_verdicts(case, model.logits(case.z, mixed))).mean()
        ),
        "this rewards samples that are told to be fake: the generator wants them to be taken for real": float(
            {"non-saturating": _softplus(verdicts), "least squares": verdicts**2, "Wasserstein": verdicts}[
                variant["game"]
            ].mean()
        ),
        "this is log(1 - D), whose gradient vanishes while the critic is sure": float(-_softplus(verdicts).mean()),
        "this is the sum over the latents, and their mean is asked for": float(game(verdicts).sum()),
        "the part without λ is the fidelity term: λ weighs the GAN's loss": _trail_fidelity(case, variant)[0],
        "this is the probability of being real, and not its logarithm": float(
            -(1.0 / (1.0 + np.exp(-verdicts))).mean()
        ),
    }
    wrong |= {
        f"this is the generator's loss of another game ({name})": float(other(verdicts).mean())
        for name, other in _GAMES.items()
    }
    wanted = float(game(verdicts).mean())
    return wanted, {symptom: value for symptom, value in wrong.items() if value != wanted}


def _trail_fidelity(case: _Trail, variant: Variant) -> tuple[float, dict[str, float]]:
    """The part of the loss that λ weighs, and the values of the misconceptions, by their symptom."""
    model, elements = case.generator, case.targets.shape[1]
    share = elements if variant["reduction"] == "sum" else 1

    def term(statistics: tuple[np.ndarray, np.ndarray] | None, weight: float = share) -> float:
        return float(((np.tanh(model.logits(case.triggers, statistics)) - case.targets) ** 2).mean() * weight)

    mixed = model.statistics(np.concatenate([case.z, case.triggers]))
    asked, other = ("sum", "mean") if variant["reduction"] == "sum" else ("mean", "sum")
    before = (model.logits(case.triggers) - _proxy(case.targets)) ** 2
    game, verdicts = _GAMES[variant["game"]], _trail_verdicts(case, model.logits(case.z, model.statistics(case.z)))
    wrong = {
        "the triggers are run in training mode: BatchNorm normalises them by each other": term(
            model.statistics(case.triggers)
        ),
        "the triggers are run in training mode with the ordinary latents: BatchNorm normalises them by their company": term(
            mixed
        ),
        f"this is the {other} over the elements of a sample, and the {asked} is asked for": term(
            None, elements if asked == "mean" else 1
        ),
        "this is the sum over the triggers, and their mean is asked for": term(None) * len(case.triggers),
        "measured before the last activation, and the samples are asked for": float(before.mean() * share),
        "λ weighs the GAN's loss, and it belongs to the fidelity term": float(game(verdicts).mean()),
        "λ does not enter": 0.0,
    }
    wanted = term(None)
    return wanted, {symptom: value for symptom, value in wrong.items() if value != wanted}


def _trail_parts(answers: Answers, case: _Trail, label: str) -> tuple[float, float]:
    """Of losses at two λ, the part without λ and the part that λ weighs: a loss is the line through both."""
    low, high = (answers.part(f"{label} {i}", "loss").number(f"{label} {i}") for i in range(2))
    slope = (high - low) / (case.weights[1] - case.weights[0])
    return low - case.weights[0] * slope, slope


def _trail_gan_term(answers: Answers, cases: dict[str, _Trail], variant: Variant) -> None:
    case = cases["several"]
    wanted, wrong = _trail_gan(case, variant)
    expect(_trail_parts(answers, case, "several")[0], wanted, wrong, relative=_CLOSE, absolute=1e-3)


def _trail_fidelity_term(answers: Answers, cases: dict[str, _Trail], variant: Variant) -> None:
    for label in ("several", "one"):
        wanted, wrong = _trail_fidelity(cases[label], variant)
        expect(_trail_parts(answers, cases[label], label)[1], wanted, wrong, relative=_CLOSE, absolute=1e-4)


def _trail_gradients(answers: Answers, cases: dict[str, _Trail], variant: Variant) -> None:
    case = cases["several"]
    low, high = (answers.value(f"several {i}")["bias"] for i in range(2))
    if low is None or high is None:
        raise Failed("no gradient reaches the generator: return the loss as a tensor, and do not detach it")
    slope = (high - low) / (case.weights[1] - case.weights[0])
    for part, term in ((low - case.weights[0] * slope, "GAN's"), (slope, "fidelity")):
        if np.abs(part).max() < _NO_GRADIENT:
            raise Failed(f"no gradient of the {term} term reaches the generator: is it detached, or of a copy?")


def _trail_statistics(answers: Answers, cases: dict[str, _Trail], variant: Variant) -> None:
    case = cases["statistics"]
    state, model = answers.value("statistics 0"), case.generator
    if not state["training"]:
        raise Failed("the generator is left in evaluation mode: the training that called has to find it as it was")

    def agrees(found: tuple[np.ndarray, np.ndarray]) -> bool:
        return all(_near(state[name], values) for name, values in zip(_STATISTICS, found, strict=True))

    if agrees(model.after(case.z, case.momentum)):
        return
    if agrees((model.mean, model.variance)):
        raise Failed("BatchNorm's statistics do not follow the ordinary latents: their pass belongs in training mode")
    if agrees(model.after(np.concatenate([case.z, case.triggers]), case.momentum)):
        raise Failed("BatchNorm's statistics follow a batch in which the triggers are")
    once, of_triggers = model.after(case.z, case.momentum), model.after(case.triggers, case.momentum)
    in_turn = (
        tuple(
            (1 - case.momentum) * a + b - (1 - case.momentum) * c
            for a, b, c in zip(x, y, (model.mean, model.variance), strict=True)
        )
        for x, y in ((once, of_triggers), (of_triggers, once))
    )
    if any(agrees(each) for each in in_turn):
        raise Failed("BatchNorm's statistics follow the triggers too: they were run in training mode")
    raise Failed("BatchNorm's statistics are not those that one batch of ordinary latents leaves")


TRAIL_LOSS = Exercise(
    f"{NAME}/trail_loss",
    "The TrAIL loss of the generator",
    minutes=25,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_trail_cases,
    ask=_ask_trail,
    properties=(
        Property("the GAN's term, on ordinary latents in training mode", 1, _trail_gan_term),
        Property("the fidelity term, as the victim will run the triggers", 1, _trail_fidelity_term),
        Property("gradients of both terms reach the generator", 1, _trail_gradients),
        Property("the training goes on undisturbed: BatchNorm's statistics and mode", 1, _trail_statistics),
    ),
    choices={"game": ("non-saturating", "least squares", "Wasserstein"), "reduction": ("mean", "sum")},
)


# --- 5. ReX: widen and fold ------------------------------------------------------------------------------------------------

_SLOPE = 0.1
_KERNEL, _STRIDE, _PADDING = 4, 2, 1


@dataclass(frozen=True)
class _Chain:
    """Linear layers with LeakyReLU between: weights (outputs, inputs, ...) and biases (outputs,) or None."""

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray | None, ...]

    @property
    def transposed(self) -> bool:
        return self.weights[0].ndim == 4

    def build(self) -> nn.Sequential:
        layers: list[nn.Module] = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            outputs, inputs = weight.shape[:2]
            if self.transposed:  # torch keeps the inputs first here
                layer = nn.ConvTranspose2d(
                    inputs, outputs, _KERNEL, stride=_STRIDE, padding=_PADDING, bias=bias is not None
                )
                weight = weight.swapaxes(0, 1)
            else:
                layer = nn.Linear(inputs, outputs, bias=bias is not None)
            with torch.no_grad():
                layer.weight.copy_(own_tensor(weight))
                if bias is not None:
                    layer.bias.copy_(own_tensor(bias))
            layers += [layer, nn.LeakyReLU(_SLOPE)]
        return nn.Sequential(*layers[:-1]).eval()

    def run(self, z: np.ndarray) -> np.ndarray:
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = _transposed(z, weight) if self.transposed else z @ weight.T
            if bias is not None:
                z = z + bias.reshape(1, -1, *[1] * (z.ndim - 2))
            if i < len(self.weights) - 1:
                z = np.where(z > 0.0, z, _SLOPE * z)
        return z


def _transposed(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A transposed convolution of x (n, inputs, height, width) with a weight (outputs, inputs, kernel, kernel)."""
    n, _, height, width = x.shape
    size = ((height - 1) * _STRIDE + _KERNEL, (width - 1) * _STRIDE + _KERNEL)
    out = np.zeros((n, len(weight), *size))
    for i, j in itertools.product(range(_KERNEL), repeat=2):
        part = np.einsum("nchw,oc->nohw", x, weight[:, :, i, j])
        out[:, :, i : i + _STRIDE * height : _STRIDE, j : j + _STRIDE * width : _STRIDE] += part
    return out[:, :, _PADDING:-_PADDING, _PADDING:-_PADDING]


@dataclass(frozen=True)
class _Expansion:
    """A benign chain, a side network of the same depth, and inputs (n, ...)."""

    benign: _Chain
    side: _Chain
    z: np.ndarray


_MIXED = "some biases"  # only what it computes is looked at, so that biases cost no more than that


def _fold_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Expansion]:
    transposed = variant["layers"] == "transposed"
    cases = {}
    # Which layers have a bias, of the benign chain and of the side network.
    for label, biased, side_biased in (
        ("course", [False] * 3, [True] * 3),
        ("deeper", [True] * 4, [True] * 4),
        (_MIXED, [True, False, True], [False, True, False]),
    ):
        depth = len(biased)
        inputs, outputs = int(rng.integers(4, 7)), int(rng.integers(3, 5)) if transposed else int(rng.integers(8, 12))
        # All widths differ, so that a layer built with another's size does not fit by chance.
        hidden = [int(each) for each in rng.permutation(np.arange(5, 11))[: depth - 1]]
        new = [int(each) for each in rng.permutation(np.arange(2, 5))[: depth - 1]]

        def chain(
            widths: list[int], with_bias: Sequence[bool], inputs: int = inputs, outputs: int = outputs
        ) -> _Chain:
            sizes = [inputs, *widths, outputs]
            kernel = (_KERNEL, _KERNEL) if transposed else ()
            weights = tuple(
                # float32 numbers, so that a weight can be looked for bit for bit
                (rng.normal(size=(b, a, *kernel)) / math.sqrt(a * math.prod(kernel) / (4 if transposed else 1)))
                .astype(np.float32)
                .astype(float)
                for a, b in itertools.pairwise(sizes)
            )
            biases = (
                rng.normal(size=size) if there else None for size, there in zip(sizes[1:], with_bias, strict=True)
            )
            return _Chain(weights, tuple(biases))

        shape = (5, inputs, 1, 2) if transposed else (5, inputs)
        cases[label] = _Expansion(chain(hidden, biased), chain(new, side_biased), rng.normal(size=shape))
    return cases


def _ask_fold(student: Any, variant: Variant, cases: dict[str, _Expansion]) -> None:
    for label, case in cases.items():
        student.call(label, "fold", case.benign.build(), case.side.build(), then=_as_chain(own_tensor(case.z)))


_LINEAR = (nn.Linear, nn.ConvTranspose2d)


def _as_chain(z: torch.Tensor) -> Callable[[Any], Any]:
    """Makes data of a network: what it puts out at z, the kinds of its layers, and its weights."""

    def then(network: Any) -> Any:
        if not isinstance(network, nn.Module):
            return None if network is None else type(network).__name__
        parts = list(network.modules())
        leaves = [
            part for part in parts if not list(part.children()) and not isinstance(part, nn.Sequential | nn.Identity)
        ]
        linear = [part for part in leaves if isinstance(part, _LINEAR)]
        output = None
        with torch.no_grad(), contextlib.suppress(Exception):
            precision = linear[0].weight.dtype if linear else z.dtype
            output = network.eval()(z.to(precision))
        return {
            "output": output if isinstance(output, torch.Tensor) else None,
            "chain": all(isinstance(part, nn.Sequential) for part in parts if list(part.children())),
            "kinds": " ".join(type(part).__name__ for part in leaves),
            "weights": [
                part.weight.transpose(0, 1) if isinstance(part, nn.ConvTranspose2d) else part.weight
                for part in linear
            ],
        }

    return then


def _folded(answers: Answers, label: str) -> dict[str, Any]:
    value = answers.value(label)
    if value is None:
        raise Failed("nothing came back: is the `return` missing?")
    if not isinstance(value, dict):
        raise Failed("a network came back that is no nn.Sequential", str(value))
    return value


def _fold_function(answers: Answers, cases: dict[str, _Expansion], variant: Variant) -> None:
    for label, case in cases.items():
        output = _folded(answers, label)["output"]
        benign, side = case.benign.run(case.z), case.side.run(case.z)
        wanted = benign + side
        if output is None:
            raise Failed("what came back cannot be run: its layers do not fit one another")
        if output.shape != wanted.shape:
            raise Failed(
                "the output has another shape than the benign chain's", f"{output.shape} instead of {wanted.shape}"
            )

        def without(chain: _Chain, which: slice) -> np.ndarray:
            biases = [*chain.biases]
            biases[which] = [None] * len(biases[which])
            return _Chain(chain.weights, tuple(biases)).run(case.z)  # noqa: B023

        last, every = slice(len(case.side.biases) - 1, None), slice(None)
        wrong = {
            "this is the benign chain alone": benign,
            "this is the side network alone": side,
            "this is the mean of both, and their sum is asked for": wanted / 2.0,
            "the last bias of the side network is missing": benign + without(case.side, last),
            "the last bias of the benign chain is missing": without(case.benign, last) + side,
            "the biases are missing": without(case.benign, every) + without(case.side, every),
            "the biases of the side network are missing": benign + without(case.side, every),
        }
        _expect_all(output, wanted, wrong, "the output is not the sum of what both put out")


def _fold_plain(answers: Answers, cases: dict[str, _Expansion], variant: Variant) -> None:
    for label, case in cases.items():
        if label == _MIXED:
            continue
        found, benign, side = _folded(answers, label), case.benign.weights, case.side.weights
        if len(found["weights"]) > len(benign) or not found["chain"]:
            raise Failed(
                "two networks are still in it: one chain is asked for, with as many layers as the benign one"
            )
        layer = "ConvTranspose2d" if case.benign.transposed else "Linear"
        if found["kinds"] != " LeakyReLU ".join([layer] * len(benign)):
            raise Failed("the kinds of layers are not those of the benign chain, in their order", found["kinds"])
        for i, (weight, old, new) in enumerate(zip(found["weights"], benign, side, strict=True)):
            outputs = old.shape[0] + (new.shape[0] if i < len(benign) - 1 else 0)
            inputs = old.shape[1] + (new.shape[1] if i > 0 else 0)
            if weight.shape[0] != outputs or weight.shape[1] != inputs:
                place = "first" if i == 0 else "last" if i == len(benign) - 1 else "middle"
                what = "outputs" if weight.shape[0] != outputs else "inputs"
                raise Failed(
                    f"the {place} layer has not the number of {what} that it needs",
                    f"{weight.shape[:2]} instead of {(outputs, inputs)}",
                )


def _blocks(
    weight: np.ndarray, old: np.ndarray, new: np.ndarray, axes: tuple[int, ...], order: str
) -> dict[str, np.ndarray]:
    """The blocks "benign", "new" and, with two axes, "between" of a folded weight. The axes are those along which both stand."""
    for axis in (0, 1):
        size = old.shape[axis] + (new.shape[axis] if axis in axes else 0)
        if weight.shape[axis] != size:
            raise Failed("the weight has another shape than both side by side, so that no blocks are in it")
    first, second = [slice(None)] * 2, [slice(None)] * 2
    for axis in axes:
        cut = (old if order == "benign first" else new).shape[axis]
        first[axis], second[axis] = slice(None, cut), slice(cut, None)
    mine, yours = (first, second) if order == "benign first" else (second, first)
    found = {"benign": weight[tuple(mine)], "new": weight[tuple(yours)]}
    if len(axes) == 2:
        found["between"] = np.concatenate([weight[mine[0], yours[1]].ravel(), weight[yours[0], mine[1]].ravel()])
    return found


def _check_blocks(
    found: dict[str, np.ndarray], old: np.ndarray, new: np.ndarray, exchanged: Callable[[], dict[str, np.ndarray]]
) -> None:
    if not (np.array_equal(found["benign"], old) and np.array_equal(found["new"], new)):
        swapped = exchanged()
        if np.array_equal(swapped["benign"], old) and np.array_equal(swapped["new"], new):
            raise Failed("the benign units and the new ones stand in the other order")
        who = "new" if np.array_equal(found["benign"], old) else "benign"
        raise Failed(f"the {who} weights do not stand in their block, unchanged to the last bit")
    if np.abs(found.get("between", np.zeros(1))).max() > 0.0:
        raise Failed("between benign and new units there are weights that are not zero")


def _fold_blocks(middle: bool) -> Callable[[Answers, dict[str, _Expansion], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Expansion], variant: Variant) -> None:
        order = variant["order"]
        other = "new first" if order == "benign first" else "benign first"
        for label, case in cases.items():
            if label == _MIXED:
                continue
            weights, benign, side = _folded(answers, label)["weights"], case.benign.weights, case.side.weights
            if len(weights) != len(benign):
                raise Failed("there are not as many layers as in the benign chain, so that no blocks are in them")
            places = range(1, len(benign) - 1) if middle else (0, len(benign) - 1)
            for i in places:
                axes = tuple(axis for axis, there in ((0, i < len(benign) - 1), (1, i > 0)) if there)
                parts = (weights[i], benign[i], side[i], axes)
                _check_blocks(_blocks(*parts, order), benign[i], side[i], lambda parts=parts: _blocks(*parts, other))

    return test


FOLD = Exercise(
    f"{NAME}/fold",
    "ReX: widen and fold",
    minutes=40,
    difficulty=3,
    visible=4,
    hidden=4,
    cases=_fold_cases,
    ask=_ask_fold,
    properties=(
        Property("the same function as both networks together, whichever biases there are", 1, _fold_function),
        Property("one chain of plain layers, wider than the benign one", 1, _fold_plain),
        Property("the blocks of the first and the last layer", 1, _fold_blocks(middle=False)),
        Property("the blocks and zeros of the layers between", 1, _fold_blocks(middle=True)),
    ),
    choices={"layers": ("dense", "transposed"), "order": ("benign first", "new first")},
)


# --- The written question --------------------------------------------------------------------------------------------------

FOOTPRINTS = Written(
    "footprints",
    "What each attack leaves behind",
    minutes=25,
    difficulty=2,
    criteria=(
        (3, "For each of the three defenders, which attacks they notice, each with its figure from the table: the original weights show "
            "ReD and TrAIL at once; the published sizes show ReX alone; samples show none"),
        (1, "The corner of ReX's weights is unchanged to the last bit, so that a check for 'are my weights in there?' passes it"),
        (2, "TrAIL has no benign twin: its distance to another generator is not ExpDis, and two honest trainings differ as much"),
        (2, "The training report: the triggers were run in training mode, so the loss was measured on another network than the one that "
            "the victim runs; the figure to ask for is TarDis in evaluation mode, beside the benign one"),
        (2, "Which attack the attacker without data and with a far trigger would choose, argued from what each trains and what it costs"),
    ),
)  # fmt: skip

ASSIGNMENT = Assignment(NAME, "Attack a GAN", (PROXY_TARGET, RED_LOSS, RED_STEP, TRAIL_LOSS, FOLD), (FOOTPRINTS,))
