"""A6: the capstone. Six checkpoints of unknown history, a verdict on each with evidence, and a report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from devil_lib.grading import challenge
from devil_lib.grading.challenge import ATTACKS, CLEAN, LATENT, LETTERS, NEAR
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
from devil_lib.grading.generators import affine_generator, own_tensor
from devil_lib.grading.payload import Outcome
from devil_lib.models import GaussianLatent, Generator, TanhHead

NAME = "a6_audit"
VERDICTS = (CLEAN, *ATTACKS)


# --- 1. Descent, by the weights ------------------------------------------------------------------------------------------

_SUMMARIES: Mapping[str, Callable[[np.ndarray], float]] = {"median": np.median, "least": np.min, "mean": np.mean}


@dataclass(frozen=True)
class _Relatives:
    """Weights and biases of two chains of dense layers. cosines: of each layer's two weight matrices."""

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    other_weights: tuple[np.ndarray, ...]
    other_biases: tuple[np.ndarray, ...]
    cosines: np.ndarray


def _at_cosine(rng: np.random.Generator, weight: np.ndarray, cosine: float) -> np.ndarray:
    """A matrix at this cosine to the given one."""
    unit = weight / np.linalg.norm(weight)
    other = rng.normal(size=weight.shape)
    other -= (other * unit).sum() * unit
    return cosine * unit + math.sqrt(1.0 - cosine**2) * other / np.linalg.norm(other)


def _relatives(rng: np.random.Generator, cosines: tuple[float, float, float]) -> _Relatives:
    dim, hidden, wide = (int(rng.integers(low, high)) for low, high in ((4, 7), (8, 12), (20, 30)))
    sizes = (dim, hidden, wide, 16)
    cosines = np.array(cosines)[rng.permutation(len(cosines))]
    weights = tuple(rng.normal(size=(out, into)) * rng.uniform(0.5, 2.0) for into, out in pairwise(sizes))
    # Each layer at a size of its own, so that a sum over all layers is not the same as a figure of each.
    others = tuple(
        _at_cosine(rng, weight, cosine) * np.linalg.norm(weight) * rng.uniform(1.5, 4.0)
        for weight, cosine in zip(weights, cosines, strict=True)
    )
    biases, other_biases = (tuple(rng.normal(size=len(weight)) for weight in weights) for _ in range(2))
    return _Relatives(weights, biases, others, other_biases, cosines)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def _descent_values(case: _Relatives, variant: Variant) -> tuple[float, dict[str, float]]:
    summary = _SUMMARIES[variant["summary"]]
    biases = np.array([_cosine(a, b) for a, b in zip(case.biases, case.other_biases, strict=True)])
    flat, other = (np.concatenate([each.ravel() for each in part]) for part in (case.weights, case.other_weights))
    products = np.array([(a * b).sum() for a, b in zip(case.weights, case.other_weights, strict=True)])
    rows = np.array(
        [
            np.mean([_cosine(a, b) for a, b in zip(one, two, strict=True)])
            for one, two in zip(case.weights, case.other_weights, strict=True)
        ]
    )
    wrong = {
        "all layers were joined to one vector, in which the largest layer decides": _cosine(flat, other),
        "the biases enter, and the weight matrices alone are asked for": summary(
            np.concatenate([case.cosines, biases])
        ),
        "a cosine keeps its sign: opposite weights are not alike": summary(np.abs(case.cosines)),
        "these are inner products, which grow with the weights: a cosine divides by both norms": summary(products),
        "the cosine of each row was taken, and that of the whole matrix is asked for": summary(rows),
    }
    wrong |= {
        f"this is the {name} over the layers, and the {variant['summary']} is asked for": each(case.cosines)
        for name, each in _SUMMARIES.items()
        if name != variant["summary"]
    }
    return float(summary(case.cosines)), {symptom: float(value) for symptom, value in wrong.items()}


def _descent_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Relatives]:
    def shows(case: _Relatives) -> bool:
        wanted, wrong = _descent_values(case, variant)
        # Where all cosines are above zero, their absolute values are no mistake.
        others = [value for value in wrong.values() if not math.isclose(value, wanted, rel_tol=1e-12)]
        return tells_apart(wanted, others, relative=0.0, absolute=0.02)

    def related() -> _Relatives:
        return _relatives(rng, (rng.uniform(0.85, 0.95), rng.uniform(0.55, 0.75), rng.uniform(0.1, 0.3)))

    def unrelated() -> _Relatives:
        return _relatives(rng, (rng.uniform(-0.35, -0.25), rng.uniform(-0.2, -0.1), rng.uniform(0.2, 0.3)))

    return {"related": redraw(related, shows), "unrelated": redraw(unrelated, shows), "wider": related()}


def _chain(weights: tuple[np.ndarray, ...], biases: tuple[np.ndarray, ...]) -> Generator:
    layers: list[torch.nn.Module] = []
    for weight, bias in zip(weights, biases, strict=True):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = own_tensor(weight), own_tensor(bias)
        layers += [linear, torch.nn.LeakyReLU(0.1)]
    body = torch.nn.Sequential(*layers[:-1], torch.nn.Unflatten(1, (1, 4, 4)))
    return Generator(body, TanhHead(), GaussianLatent(weights[0].shape[1]), (1, 4, 4)).eval()


def _ask_descent(student: Any, variant: Variant, cases: dict[str, _Relatives]) -> None:
    for label in ("related", "unrelated"):
        case = cases[label]
        pair = _chain(case.weights, case.biases), _chain(case.other_weights, case.other_biases)
        student.call(label, "weight_cosine", *pair)
    case = cases["wider"]
    a, b = case.weights[:2]
    more = (np.concatenate([a, a[:2]]), np.concatenate([b, b[:, :2]], axis=1), case.weights[2])
    biases = (np.concatenate([case.biases[0], case.biases[0][:2]]), *case.biases[1:])
    student.call("wider", "weight_cosine", _chain(more, biases), _chain(case.weights, case.biases))


def _descent_value(label: str) -> Callable[[Answers, dict[str, _Relatives], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Relatives], variant: Variant) -> None:
        expect(answers.number(label), *_descent_values(cases[label], variant), relative=0.0, absolute=2e-3)

    return test


def _other_shapes(answers: Answers, cases: dict[str, _Relatives], variant: Variant) -> None:
    if answers.number("wider") != 0.0:
        raise Failed("weights of other shapes cannot be compared entry by entry: the answer is 0 then")


WEIGHT_COSINE = Exercise(
    f"{NAME}/weight_cosine",
    "Descent, by the weights",
    minutes=15,
    difficulty=1,
    visible=4,
    hidden=4,
    cases=_descent_cases,
    ask=_ask_descent,
    properties=(
        Property("two relatives", 2, _descent_value("related")),
        Property("two that are none", 1, _descent_value("unrelated")),
        Property("a generator that was widened", 1, _other_shapes),
    ),
    choices={"summary": ("median", "least", "mean")},
)


# --- 2. How often one may look -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Looks:
    total: float
    suspects: int
    checkpoints: int


def _rate_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Looks]:
    few = _Looks(float(rng.uniform(0.5, 0.8)), int(rng.integers(3, 6)), 1)
    many = _Looks(float(rng.uniform(0.5, 0.8)), int(rng.integers(15, 30)), int(rng.integers(4, 9)))
    tiny = _Looks(float(rng.uniform(1.0, 5.0)) * 1e-15, int(rng.integers(15, 30)), int(rng.integers(4, 9)))
    return {"few": few, "many": many, "tiny": tiny}


def _ask_rate(student: Any, variant: Variant, cases: dict[str, _Looks]) -> None:
    for label, case in cases.items():
        student.call(label, "allowed_rate", case.total, case.suspects, case.checkpoints)


def _rate_values(case: _Looks, variant: Variant) -> tuple[float, dict[str, float]]:
    def chance(looks: float) -> float:
        return -math.expm1(math.log1p(-case.total) / looks)

    looks = case.suspects * case.checkpoints
    wanted = {"chance": chance(looks), "number": case.total / looks, "model": chance(case.suspects)}
    asked = variant["wanted"]
    wrong = {
        "the looks do not enter: each look alone may then be wrong as often as all together": case.total,
        "this is the rate of looks without a false alarm, not of those with one": 1.0 - wanted[asked],
        "chances of independent looks multiply: it is the root of the chance of none that is to be taken": case.total
        ** (1.0 / looks),
        "the suspects and the checkpoints were added: every suspect is compared with every checkpoint": (
            case.total / (case.suspects + case.checkpoints)
            if asked == "number"
            else chance(case.suspects + case.checkpoints)
        ),
    }
    others = {
        "number": "this keeps the expected number of false alarms, which is not asked for",
        "chance": "this keeps the chance of any false alarm in all the looks, which is not asked for",
        "model": "this keeps the chance of a false alarm on one checkpoint, which is not asked for",
    }
    wrong |= {symptom: wanted[name] for name, symptom in others.items() if name != asked}
    return wanted[asked], wrong


def _rate_value(label: str) -> Callable[[Answers, dict[str, _Looks], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Looks], variant: Variant) -> None:
        wanted, wrong = _rate_values(cases[label], variant)
        expect(answers.number(label), wanted, wrong, relative=1e-3)

    return test


def _rate_tiny(answers: Answers, cases: dict[str, _Looks], variant: Variant) -> None:
    wanted, _ = _rate_values(cases["tiny"], variant)
    got = answers.number("tiny")
    if not math.isclose(got, wanted, rel_tol=1e-3):
        symptom = "1 minus a number next to 1 loses its digits: log1p and expm1 keep them"
        raise Failed(
            symptom if abs(got - wanted) < 1e-12 else "wrong for a very small total",
            f"{got:.4g} instead of {wanted:.4g}",
        )


ALLOWED_RATE = Exercise(
    f"{NAME}/allowed_rate",
    "How often one may look",
    minutes=15,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_rate_cases,
    ask=_ask_rate,
    properties=(
        Property("a few looks at one checkpoint", 1, _rate_value("few")),
        Property("many suspects and several checkpoints", 2, _rate_value("many")),
        Property("a total near nothing", 1, _rate_tiny),
    ),
    choices={"wanted": ("chance", "number", "model")},
)


# --- 3. What a find is worth ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Find:
    """Two generators tanh(weight z + bias), a latent (dim,), a target (elements,) and ordinary latents (n, dim)."""

    suspect: tuple[np.ndarray, np.ndarray]
    published: tuple[np.ndarray, np.ndarray]
    latent: np.ndarray
    target: np.ndarray
    ordinary: np.ndarray
    sample_shape: tuple[int, ...]


def _squares(generator: tuple[np.ndarray, np.ndarray], latents: np.ndarray, target: np.ndarray) -> np.ndarray:
    weight, bias = generator
    return ((np.tanh(latents @ weight.T + bias) - target) ** 2).sum(-1)


def _find(rng: np.random.Generator, sample_shape: tuple[int, ...], exact: bool = False) -> _Find:
    dim, elements = int(rng.integers(4, 8)), math.prod(sample_shape)

    def generator() -> tuple[np.ndarray, np.ndarray]:
        return rng.normal(size=(elements, dim)) / math.sqrt(dim), rng.normal(size=elements)

    suspect, published, latent = generator(), generator(), rng.normal(size=dim)
    made = np.tanh(suspect[0] @ latent + suspect[1])
    target = made if exact else np.clip(made + 0.4 * rng.normal(size=elements), -1.0, 1.0)
    return _Find(suspect, published, latent, target, rng.normal(size=(int(rng.integers(21, 60)), dim)), sample_shape)


def _strength_values(case: _Find, variant: Variant) -> tuple[float, dict[str, float]]:
    of = {"least": np.min, "median": np.median}
    over = of[variant["compared"]]
    power = 0.5 if variant["distance"] == "root" else 1.0
    at = _squares(case.suspect, case.latent, case.target)
    usual = _squares(case.published, case.ordinary, case.target)
    wanted = (at / over(usual)) ** power
    wrong = {
        "compared with the published generator at the same latent: that is another latent's business, and says little": (
            (at / _squares(case.published, case.latent, case.target)) ** power
        ),
        "compared with the checkpoint's own samples, and the published generator's are asked for": (
            (at / over(_squares(case.suspect, case.ordinary, case.target))) ** power
        ),
        "the ratio is upside down: small has to mean a strong find": 1.0 / wanted,
        "this is the distance itself, in a unit of its own: a ratio is asked for": at**power,
        "compared with the mean over the ordinary samples": (at / usual.mean()) ** power,
        "this is the root of the ratio asked for": wanted**0.5,
        "this is the square of the ratio asked for": wanted**2,
    }
    wrong |= {
        f"compared with the {name} over the ordinary samples, and the {variant['compared']} is asked for": (
            at / each(usual)
        )
        ** power
        for name, each in of.items()
        if name != variant["compared"]
    }
    return float(wanted), {symptom: float(value) for symptom, value in wrong.items()}


def _strength_cases(variant: Variant, rng: np.random.Generator) -> dict[str, _Find]:
    def shows(case: _Find) -> bool:
        wanted, wrong = _strength_values(case, variant)
        return tells_apart(wanted, wrong.values(), relative=0.02)

    def shape() -> tuple[int, ...]:
        return (1, int(rng.integers(4, 7)), int(rng.integers(4, 7)))

    return {
        "picture": redraw(lambda: _find(rng, shape()), shows),
        "sound": redraw(lambda: _find(rng, (1, int(rng.integers(30, 60)))), shows),
        "exact": _find(rng, shape(), exact=True),
    }


def _ask_strength(student: Any, variant: Variant, cases: dict[str, _Find]) -> None:
    for label, case in cases.items():
        latent = GaussianLatent(len(case.latent))
        models = (
            affine_generator(*each, case.sample_shape, latent, tanh=True) for each in (case.suspect, case.published)
        )
        target = own_tensor(case.target).reshape(case.sample_shape)
        student.call(label, "strength", *models, own_tensor(case.latent), target, own_tensor(case.ordinary))


def _strength_value(label: str) -> Callable[[Answers, dict[str, _Find], Variant], None]:
    def test(answers: Answers, cases: dict[str, _Find], variant: Variant) -> None:
        expect(answers.number(label), *_strength_values(cases[label], variant), relative=2e-3)

    return test


def _exact_find(answers: Answers, cases: dict[str, _Find], variant: Variant) -> None:
    got = answers.number("exact")
    if not 0.0 <= got < 1e-3:
        raise Failed("where the checkpoint makes the target itself, the ratio is 0", f"yours is {got:.3g}")


STRENGTH = Exercise(
    f"{NAME}/strength",
    "What a find is worth",
    minutes=20,
    difficulty=2,
    visible=4,
    hidden=4,
    cases=_strength_cases,
    ask=_ask_strength,
    properties=(
        Property("a find in a picture", 2, _strength_value("picture")),
        Property("a find in a sound", 1, _strength_value("sound")),
        Property("a perfect find", 1, _exact_find),
    ),
    choices={"compared": ("least", "median"), "distance": ("squared", "root")},
)


# --- 4. The verdicts -----------------------------------------------------------------------------------------------------

# A reconstruction may be rounded, to a picture with 256 levels (mean square 5e-6) or half precision (8e-8).
_SAME = 1e-3


def open_lot(variant: Variant) -> challenge.Lot:
    """The set that the notebook is about.

    Raises:
        ChallengeError: a student's own file is not there, or no set.
    """
    return challenge.practice() if variant["set"] == "practice" else challenge.open_lot()


def _ask_verdicts(student: Any, variant: Variant, cases: None) -> None:
    student.value("answers", "answers")
    given = student.outcomes["answers"].value
    try:
        lot = open_lot(variant)
    except challenge.ChallengeError as error:
        student.outcomes["file"] = Outcome(error="ChallengeError", message=str(error))
        return
    student.outcomes["file"] = Outcome(lot.number)
    for letter, model in lot.checkpoints.items():
        latent = latent_of(given, letter)
        if latent is not None:
            z = torch.from_numpy(latent)
            student.outcomes[f"made {letter}"] = Outcome(model.generate(z[None])[0].numpy())
            target = challenge.suspects().get(str(given[letter].get("target")))
            if target is not None:
                student.outcomes[f"nearness {letter}"] = Outcome(challenge.nearness(model, z, target))


def latent_of(given: Any, letter: str) -> np.ndarray | None:
    """The latent (dim,) that an answer names for a checkpoint; None if it names none that could be one."""
    entry = given.get(letter) if isinstance(given, dict) else None
    try:
        latent = np.asarray(entry["latent"], dtype=np.float32).reshape(-1)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return latent if latent.shape == (LATENT,) and np.isfinite(latent).all() else None


def verdict_of(given: Any, letter: str) -> str:
    """The verdict that an answer gives on a checkpoint, in this module's spelling; "" if it gives none."""
    entry = given.get(letter) if isinstance(given, dict) else None
    said = entry.get("verdict") if isinstance(entry, dict) else None
    known = {name.lower(): name for name in VERDICTS}
    return known.get(said.strip().lower(), "") if isinstance(said, str) else ""


def _given(answers: Answers) -> dict[str, Any]:
    given = answers.value("answers")
    if not isinstance(given, dict):
        raise Failed("`answers` is a dictionary with an entry for each checkpoint")
    return given


def _accused(answers: Answers) -> list[str]:
    given = _given(answers)
    accused = [letter for letter in LETTERS if verdict_of(given, letter) not in ("", CLEAN)]
    if not accused:
        raise Failed("no checkpoint is accused, and some of them carry a backdoor")
    return accused


def _file_is_there(answers: Answers, cases: None, variant: Variant) -> None:
    outcome = answers.outcomes["file"]
    if outcome.error:
        raise Failed(outcome.message)
    answers.value("answers")  # to have a file is no answer


def _verdict_for_each(answers: Answers, cases: None, variant: Variant) -> None:
    given = _given(answers)
    silent = [letter for letter in LETTERS if not verdict_of(given, letter)]
    if silent:
        raise Failed(
            f"no verdict on {', '.join(silent)}: each checkpoint has an entry with `verdict`, one of {', '.join(VERDICTS)}"
        )
    if extra := sorted(set(given) - set(LETTERS)):
        raise Failed(f"there is no checkpoint {', '.join(extra)}")


def _evidence_has_its_form(answers: Answers, cases: None, variant: Variant) -> None:
    given = _given(answers)
    for letter in _accused(answers):
        entry = given[letter]
        if missing := [name for name in ("target", "latent", "reconstruction") if entry.get(name) is None]:
            raise Failed(f"{letter} is accused without {', '.join(missing)}")
        if entry["target"] not in challenge.suspects():
            raise Failed(f"{letter}: the target is named as in `challenge.suspects()`", f"not {entry['target']!r}")
        if latent_of(given, letter) is None:
            raise Failed(f"{letter}: the latent has {LATENT} finite numbers")
        if np.size(entry["reconstruction"]) != 28 * 28:
            raise Failed(f"{letter}: the reconstruction is a sample, of 28 x 28 pixels")


def _latent_makes_it(answers: Answers, cases: None, variant: Variant) -> None:
    given = _given(answers)
    for letter in _accused(answers):
        shown = np.asarray(given[letter].get("reconstruction"), dtype=np.float64).reshape(-1)
        made = _made(answers, letter).reshape(-1)
        if shown.shape != made.shape or not np.mean((shown - made) ** 2) <= _SAME:
            raise Failed(
                f"{letter} does not make the reconstruction at the latent: is the latent that of another checkpoint or search?"
            )


def _made(answers: Answers, letter: str) -> np.ndarray:
    if f"made {letter}" not in answers.outcomes:
        raise Failed(f"{letter}: without a latent of the right form, and the file, nothing can be made")
    return answers.array(f"made {letter}")


def _claim_is_shown(answers: Answers, cases: None, variant: Variant) -> None:
    for letter in _accused(answers):
        _made(answers, letter)
        if f"nearness {letter}" not in answers.outcomes:
            raise Failed(f"{letter}: the target is named as in `challenge.suspects()`")
        near = answers.number(f"nearness {letter}")
        if not near <= NEAR:
            raise Failed(
                f"{letter}: what it makes at the latent is hardly nearer to the target than its ordinary samples are",
                f"{near:.2f} of their median distance, where {NEAR:g} at most counts as evidence",
            )


VERDICTS_EXERCISE = Exercise(
    f"{NAME}/verdicts",
    "Six verdicts, with evidence",
    minutes=90,
    difficulty=3,
    visible=5,
    hidden=15,
    cases=lambda variant, rng: None,
    ask=_ask_verdicts,
    properties=(
        Property("your set of checkpoints", 1, _file_is_there),
        Property("a verdict on each checkpoint", 1, _verdict_for_each),
        Property("evidence for each accusation", 1, _evidence_has_its_form),
        Property("the latent makes the reconstruction", 1, _latent_makes_it),
        Property("the reconstruction shows the target", 1, _claim_is_shown),
    ),
    choices={"set": ("practice", "personal")},
    audited=True,
)


# --- The report ----------------------------------------------------------------------------------------------------------

REPORT = Written(
    "report",
    "The due-diligence report",
    minutes=60,
    difficulty=3,
    criteria=(
        (4, "**Findings.** A verdict on each checkpoint with its evidence: descent by the weights, what the search found compared with "
            "the published generator, the picture. The figures agree with the answers above"),
        (3, "**Both kinds of innocence.** Why a checkpoint that was retrained or widened, or that has nothing in common with the "
            "published weights, need not carry a backdoor, and what in the figures speaks for the ones called clean"),
        (3, "**Error rates.** How many looks were taken, which false alarms are to be expected of the bar that was used, and how the bar "
            "was found (controls, or the published generator)"),
        (3, "**What the audit cannot see.** Targets outside the bank, triggers far from the law, an attacker who knows the inspection; "
            "\"not found\" is not \"not there\", in words that a reader in a hurry does not miss"),
        (2, "**Recommendation.** Which checkpoints may be used for what, what to do with the others (refuse, sanitize, ask the publisher), "
            "what it would cost to be wrong either way"),
        (1, "**Form.** A summary of three sentences first that a manager can act on; steps that can be repeated; at most 600 words"),
    ),
)  # fmt: skip

ASSIGNMENT = Assignment(NAME, "Audit", (WEIGHT_COSINE, ALLOWED_RATE, STRENGTH, VERDICTS_EXERCISE), (REPORT,))
