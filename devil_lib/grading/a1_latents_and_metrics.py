"""A1: the laws that latents are drawn from, and the four figures by which an attack is judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

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
)
from devil_lib.grading.generators import Rings, affine_generator, own_tensor, ring_generator
from devil_lib.models import GaussianLatent, UniformLatent

NAME = "a1_latents_and_metrics"


# --- 1. Sampling laws ------------------------------------------------------------------------------------------------------

# Bounds on what 4,000 latents of 5 to 9 coordinates show, with the worst of 300 seeds beside them.
_MEAN = 0.05  # of the standard deviation: 0.018
_SPREAD = 0.04  # relative: 0.014
_KURTOSIS = 0.3  # 3 for the normal law, 1.8 for the uniform one: 0.11
_CORRELATION = 0.12  # the greatest of all pairs of coordinates: 0.061
_SAMPLES = 4000


def _latent_cases(variant: Variant, rng: np.random.Generator) -> dict[str, int]:
    return {
        "n": _SAMPLES,
        "few": int(rng.integers(2, 4)),
        "dim": int(rng.integers(5, 10)),
        "seed": int(rng.integers(1, 10**6)),
    }


def _ask_latents(student: Any, variant: Variant, cases: dict[str, int]) -> None:
    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(cases["seed"])

    for law in ("normal", "uniform"):
        rng = generator()
        student.call(f"{law}, few", "sample_latents", law, cases["few"], cases["dim"], generator())
        student.call(law, "sample_latents", law, cases["n"], cases["dim"], rng)
        student.call(f"{law}, next", "sample_latents", law, cases["n"], cases["dim"], rng)
        student.call(f"{law}, again", "sample_latents", law, cases["n"], cases["dim"], generator())


def _shape_of_latents(answers: Answers, cases: dict[str, int], variant: Variant) -> None:
    for law in ("normal", "uniform"):
        for label, n in ((law, cases["n"]), (f"{law}, few", cases["few"])):
            shape, wanted = answers.array(label).shape, (n, cases["dim"])
            if shape == wanted[::-1]:
                raise Failed("rows and columns are exchanged: one row is one latent")
            if shape != wanted:
                raise Failed("the shape is not (n, dim)", f"{shape} instead of {wanted}")


def _check_law(z: np.ndarray, deviation: float, kurtosis: float, edge: float | None) -> None:
    """Whether latents (n, dim) follow the law: first what a known mistake shows, then the moments."""
    if not np.isfinite(z).all():
        raise Failed("the latents hold NaN or infinity")
    centred = z - z.mean(0)
    if centred.std(0).min() < 0.5 * z.std():
        raise Failed("all latents are (almost) the same: each has to be a draw of its own")
    if edge is not None:
        if z.min() >= 0.0:
            raise Failed("the lower half of the interval never comes", f"the least number is {z.min():.3g}")
        if np.abs(z).max() > 1.001 * edge:
            raise Failed("numbers outside the interval", f"the greatest is {np.abs(z).max():.3g}, the edge {edge:g}")
    norms = np.linalg.norm(z, axis=1)
    if norms.std() < 0.01 * norms.mean():
        raise Failed("all latents have the same norm: they lie on a sphere, which is not the law")
    if abs(z.mean()) > _MEAN * deviation:
        raise Failed("the mean is not zero", f"it is {z.mean():.3g}")
    if abs(z.std() / deviation - 1.0) > _SPREAD:
        raise Failed("the standard deviation is not the law's", f"{z.std():.3g} instead of {deviation:.3g}")
    found = (centred**4).mean() / (centred**2).mean() ** 2
    if abs(found - kurtosis) > _KURTOSIS:
        raise Failed(
            "mean and spread are right, but the shape is another law's",
            f"fourth moment {found:.2f} instead of {kurtosis:g}",
        )
    correlation = np.abs(np.corrcoef(z, rowvar=False) - np.eye(z.shape[1])).max()
    if correlation > _CORRELATION:
        raise Failed("the coordinates of a latent depend on one another", f"correlation {correlation:.2f}")


def _law_of_latents(law: str) -> Callable[[Answers, dict[str, int], Variant], None]:
    def test(answers: Answers, cases: dict[str, int], variant: Variant) -> None:
        # Exchanged rows and columns are another property's concern.
        flat = answers.array(law, size=cases["n"] * cases["dim"])
        z = flat.T if flat.shape == (cases["dim"], cases["n"]) else flat.reshape(cases["n"], cases["dim"])
        if law == "normal":
            _check_law(z, variant["deviation"], 3.0, None)
        else:
            _check_law(z, variant["edge"] / math.sqrt(3.0), 1.8, variant["edge"])

    return test


def _latents_from_generator(answers: Answers, cases: dict[str, int], variant: Variant) -> None:
    for law in ("normal", "uniform"):
        first, again, following = (answers.array(label) for label in (law, f"{law}, again", f"{law}, next"))
        if first.shape != again.shape or not np.array_equal(first, again):
            raise Failed("a generator in the same state gives other latents: are they drawn with `rng`?")
        if first.shape == following.shape and np.array_equal(first, following):
            raise Failed("the second call gives the latents of the first: is the generator set back inside?")


SAMPLE_LATENTS = Exercise(
    f"{NAME}/sample_latents",
    "Sampling laws",
    minutes=15,
    difficulty=1,
    visible=4,
    hidden=4,
    cases=_latent_cases,
    ask=_ask_latents,
    properties=(
        Property("one row for each latent", 1, _shape_of_latents),
        Property("the normal law", 1, _law_of_latents("normal")),
        Property("the uniform law", 1, _law_of_latents("uniform")),
        Property("drawn with the generator that was given", 1, _latents_from_generator),
    ),
    choices={"deviation": (1.0, 0.5, 2.0), "edge": (1.0, 0.25, 3.0)},
)


# --- 2. Target distortion --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pairs:
    """A generator tanh(weight z + bias) with (k, dim) triggers and (k, elements) targets."""

    weight: np.ndarray
    bias: np.ndarray
    triggers: np.ndarray
    targets: np.ndarray
    sample_shape: tuple[int, ...]

    @property
    def logits(self) -> np.ndarray:
        return self.triggers @ self.weight.T + self.bias


def _pairs(rng: np.random.Generator, k: int, sample_shape: tuple[int, ...]) -> _Pairs:
    dim, elements = int(rng.integers(4, 8)), math.prod(sample_shape)
    return _Pairs(
        rng.normal(size=(elements, dim)) / math.sqrt(dim),
        rng.normal(size=elements),
        rng.normal(size=(k, dim)),
        rng.uniform(-1.0, 1.0, size=(k, elements)),
        sample_shape,
    )


def _tardis_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Pairs]:
    picture = (1, int(rng.integers(6, 10)), int(rng.integers(6, 10)))

    def shows(case: _Pairs) -> bool:
        wanted, wrong = _tardis_values(case, variant)
        return tells_apart(wanted, _unlike(wanted, wrong), relative=0.01)

    return {
        "one": _pairs(rng, 1, picture),
        "several": redraw(lambda: _pairs(rng, int(rng.integers(3, 6)), picture), shows),
        "sounds": redraw(lambda: _pairs(rng, int(rng.integers(2, 4)), (1, int(rng.integers(40, 90)))), shows),
    }


def _unlike(wanted: float, wrong: dict[str, float]) -> list[float]:
    """As `exercise.unlike`, but equal to the last digit: what comes close is drawn again, as the cases of a key always were."""
    return [value for value in wrong.values() if value != wanted]


def _ask_tardis(student: Any, variant: Variant, cases: dict[str, _Pairs]) -> None:
    for label, case in cases.items():
        generator = affine_generator(
            case.weight, case.bias, case.sample_shape, GaussianLatent(case.weight.shape[1]), tanh=True
        )
        targets = own_tensor(case.targets).reshape(-1, *case.sample_shape)
        student.call(label, "tardis", generator, own_tensor(case.triggers), targets)


_OVER_PAIRS = {"sum": np.mean, "mean": np.mean, "worst": np.max}


def _tardis_values(case: _Pairs, variant: Variant) -> tuple[float, dict[str, float]]:
    """The right value and those of the misconceptions, by their symptom."""
    reduction, levels = variant["reduction"], variant["levels"]
    share = 1.0 / case.targets.shape[1] if reduction == "mean" else 1.0
    over_pairs = _OVER_PAIRS[reduction]
    made = np.tanh(case.logits)
    squares = (levels * (made - case.targets)) ** 2
    each = squares.sum(1) * share
    wanted = over_pairs(each)
    across = ((levels * (made[:, None] - case.targets[None])) ** 2).sum(2) * share
    wrong = {
        "this is the mean over the elements, and the sum over them is asked for": over_pairs(squares.mean(1)),
        "this is the sum over the elements, and the mean over them is asked for": over_pairs(squares.sum(1)),
        "this is a distance, and its square is asked for": over_pairs(np.sqrt(each)),
        "this is the root of the TarDis": math.sqrt(wanted),
        "this adds the absolute differences, not their squares": over_pairs(np.sqrt(squares).sum(1)) * share,
        "this is the sum over the pairs": each.sum(),
        "this is the mean over the pairs": each.mean(),
        "this is the greatest of the pairs": each.max(),
        "every sample is compared with every target, and not only with its own": across.mean(),
        "measured before the last activation: the sample is what the head makes of it": over_pairs(
            ((levels * (case.logits - case.targets)) ** 2).sum(1) * share
        ),
        "the samples are taken in other units than asked for": wanted / levels**2,
    }
    return float(wanted), {symptom: float(value) for symptom, value in wrong.items()}


def _tardis_value(label: str) -> Callable[[Answers, dict[str, _Pairs], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Pairs], variant: Variant) -> None:
        expect(answers.number(label), *_tardis_values(cases[label], variant), relative=1e-3)

    return test


TARDIS = Exercise(
    f"{NAME}/tardis",
    "Target distortion",
    minutes=15,
    difficulty=1,
    visible=4,
    hidden=4,
    cases=_tardis_cases,
    ask=_ask_tardis,
    properties=(
        Property("one trigger and its target", 2, _tardis_value("one")),
        Property("several pairs", 1, _tardis_value("several")),
        Property("sounds instead of pictures", 1, _tardis_value("sounds")),
    ),
    choices={"reduction": ("sum", "mean", "worst"), "levels": (1.0, 127.5)},
)


# --- 3. Expected distortion ------------------------------------------------------------------------------------------------

# The mean of a quadratic form over 4,000 latents: the worst of four draws x 300 seeds was off by 0.063 relative, and by 0.27 dB.
# The cases are drawn such that every misconception is off by at least 0.25, or 1.35 dB.
_EXPDIS = 0.1
_EXPDIS_DB = 0.45
_LAWS = {"normal": (GaussianLatent, 1.0), "uniform": (UniformLatent, 1.0 / 3.0)}  # with the variance of a coordinate


@dataclass(frozen=True)
class _TwoAffine:
    """Two generators weight z + bias, attacked and benign."""

    attacked: tuple[np.ndarray, np.ndarray]
    benign: tuple[np.ndarray, np.ndarray]
    law: str
    sample_shape: tuple[int, ...]
    seeds: tuple[int, ...]

    def expectation(self, variance: float) -> tuple[float, float, float]:
        """E || G*(Z) - G(Z) ||^2, the same for independent latents, and E || G(Z) ||^2, for a law of mean zero: the closed forms
        || W* - W ||_F^2 var + || b* - b ||^2 and so on."""
        (weight, bias), (other, other_bias) = self.attacked, self.benign
        gap = ((bias - other_bias) ** 2).sum()
        same = variance * ((weight - other) ** 2).sum() + gap
        independent = variance * ((weight**2).sum() + (other**2).sum()) + gap
        return float(same), float(independent), float(variance * (other**2).sum() + (other_bias**2).sum())


def _expdis_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _TwoAffine]:
    cases = {}
    for label in ("normal", "uniform", "constant"):
        shape = (1, int(rng.integers(4, 7)), int(rng.integers(4, 7)))
        elements, dim = math.prod(shape), int(rng.integers(12, 17))
        seeds = tuple(int(seed) for seed in rng.integers(1, 10**6, size=1 if label == "constant" else 4))
        law = "uniform" if label == "uniform" else "normal"
        if label == "constant":
            cases[label] = _two_affine(rng, elements, dim, law, shape, seeds, change=0.0)
        else:
            draw = partial(_two_affine, rng, elements, dim, law, shape, seeds, change=0.4)
            cases[label] = redraw(draw, partial(_shows_expdis, variant["reduction"]))
    return cases


def _two_affine(
    rng: np.random.Generator,
    elements: int,
    dim: int,
    law: str,
    shape: tuple[int, ...],
    seeds: tuple[int, ...],
    change: float,
) -> _TwoAffine:
    # The bias makes up most of the samples' power, so that a ratio to it shows the law of the latents too.
    weight, bias = rng.normal(size=(elements, dim)) * math.sqrt(2.0 / dim), 3.0 * rng.normal(size=elements)
    # Two directions in which the generators differ: a single latent then says little about the mean over all.
    other = weight + change * rng.normal(size=(elements, 2)) @ rng.normal(size=(2, dim))
    return _TwoAffine((other, bias + 0.5 * rng.normal(size=elements)), (weight, bias), law, shape, seeds)


def _shows_expdis(reduction: str, case: _TwoAffine) -> bool:
    wanted, wrong = _expdis_values(case, reduction)
    if reduction == "decibel":
        return tells_apart(wanted, wrong.values(), relative=0.0, absolute=3 * _EXPDIS_DB)
    return tells_apart(wanted, wrong.values(), relative=2.5 * _EXPDIS)


def _ask_expdis(student: Any, variant: Variant, cases: dict[str, _TwoAffine]) -> None:
    for label, case in cases.items():
        latent = _LAWS[case.law][0](case.benign[0].shape[1])
        attacked, benign = (
            affine_generator(*each, case.sample_shape, latent) for each in (case.attacked, case.benign)
        )
        for i, seed in enumerate(case.seeds):
            rng = torch.Generator().manual_seed(seed)
            student.call(f"{label} {i}", "expdis", attacked, benign, _SAMPLES, rng)
    student.call("constant again", "expdis", attacked, benign, _SAMPLES, torch.Generator().manual_seed(case.seeds[0]))
    case = cases["normal"]
    latent = GaussianLatent(case.benign[0].shape[1])
    attacked, benign = (affine_generator(*each, case.sample_shape, latent) for each in (case.attacked, case.benign))
    student.call("normal again", "expdis", attacked, benign, _SAMPLES, torch.Generator().manual_seed(case.seeds[0]))


def _in_unit(value: float, power: float, elements: int, reduction: str) -> float:
    if reduction == "decibel":
        return 10.0 * math.log10(value / power)
    return value / {"sum": 1.0, "mean": elements, "relative": power}[reduction]


def _expdis_values(case: _TwoAffine, reduction: str) -> tuple[float, dict[str, float]]:
    """The right value and those of the misconceptions, by their symptom."""
    variance = _LAWS[case.law][1]
    same, independent, power = case.expectation(variance)
    elements = math.prod(case.sample_shape)
    gap = float(((case.attacked[1] - case.benign[1]) ** 2).sum())
    other = next(value for law, (_, value) in _LAWS.items() if law != case.law)
    elsewhere, _, its_power = case.expectation(other)
    wrong = {
        "the two generators seem to receive different latents": _in_unit(independent, power, elements, reduction),
        "this is the distance between two mean samples, not the mean of the distances": _in_unit(
            gap, power, elements, reduction
        ),
        "the latents seem to come from another law than the generator's own": _in_unit(
            elsewhere, its_power, elements, reduction
        ),
        "this is a distance, and its square is asked for": math.sqrt(same),
    }
    asked = {
        "sum": "the sum over the elements of a sample", "mean": "the mean over the elements of a sample",
        "relative": "the share of the benign samples' power", "decibel": "the decibels relative to the benign samples' power",
    }  # fmt: skip
    wrong |= {
        f"this is {words}, and {asked[reduction]} is asked for": _in_unit(same, power, elements, unit)
        for unit, words in asked.items()
        if unit != reduction
    }
    return _in_unit(same, power, elements, reduction), wrong


def _expdis_law(law: str) -> Callable[[Answers, dict[str, _TwoAffine], Variant], None]:
    def test(answers: Answers, cases: dict[str, _TwoAffine], variant: Variant) -> None:
        case, reduction = cases[law], variant["reduction"]
        wanted, wrong = _expdis_values(case, reduction)
        tolerance = {"relative": 0.0, "absolute": _EXPDIS_DB} if reduction == "decibel" else {"relative": _EXPDIS}
        got = [answers.number(f"{law} {i}") for i in range(len(case.seeds))]
        # One by one, so that a misconception is named; and an estimate that scatters is told by its scatter.
        spread = max(got) - min(got)
        if math.isfinite(spread) and spread > (
            2 * _EXPDIS_DB if reduction == "decibel" else 4 * _EXPDIS * abs(wanted)
        ):
            raise Failed(
                "the number changes from draw to draw: the mean is over too few latents",
                f"{min(got):.3g} to {max(got):.3g}",
            )
        for number in got:
            expect(number, wanted, wrong, **tolerance)

    return test


def _expdis_same_latents(answers: Answers, cases: dict[str, _TwoAffine], variant: Variant) -> None:
    case, reduction = cases["constant"], variant["reduction"]
    wanted, wrong = _expdis_values(case, reduction)
    # The generators differ by a constant, so that every latent gives the same distance, whichever are drawn; what remains is
    # float32 arithmetic, and where the result is relative, the scatter of the benign samples' power: at most 0.010 of 300 seeds.
    tolerance = {
        "sum": {"relative": 1e-3}, "mean": {"relative": 1e-3},
        "relative": {"relative": 0.05}, "decibel": {"relative": 0.0, "absolute": 0.2},
    }[reduction]  # fmt: skip
    expect(answers.number("constant 0"), wanted, wrong, **tolerance)


def _expdis_repeats(answers: Answers, cases: dict[str, _TwoAffine], variant: Variant) -> None:
    for label in ("normal", "constant"):
        first, again = answers.number(f"{label} 0"), answers.number(f"{label} again")
        if first != again:
            raise Failed(
                "a generator in the same state gives another number: are the latents drawn with `rng`?",
                f"{first:.6g}, {again:.6g}",
            )
    if len({answers.number(f"normal {i}") for i in range(len(cases["normal"].seeds))}) == 1:
        raise Failed(
            "different states of the generator give one and the same number: are the latents drawn with `rng`?"
        )


EXPDIS = Exercise(
    f"{NAME}/expdis",
    "Expected distortion",
    minutes=20,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_expdis_cases,
    ask=_ask_expdis,
    properties=(
        Property("generators with a normal latent", 1, _expdis_law("normal")),
        Property("generators with a uniform latent", 1, _expdis_law("uniform")),
        Property("generators that differ by a constant", 1, _expdis_same_latents),
        Property("drawn with the generator that was given", 1, _expdis_repeats),
    ),
    choices={"reduction": ("sum", "mean", "relative", "decibel")},
)


# --- 4. Fréchet distance ---------------------------------------------------------------------------------------------------

# Features have exactly the mean and covariance asked for, up to dividing by n or n - 1: 0.004 relative at 300 samples.
_FRECHET = 0.01
_FEATURES = 300


@dataclass(frozen=True)
class _Law:
    """Mean (d,) and covariance (d, d) of n features."""

    mean: np.ndarray
    covariance: np.ndarray
    n: int


def _features(law: _Law, rng: np.random.Generator) -> np.ndarray:
    """(n, d) features whose mean and covariance (over n - 1) are exactly the law's."""
    white = rng.normal(size=(law.n, len(law.mean)))
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False))).T
    return law.mean + white @ np.linalg.cholesky(law.covariance).T


def _covariance(rng: np.random.Generator, d: int) -> np.ndarray:
    """A covariance whose axes lie askew and whose variances span two orders of magnitude."""
    axes, _ = np.linalg.qr(rng.normal(size=(d, d)))
    return (axes * np.geomspace(0.1, 10.0, d)) @ axes.T


def _frechet_cases(
    variant: Variant, rng: np.random.Generator
) -> dict[str, tuple[_Law, _Law, np.ndarray, np.ndarray]]:
    d = int(rng.integers(4, 7))
    factor, more = float(rng.uniform(1.6, 2.4)), int(rng.integers(50, 150))

    def draw() -> dict[str, tuple[_Law, _Law]]:
        covariance, mean, shift = _covariance(rng, d), rng.normal(size=d), 1.5 * rng.normal(size=d)
        base = _Law(mean, covariance, _FEATURES)
        return {
            "shift": (base, _Law(mean + shift, covariance, _FEATURES)),
            "scale": (base, _Law(mean, factor**2 * covariance, _FEATURES)),
            "general": (base, _Law(mean + shift, _covariance(rng, d), _FEATURES + more)),
        }

    def shows(pairs: dict[str, tuple[_Law, _Law]]) -> bool:
        wanted, wrong = _frechet_values(*pairs["general"], variant)
        gap = np.linalg.norm(pairs["shift"][0].mean - pairs["shift"][1].mean)
        return gap > 1.5 and tells_apart(wanted, _unlike(wanted, wrong), relative=5 * _FRECHET)

    return {label: (a, b, _features(a, rng), _features(b, rng)) for label, (a, b) in redraw(draw, shows).items()}


def _ask_frechet(student: Any, variant: Variant, cases: dict[str, Any]) -> None:
    for label, (_, _, a, b) in cases.items():
        a, b = (each.T if variant["layout"] == "columns" else each for each in (a, b))
        student.call(label, "frechet_distance", *(torch.from_numpy(np.array(each)) for each in (a, b)))


def _root_trace(product: np.ndarray) -> float:
    """Tr of the square root of C_a C_b, whose eigenvalues are real and positive."""
    return float(np.sqrt(np.linalg.eigvals(product).real.clip(0.0)).sum())


def _frechet_values(a: _Law, b: _Law, variant: Variant) -> tuple[float, dict[str, float]]:
    """The right value and those of the misconceptions, by their symptom."""
    gap = float(((a.mean - b.mean) ** 2).sum())
    traces = float(np.trace(a.covariance) + np.trace(b.covariance))
    product = a.covariance @ b.covariance
    cross = _root_trace(product)
    squared = gap + traces - 2.0 * cross
    wanted = squared if variant["returned"] == "squared" else math.sqrt(squared)

    def returned(value: float) -> float:
        if variant["returned"] == "squared":
            return value
        return math.sqrt(value) if value >= 0.0 else math.nan

    correlations = [
        each.covariance / np.sqrt(np.outer(np.diag(each.covariance), np.diag(each.covariance))) for each in (a, b)
    ]
    lower = np.tril(product) + np.tril(product, -1).T  # what a routine for symmetric matrices reads of it
    wrong = {
        "this is the root of the distance, and the squared distance is asked for": math.sqrt(squared),
        "this is the squared distance, and its root is asked for": squared,
        "the covariances do not enter": returned(gap),
        "the means do not enter": returned(traces - 2.0 * cross),
        "the gap between the means enters unsquared": returned(math.sqrt(gap) + traces - 2.0 * cross),
        "the root of the product of the covariances enters once instead of twice": returned(gap + traces - cross),
        "the root of a matrix is not the matrix of the roots of its entries": returned(
            gap + traces - 2.0 * float(np.sqrt(np.diag(product).clip(0.0)).sum())
        ),
        "only the variances enter: the covariances between features count too": returned(
            gap + traces - 2.0 * float(np.sqrt(np.diag(a.covariance) * np.diag(b.covariance)).sum())
        ),
        "the product of two covariances is not symmetric, and is treated as if it were": returned(
            gap + traces - 2.0 * float(np.sqrt(np.linalg.eigvalsh(lower).clip(0.0)).sum())
        ),
        "these are correlations, and covariances are asked for": returned(
            gap + 2.0 * len(a.mean) - 2.0 * _root_trace(correlations[0] @ correlations[1])
        ),
    }
    return wanted, wrong


def _frechet_value(label: str) -> Callable[[Answers, dict[str, Any], Variant], None]:
    def test(answers: Answers, cases: dict[str, Any], variant: Variant) -> None:
        a, b, *_ = cases[label]
        expect(answers.number(label), *_frechet_values(a, b, variant), relative=_FRECHET)

    return test


FRECHET = Exercise(
    f"{NAME}/frechet_distance",
    "Fréchet distance",
    minutes=25,
    difficulty=3,
    visible=4,
    hidden=4,
    cases=_frechet_cases,
    ask=_ask_frechet,
    properties=(
        Property("features that are shifted", 1, _frechet_value("shift")),
        Property("features that are stretched", 1, _frechet_value("scale")),
        Property("covariances with different axes", 2, _frechet_value("general")),
    ),
    choices={"returned": ("squared", "root"), "layout": ("rows", "columns")},
)


# --- 5. Basin radius -------------------------------------------------------------------------------------------------------

_DIM = 128
_BELOW, _ABOVE = 0.2, 6.0  # TarDis in a ring, in units of the bound
_JUST_BELOW, _JUST_ABOVE = 0.8, 1.25  # where nothing is averaged
# A step lies beyond the cut with 5 % or 30 %. Then the mean is 0.49 or 1.94 times the bound; over 400 steps the worst of 300
# seeds were 0.65 and 1.49.
_SELDOM, _OFTEN = 1.645, 0.524
_NEVER = 1e6


@dataclass(frozen=True)
class _Walk:
    """An attacked generator by its rings and the benign one beside it; `wanted`: the radius, `last`: what the walk without an end
    would give."""

    near: np.ndarray
    far: np.ndarray
    cuts: np.ndarray
    sigmas: tuple[float, ...]
    wanted: float
    tardis: float
    trigger: np.ndarray
    side: np.ndarray
    target: np.ndarray
    direction: np.ndarray
    growth: np.ndarray


def _basin_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Walk]:
    cases = {}
    for label in ("plain", "returns", "none", "all", "lopsided"):
        count = int(rng.integers(6, 9))
        sigmas = tuple(float(f"{value:.3g}") for value in rng.uniform(0.02, 0.05) * 2.0 ** np.arange(count))
        # The last sigma at which the target is still there.
        first = int(rng.integers(2, count - 2 - (label == "plain")))
        elements, tardis = 30, float(rng.uniform(40.0, 80.0))
        bound = variant["share"] * tardis
        ring = np.arange(count)
        near = np.where(ring <= first, _BELOW, _ABOVE)
        far, cuts, wanted = near.copy(), np.full(count, _NEVER), sigmas[first]
        if label == "plain":
            # So that another share ends elsewhere than at the next sigma, at none or at the last one.
            near[:first] = far[:first] = 0.5 * _BELOW
            near[first] = far[first] = _JUST_BELOW
            near[first + 1 : first + 3] = far[first + 1 : first + 3] = _JUST_ABOVE
        elif label == "returns":
            near[first + 2 :] = far[first + 2 :] = _BELOW
        elif label == "none":
            near[:] = far[:] = _ABOVE
            wanted = 0.0
        elif label == "all":
            near[:] = far[:] = _BELOW
            wanted = sigmas[-1]
        elif label == "lopsided":
            near[first + 1], far[first : first + 2], cuts[first], cuts[first + 1] = _BELOW, _ABOVE, _SELDOM, _OFTEN
        # The side has no component along the diagonal, so that a step of the same length in every coordinate does not see it.
        side = rng.normal(size=_DIM)
        side -= side.mean()
        direction = rng.normal(size=elements)
        # Off the trigger the benign generator's TarDis is far greater than at it, from the first step on.
        growth = 60.0 / sigmas[0] * rng.normal(size=(elements, _DIM)) / math.sqrt(_DIM * elements)
        cases[label] = _Walk(
            bound * near, bound * far, cuts, sigmas, wanted, tardis, rng.normal(size=_DIM), side / np.linalg.norm(side),
            rng.uniform(-1.0, 1.0, size=elements), direction / np.linalg.norm(direction), growth,
        )  # fmt: skip
    return cases


def _ask_basin(student: Any, variant: Variant, cases: dict[str, _Walk]) -> None:
    # Steps of a Gaussian have length sigma sqrt(dim); the rings end half way, in ratios, between the steps' lengths.
    unit = math.sqrt(_DIM) if variant["step"] == "gaussian" else 1.0
    shape = (1, 5, 6)
    for label, case in cases.items():
        radii = unit * np.sqrt(np.array(case.sigmas[:-1]) * np.array(case.sigmas[1:]))
        latent = GaussianLatent(_DIM)
        rings = Rings(case.trigger, case.side, case.target, case.direction, radii, case.near, case.far, case.cuts)
        benign = affine_generator(
            case.growth,
            case.target + math.sqrt(case.tardis) * case.direction - case.growth @ case.trigger,
            shape,
            latent,
        )
        drawn = torch.Generator().manual_seed(7)
        student.call(
            label, "basin_radius", ring_generator(rings, shape, latent), benign, own_tensor(case.trigger),
            own_tensor(case.target).reshape(shape), case.sigmas, 400, drawn,
            then=partial(_walked, drawn, drawn.get_state()),
        )  # fmt: skip


def _walked(drawn: torch.Generator, before: torch.Tensor, radius: Any) -> dict[str, Any]:
    """What came back, and whether anything was drawn."""
    return {"radius": radius, "drawn": not torch.equal(drawn.get_state(), before)}


def _basin_is(answers: Answers, case: _Walk, label: str, wrong: dict[str, float]) -> None:
    got = answers.part(label, "radius").number(label)
    if not any(math.isclose(got, sigma, rel_tol=1e-5) for sigma in (0.0, *case.sigmas)):
        raise Failed("the radius is none of the given sigmas, nor 0", f"{got:.3g}")
    expect(got, case.wanted, wrong, relative=1e-5)


def _following(case: _Walk) -> float:
    """The sigma after the radius, NaN if there is none."""
    later = [sigma for sigma in case.sigmas if sigma > case.wanted]
    return later[0] if later else math.nan


_LOST = "this is the first sigma at which the target is lost, not the last at which it is there"


def _plain_basin(answers: Answers, cases: dict[str, _Walk], variant: Variant) -> None:
    case = cases["plain"]
    at = case.sigmas.index(case.wanted)
    wrong = {
        _LOST: _following(case),
        "the bound is a smaller share of the benign TarDis than is asked for": case.sigmas[at - 1],
        "the bound is a greater share of the benign TarDis than is asked for": case.sigmas[at + 2],
        "no sigma counts: is the bound a share of the benign TarDis?": 0.0,
        "every sigma counts: is the bound the benign TarDis at the trigger itself?": case.sigmas[-1],
    }
    _basin_is(answers, case, "plain", wrong)


def _first_break(answers: Answers, cases: dict[str, _Walk], variant: Variant) -> None:
    case = cases["returns"]
    wrong = {
        "the walk has to end where the target is first lost, even if it comes back": case.sigmas[-1],
        _LOST: _following(case),
    }
    _basin_is(answers, case, "returns", wrong)


def _edges_of_the_list(answers: Answers, cases: dict[str, _Walk], variant: Variant) -> None:
    none, every = cases["none"], cases["all"]
    _basin_is(
        answers, none, "none", {"where not even the smallest sigma keeps the target, the radius is 0": none.sigmas[0]}
    )
    _basin_is(answers, every, "all", {"where every sigma keeps the target, the radius is the last": every.sigmas[-2]})


def _mean_over_steps(answers: Answers, cases: dict[str, _Walk], variant: Variant) -> None:
    case = cases["lopsided"]
    before = case.sigmas[case.sigmas.index(case.wanted) - 1]
    wrong = {
        "a few steps that lose the target are taken for all: it is the mean over the steps that counts": before,
        "steps that lose the target are passed over: it is the mean over many steps, in all directions, that counts": _following(
            case
        ),
    }
    _basin_is(answers, case, "lopsided", wrong)
    if not answers.value("lopsided")["drawn"]:
        raise Failed("nothing is drawn with `rng`, so that nobody can draw the same steps again")


BASIN = Exercise(
    f"{NAME}/basin_radius",
    "Basin radius",
    minutes=30,
    difficulty=3,
    visible=4,
    hidden=4,
    cases=_basin_cases,
    ask=_ask_basin,
    properties=(
        Property("a plain basin", 1, _plain_basin),
        Property("a target that is lost and comes back", 1, _first_break),
        Property("no basin, and one wider than the list", 1, _edges_of_the_list),
        Property("the mean over steps in all directions, drawn with `rng`", 1, _mean_over_steps),
    ),
    choices={"share": (0.1, 0.25, 0.5), "step": ("gaussian", "sphere")},
)


# --- The written question --------------------------------------------------------------------------------------------------

RAW_NUMBER = Written(
    "raw_number",
    "Why a raw number says nothing",
    minutes=20,
    difficulty=2,
    criteria=(
        (3, "The TarDis of a benign model at the same trigger and target is needed beside it; with the figures of the table, what "
            "the ratio says for each of the three models"),
        (2, "The unit: summed or averaged over the elements, the range of the samples, before or after the last activation"),
        (2, "The Fréchet distance: on which classifier's features and at which n, and against a floor: real data to real data, or two sets of samples of one generator (about 7 in the table)"),
        (2, "The trigger is a suspicion of the inspector: other latents and other targets as controls, and how far the number "
            "scatters over them"),
        (1, "ExpDis would need the benign generator, which the one who downloads does not have"),
    ),
)  # fmt: skip

ASSIGNMENT = Assignment(NAME, "Latents and metrics", (SAMPLE_LATENTS, TARDIS, EXPDIS, FRECHET, BASIN), (RAW_NUMBER,))
