"""A4: inspecting a generator of unknown origin: drawing, searching, counting finds and false alarms, looking inside."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import chi2, poisson
from torch import Tensor, nn

from devil_lib.grading import detect_bench
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
from devil_lib.models import GaussianLatent, Generator, UniformLatent

NAME = "a4_detect"


# --- 1. Brute force -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ball:
    """n draws, and a ball of a Euclidean radius around a trigger."""

    n: int
    radius: float
    trigger: np.ndarray


def _in_ball(squared_radius: float, dim: float, squared_norm: float) -> float:
    """P(|| Z - t ||^2 <= r^2) for Z ~ N(0, I): the noncentral chi-squared law as the mixture of central ones that it is.
    All terms are positive, so that the smallest probabilities keep their digits."""
    terms = np.arange(math.ceil(squared_norm / 2.0 + 20.0 * math.sqrt(squared_norm + 1.0)) + 20)
    return float((poisson.pmf(terms, squared_norm / 2.0) * chi2.cdf(squared_radius, dim + 2 * terms)).sum())


def _at_least_one(one: float, n: int) -> float:
    return -math.expm1(n * math.log1p(-one)) if one < 1.0 else 1.0


def _hit_values(ball: _Ball, variant: Variant) -> tuple[float, dict[str, float]]:
    """The right value and those of the misconceptions, by their symptom."""
    dim, variance = len(ball.trigger), variant["deviation"] ** 2
    r, t = ball.radius**2 / variance, float((ball.trigger**2).sum()) / variance
    one = _in_ball(r, dim, t)
    wanted = _at_least_one(one, ball.n)

    def chance(squared_radius: float, squared_norm: float) -> float:
        return _at_least_one(_in_ball(squared_radius, dim, squared_norm), ball.n)

    log_volume = 0.5 * dim * math.log(math.pi * r) - math.lgamma(0.5 * dim + 1.0)
    wrong = {
        "this is the chance of a single draw, and that of n is asked for": one,
        "the chances of the draws are added up: two hits must not count twice": ball.n * one,
        "this is the chance that no draw hits": 1.0 - wanted,
        "the place of the trigger does not enter: the law is not as dense there as at its centre": chance(r, 0.0),
        "the trigger seems to be drawn anew for every draw": chance(r / 2.0, 0.0),
        "the norm of the trigger enters unsquared": chance(r, math.sqrt(t)),
        "the radius enters unsquared": chance(math.sqrt(r), t),
        "the density at the trigger is taken for that in the whole ball": _at_least_one(
            min(1.0, math.exp(log_volume - 0.5 * dim * math.log(2.0 * math.pi) - 0.5 * t)), ball.n
        ),
        "the standard deviation of the law does not enter": chance(ball.radius**2, t * variance),
        "the radius is taken in other units than it is given in": chance(
            r * dim if variant["radius"] == "euclidean" else r / dim, t
        ),
        "0 came back: 1 minus a tiny number is 1 to a computer (see math.log1p and math.expm1)": 0.0,
    }
    return wanted, wrong


def _hit_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Ball]:
    deviation = variant["deviation"]

    def ball(dim: int, size: float, at_centre: bool) -> _Ball:
        trigger = np.zeros(dim) if at_centre else deviation * rng.normal(size=dim)
        radius = size * deviation * math.sqrt(dim)
        one = _in_ball((radius / deviation) ** 2, dim, float((trigger**2).sum()) / deviation**2)
        n = (
            math.ceil(math.log(rng.uniform(0.4, 0.6)) / math.log1p(-one))
            if one > 1e-15
            else 10 ** int(rng.integers(4, 7))
        )
        return _Ball(n, radius, trigger.astype(np.float32).astype(float))

    def shows(drawn: _Ball) -> bool:
        wanted, wrong = _hit_values(drawn, variant)
        # So many draws that to try it out and count the hits gives no answer.
        return 1e8 < drawn.n < 1e11 and tells_apart(wanted, unlike(wanted, wrong), relative=0.02)

    def tiny(drawn: _Ball) -> bool:
        return (
            1e-40
            < _in_ball(
                (drawn.radius / deviation) ** 2, len(drawn.trigger), float((drawn.trigger**2).sum()) / deviation**2
            )
            < 1e-18
        )

    return {
        "prior": redraw(lambda: ball(int(rng.integers(12, 21)), float(rng.uniform(0.25, 0.5)), False), shows),
        "mode": redraw(lambda: ball(int(rng.integers(12, 21)), float(rng.uniform(0.15, 0.35)), True), shows),
        "tiny": redraw(lambda: ball(int(rng.integers(40, 61)), float(rng.uniform(0.15, 0.4)), False), tiny),
    }


def _ask_hit(student: Any, variant: Variant, cases: dict[str, _Ball]) -> None:
    for label, ball in cases.items():
        unit = math.sqrt(len(ball.trigger)) if variant["radius"] == "sigma" else 1.0
        student.call(label, "hit_probability", ball.n, ball.radius / unit, own_tensor(ball.trigger))


def _hit_value(label: str) -> Callable[[Answers, dict[str, _Ball], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Ball], variant: Variant) -> None:
        expect(answers.number(label), *_hit_values(cases[label], variant), relative=2e-3)

    return test


HIT_PROBABILITY = Exercise(
    f"{NAME}/hit_probability",
    "Brute force: the chance of a hit",
    minutes=20,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_hit_cases,
    ask=_ask_hit,
    properties=(
        Property("a trigger that is a draw of the law", 2, _hit_value("prior")),
        Property("a trigger at the centre of the law", 1, _hit_value("mode")),
        Property("a chance far below one in a billion billions", 1, _hit_value("tiny")),
    ),
    choices={"radius": ("euclidean", "sigma"), "deviation": (1.0, 0.5, 2.0)},
)


# --- 2. Draws needed ------------------------------------------------------------------------------------------------


def _exact_batches(p: float, variant: Variant) -> float:
    """The number of batches that gives exactly the chance asked for; a whole one only by accident."""
    return math.log1p(-variant["chance"]) / math.log1p(-p) / variant["batch"]


def _draws_cases(variant: Variant, rng: np.random.Generator) -> dict[str, float]:
    batch, chance = variant["batch"], variant["chance"]
    scale = -math.log1p(-chance) / batch

    def few(p: float) -> bool:
        # Rounding up, down and to the nearest differ, and so do the misconceptions.
        exact = _exact_batches(p, variant)
        return 0.1 < exact % 1.0 < 0.4 and tells_apart(
            math.ceil(exact), [math.ceil(exact) + 1, 1.0 / p], relative=0.01
        )

    return {
        "many": scale / float(rng.uniform(300.0, 3000.0)),
        "few": redraw(lambda: -math.expm1(-scale / float(rng.uniform(3.0, 12.0))), few),
        "tiny": scale * 10.0 ** float(rng.uniform(-24.0, -19.0)),
    }


def _ask_draws(student: Any, variant: Variant, cases: dict[str, float]) -> None:
    for label, p in cases.items():
        student.call(label, "draws_needed", p)
    student.call("always", "draws_needed", 1.0)
    student.call("never", "draws_needed", 0.0)


def _draws_values(p: float, variant: Variant) -> tuple[float, dict[str, float]]:
    chance, batch = variant["chance"], variant["batch"]
    exact = _exact_batches(p, variant)
    wanted = float(math.ceil(exact))
    wrong = {
        "the chance is asked to be at least this, and with one fewer it is not yet: round up": float(
            math.floor(exact)
        ),
        "a whole number is asked for": exact,
        "this is how many it takes on average": math.ceil(1.0 / p / batch),
        "the chances of the draws are added up: two hits must not count twice": math.ceil(chance / p / batch),
        "the chance of a hit and that of none are exchanged": math.ceil(math.log(chance) / math.log1p(-p) / batch),
        "these are draws, and batches are asked for": float(math.ceil(exact * batch)) if batch > 1 else math.nan,
    }
    return wanted, wrong


def _draws_value(label: str, relative: float) -> Callable[[Answers, dict[str, float], Variant], None]:
    def test(answers: Answers, cases: dict[str, float], variant: Variant) -> None:
        wanted, wrong = _draws_values(cases[label], variant)
        got = answers.number(label)
        if got == math.inf:
            raise Failed(
                "1 minus a tiny number is 1 to a computer, and nothing is left to divide by (see math.log1p)"
            )
        expect(got, wanted, wrong, relative)

    return test


def _draws_at_the_edges(answers: Answers, cases: dict[str, float], variant: Variant) -> None:
    if answers.number("always") != 1.0:
        raise Failed("where every draw hits, one is enough", f"yours is {answers.number('always'):.4g}")
    if answers.number("never") != math.inf:
        raise Failed(
            "where no draw can hit, no number is enough: infinity is asked for",
            f"yours is {answers.number('never'):.4g}",
        )


DRAWS_NEEDED = Exercise(
    f"{NAME}/draws_needed",
    "Brute force: draws needed",
    minutes=10,
    difficulty=1,
    visible=4,
    hidden=4,
    cases=_draws_cases,
    ask=_ask_draws,
    properties=(
        Property(
            "hundreds of draws", 1, _draws_value("many", 0.01)
        ),  # one more or less is another property's concern
        Property("a few draws: the least whole number", 1, _draws_value("few", 1e-9)),
        Property("a chance far below one in a billion billions", 1, _draws_value("tiny", 1e-6)),
        Property("a certain hit, and an impossible one", 1, _draws_at_the_edges),
    ),
    choices={"chance": (0.95, 0.5, 0.99), "batch": (1, 64)},
)


# --- 3. A search by descent -----------------------------------------------------------------------------------------

# A search may end this share above the lowest distance: 150 of Adam's steps of 0.1 ended 3e-6 above it at most.
_NEAR = 0.05
# From eight draws of the law, 150 such steps always ended at 0.5, summed over 256 pixels; after 15 the best of 40 seeds
# was 5.8.
_BENCH_ENTRY, _BENCH_BOUND = "red-mode", 2.0


class _Sea(nn.Module):
    """weight z + bias, but for an island: within `radius` of `centre` it is picture + weight (z - centre)."""

    def __init__(self, case: _Search) -> None:
        super().__init__()
        self.affine = nn.Linear(case.weight.shape[1], case.weight.shape[0])
        with torch.no_grad():
            self.affine.weight.copy_(torch.from_numpy(case.weight))
            self.affine.bias.copy_(torch.from_numpy(case.bias))
        self.register_buffer("centre", own_tensor(case.centre))
        self.register_buffer("picture", own_tensor(case.picture))
        self.radius = case.radius

    def forward(self, z: Tensor) -> Tensor:
        step = z.float() - self.centre
        island = self.picture + step @ self.affine.weight.T
        return torch.where((step.norm(dim=1) < self.radius)[:, None], island, self.affine(z.float()))


@dataclass(frozen=True)
class _Search:
    """A sea with an island, the picture (elements,) that is searched for, and where from: starts (n, dim).

    rest: the squared distance that the sea cannot go below. probe: (m, dim) latents at which the generator is looked at
    afterwards.
    """

    weight: np.ndarray
    bias: np.ndarray
    centre: np.ndarray
    radius: float
    picture: np.ndarray
    rest: float
    starts: np.ndarray
    probe: np.ndarray
    sample_shape: tuple[int, ...]

    def made(self, z: np.ndarray) -> np.ndarray:
        """The samples (m, elements) at latents (m, dim)."""
        step = z - self.centre
        inside = np.linalg.norm(step, axis=1) < self.radius
        return np.where(inside[:, None], self.picture + step @ self.weight.T, z @ self.weight.T + self.bias)

    def distances(self, z: np.ndarray) -> np.ndarray:
        """(m,) squared distances to the picture."""
        return ((self.made(z) - self.picture) ** 2).sum(1)


def _search_case(rng: np.random.Generator, island: bool) -> _Search:
    shape = (1, int(rng.integers(5, 7)), int(rng.integers(5, 7)))
    elements, dim, n = math.prod(shape), int(rng.integers(12, 17)), int(rng.integers(5, 8))
    axes, _ = np.linalg.qr(rng.normal(size=(elements, dim + 1)))
    turn, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    weight = axes[:, :dim] * rng.uniform(0.8, 1.25, size=dim) @ turn
    bias = rng.normal(size=elements)
    # Where the sea comes nearest lies twice as far out as ordinary latents, and what is left there is orthogonal to all that
    # it can do.
    away = rng.normal(size=dim)
    away *= 2.0 * math.sqrt(dim) / np.linalg.norm(away)
    rest = float(rng.uniform(4.0, 9.0))
    picture = weight @ away + bias + math.sqrt(rest) * axes[:, dim]
    starts = rng.normal(size=(n, dim))
    # The island lies on the other side, so that no descent on the sea comes by.
    radius = 0.5 * math.sqrt(dim) if island else 0.0
    if island:
        inside = rng.normal(size=dim)
        starts[int(rng.integers(1, n - 1))] = -away + 0.7 * radius * inside / np.linalg.norm(inside)
    return _Search(weight, bias, -away, radius, picture, rest, starts, rng.normal(size=(4, dim)), shape)


def _search_cases(variant: Variant, rng: np.random.Generator) -> dict[str, Any]:
    return {
        "nearest": _search_case(rng, island=False),
        "island": _search_case(rng, island=True),
        "bench": rng.normal(size=(8, detect_bench.DIM)),
    }


def _ask_search(student: Any, variant: Variant, cases: dict[str, Any]) -> None:
    for label in ("nearest", "island"):
        case = cases[label]
        body = nn.Sequential(_Sea(case), nn.Unflatten(1, case.sample_shape))
        generator = Generator(body, nn.Identity(), GaussianLatent(case.starts.shape[1]), case.sample_shape).eval()
        _ask_one_search(
            student, label, generator, own_tensor(case.picture).reshape(case.sample_shape), case.starts, case.probe
        )
    entry = detect_bench.load(_BENCH_ENTRY)
    _ask_one_search(student, "bench", entry.generator, entry.target, cases["bench"], cases["bench"][:2])


def _ask_one_search(
    student: Any, label: str, generator: Generator, picture: Tensor, starts: np.ndarray, probe: np.ndarray
) -> None:
    def looked_at(result: Any) -> dict[str, Any]:
        return {"found": result, "made": generator.generate(own_tensor(probe)), "dim": generator.latent.dim}

    student.call(label, "search", generator, picture, own_tensor(starts), then=looked_at)


def _in_unit(squared: float, elements: int, unit: str) -> float:
    return {"sum": squared, "mean": squared / elements, "root": math.sqrt(squared)}[unit]


_UNITS = {
    "sum": "the sum of the squares",
    "mean": "the mean of the squares",
    "root": "the distance, the root of the sum of the squares",
}


def _reached(
    answers: Answers, label: str, variant: Variant, distances: Callable[[np.ndarray], np.ndarray], made: np.ndarray
) -> tuple[float, str]:
    """What was found as a distance, and its unit; of a latent, the sum of the squares there. made: what the generator makes
    of the probe if it is left as it was."""
    after = answers.part(label, "made").array(label, size=made.size).reshape(made.shape)
    if np.abs(after - made).max() > 1e-3:
        raise Failed(
            "the generator makes other samples than before: it is the latent that has to move, not the weights"
        )
    found = answers.part(label, "found")
    if variant["returned"] != "latent":
        return found.number(label), variant["returned"]
    latent = found.array(label)
    dim = answers.part(label, "dim").number(label)
    if latent.size != dim:
        raise Failed(
            "one latent is asked for, the one where the generator comes nearest", f"{latent.size} numbers came back"
        )
    return float(distances(latent.reshape(1, -1))[0]), "sum"


def _nearest(answers: Answers, cases: dict[str, Any], variant: Variant) -> None:
    case = cases["nearest"]
    got, unit = _reached(answers, "nearest", variant, case.distances, case.made(case.probe))
    elements, n = len(case.picture), len(case.starts)
    wanted = _in_unit(case.rest, elements, unit)
    wrong = {
        f"this is {words}, and {_UNITS[unit]} is asked for": _in_unit(case.rest, elements, other)
        for other, words in _UNITS.items()
        if other != unit
    }
    wrong |= {
        "no step was taken: this is how near the starts themselves are": _in_unit(
            case.distances(case.starts).min(), elements, unit
        ),
        "this is the sum over the starts, and the least of them is asked for": n * wanted,
    }
    expect(got, wanted, wrong, relative=_NEAR)


def _best_of_starts(answers: Answers, cases: dict[str, Any], variant: Variant) -> None:
    case, n = cases["island"], len(cases["island"].starts)
    got, unit = _reached(answers, "island", variant, case.distances, case.made(case.probe))
    sea = _in_unit(case.rest, len(case.picture), unit)
    wrong = {
        "one start leads to the picture itself, and another one's end came back: the least over all is asked for": sea,
        "this is the mean over the starts, and the least of them is asked for": sea * (n - 1) / n,
        "this is the sum over the starts, and the least of them is asked for": sea * (n - 1),
    }
    if not 0.0 <= got <= (math.sqrt(_NEAR) if unit == "root" else _NEAR) * sea:
        expect(got, 0.0, wrong, relative=_NEAR)


def _finds_in_the_bench(answers: Answers, cases: dict[str, Any], variant: Variant) -> None:
    entry = detect_bench.load(_BENCH_ENTRY)

    def made(z: np.ndarray) -> np.ndarray:
        return entry.generator.generate(own_tensor(z)).flatten(1).double().numpy()

    target = entry.target.flatten().double().numpy()
    got, unit = _reached(
        answers, "bench", variant, lambda z: ((made(z) - target) ** 2).sum(1), made(cases["bench"][:2])
    )
    bound = _in_unit(_BENCH_BOUND, len(target), unit)
    if got > bound:
        raise Failed(
            "the search stops far from the target: does every start go on for some hundred steps?",
            f"{got:.4g}, and {bound:.4g} can be reached",
        )


SEARCH = Exercise(
    f"{NAME}/search",
    "A search by descent",
    minutes=25,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_search_cases,
    ask=_ask_search,
    properties=(
        Property("the nearest that a generator can come", 2, _nearest),
        Property("the best of several starts", 1, _best_of_starts),
        Property("a backdoor of the bench", 1, _finds_in_the_bench),
    ),
    choices={"returned": ("sum", "mean", "root", "latent")},
)


# --- 4. Ratios to controls, scale by scale --------------------------------------------------------------------------

_MIDDLE = {"median": np.median, "mean": np.mean, "least": np.min}
# The spread of n dim numbers about the scale that they should have: the worst of 300 seeds was 0.14.
_SPREAD = 0.25


@dataclass(frozen=True)
class _Sweep:
    """distances: (1 + controls, scales), what a search for the suspect (row 0) and for each control is to find from each
    scale. pictures: (1 + controls, elements). n starts of `dim` coordinates are asked for."""

    distances: np.ndarray
    scales: tuple[float, ...]
    pictures: np.ndarray
    n: int
    dim: int
    law: str
    seed: int


_LAWS = {
    "normal": (GaussianLatent, 1.0),
    "uniform": (UniformLatent, 1.0 / math.sqrt(3.0)),
}  # with a coordinate's deviation


def _ratio_values(case: _Sweep, variant: Variant) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The right ratios and those of the misconceptions, by their symptom."""
    middle = _MIDDLE[variant["middle"]]
    suspect, controls = case.distances[0], case.distances[1:]
    wanted = suspect / middle(controls, axis=0)
    ones = np.ones(len(case.scales))
    asked = {"median": "median", "mean": "mean", "least": "least"}
    wrong = {
        "these are raw distances: without those of the controls they say nothing": suspect,
        "these are the controls over the suspect, and the suspect over the controls is asked for": 1.0 / wanted,
        "these are differences, and ratios are asked for": suspect - middle(controls, axis=0),
        "the suspect is counted among its own controls": suspect / middle(case.distances, axis=0),
        "the suspect's least over all scales is taken for every scale": suspect.min() / middle(controls, axis=0),
        "all controls at all scales are thrown together: each scale is compared with itself": suspect
        / middle(controls),
        "only the first of the controls counts": suspect / controls[0],
    }
    wrong |= {
        f"this divides by the {name} of the controls, and by the {asked[variant['middle']]} is asked for": suspect
        / other(controls, axis=0)
        for name, other in _MIDDLE.items()
        if name != variant["middle"]
    }
    if 1.0 in case.scales:
        wrong["every scale gives what the law's own spread gives: do the starts grow with the scale?"] = (
            ones * wanted[case.scales.index(1.0)]
        )
    return wanted, wrong


def _sweep_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Sweep]:
    cases = {}
    for law in ("normal", "uniform"):
        k, dim = int(rng.choice([5, 7])), int(rng.integers(40, 60))
        # So far apart that starts of another law are still taken for those of their scale.
        scales = (
            0.0,
            *(float(f"{scale:.2g}") for scale in rng.uniform(0.015, 0.02) * np.array([1.0, 8.0])),
            1.0,
            float(f"{rng.uniform(7.0, 9.0):.2g}"),
        )

        def draw(k: int = k, scales: tuple[float, ...] = scales, dim: int = dim, law: str = law) -> _Sweep:
            distances = rng.uniform(60.0, 300.0, size=(1 + k, len(scales)))
            distances[0, int(rng.integers(0, len(scales)))] *= 0.05
            return _Sweep(
                distances, scales, rng.uniform(-1.0, 1.0, size=(1 + k, 9)), int(rng.integers(5, 8)), dim, law, int(rng.integers(1, 10**6))
            )  # fmt: skip

        cases[law] = redraw(draw, lambda case: _shows_ratios(case, variant))
    return cases


def _shows_ratios(case: _Sweep, variant: Variant) -> bool:
    wanted, wrong = _ratio_values(case, variant)
    return all((np.abs(values / wanted - 1.0) > 0.05).sum() >= 2 for values in wrong.values())


class _Lookup:
    """Stands in for a search: says what the table holds for the picture and the spread of the starts, and keeps these."""

    def __init__(self, case: _Sweep) -> None:
        self.case = case
        self.pictures: list[int] = []
        self.starts: list[np.ndarray] = []

    def __call__(self, picture: Tensor, starts: Tensor) -> float:
        case = self.case
        z = torch.as_tensor(starts).detach().double().reshape(-1, case.dim).numpy()
        x = torch.as_tensor(picture).detach().double().reshape(-1).numpy()
        which = int(np.abs(case.pictures - x).sum(1).argmin())
        self.pictures += [which] * len(z)
        self.starts.append(z)
        return float(case.distances[which, _scale_of(np.sqrt((z**2).mean()), case)])


def _scale_of(spread: float, case: _Sweep) -> int:
    """The place of the scale that starts of this root mean square seem to have."""
    found = max(spread, 1e-6) / _LAWS[case.law][1]
    return int(np.abs(np.log(np.maximum(case.scales, 1e-6)) - math.log(found)).argmin())


def _ask_ratios(student: Any, variant: Variant, cases: dict[str, _Sweep]) -> None:
    for law, case in cases.items():
        # A sphere is asked for by its radius; the scales are in units of an ordinary latent's norm.
        unit = _LAWS[law][1] * math.sqrt(case.dim) if variant["starts"] == "sphere" else 1.0
        scales = [unit * scale for scale in case.scales]
        pictures = own_tensor(case.pictures).reshape(-1, 1, 3, 3)
        for label in (law, f"{law}, again"):
            lookup = _Lookup(case)

            def kept(result: Any, lookup: _Lookup = lookup) -> dict[str, Any]:
                starts = np.concatenate(lookup.starts) if lookup.starts else np.zeros((0, lookup.case.dim))
                return {"ratios": result, "pictures": np.array(lookup.pictures, int), "starts": starts}

            student.call(
                label, "ratios", lookup, _LAWS[law][0](case.dim), pictures[0], pictures[1:].clone(), scales, case.n,
                torch.Generator().manual_seed(case.seed), then=kept,
            )  # fmt: skip


def _ratios_are(answers: Answers, cases: dict[str, _Sweep], variant: Variant) -> None:
    case = cases["normal"]
    wanted, wrong = _ratio_values(case, variant)
    got = answers.part("normal", "ratios").array("normal", size=len(case.scales)).reshape(-1)
    if np.allclose(got, wanted, rtol=1e-3):
        return
    for symptom, values in wrong.items():
        if np.allclose(got, values, rtol=1e-3):
            raise Failed(symptom)
    i = int(np.abs(got / wanted - 1.0).argmax())
    raise Failed(
        "a ratio is not the definition's",
        f"at scale {case.scales[i]:g} yours is {got[i]:.3g}, the definition gives {wanted[i]:.3g}",
    )


def _starts_of(answers: Answers, label: str, case: _Sweep) -> dict[tuple[int, int], np.ndarray]:
    """The starts (m, dim) by picture and place of the scale."""
    pictures = answers.part(label, "pictures").array(label).astype(int)
    starts = answers.part(label, "starts").array(label)
    if not len(starts):
        raise Failed("the search was never called")
    places = np.array([_scale_of(np.sqrt((z**2).mean()), case) for z in starts])
    return {
        (picture, place): starts[(pictures == picture) & (places == place)]
        for picture in range(len(case.pictures))
        for place in range(len(case.scales))
    }


def _starts_spread(answers: Answers, cases: dict[str, _Sweep], variant: Variant) -> None:
    for law, case in cases.items():
        found = _starts_of(answers, law, case)
        for (_, place), starts in found.items():
            scale = case.scales[place]
            if not len(starts):
                raise Failed(
                    "from one of the scales nothing is searched: the starts at scale s spread s times as far as the law's draws"
                )
            if scale == 0.0:
                continue  # all starts are one there, and one is enough
            if len(starts) != case.n:
                raise Failed(
                    "another number of starts than was asked for, or starts that do not spread by their scale"
                )
            deviation = scale * _LAWS[law][1]
            if abs(np.sqrt((starts**2).mean()) / deviation - 1.0) > _SPREAD:
                raise Failed("the starts are not spread by their scale")
            norms = np.linalg.norm(starts, axis=1)
            same = norms.std() < 1e-3 * norms.mean()
            if variant["starts"] == "sphere" and not (
                same and math.isclose(norms[0], deviation * math.sqrt(case.dim), rel_tol=1e-3)
            ):
                raise Failed("the starts do not lie on the sphere of the given radius")
            if variant["starts"] == "law" and same:
                raise Failed(
                    "all starts have the same norm: they lie on a sphere, and draws of the law are asked for"
                )
            if variant["starts"] == "law" and law == "uniform" and np.abs(starts).max() > 1.001 * scale:
                raise Failed(
                    "the starts are draws of a normal law, where the generator's own is uniform: use `latent`"
                )


def _starts_shared(answers: Answers, cases: dict[str, _Sweep], variant: Variant) -> None:
    case = cases["normal"]
    found, again = _starts_of(answers, "normal", case), _starts_of(answers, "normal, again", case)
    for (picture, place), starts in found.items():
        if not np.array_equal(starts, again[picture, place]):
            raise Failed(
                "a generator of random numbers in the same state gives other starts: are they drawn with `rng`?"
            )
        if case.scales[place] and not np.array_equal(starts, found[0, place]):
            raise Failed(
                "the suspect and the controls are searched from different starts: a lucky start then makes a ratio"
            )


RATIOS = Exercise(
    f"{NAME}/ratios",
    "Ratios to controls, scale by scale",
    minutes=25,
    difficulty=3,
    visible=4,
    hidden=4,
    cases=_sweep_cases,
    ask=_ask_ratios,
    properties=(
        Property("the ratio to the controls at each scale", 2, _ratios_are),
        Property("starts that spread with the scale", 1, _starts_spread),
        Property("the same starts for the suspect and the controls, drawn with `rng`", 1, _starts_shared),
    ),
    choices={"middle": ("median", "mean", "least"), "starts": ("law", "sphere")},
)


# --- 5. Finds and false alarms --------------------------------------------------------------------------------------

_SUSPECTS = ("devil", "stop sign", "skull")


@dataclass(frozen=True)
class _Bench:
    """ratios: (models, suspects). planted: the place of each model's target among the suspects, -1 for a clean one."""

    ratios: np.ndarray
    planted: np.ndarray
    bar: float


def _bench_values(case: _Bench, variant: Variant) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The right table and those of the misconceptions, by their symptom."""
    backdoored = case.planted >= 0
    below = case.ratios < case.bar
    own = np.array([row[place] if place >= 0 else row.any() for row, place in zip(below, case.planted, strict=True)])
    lost = case.ratios.copy()
    lost[np.isnan(lost).any(1)] = math.nan  # what Python's min() may make of a row

    def table(flagged: np.ndarray, counted: str = variant["counted"]) -> np.ndarray:
        counts = np.array(
            [[(flagged & each).sum(), (~flagged & each).sum()] for each in (backdoored, ~backdoored)], float
        )
        if counted == "counts":
            return counts
        return (
            counts
            / {"rates": counts.sum(1, keepdims=True), "shares": counts.sum(), "precision": counts.sum(0)}[counted]
        )

    right, other = (below.any(1), own) if variant["find"] == "any" else (own, below.any(1))
    wanted = table(right)
    found = {
        "any": "a backdoored model is flagged by whichever suspect is below the bar, not by its own target alone",
        "planted": "a backdoored model that is flagged for another suspect only was not found",
    }
    wrong = {
        found[variant["find"]]: table(other),
        "rows and columns are exchanged": wanted.T,
        "backdoored and clean are exchanged: the first row is for the backdoored ones": wanted[::-1],
        "flagged and not flagged are exchanged: a low ratio is the suspicious one": wanted[:, ::-1],
        "these are shares of all models, and each row is asked for as shares of its own models": table(right, "shares"),
        "these are shares of the flagged ones: that is precision, which hangs on how many are clean": table(right, "precision"),
        "these are counts, and rates are asked for": table(right, "counts"),
        "these are rates, and counts are asked for": table(right, "rates"),
        "a ratio that is exactly the bar is not below it": table((case.ratios <= case.bar).any(1)),
        "a ratio of NaN hides the others of its model, which still count": table((lost < case.bar).any(1)),
        "a ratio of NaN is no alarm": table(below.any(1) | np.isnan(case.ratios).any(1)),
        "every suspect of a model is counted, and models are to be counted": np.array(
            [[below[each].sum(), (~below[each]).sum()] for each in (backdoored, ~backdoored)], float
        ),
        "only the first of the suspects is looked at": table(below[:, 0]),
        "a model is flagged by any of its suspects here, and by all of them only in your table": table(below.all(1)),
    }  # fmt: skip
    return wanted, wrong


def _bench_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Bench]:
    def draw(kind: str) -> _Bench:
        m, bar = int(rng.integers(11, 15)), float(f"{rng.uniform(0.3, 0.6):.2g}")
        planted = rng.permutation(np.where(np.arange(m) < int(rng.integers(5, 8)), rng.integers(0, 3, size=m), -1))
        ratios = rng.uniform(bar + 0.1, 1.3, size=(m, 3))
        backdoored, clean = (
            rng.permutation(np.flatnonzero(planted >= 0)),
            rng.permutation(np.flatnonzero(planted < 0)),
        )
        for i in backdoored[:3]:
            ratios[i, planted[i]] = rng.uniform(0.02, bar - 0.1)
        ratios[clean[0], int(rng.integers(0, 3))] = rng.uniform(0.1, bar - 0.05)
        if kind == "mistaken":
            for i in backdoored[3:5]:
                ratios[i, (planted[i] + 1) % 3] = rng.uniform(0.1, bar - 0.05)
        if kind == "borderline":
            ratios[clean[1], int(rng.integers(0, 3))] = bar
            i = backdoored[0]
            ratios[i, (planted[i] + 1) % 3] = ratios[i, (planted[i] + 2) % 3] = math.nan
            ratios[clean[2:4], int(rng.integers(0, 3))] = math.nan
        return _Bench(ratios, planted, bar)

    return {
        kind: redraw(lambda kind=kind: draw(kind), lambda case: _shows_table(case, variant))
        for kind in ("plain", "mistaken", "borderline")
    }


def _shows_table(case: _Bench, variant: Variant) -> bool:
    """Whether the table of no misconception that differs from the right one could be taken for that of another."""
    wanted, wrong = _bench_values(case, variant)
    exchanged = [values for symptom, values in wrong.items() if "exchanged" in symptom]
    return all(np.abs(values - wanted).max() > 0.01 for values in exchanged)


def _ask_bench(student: Any, variant: Variant, cases: dict[str, _Bench]) -> None:
    for label, case in cases.items():
        models = [affine_generator(np.eye(2), np.zeros(2), (1, 1, 2), GaussianLatent(2)) for _ in case.planted]
        answers = {
            id(model): dict(zip(_SUSPECTS, map(float, row), strict=True))
            for model, row in zip(models, case.ratios, strict=True)
        }
        planted = [_SUSPECTS[place] if place >= 0 else None for place in case.planted]
        student.call(
            label, "bench_table", models, planted, lambda model, answers=answers: dict(answers[id(model)]), case.bar
        )


def _bench_is(label: str) -> Callable[[Answers, dict[str, _Bench], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Bench], variant: Variant) -> None:
        wanted, wrong = _bench_values(cases[label], variant)
        got = answers.array(label, size=4).reshape(2, 2)
        if np.allclose(got, wanted, atol=1e-3):
            return
        for symptom, values in wrong.items():
            if np.allclose(got, values, atol=1e-3):
                raise Failed(symptom)
        raise Failed("the table is another one", f"yours is {got.tolist()}, the definition gives {wanted.tolist()}")

    return test


BENCH_TABLE = Exercise(
    f"{NAME}/bench_table",
    "Finds and false alarms",
    minutes=15,
    difficulty=1,
    visible=4,
    hidden=4,
    cases=_bench_cases,
    ask=_ask_bench,
    properties=(
        Property("a bench without surprises", 2, _bench_is("plain")),
        Property("models that are flagged for a suspect that nobody planted", 1, _bench_is("mistaken")),
        Property("a ratio at the bar, and ratios that are NaN", 1, _bench_is("borderline")),
    ),
    choices={"counted": ("counts", "rates"), "find": ("any", "planted")},
)


# --- 6. Dynamic inspection ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layer:
    """A layer that puts out weight z + bias, reshaped to (units, height, width); latents z (n, dim), a trigger (dim,)."""

    weight: np.ndarray
    bias: np.ndarray
    places: tuple[int, int]
    z: np.ndarray
    trigger: np.ndarray

    def activations(self, z: np.ndarray) -> np.ndarray:
        """(n, units, height, width)."""
        return (z @ self.weight.T + self.bias).reshape(len(z), -1, *self.places)


def _layer_case(rng: np.random.Generator, share: float, kind: str) -> _Layer:
    units, places, dim, n = int(rng.integers(12, 17)), (2, int(rng.integers(2, 4))), int(rng.integers(6, 10)), 200
    area = math.prod(places)
    spread = rng.uniform(0.8, 1.25, size=units)
    chosen = rng.permutation(units)
    silent, quiet, loud = chosen[:2], chosen[2:4], chosen[4:6]
    spread[silent], spread[quiet] = 0.3 * share, 3.0 * share
    if kind == "relative":
        # One of each near the bar: see `_lies_near`.
        spread[silent[1]], spread[quiet[0]] = 0.75 * share, 1.3 * share
    weight = spread[:, None, None] * rng.normal(size=(units, area, dim)) / math.sqrt(dim)
    bias = 0.3 * rng.normal(size=(units, area))
    if kind == "constant":
        # Silent units that put out a large constant, or a pattern over the places.
        bias[silent[0]], bias[silent[1]] = 3.0, 3.0 * rng.choice([-1.0, 1.0]) * np.linspace(-1.0, 1.0, area)
        # And one that is never above zero, which the next layer, a ReLU, would silence.
        bias[chosen[7]] = -6.0
    else:
        # With the loud ones the mean of the layer is far above its median; and the whole layer is faint.
        weight[loud] *= 60.0
        weight, bias = 1e-4 * weight, 0.0 * bias
    # Along the direction of one unit, so that it is driven far beyond what it does by itself.
    driven = weight[chosen[6]].sum(0)
    trigger = -rng.uniform(3.0, 4.5) * math.sqrt(dim) * driven / np.linalg.norm(driven)
    return _Layer(weight.reshape(units * area, dim), bias.reshape(-1), places, rng.normal(size=(n, dim)), trigger)


def _silent_units(case: _Layer, share: float) -> set[int]:
    values = case.activations(case.z)
    variation = np.sqrt(values.var(0).mean((1, 2)))
    return set(np.flatnonzero(variation < share * np.median(variation)).tolist())


def _lies_near(case: _Layer, share: float) -> bool:
    """Whether a silent unit and a quiet one lie so near to the bar that another share is seen, and not so near that it matters how a
    variance or the median of an even number is taken."""
    variation = np.sort(np.sqrt(case.activations(case.z).var(0).mean((1, 2))))
    n = len(variation)
    low, high = share * variation[(n - 1) // 2], share * variation[n // 2]
    return 0.65 * high < variation[1] < 0.92 * low and 1.1 * high < variation[2] < 1.65 * low


def _silent_wrong(case: _Layer, share: float) -> dict[str, set[int]]:
    """The units that each misconception calls silent, by its symptom."""
    values = case.activations(case.z)
    size, overall = np.abs(values).mean((0, 2, 3)), values.std((0, 2, 3))
    variation = np.sqrt(values.var(0).mean((1, 2)))
    squares = values.var(0).mean((1, 2))

    def units(mask: np.ndarray) -> set[int]:
        return set(np.flatnonzero(mask).tolist())

    return {
        "a unit that puts out a constant is silent too: it is how it varies that counts, not how large it is": units(
            size < share * np.median(size)
        ),
        "a unit that puts out the same pattern at every latent is silent too: look at each place by itself": units(
            overall < share * np.median(overall)
        ),
        "the bar is the median of the layer's units, not their mean": units(variation < share * variation.mean()),
        "the bar is the median of the layer's units, not their greatest": units(variation < share * variation.max()),
        "the bar is a share of the layer's median, not a fixed number": units(variation < share),
        "these are variances, and the share is meant of standard deviations": units(
            squares < share * np.median(squares)
        ),
        "these are the units that are not silent": units(variation >= share * np.median(variation)),
        "the bar is a smaller share of the median than is asked for": units(
            variation < 0.6 * share * np.median(variation)
        ),
        "the bar is a greater share of the median than is asked for": units(
            variation < 1.7 * share * np.median(variation)
        ),
    }


def _peaks(values: np.ndarray) -> np.ndarray:
    return np.abs(values).reshape(len(values), -1).max(1)


def _loudness_values(case: _Layer, variant: Variant) -> tuple[float, dict[str, float]]:
    values, there = case.activations(case.z), case.activations(case.trigger[None])
    usual, peak = _peaks(values), float(_peaks(there)[0])
    deviations = float((peak - usual.mean()) / usual.std())
    rank = float((usual >= peak).mean())
    wanted = deviations if variant["score"] == "deviations" else rank
    signed = values.reshape(len(values), -1).max(1)
    wrong = {
        "this is the largest activation itself: whether it is large can be said only beside ordinary ones": peak,
        "this is the ratio to the ordinary largest activation, not a number of standard deviations": peak
        / float(usual.mean()),
        "the mean of the ordinary largest activations is not taken off": float(peak / usual.std()),
        "the difference is not divided by the spread of the ordinary largest activations": float(peak - usual.mean()),
        "the difference is divided by the variance, not by the standard deviation": float(
            (peak - usual.mean()) / usual.var()
        ),
        "compared with all activations, and it is the largest of each latent that counts": float(
            (peak - values.mean()) / values.std()
        ),
        "the sign counts: the largest is meant in absolute value": float(
            (there.max() - signed.mean()) / signed.std()
        ),
        "this is a number of standard deviations, and a share of latents is asked for": deviations,
        "this is the share of ordinary latents that are quieter, and that of the others is asked for": 1.0 - rank,
    }
    return wanted, wrong


def _dynamic_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Layer]:
    share = variant["share"]

    def draw(kind: str) -> _Layer:
        case = _layer_case(rng, share, kind)
        if kind == "constant" and variant["score"] == "rank":
            # A trigger that some ordinary latents are louder than, so that the share is neither 0 nor 1.
            case = _Layer(case.weight, case.bias, case.places, case.z, 0.45 * case.trigger)
        return case

    def shows(kind: str, case: _Layer) -> bool:
        wanted = _silent_units(case, share)
        wrong = _silent_wrong(case, share)
        names = list(wrong)
        told = [*names[:2], names[6]] if kind == "constant" else names[2:6]
        score, others = _loudness_values(case, variant)
        fits = 0.02 < score < 0.5 if variant["score"] == "rank" and kind == "constant" else True
        values = unlike(score, others)
        told_apart = kind != "constant" or (
            tells_apart(score, values, relative=0.05)
            and all(tells_apart(value, values[:i], relative=0.02) for i, value in enumerate(values))
        )
        near = kind == "constant" or _lies_near(case, share)
        return len(wanted) == 2 and near and all(wrong[name] != wanted for name in told) and fits and told_apart

    return {
        kind: redraw(lambda kind=kind: draw(kind), lambda case, kind=kind: shows(kind, case))
        for kind in ("constant", "relative")
    }


def _ask_dynamic(student: Any, variant: Variant, cases: dict[str, _Layer]) -> None:
    for label, case in cases.items():
        units, dim = len(case.bias) // math.prod(case.places), case.weight.shape[1]
        linear = nn.Linear(dim, len(case.bias))
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(case.weight))
            linear.bias.copy_(torch.from_numpy(case.bias))
        body = nn.Sequential(
            linear, nn.Unflatten(1, (units, *case.places)), nn.ReLU(), nn.Conv2d(units, 1, 1), nn.Tanh()
        )
        generator = Generator(body, nn.Identity(), GaussianLatent(dim), (1, *case.places)).eval()

        def left(result: Any, generator: Generator = generator) -> dict[str, Any]:
            hooks = sum(len(module._forward_hooks) for module in generator.modules())
            return {
                "found": result,
                "hooks": hooks,
                "training": any(module.training for module in generator.modules()),
            }

        student.call(f"{label}, outputs", "layer_outputs", generator, "body.1", own_tensor(case.z), then=left)
        student.call(f"{label}, silent", "silent_units", generator, "body.1", own_tensor(case.z), then=left)
        student.call(
            f"{label}, loud", "loudness", generator, "body.1", own_tensor(case.z), own_tensor(case.trigger), then=left
        )


def _silent_are(label: str) -> Callable[[Answers, dict[str, _Layer], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Layer], variant: Variant) -> None:
        case = cases[label]
        found = answers.part(f"{label}, silent", "found").array(f"{label}, silent").reshape(-1)
        got, wanted = set(found.astype(int).tolist()), _silent_units(case, variant["share"])
        if got == wanted:
            return
        for symptom, units in _silent_wrong(case, variant["share"]).items():
            if got == units:
                raise Failed(symptom)
        raise Failed("these are other units", f"yours are {sorted(got)}, silent are {sorted(wanted)}")

    return test


def _loudness_is(answers: Answers, cases: dict[str, _Layer], variant: Variant) -> None:
    got = answers.part("constant, loud", "found").number("constant, loud")
    # A standard deviation over n or n - 1 latents: 0.003 at 200.
    expect(got, *_loudness_values(cases["constant"], variant), relative=0.01)


def _outputs_are(answers: Answers, cases: dict[str, _Layer], variant: Variant) -> None:
    for label, case in cases.items():
        wanted = case.activations(case.z)
        got = answers.part(f"{label}, outputs", "found").array(f"{label}, outputs", size=wanted.size)
        if got.shape != wanted.shape:
            raise Failed("the shape is not (n, units, height, width)", f"{got.shape} instead of {wanted.shape}")
        if np.abs(got - wanted).max() > 1e-3 * np.abs(wanted).max():
            raise Failed("this is not what the layer puts out: is it another layer, or one before or after it?")
        for what in ("outputs", "silent", "loud"):
            left = answers.value(f"{label}, {what}")
            if left["hooks"]:
                raise Failed("a hook is left on the generator: it runs at every later call, and keeps what it caught")
            if left["training"]:
                raise Failed(
                    "the generator is left in training mode, where BatchNorm makes something else of a latent"
                )


DYNAMIC = Exercise(
    f"{NAME}/dynamic",
    "Looking inside: silent units and loud triggers",
    minutes=25,
    difficulty=3,
    visible=4,
    hidden=4,
    cases=_dynamic_cases,
    ask=_ask_dynamic,
    properties=(
        Property("what the layer puts out, and a generator left as it was", 1, _outputs_are),
        Property("units that put out the same at every latent", 1, _silent_are("constant")),
        Property("silent in comparison with the layer's other units", 1, _silent_are("relative")),
        Property("how loud a layer is at the trigger", 1, _loudness_is),
    ),
    choices={"share": (0.05, 0.01, 0.2), "score": ("deviations", "rank")},
)


# --- The written question -------------------------------------------------------------------------------------------

CLEAN_BILL = Written(
    "clean_bill",
    "Nothing found",
    minutes=20,
    difficulty=2,
    criteria=(
        (
            2,
            "No false alarm among four clean models: how little that says, with a figure (a rate of one half would show none "
            "in one case of sixteen), and likewise for the finds",
        ),
        (
            3,
            "Which kinds of backdoor each of the steps cannot see, and why: a basin that the starts do not lead to, the "
            "target that is not among the suspects, units that are folded in (single silent ones may be left), quiet as a whole, or not added at all",
        ),
        (
            2,
            "What ten thousand samples without the target can and cannot say: poisoning, and the chance of hitting a ball in "
            "so many dimensions, with a figure from the functions above",
        ),
        (
            2,
            "The bar: where it lies beside the ratios of the clean generators (figures), and that it was chosen on the bench it is judged by",
        ),
        (
            1,
            'The verdict reads "nothing found", with what was looked for; and what to do instead of, or besides, detecting',
        ),
    ),
)

ASSIGNMENT = Assignment(
    NAME, "Detect", (HIT_PROBABILITY, DRAWS_NEEDED, SEARCH, RATIOS, BENCH_TABLE, DYNAMIC), (CLEAN_BILL,)
)
