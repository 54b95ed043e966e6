"""A7: stealing a generator through its samples, and defending it: two distances, runs, a sampler, calibration, and a price."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit

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
from devil_lib.metrics import FeatureStatistics, frechet_distance

NAME = "a7_extraction"


def _all_differ(values: list[float], relative: float) -> bool:
    """So that the sentence is that of the mistake that was made."""
    return all(tells_apart(value, values[:i], relative) for i, value in enumerate(values))


# --- 1. Two distances --------------------------------------------------------------------------------------------------------

_DISTANCE = (
    1e-3  # relative; the distance itself is given, so that what remains is the rounding of features to float32
)


@dataclass(frozen=True)
class _Sets:
    """Features (n, d) of the thief's samples, the target's and the real data."""

    thief: np.ndarray
    target: np.ndarray
    real: np.ndarray

    @property
    def m(self) -> int:
        """The greatest number of samples that every distance can be taken at."""
        return min(len(self.thief), len(self.target) // 2, len(self.real) // 2)


def _distance(a: Any, b: Any) -> float:
    """Fréchet distance of two sets of features; NaN of sets that have no covariance."""
    a, b = (np.asarray(each, dtype=np.float64) for each in (a, b))
    if min(len(a), len(b)) < 2:
        return math.nan
    statistics = [FeatureStatistics(each.mean(0), np.cov(each, rowvar=False), len(each)) for each in (a, b)]
    return frechet_distance(*statistics)


def _sets(rng: np.random.Generator, thief: int, target: int, real: int) -> _Sets:
    d = 3
    mix = rng.normal(size=(d, d)) / math.sqrt(d)
    shift, away = rng.normal(size=d), rng.normal(size=d)
    return _Sets(
        0.8 * rng.normal(size=(thief, d)) @ mix + 0.8 * shift + 0.4 * away,
        rng.normal(size=(target, d)) @ mix + shift,
        1.3 * rng.normal(size=(real, d)) @ mix,
    )


def _two_halves(features: np.ndarray, m: int, sets: str) -> tuple[np.ndarray, np.ndarray]:
    if sets == "halves":
        return features[:m], features[m : 2 * m]
    return features[0 : 2 * m : 2], features[1 : 2 * m : 2]


def _distance_values(case: _Sets, variant: Variant) -> dict[str, tuple[float, dict[str, float]]]:
    """By the name of the distance: the right value, and those of the misconceptions by their symptom."""
    m, thief = case.m, case.thief[: case.m]

    def parts(sets: str) -> dict[str, tuple[float, float]]:
        """Bare distance and floor."""
        found = {}
        for name, features in (("target", case.target), ("real", case.real)):
            first, second = _two_halves(features, m, sets)
            found[name] = _distance(thief, first), _distance(first, second)
        return found

    own, other = parts(variant["sets"]), parts("turns" if variant["sets"] == "halves" else "halves")

    def score(bare: float, floor: float, how: str = variant["floor"]) -> float:
        return bare - floor if how == "difference" else bare / floor

    opposite = "ratio" if variant["floor"] == "difference" else "difference"
    values = {}
    for name, against, beside in (("target", "real", "the real data"), ("real", "target", "the target")):
        bare, floor = own[name]
        wrong = {
            f"the two are exchanged: this is the distance to {beside}": score(*own[against]),
            "this is the bare distance: it holds the floor, which two sets of one law have too": bare,
            "the floor is that of the other law: each distance has a floor of its own": score(bare, own[against][1]),
            "the floor and the distance are exchanged": score(floor, bare),
            "this is the floor itself": floor,
            "the floor is to be subtracted, and it is divided by" if opposite == "ratio"
            else "the floor is to be divided by, and it is subtracted": score(bare, floor, opposite),
            "the features are split in another way into two sets": score(*other[name]),
        }  # fmt: skip
        values[name] = score(bare, floor), wrong
    return values


def _distance_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Sets]:
    m = int(rng.integers(20, 30))
    few = {
        "few of the thief": (m, 2 * m + int(rng.integers(20, 40)), 2 * m + int(rng.integers(20, 40))),
        "few of the target": (m + int(rng.integers(20, 40)), 2 * m, 2 * m + int(rng.integers(20, 40))),
        "few real": (m + int(rng.integers(20, 40)), 2 * m + int(rng.integers(20, 40)), 2 * m + 1),
    }

    def shows(case: _Sets) -> bool:
        found, k = _distance_values(case, variant), case.m // 2
        of_half = _distance_values(_Sets(case.thief[:k], case.target[: 2 * k], case.real[: 2 * k]), variant)
        return all(
            _all_differ([wanted, of_half[name][0], *unlike(wanted, wrong)], 20 * _DISTANCE)
            for name, (wanted, wrong) in found.items()
        )

    fitting = redraw(lambda: _sets(rng, m, 2 * m, 2 * m), shows)
    return {"fitting": fitting} | {label: _sets(rng, *sizes) for label, sizes in few.items()}


def _ask_distances(student: Any, variant: Variant, cases: dict[str, _Sets]) -> None:
    for label, case in cases.items():
        sizes: list[list[int]] = []

        def recorded(a: Any, b: Any, sizes: list[list[int]] = sizes) -> float:
            sizes.append([len(a), len(b)])
            return _distance(a, b)

        arrays = (each.copy() for each in (case.thief, case.target, case.real))
        student.call(
            label,
            "two_distances",
            *arrays,
            recorded,
            then=lambda result, sizes=sizes: {"found": result, "sizes": sizes},
        )


def _distance_is(name: str) -> Callable[[Answers, dict[str, _Sets], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Sets], variant: Variant) -> None:
        found = answers.part("fitting", "found").array("fitting", size=2).flatten()
        got = found[0 if name == "target" else 1]
        expect(got, *_distance_values(cases["fitting"], variant)[name], relative=_DISTANCE)

    return test


def _equal_numbers(answers: Answers, cases: dict[str, _Sets], variant: Variant) -> None:
    for label, case in cases.items():
        sizes = answers.value(label)["sizes"]
        if not sizes:
            raise Failed("`distance` was never called")
        for a, b in sizes:
            if a != b:
                raise Failed(
                    "a distance is taken between sets of unequal size: it falls as samples are added, for no other reason",
                    f"{a} and {b} samples",
                )
        counts = {a for a, _ in sizes}
        if len(counts) > 1:
            raise Failed(
                "the distances are taken at different numbers of samples: then they cannot be compared with each other",
                f"{' and '.join(map(str, sorted(counts)))} samples",
            )
        if counts != {case.m}:
            raise Failed(
                "fewer samples are used than all four distances could be taken at",
                f"{counts.pop()} instead of {case.m}",
            )


TWO_DISTANCES = Exercise(
    f"{NAME}/two_distances",
    "Two distances for two kinds of theft",
    minutes=15,
    difficulty=1,
    visible=4,
    hidden=4,
    cases=_distance_cases,
    ask=_ask_distances,
    properties=(
        Property("the distance to the target, beside its floor", 1, _distance_is("target")),
        Property("the distance to the real data, beside its floor", 1, _distance_is("real")),
        Property("all distances between equally many samples", 2, _equal_numbers),
    ),
    choices={"floor": ("difference", "ratio"), "sets": ("halves", "turns")},
)


# --- 2. A claim over runs ----------------------------------------------------------------------------------------------------

_ENDS = 2e-3  # of the interval's half-width, for tables of quantiles with three decimals
_LEAST = 5  # runs


@dataclass(frozen=True)
class _Runs:
    """Two thieves' distances, (runs, repeats) each. A run is a thief trained from one seed; the repeats measure it again and again."""

    a: np.ndarray
    b: np.ndarray


def _half_width(error: float, freedom: float, level: float) -> float:
    return float(stdtrit(freedom, 0.5 + 0.5 * level)) * error


def _of_means(a: np.ndarray, b: np.ndarray, level: float, ddof: int = 1) -> tuple[float, float]:
    """Welch's interval of the difference of the means of two samples."""
    parts = [each.var(ddof=ddof) / len(each) for each in (a, b)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(each) - 1) for part, each in zip(parts, (a, b), strict=True))
    half = _half_width(math.sqrt(sum(parts)), freedom, level)
    return float(a.mean() - b.mean() - half), float(a.mean() - b.mean() + half)


def _of_differences(a: np.ndarray, b: np.ndarray, level: float, ddof: int = 1) -> tuple[float, float]:
    """The interval of the mean of paired differences; NaN where there are no pairs."""
    if len(a) != len(b):
        return math.nan, math.nan
    d = a - b
    half = _half_width(d.std(ddof=ddof) / math.sqrt(len(d)), len(d) - 1, level)
    return float(d.mean() - half), float(d.mean() + half)


def _interval_values(case: _Runs, variant: Variant) -> tuple[tuple[float, float], dict[str, tuple[float, float]]]:
    """The right interval, and those of the misconceptions by their symptom."""
    level, paired = variant["level"], variant["runs"] == "pairs"
    a, b = case.a.mean(1), case.b.mean(1)
    made, otherwise = (_of_differences, _of_means) if paired else (_of_means, _of_differences)
    low, high = made(a, b, level)
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    if paired:
        error, freedom = (a - b).std(ddof=1) / math.sqrt(len(a)), float(len(a) - 1)
    else:
        error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
        freedom = math.nan
    pooled = math.sqrt(
        ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1))
        / (len(a) + len(b) - 2)
        * (1.0 / len(a) + 1.0 / len(b))
    )

    def about(width: float) -> tuple[float, float]:
        return middle - width, middle + width

    ends = [_half_width(each.std(ddof=1) / math.sqrt(len(each)), len(each) - 1, level) for each in (a, b)]
    spread = (a - b).std(ddof=1) if paired else math.sqrt(a.var(ddof=1) + b.var(ddof=1))
    wrong = {
        "repeats are counted as if they were runs: they measure the same trained thief again": made(
            case.a.flatten(), case.b.flatten(), level
        ),
        "the runs of the two thieves are pairs, and the interval treats them as independent" if paired
        else "the runs of the two thieves are independent, and the interval pairs them": otherwise(a, b, level),
        "the sign is turned round: the first thief's mean less the second's is asked for": (-high, -low),
        "the quantile is that of the normal law: with so few runs it is Student's": about(
            float(ndtri(0.5 + 0.5 * level)) * error
        ),
        "the quantile leaves the whole of the rest on one side: the interval has two": made(a, b, 2.0 * level - 1.0),
        "the spread is divided by n: of a sample it is divided by n - 1": made(a, b, level, ddof=0),
        "this is the spread of the runs, and that of their mean is asked for": about(
            half * spread / error
        ),
        "the half-widths of two intervals are added up: the errors of independent means add up in squares": about(sum(ends)),
        "this is one standard error on either side, and not the interval": about(error),
    }  # fmt: skip
    if not paired:
        wrong["the two spreads are pooled, and they need not be equal"] = about(
            _half_width(pooled, len(a) + len(b) - 2, level)
        )
        wrong["the degrees of freedom are those of a pooled spread"] = about(
            _half_width(error, len(a) + len(b) - 2, level)
        )
    else:
        wrong["the degrees of freedom are not one less than the number of pairs"] = about(
            _half_width(error, 2.0 * freedom, level)
        )
    if level != 0.95:
        wrong["the level is the usual one, and another is asked for"] = made(a, b, 0.95)
    return (low, high), wrong


def _near(got: tuple[float, float], wanted: tuple[float, float], half: float) -> bool:
    return all(math.isfinite(y) and abs(x - y) <= _ENDS * half for x, y in zip(got, wanted, strict=True))


def _run_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Runs]:
    paired, level = variant["runs"] == "pairs", variant["level"]

    def draw(gap: float, sizes: tuple[int, int], repeats: int = 6) -> _Runs:
        if paired:
            sizes = (sizes[0], sizes[0])
            common = 12.0 * rng.normal(size=sizes[0])
        else:
            common = 0.0
        own = [
            70.0 + shift + spread * rng.normal(size=n) + common
            for n, spread, shift in zip(sizes, (9.0, 3.0), (gap, 0.0), strict=True)
        ]
        runs = [np.round(each[:, None] + 1.5 * rng.normal(size=(len(each), repeats)), 3) for each in own]
        return _Runs(*runs)

    def told(case: _Runs) -> bool:
        (low, high), wrong = _interval_values(case, variant)
        half = 0.5 * (high - low)
        all_of_them = [(low, high), *(each for each in wrong.values() if all(map(math.isfinite, each)))]
        return all(
            not _near(each, other, 4.0 * half) for i, each in enumerate(all_of_them) for other in all_of_them[:i]
        )

    def lies(low_sign: int, high_sign: int) -> Callable[[_Runs], bool]:
        def test(case: _Runs) -> bool:
            (low, high), _ = _interval_values(case, variant)
            half = 0.5 * (high - low)
            # Far enough from zero for no rounding to decide.
            return low * low_sign > 0.1 * half and high * high_sign > 0.1 * half

        return test

    def unclear(case: _Runs) -> bool:
        _, wrong = _interval_values(case, variant)
        repeats = wrong["repeats are counted as if they were runs: they measure the same trained thief again"]
        # A claim if repeats were runs, or if the means alone decided.
        return lies(-1, 1)(case) and repeats[1] < 0.0

    def sizes() -> tuple[int, int]:
        return int(rng.integers(6, 9)), int(rng.integers(9, 13))

    more = float({0.9: 1.0, 0.95: 1.0, 0.99: 1.6}[level])
    return {
        "plain": redraw(lambda: draw(-float(rng.uniform(4.0, 16.0)), sizes()), told),
        "lower": redraw(lambda: draw(-22.0 * more, sizes()), lies(-1, -1)),
        "higher": redraw(lambda: draw(22.0 * more, sizes()), lies(1, 1)),
        "unclear": redraw(lambda: draw(-float(rng.uniform(3.0, 9.0)), sizes()), unclear),
        # Far apart, with more repeats than runs are asked for.
        "few": draw(-60.0, (_LEAST - 1, _LEAST + 4), repeats=8),
        "very few": draw(60.0, (2, 2), repeats=12),
        # And as many as are asked for.
        "enough": redraw(lambda: draw(-40.0 * more, (_LEAST, _LEAST + 4)), lies(-1, -1)),
    }


def _ask_runs(student: Any, variant: Variant, cases: dict[str, _Runs]) -> None:
    for label, case in cases.items():
        student.call(label, "told_apart", case.a.copy(), case.b.copy())


def _claim(answers: Answers, label: str) -> tuple[float, float, float]:
    figures = answers.array(label)
    if figures.size != 3:
        raise Failed("three numbers are asked for: both ends of the interval, and the claim")
    low, high, claim = figures.flatten()
    return float(low), float(high), float(claim)


def _interval_is(answers: Answers, cases: dict[str, _Runs], variant: Variant) -> None:
    for label in ("plain", "lower", "higher", "unclear"):
        low, high, _ = _claim(answers, label)
        wanted, wrong = _interval_values(cases[label], variant)
        half = 0.5 * (wanted[1] - wanted[0])
        if _near((low, high), wanted, half):
            continue
        measured = f"yours is {low:.4g} to {high:.4g}, the definition gives {wanted[0]:.4g} to {wanted[1]:.4g}"
        for symptom, ends in wrong.items():
            if _near((low, high), ends, half):
                raise Failed(symptom, measured)
        if math.isnan(low) or math.isnan(high):
            raise Failed("NaN came back as an end of the interval")
        if _near((0.5 * (low + high),) * 2, (0.5 * (wanted[0] + wanted[1]),) * 2, half):
            raise Failed(
                "the interval is too narrow" if high - low < 2.0 * half else "the interval is too wide", measured
            )
        raise Failed("the interval does not lie about the difference of the two means", measured)


def _claim_follows(answers: Answers, cases: dict[str, _Runs], variant: Variant) -> None:
    """From the answer's own interval, right or wrong: that is another property's concern."""
    for label in ("plain", "lower", "higher", "unclear"):
        low, high, claim = _claim(answers, label)
        if claim not in (-1.0, 0.0, 1.0):
            raise Failed("the claim is not one of -1, 0 and 1")
        if math.isnan(low) or math.isnan(high):
            raise Failed("NaN came back as an end of the interval, and no claim follows from that")
        wanted = -1.0 if high < 0.0 else 1.0 if low > 0.0 else 0.0
        if claim == wanted:
            continue
        if wanted == 0.0:
            raise Failed("a claim is made although your interval holds zero")
        if claim == 0.0:
            raise Failed("no claim is made although your interval does not hold zero")
        raise Failed("the claim names the wrong thief: the first one's distances are the lower ones where it is -1")


def _few_runs(answers: Answers, cases: dict[str, _Runs], variant: Variant) -> None:
    for label in ("few", "very few"):
        low, high, claim = _claim(answers, label)
        if claim != 0.0:
            raise Failed("a claim is made on fewer than five runs, however often each of them is measured")
        if (low, high) != (-math.inf, math.inf):
            raise Failed(
                "with fewer than five runs the interval does not reach from minus infinity to infinity",
                f"{low:.3g} to {high:.3g}",
            )
    low, high, _ = _claim(answers, "enough")
    if (low, high) == (-math.inf, math.inf):
        raise Failed("five runs are taken for too few: it is with fewer than five that nothing is claimed")


TOLD_APART = Exercise(
    f"{NAME}/told_apart",
    "Can two thieves be told apart?",
    minutes=25,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_run_cases,
    ask=_ask_runs,
    properties=(
        Property("the interval of the difference", 2, _interval_is),
        Property("a claim if your interval does not hold zero, and only then", 1, _claim_follows),
        Property("no claim on fewer than five runs, and one on five", 1, _few_runs),
    ),
    choices={"runs": ("independent", "pairs"), "level": (0.95, 0.9, 0.99)},
)


# --- 3. Metropolis-Hastings --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chains:
    """Calibrated probabilities D of the states that m chains start from, (m,), and of their K proposals, (m, K); uniforms (m, K)."""

    start: np.ndarray
    proposals: np.ndarray
    uniforms: np.ndarray


Accept = Callable[[float, float], float]


def _odds(current: float, proposed: float) -> float:
    """min(1, (1/D(x) - 1) / (1/D(x') - 1)), with its limits at 0 and 1."""
    if proposed >= current:
        return 1.0
    return proposed * (1.0 - current) / (current * (1.0 - proposed))


def _walk(
    case: _Chains, accept: Accept = _odds, beside: str = "state", above: bool = False, stop: bool = False
) -> np.ndarray:
    """(m, K) where each chain is after each step: the place of a proposal, -1 for the start.

    beside: what a proposal is compared with, "state", "start" or "previous". above: accepted where the uniform number is the greater
    one. stop: at the first acceptance.
    """
    paths = np.full(case.proposals.shape, -1)
    for path, start, proposals, uniforms in zip(paths, case.start, case.proposals, case.uniforms, strict=True):
        place, state = -1, start
        for i, (proposed, u) in enumerate(zip(proposals, uniforms, strict=True)):
            against = {"state": state, "start": start, "previous": proposals[i - 1] if i else start}[beside]
            chance = accept(against, proposed)
            if ((u >= chance) if above else (u < chance)) and not (stop and place >= 0):
                place, state = i, proposed
            path[i] = place
    return paths


def _best_so_far(case: _Chains) -> np.ndarray:
    running = np.maximum.accumulate(np.column_stack([case.start, case.proposals]), 1)[:, 1:]
    best = np.where(case.proposals >= running, np.arange(case.proposals.shape[1]), -1)
    return np.maximum.accumulate(best, 1)


def _without_repeats(paths: np.ndarray) -> np.ndarray:
    """Only the accepted states, in order, and the last of them for what is left of the row."""
    found = np.empty_like(paths)
    for row, path in zip(found, paths, strict=True):
        kept = [place for place in dict.fromkeys(path.tolist()) if place >= 0] or [-1]
        row[:] = [*kept, *[kept[-1]] * (len(path) - len(kept))]
    return found


def _as_asked(paths: np.ndarray, variant: Variant) -> np.ndarray:
    return paths if variant["returned"] == "path" else paths[:, -1]


def _walk_values(case: _Chains, variant: Variant) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What is to come back, and what comes back by the misconceptions, by their symptom."""
    right = _walk(case)

    def exponential(current: float, proposed: float) -> float:
        return min(1.0, math.exp(proposed - current))

    def of_logits(current: float, proposed: float) -> float:
        """A logit taken for a probability in the rule."""
        with np.errstate(all="ignore"):
            current, proposed = np.float64(logit(current)), np.float64(logit(proposed))
            return float(np.minimum(1.0, (1.0 / current - 1.0) / (1.0 / proposed - 1.0)))

    def upside_down(current: float, proposed: float) -> float:
        return _odds(proposed, current)

    def plain_ratio(current: float, proposed: float) -> float:
        return 1.0 if proposed >= current else proposed / current

    wrong = {
        "every proposal is compared with the one before, even where that was turned down: the chain is still where it was": _walk(
            case, beside="previous"
        ),
        "every proposal is compared with the start: once one is accepted, the chain is there": _walk(case, beside="start"),
        "the rule is upside down: it leaves likely states for unlikely ones": _walk(case, upside_down),
        "the ratio is that of the probabilities: that of the densities is D / (1 - D)": _walk(case, plain_ratio),
        "a proposal is accepted where the uniform number is above the probability of acceptance": _walk(case, above=True),
        "the most real proposal wins: such a chain climbs, and does not sample": _best_so_far(case),
        "the chain stops at the first proposal that it accepts": _walk(case, stop=True),
        "the proposals are counted from one: the first is 0, and the start is -1": right + 1,
        "the numbers are taken for logits, and probabilities are given" if variant["given"] == "probability"
        else "the numbers are taken for probabilities, and logits are given": _walk(
            case, exponential if variant["given"] == "probability" else of_logits
        ),
    }  # fmt: skip
    if variant["returned"] == "path":
        wrong["a step that is turned down is left out: the chain is then where it was, and that counts again"] = (
            _without_repeats(right)
        )
    return _as_asked(right, variant), {symptom: _as_asked(paths, variant) for symptom, paths in wrong.items()}


def _chain_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Chains]:
    def inside() -> _Chains:
        m, k = int(rng.integers(20, 26)), int(rng.integers(6, 10))
        # Every first proposal is accepted, so that no chain is left at its start: that is another property's concern.
        return _Chains(
            rng.uniform(0.02, 0.08, m),
            np.round(rng.uniform(0.1, 0.9, (m, k)), 4),
            np.round(rng.uniform(size=(m, k)), 4),
        )

    def edges() -> _Chains:
        m, k = int(rng.integers(24, 30)), 4
        # From 0 every first proposal is accepted; one value between, so that no ratio but the limits decides.
        values, start = np.array([0.0, 1.0, 0.5]), np.zeros(m)
        return _Chains(start, values[rng.integers(0, 3, (m, k))], np.round(rng.uniform(0.01, 0.99, (m, k)), 4))

    def unmoved() -> _Chains:
        m, k = int(rng.integers(6, 10)), int(rng.integers(3, 6))
        proposals, uniforms = rng.uniform(0.05, 0.3, (m, k)), rng.uniform(0.4, 0.99, (m, k))
        # A few that do move, at the last step.
        proposals[: m // 3, -1] = 0.97
        return _Chains(np.full(m, 0.95), np.round(proposals, 4), np.round(uniforms, 4))

    def safe(case: _Chains) -> bool:
        """Whether no rounding decides."""
        states = np.concatenate([case.start[:, None], case.proposals], 1)
        return all(
            abs(u - _odds(current, proposed)) > 1e-4
            for row, proposals, uniforms in zip(states, case.proposals, case.uniforms, strict=True)
            for proposed, u in zip(proposals, uniforms, strict=True)
            for current in row
        )

    def told(case: _Chains) -> bool:
        wanted, wrong = _walk_values(case, variant)
        every = [wanted, *wrong.values()]
        return safe(case) and all(
            not np.array_equal(each, other) for i, each in enumerate(every) for other in every[:i]
        )

    def told_at_edges(case: _Chains) -> bool:
        def undefined(current: float, proposed: float) -> float:
            """Nothing by nothing is NaN, and no number is below that."""
            return 0.0 if current == proposed and current in (0.0, 1.0) else _odds(current, proposed)

        return safe(case) and not np.array_equal(
            _as_asked(_walk(case), variant), _as_asked(_walk(case, undefined), variant)
        )

    return {
        "inside": redraw(inside, told),
        "edges": redraw(edges, told_at_edges),
        "unmoved": redraw(
            unmoved, lambda case: safe(case) and set(_walk(case)[:, -1]) == {-1, case.proposals.shape[1] - 1}
        ),
    }


def _ask_chains(student: Any, variant: Variant, cases: dict[str, _Chains]) -> None:
    for label, case in cases.items():
        given = (case.start.copy(), case.proposals.copy())
        if variant["given"] == "logit":
            given = tuple(logit(each) for each in given)
        student.call(label, "metropolis_hastings", *given, case.uniforms.copy())


def _places(answers: Answers, label: str, wanted: np.ndarray) -> np.ndarray:
    got = answers.array(label, size=wanted.size)
    if got.shape != wanted.shape:
        raise Failed("the shape is another one than was asked for", f"{got.shape} instead of {wanted.shape}")
    return got


def _inside_is(answers: Answers, cases: dict[str, _Chains], variant: Variant) -> None:
    wanted, wrong = _walk_values(cases["inside"], variant)
    got = _places(answers, "inside", wanted)
    if np.array_equal(got, wanted):
        return
    for symptom, places in wrong.items():
        if np.array_equal(got, places):
            raise Failed(symptom)
    raise Failed("some chains are elsewhere", f"{np.sum(got != wanted)} of {wanted.size} places are others")


def _edges_are(answers: Answers, cases: dict[str, _Chains], variant: Variant) -> None:
    case = cases["edges"]
    got = _places(answers, "edges", _as_asked(_walk(case), variant))
    if not np.array_equal(got, _as_asked(_walk(case), variant)):
        raise Failed(
            "with a D of exactly 0 or 1 some chains are elsewhere: from 0 every proposal is accepted, from 1 only another 1"
        )


def _unmoved_are(answers: Answers, cases: dict[str, _Chains], variant: Variant) -> None:
    wanted = _as_asked(_walk(cases["unmoved"]), variant)
    got = _places(answers, "unmoved", wanted)
    if np.any(got[wanted == -1] >= 0):
        raise Failed("a chain that accepts nothing is said to be at a proposal: it is still at its start")
    if not np.array_equal(got, wanted):
        raise Failed(
            "a chain that accepts its last proposal only is not there, or one that accepts nothing is not at -1"
        )


METROPOLIS = Exercise(
    f"{NAME}/metropolis_hastings",
    "Metropolis-Hastings with the target's discriminator",
    minutes=25,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_chain_cases,
    ask=_ask_chains,
    properties=(
        Property("chains of probabilities between 0 and 1", 2, _inside_is),
        Property("probabilities of exactly 0 and 1", 1, _edges_are),
        Property("chains that stay at their start", 1, _unmoved_are),
    ),
    choices={"returned": ("last", "path"), "given": ("probability", "logit")},
)


# --- 4. Calibration ----------------------------------------------------------------------------------------------------------

_GAP = 1e-6  # absolute
_FIT = 5e-3  # of a probability: an optimiser may end so far from the best fit, and a penalty of scikit-learn's size moves it further


@dataclass(frozen=True)
class _Stated:
    """Probabilities (n,) that a discriminator states, and whether the samples are real (n,); edges of the bins."""

    probability: np.ndarray
    is_real: np.ndarray
    edges: np.ndarray


@dataclass(frozen=True)
class _Heard:
    """Logits (n,) of which every share of real samples is exactly 1 / (1 + exp(-(slope l + intercept))) with as many real as generated
    ones, so that a fit has nothing left over; is_real (n,)."""

    logits: np.ndarray
    is_real: np.ndarray
    slope: float
    intercept: float

    @property
    def surplus(self) -> float:
        """The logarithm of how many generated samples there are for each real one."""
        return math.log((1 - self.is_real).sum() / self.is_real.sum())


def _bin_places(case: _Stated, right_closed: bool = False) -> np.ndarray:
    """(n,) the bin of each probability: [low, high[, and the last one with its upper edge."""
    side = "left" if right_closed else "right"
    last = len(case.edges) - 2
    return np.clip(np.searchsorted(case.edges, case.probability, side=side) - 1, 0, last)


def _gap_values(case: _Stated, variant: Variant) -> tuple[float, dict[str, float]]:
    """The right value, and those of the misconceptions by their symptom."""
    worst = variant["gap"] == "worst"
    n, bins = len(case.probability), len(case.edges) - 1
    centres = 0.5 * (case.edges[1:] + case.edges[:-1])

    def tables(places: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, ...]:
        """Of the bins that hold any: how many, the mean that is stated, the share that is real, the centre, the share of all real."""
        rows = []
        for i in range(bins):
            inside = (places == i) & keep
            if inside.any():
                stated, real = case.probability[inside].mean(), case.is_real[inside].mean()
                rows.append((inside.sum(), stated, real, centres[i], case.is_real[inside].sum() / case.is_real.sum()))
        return tuple(np.array(column, dtype=float) for column in zip(*rows, strict=True))

    def gap(count: np.ndarray, stated: np.ndarray, real: np.ndarray, worst: bool = worst) -> float:
        differences = np.abs(stated - real)
        return float(differences.max() if worst else (count * differences).sum() / n)

    everything = np.ones(n, dtype=bool)
    count, stated, real, centre, of_all_real = tables(_bin_places(case), everything)
    signed = count * (stated - real) / n
    inner = case.probability < case.edges[-1]
    wrong = {
        "this is the greatest difference of all bins, and their mean is asked for" if not worst
        else "this is the mean over the bins, and the greatest difference of all is asked for": gap(count, stated, real, not worst),
        "the middle of a bin is taken for what was stated in it: take the mean of the probabilities there": gap(count, centre, real),
        "the differences are taken with their signs: what is too high hides what is too low": abs(float(signed.sum())) if not worst
        else float((stated - real).max()),
        "this is the share of all real samples that lie in a bin: asked for is the share of the bin that is real": gap(
            count, stated, of_all_real
        ),
        "the differences are squared": float(((stated - real) ** 2).max() if worst else (count * (stated - real) ** 2).sum() / n),
        "every single sample is compared, with 0 or 1: that is how sure the statement is, not whether it holds": float(
            np.abs(case.probability - case.is_real).max() if worst else np.abs(case.probability - case.is_real).mean()
        ),
        "a probability on an edge is counted in the bin below it": gap(*tables(_bin_places(case, right_closed=True), everything)[:3]),
        "a probability of 1 is counted in no bin: the last one has its upper edge": gap(*tables(_bin_places(case), inner)[:3]),
    }  # fmt: skip
    if not worst:
        wrong["all bins weigh alike, and a sample counts as much as any other"] = float(np.abs(stated - real).mean())
        wrong["bins without a sample are counted as bins without a difference"] = float(
            np.abs(stated - real).sum() / bins
        )
    return gap(count, stated, real), wrong


_AT_THE_EDGES = ("a probability on an edge", "a probability of 1", "bins without a sample")


def _stated(rng: np.random.Generator, edges: bool) -> _Stated:
    """As many real as generated samples, of a discriminator that is surer than it may be."""
    bins = int(rng.integers(4, 7))
    borders = np.linspace(0.0, 1.0, bins + 1)
    n = 20 * bins
    if edges:
        # Some bins hold nothing, and many probabilities lie on an edge.
        filled = rng.choice(np.arange(bins - 1), bins - 2, replace=False)
        inside = borders[filled][rng.integers(0, bins - 2, n)] + rng.uniform(0.01, 0.99, n) / bins
        probability = np.where(np.arange(n) % 3 == 0, borders[filled][rng.integers(0, bins - 2, n)], inside)
        probability[rng.choice(n, n // 8, replace=False)] = 1.0
    else:
        weight = rng.permutation(np.arange(1.0, bins + 1.0))
        place = np.concatenate([np.arange(bins), rng.choice(bins, n - bins, p=weight / weight.sum())])
        low, high = borders[place], borders[place + 1]
        probability = low + (high - low) * rng.beta(0.8, 2.0, n).clip(0.02, 0.98)
    true = expit(0.4 * logit(probability.clip(0.01, 0.99)) + rng.choice([-0.5, 0.5]))
    order = np.argsort(true + 0.5 * rng.uniform(-1.0, 1.0, n))
    is_real = np.zeros(n, dtype=int)
    is_real[order[n // 2 :]] = 1
    mixed = rng.permutation(n)
    return _Stated(probability[mixed], is_real[mixed], borders)


def _heard(rng: np.random.Generator, step: float, more: int) -> _Heard:
    """`more`: generated samples for each real one. step: between neighbouring logits."""
    steps, base, growth = 4, int(rng.integers(3, 6)), 2
    centre = float(rng.uniform(0.4, 1.0) * rng.choice([-1.0, 1.0])) * step
    values = centre + step * (np.arange(steps) - 0.5 * (steps - 1))
    real, generated = base * growth ** np.arange(steps), more * base * growth ** np.arange(steps)[::-1]
    logits = np.concatenate([np.repeat(values, real), np.repeat(values, generated)])
    is_real = np.concatenate([np.ones(real.sum(), dtype=int), np.zeros(generated.sum(), dtype=int)])
    slope = 2.0 * math.log(growth) / step
    mixed = rng.permutation(len(logits))
    return _Heard(logits[mixed], is_real[mixed], slope, -slope * centre)


def _calibration_cases(variant: Variant, rng: np.random.Generator) -> dict[str, Any]:
    def told(case: _Stated, at_edges: bool) -> bool:
        wanted, wrong = _gap_values(case, variant)
        seen = {symptom: value for symptom, value in wrong.items() if symptom.startswith(_AT_THE_EDGES) == at_edges}
        # At the edges the others have to show too, so that they lose both; a greatest difference in the last bin has its sign.
        others = [
            value
            for symptom, value in wrong.items()
            if at_edges and not (variant["gap"] == "worst" and "with their signs" in symptom)
        ]
        return _all_differ([wanted, *seen.values()], relative=0.02) and tells_apart(wanted, others, relative=0.02)

    return {
        "filled": redraw(lambda: _stated(rng, edges=False), lambda case: told(case, False)),
        "edges": redraw(lambda: _stated(rng, edges=True), lambda case: told(case, True)),
        "sure": _heard(rng, float(rng.uniform(2.0, 4.0)), 1),
        "faint": _heard(rng, float(rng.uniform(0.03, 0.06)), 1),
        "unequal": _heard(rng, float(rng.uniform(2.0, 4.0)), int(rng.integers(3, 6))),
    }


def _ask_calibration(student: Any, variant: Variant, cases: dict[str, Any]) -> None:
    for label in ("filled", "edges"):
        case = cases[label]
        student.call(label, "reliability_gap", case.probability.copy(), case.is_real.copy(), case.edges.copy())
    for label in ("sure", "faint", "unequal"):
        student.call(label, "calibrate", cases[label].logits.copy(), cases[label].is_real.copy())


def _gap_is(label: str) -> Callable[[Answers, dict[str, Any], Variant], None]:
    def test(answers: Answers, cases: dict[str, Any], variant: Variant) -> None:
        wanted, wrong = _gap_values(cases[label], variant)
        if label == "edges" and math.isnan(answers.number(label)):
            raise Failed("NaN came back: a bin without a sample has no mean, and does not count")
        expect(answers.number(label), wanted, wrong, relative=0.0, absolute=_GAP)

    return test


def _curve(figures: np.ndarray, variant: Variant, case: _Heard) -> np.ndarray:
    """The probabilities that two figures give at the case's logits, from low to high."""
    logits = np.unique(case.logits)
    first, second = figures
    return expit((logits - second) / first if variant["form"] == "temperature" else first * logits + second)


def _curves_of(case: _Heard, variant: Variant) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The right probabilities, and those of the misconceptions by their symptom."""
    logits, a, b = np.unique(case.logits), case.slope, case.intercept
    wrong = {
        "the generated samples are more, and D must not know: it is meant for as many of the one kind as of the other": expit(
            a * logits + b - case.surplus
        ),
        "the greater number of generated samples is corrected the wrong way": expit(a * logits + b + case.surplus),
        "this is the probability of a generated sample, and that of a real one is asked for": expit(-a * logits - b),
        "the logits are left as they are": expit(logits),
    }
    if variant["form"] == "temperature":
        wrong["slope and intercept came back, and temperature and centre are asked for"] = expit((logits - b) / a)
        wrong["the temperature is upside down"] = expit((logits + b / a) * (1.0 / a))
    else:
        wrong["temperature and centre came back, and slope and intercept are asked for"] = expit(logits / a - b / a)
        wrong["the two numbers are exchanged"] = expit(b * logits + a)
    return expit(a * logits + b), wrong


def _calibrated_on(labels: tuple[str, ...]) -> Callable[[Answers, dict[str, Any], Variant], None]:
    def test(answers: Answers, cases: dict[str, Any], variant: Variant) -> None:
        for label in labels:
            case, figures = cases[label], answers.array(label, size=2).flatten()
            got = _curve(figures, variant, case)
            wanted, wrong = _curves_of(case, variant)
            if not np.isfinite(got).all():
                raise Failed("NaN or infinity came back")
            off = np.abs(got - wanted).max()
            if off < _FIT:
                continue
            for symptom, curve in wrong.items():
                if np.abs(got - curve).max() < _FIT:
                    raise Failed(symptom, f"a probability is off by {off:.3g}")
            flat = got[-1] - got[0] < wanted[-1] - wanted[0]
            faint = "" if label != "faint" else ", where the logits are as small as hundredths"
            raise Failed(
                f"the curve is too {'flat' if flat else 'steep'}{faint}: does a penalty, or too few steps, keep it from the best fit?"
                if abs(got.mean() - wanted.mean()) < 0.05
                else "the curve is not that of greatest likelihood",
                f"a probability is off by {off:.3g}",
            )

    return test


CALIBRATION = Exercise(
    f"{NAME}/calibration",
    "Does the discriminator mean what it says?",
    minutes=25,
    difficulty=3,
    visible=4,
    hidden=4,
    cases=_calibration_cases,
    ask=_ask_calibration,
    properties=(
        Property("the gap between what is stated and what is so", 1, _gap_is("filled")),
        Property("empty bins, and probabilities on an edge", 1, _gap_is("edges")),
        Property("calibrated on as many real as generated samples", 1, _calibrated_on(("sure", "faint"))),
        Property("calibrated on more generated samples than real ones", 1, _calibrated_on(("unequal",))),
    ),
    choices={"gap": ("mean", "worst"), "form": ("slope", "temperature")},
)


# --- 5. The price of a defence -----------------------------------------------------------------------------------------------

_RESAMPLES = 401  # so that the quantiles of a level are order statistics


@dataclass(frozen=True)
class _Trial:
    """Distances over k runs, (k,) each: of what is served to the real data and of what the thief makes to the target, with the defence
    and before. resamples: (resamples, k) numbers of runs."""

    served: np.ndarray
    stolen: np.ndarray
    served_before: np.ndarray
    stolen_before: np.ndarray
    resamples: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.served, self.stolen, self.served_before, self.stolen_before


def _changes(case: _Trial) -> tuple[float, float]:
    served, stolen, served_before, stolen_before = (each.mean() for each in case.arrays)
    return float(served / served_before - 1.0), float(stolen / stolen_before - 1.0)


def _excess(cost: Any, gain: Any, score: str) -> Any:
    return gain - cost if score == "difference" else (1.0 + gain) / (1.0 + cost) - 1.0


def _resampled(case: _Trial) -> tuple[np.ndarray, np.ndarray]:
    """Cost and gain (resamples,), each resample of the same runs in all four."""
    served, stolen, served_before, stolen_before = (each[case.resamples].mean(1) for each in case.arrays)
    return served / served_before - 1.0, stolen / stolen_before - 1.0


def _change_values(case: _Trial) -> tuple[tuple[float, float], dict[str, tuple[float, float]]]:
    served, stolen, served_before, stolen_before = case.arrays
    cost, gain = _changes(case)
    wrong = {
        "cost and gain are exchanged: the customer pays in what is served, the thief in what is stolen": (gain, cost),
        "these are ratios: of no change, the relative change is 0": (1.0 + cost, 1.0 + gain),
        "these are differences of distances, and relative changes are asked for": (
            served.mean() - served_before.mean(),
            stolen.mean() - stolen_before.mean(),
        ),
        "the changes are relative to the distances under the defence: relative to those before is asked for": (
            1.0 - 1.0 / (1.0 + cost),
            1.0 - 1.0 / (1.0 + gain),
        ),
        "the signs are turned round: a distance that grows has a positive change": (-cost, -gain),
        "the ratio is taken run by run: take the ratio of the two means": (
            float((served / served_before).mean() - 1.0),
            float((stolen / stolen_before).mean() - 1.0),
        ),
        "these are percentages, and shares are asked for": (100.0 * cost, 100.0 * gain),
    }
    return (cost, gain), {symptom: (float(x), float(y)) for symptom, (x, y) in wrong.items()}


def _order_statistics(values: np.ndarray, level: float, slack: int) -> tuple[float, float, float, float]:
    """Between which two values the lower end may lie, and between which two the upper one."""
    ordered = np.sort(values)
    place = round((len(values) - 1) * 0.5 * (1.0 - level))
    low = ordered[max(0, place - slack)], ordered[place + slack]
    high = ordered[-1 - place - slack], ordered[min(len(values) - 1, len(values) - 1 - place + slack)]
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _within(ends: tuple[float, float], bounds: tuple[float, float, float, float]) -> bool:
    rounding = 1e-6 * (bounds[3] - bounds[0])
    return all(bounds[2 * i] - rounding <= end <= bounds[2 * i + 1] + rounding for i, end in enumerate(ends))


def _excess_values(
    case: _Trial, variant: Variant
) -> tuple[tuple[float, float, float, float], dict[str, tuple[float, float]]]:
    """The bounds of the right interval (two order statistics to either side, as quantiles are defined in several ways), and the
    intervals of the misconceptions by their symptom."""
    level, score = variant["level"], variant["score"]
    cost, gain = _resampled(case)
    excess = _excess(cost, gain, score)
    middle = float(_excess(*_changes(case), score))
    tail = 0.5 * (1.0 - level)

    def ends(values: np.ndarray, tail: float = tail) -> tuple[float, float]:
        low, high = np.quantile(values, [tail, 1.0 - tail])
        return float(low), float(high)

    low, high = ends(excess)
    half = float(ndtri(1.0 - tail) * excess.std() / math.sqrt(len(excess)))
    by_run = [each[case.resamples] for each in case.arrays]
    run_by_run = _excess((by_run[0] / by_run[2]).mean(1) - 1.0, (by_run[1] / by_run[3]).mean(1) - 1.0, score)
    other = "ratio" if score == "difference" else "difference"
    wrong = {
        "this is the interval of the gain alone: what the customer pays does not enter": ends(gain),
        "this is the interval of the cost": ends(cost),
        "the customer's cost less the thief's is taken: the other way round is asked for": (-high, -low),
        "the excess is to be a difference, and it is a ratio" if score == "difference"
        else "the excess is to be a ratio, and it is a difference": ends(_excess(cost, gain, other)),
        "the quantiles leave the whole of the rest on one side: the interval has two": ends(excess, 1.0 - level),
        "this is the least and the greatest of all resamples": (float(excess.min()), float(excess.max())),
        "these are the quartiles": ends(excess, 0.25),
        "the spread of the resamples is divided by the root of their number: it is that of a mean already": (middle - half, middle + half),
        "the ratio is taken run by run: take the ratio of the two means": ends(run_by_run),
    }  # fmt: skip
    if level != 0.95:
        wrong["the level is the usual one, and another is asked for"] = ends(excess, 0.025)
    return _order_statistics(excess, level, 2), wrong


def _trials(variant: Variant, rng: np.random.Generator) -> dict[str, _Trial]:
    score, level = variant["score"], variant["level"]

    def draw(cost: float, gain: float, spread: float) -> _Trial:
        k = int(rng.integers(7, 10))
        # A run that starts badly does so with and without the defence: the thief's luck is shared.
        luck = np.exp(0.35 * rng.normal(size=(2, k)))
        own = np.exp(spread * rng.normal(size=(4, k)))
        served_before, stolen_before = 90.0 * luck[0] * own[2], 60.0 * luck[1] * own[3]
        served = 90.0 * luck[0] ** 0.5 * (1.0 + cost) * own[0]
        stolen = 60.0 * luck[1] ** 0.5 * (1.0 + gain) * own[1]
        resamples = rng.integers(0, k, (_RESAMPLES, k))
        return _Trial(*(np.round(each, 2) for each in (served, stolen, served_before, stolen_before)), resamples)

    def bounds(case: _Trial) -> tuple[float, float, float, float]:
        return _order_statistics(_excess(*_resampled(case), score), level, 2)

    def told(case: _Trial) -> bool:
        (cost, gain), wrong = _change_values(case)
        allowed, others = _excess_values(case, variant)
        return (
            all(
                _all_differ([wanted, *(ends[i] for ends in wrong.values())], 0.01)
                for i, wanted in enumerate((cost, gain))
            )
            and not any(_within(ends, allowed) for ends in others.values())
            and allowed[0] > 0.02
        )

    def lies(low: int, high: int, point: int, gain_alone: bool = False) -> Callable[[_Trial], bool]:
        def test(case: _Trial) -> bool:
            edges = bounds(case)
            middle = _excess(*_changes(case), score)
            quantiles = np.quantile(_resampled(case)[1], [0.5 * (1.0 - level)])
            return (
                min(low * edges[0], low * edges[1]) > 0.01
                and min(high * edges[2], high * edges[3]) > 0.01
                and point * middle > 0.01
                and (not gain_alone or quantiles[0] > 0.02)
            )

        return test

    return {
        "worth it": redraw(lambda: draw(0.3, 1.6, 0.1), told),
        # The mean says yes and the interval does not, though that of the gain alone would.
        "perhaps": redraw(lambda: draw(0.6, 1.0, 0.15), lies(-1, 1, 1, gain_alone=True)),
        "costly": redraw(lambda: draw(1.6, 0.7, 0.1), lies(-1, -1, -1, gain_alone=True)),
        # What is served even improves, and the thief has more from it still.
        "a gift": redraw(lambda: draw(-0.2, -0.6, 0.1), lies(-1, -1, -1)),
    }


def _ask_price(student: Any, variant: Variant, cases: dict[str, _Trial]) -> None:
    for label, case in cases.items():
        student.call(label, "price", *(each.copy() for each in case.arrays), case.resamples.copy())


def _price_figures(answers: Answers, label: str) -> np.ndarray:
    """Cost, gain, the ends of the interval, and whether it counts."""
    figures = answers.array(label)
    if figures.size != 5:
        raise Failed(
            "five things are asked for: cost, gain, both ends of the interval, and whether the defence counts"
        )
    return figures.flatten()


def _changes_are(answers: Answers, cases: dict[str, _Trial], variant: Variant) -> None:
    for label, case in cases.items():
        got = tuple(map(float, _price_figures(answers, label)[:2]))
        wanted, wrong = _change_values(case)

        def near(values: tuple[float, float], got: tuple[float, float] = got) -> bool:
            return all(math.isclose(x, y, rel_tol=1e-4, abs_tol=1e-6) for x, y in zip(got, values, strict=True))

        if near(wanted):
            continue
        measured = (
            f"yours are {got[0]:.4g} and {got[1]:.4g}, the definition gives {wanted[0]:.4g} and {wanted[1]:.4g}"
        )
        for symptom, values in wrong.items():
            if near(values):
                raise Failed(symptom, measured)
        raise Failed("the relative changes are others", measured)


def _excess_is(answers: Answers, cases: dict[str, _Trial], variant: Variant) -> None:
    for label, case in cases.items():
        low, high = map(float, _price_figures(answers, label)[2:4])
        bounds, wrong = _excess_values(case, variant)
        if _within((low, high), bounds):
            continue
        measured = (
            f"yours is {low:.4g} to {high:.4g}, the definition gives {0.5 * (bounds[0] + bounds[1]):.4g} to "
            f"{0.5 * (bounds[2] + bounds[3]):.4g}"
        )
        width = bounds[3] - bounds[0]
        for symptom, ends in wrong.items():
            if all(abs(x - y) < 0.01 * width for x, y in zip((low, high), ends, strict=True)):
                raise Failed(symptom, measured)
        if math.isnan(low) or math.isnan(high):
            raise Failed("NaN came back as an end of the interval")
        raise Failed(
            "the interval is too narrow" if high - low < bounds[2] - bounds[1] else "the interval is another one",
            measured,
        )


def _counts_follow(answers: Answers, cases: dict[str, _Trial], variant: Variant) -> None:
    """From the answer's own interval, right or wrong: that is another property's concern."""
    for label in cases:
        _, _, low, _, counts = map(float, _price_figures(answers, label))
        if counts not in (0.0, 1.0):
            raise Failed("the last thing that is asked for is a yes or no")
        if counts and not low > 0.0:
            raise Failed("a defence is said to count although your interval does not lie above zero")
        if not counts and low > 0.0:
            raise Failed("a defence is said not to count although your interval lies above zero")


def _counts_are(answers: Answers, cases: dict[str, _Trial], variant: Variant) -> None:
    said = {label: float(_price_figures(answers, label)[4]) for label in cases}
    if any(value not in (0.0, 1.0) for value in said.values()):
        raise Failed("the last thing that is asked for is a yes or no")
    if said["costly"]:
        raise Failed("a defence is said to count that costs the customer more than the thief")
    if said["a gift"]:
        raise Failed("a defence is said to count under which the thief comes nearer to the target")
    if said["perhaps"]:
        raise Failed("a defence is said to count that with other runs might not: its interval holds zero")
    if not said["worth it"]:
        raise Failed("a defence is said not to count that costs the thief more than the customer, beyond doubt")


PRICE = Exercise(
    f"{NAME}/price",
    "What a defence costs, and whom",
    minutes=20,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_trials,
    ask=_ask_price,
    properties=(
        Property("cost and gain, relative to no defence", 1, _changes_are),
        Property("the interval of the excess", 1, _excess_is),
        Property("counted if your interval lies above zero, and only then", 1, _counts_follow),
        Property("which of four defences count", 1, _counts_are),
    ),
    choices={"score": ("difference", "ratio"), "level": (0.95, 0.9)},
)


# --- The written question ----------------------------------------------------------------------------------------------------

HONEST_CLAIM = Written(
    "honest_claim",
    "What a vendor may claim",
    minutes=20,
    difficulty=2,
    criteria=(
        (2, "Which distance is meant, by formula: \"fidelity\" is no name, and the distance to the target and the one to the real data "
            "can move apart; beside it the floor, and how many samples it was taken at"),
        (2, "How many runs and of what: three runs carry no claim, samples and repeats are no runs, and what the interval says is asked for"),
        (2, "The customer's side: what is served got worse too, with the table's figures; a defence counts only for what it costs the "
            "thief beyond that"),
        (2, "Against which thief, budget and knowledge: one thief who did not adapt (undo the noise, ask for more, average), and "
            "nothing about one with the discriminator or with real data"),
        (2, "A claim that may stand, with its conditions and an interval from the table, and no word such as \"prevents\""),
    ),
)  # fmt: skip

ASSIGNMENT = Assignment(
    NAME, "Extraction", (TWO_DISTANCES, TOLD_APART, METROPOLIS, CALIBRATION, PRICE), (HONEST_CLAIM,)
)
