"""What an exercise and an assignment are, and how a judge says that a property does not hold."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from devil_lib.grading.payload import INTERRUPTED, MISSING, NOT_DATA, UNWRITTEN, Outcome

Variant = Mapping[str, Any]
T = TypeVar("T")


class Failed(Exception):
    """A property does not hold.

    symptom: what is wrong, in words that help and that give no value away: they are shown for hidden tests too.
    measured: the figures, shown for visible tests only.
    """

    def __init__(self, symptom: str, measured: str = "") -> None:
        super().__init__(symptom)
        self.symptom, self.measured = symptom, measured


class Answers:
    """What a student's code gave back, by the label under which it was asked. The methods raise `Failed` with a sentence for the
    student where nothing, or something of another kind, came back."""

    def __init__(self, outcomes: Mapping[str, Outcome]) -> None:
        self.outcomes = dict(outcomes)

    def value(self, label: str) -> Any:
        """Whatever came back."""
        outcome = self.outcomes.get(label)
        if outcome is None:
            raise Failed("the answer was not asked for this: run the cell again")
        if outcome.error:
            raise Failed(*explain(outcome))
        return outcome.value

    def part(self, label: str, name: str) -> Answers:
        """One entry of a dictionary that was kept under a label, as an answer of its own under the same label."""
        return Answers({label: Outcome(self.value(label)[name])})

    def number(self, label: str) -> float:
        """A single real number, whether Python's, NumPy's or torch's; NaN and infinity are numbers too."""
        value = self.value(label)
        if isinstance(value, int) and abs(value) >= 2**63:  # too large for NumPy's integers
            value = float(value)
        array = np.asarray(value) if isinstance(value, int | float | complex | np.ndarray | list) else None
        if value is None:
            raise Failed("nothing came back: is the `return` missing?")
        if array is None or array.dtype.kind not in "biufc" or array.size != 1:
            raise Failed(f"a single number is asked for, and {_kind(value)} came back")
        number = array.reshape(())[()]
        # A matrix square root may leave an imaginary part as small as rounding.
        if np.iscomplexobj(number) and abs(number.imag) > 1e-6 * max(abs(number.real), 1e-6):
            raise Failed("a complex number came back, where a real one is asked for", f"{number:.4g}")
        return float(number.real)

    def array(self, label: str, size: int | None = None) -> np.ndarray:
        """Numbers as a float64 array in the shape in which they came; `size`: how many there must be.

        A complex array keeps its real part only where the imaginary one is nothing but rounding."""
        value = self.value(label)
        if value is None:
            raise Failed("nothing came back: is the `return` missing?")
        try:
            array = np.asarray(value)
        except ValueError:  # lists of unequal length
            array = np.asarray("ragged")
        if array.dtype.kind not in "biufc":
            raise Failed(f"an array of numbers is asked for, and {_kind(value)} came back")
        if np.iscomplexobj(array):
            if np.abs(array.imag).max(initial=0.0) > 1e-6 * max(np.abs(array.real).max(initial=0.0), 1e-6):
                raise Failed("complex numbers came back, where real ones are asked for")
            array = array.real
        if size is not None and array.size != size:
            raise Failed("another number of values came back than was asked for", f"{array.size} instead of {size}")
        return array.astype(np.float64)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array with {value.ndim} dimensions"
    return {str: "a text", list: "a list", dict: "a dictionary", bool: "a yes or no"}.get(
        type(value), "something else"
    )


def explain(outcome: Outcome) -> tuple[str, str]:
    """Why nothing came back, in words for the student: what may always be said, and what may be said of a visible test."""
    if outcome.error == UNWRITTEN:
        return "not written yet: write the function in place of `raise NotImplementedError()` and run its cell", ""
    if outcome.error == MISSING:
        return f"{outcome.message}: run the cell that defines it, and keep the name", ""
    if outcome.error == INTERRUPTED:
        return "your code was interrupted before it came to an end: it takes too long, or for ever", ""
    if outcome.error == NOT_DATA:
        return f"your function returned {outcome.message}, where numbers are asked for", ""
    where = outcome.line.partition(":")[0]
    # The exception's own words may quote what the function was given.
    return f"your code raised {outcome.error}" + (f" in {where}" if where else ""), ": ".join(
        part
        for part in (outcome.message, outcome.line.partition(": ")[2] and f"`{outcome.line.partition(': ')[2]}`")
        if part
    )


def expect(got: float, wanted: float, wrong: Mapping[str, float], relative: float, absolute: float = 0.0) -> None:
    """Pass if `got` is `wanted` up to the tolerance; otherwise name the misconception whose value it is.

    Args:
        wrong: the symptom of each misconception -> the value that it gives here. One that happens to give the right value is
            passed over.

    Raises:
        Failed: with the symptom, or with how far off the value is.
    """

    def near(value: float) -> bool:
        return math.isclose(got, value, rel_tol=relative, abs_tol=absolute)

    if near(wanted):
        return
    measured = f"yours is {got:.4g}, the definition gives {wanted:.4g}"
    for symptom, value in wrong.items():
        if math.isfinite(value) and near(value):
            raise Failed(symptom, measured)
    if math.isnan(got):
        raise Failed("NaN came back: a root of a negative number, or a division of nothing by nothing")
    raise Failed("the number is too small" if got < wanted else "the number is too large", measured)


def tells_apart(wanted: float, wrong: Iterable[float], relative: float, absolute: float = 0.0) -> bool:
    """Whether a case shows the misconceptions: none of their values is as near to the right one as this."""
    return not any(math.isclose(value, wanted, rel_tol=relative, abs_tol=absolute) for value in wrong)


def unlike(wanted: float, wrong: Mapping[str, float]) -> list[float]:
    """The values of the misconceptions but for those that are the definition itself in this variant or case."""
    return [value for value in wrong.values() if not math.isclose(value, wanted, rel_tol=1e-9)]


def redraw(draw: Callable[[], T], shows: Callable[[T], bool]) -> T:
    """The first of a series of drawn cases that shows what it should: with some seeds a misconception gives the right number.

    Raises:
        RuntimeError: none of a thousand does, so that the exercise is wrong.
    """
    for _ in range(1000):
        case = draw()
        if shows(case):
            return case
    raise RuntimeError("no case shows every misconception: they have to differ more")


@dataclass(frozen=True)
class Property:
    """One thing that a right answer has, whoever wrote it.

    words: what it is, for the student. weight: its share of the points, relative to the other properties'.
    test(answers, cases, variant): returns if it holds and raises `Failed` if not; it sees data only.
    """

    words: str
    weight: int
    test: Callable[[Answers, Any, Variant], None]


@dataclass(frozen=True)
class Exercise:
    """A question that is marked by a judge.

    name: "<assignment>/<exercise>", where <exercise> is the grade_id of its answer cell.
    minutes, difficulty: for the student; 1 is easy, 3 is hard.
    visible, hidden: points of the two test cells.
    cases(variant, rng): what to ask with, as numbers and NumPy arrays, from a NumPy generator: the same for the same seed.
    ask(student, variant, cases): asks it, in the student's process, with torch; see `seam.Student`.
    properties: what is judged. choices: name -> values of a variant, the public one first; each changes what a right answer is.
    audited: the hidden points are not given in the notebook: its truth must not be near a student's code. The answers are left in the
    cell's output as data, and `audit.audit` gives the points afterwards.
    """

    name: str
    title: str
    minutes: int
    difficulty: int
    visible: float
    hidden: float
    cases: Callable[[Variant, np.random.Generator], Any]
    ask: Callable[[Any, Variant, Any], None]
    properties: tuple[Property, ...]
    choices: Mapping[str, tuple] = field(default_factory=dict)
    audited: bool = False

    @property
    def short(self) -> str:
        """The name without its assignment."""
        return self.name.partition("/")[2]

    @property
    def points(self) -> float:
        return self.visible + self.hidden

    def public(self) -> dict[str, Any]:
        """The variant of the open practice: the first of all choices."""
        return {name: values[0] for name, values in self.choices.items()}

    def check_variant(self, variant: Variant) -> None:
        """Refuse a variant that this exercise does not have.

        Raises:
            ValueError: another set of names, or a value that is not among the choices.
        """
        if variant.keys() != self.choices.keys():
            raise ValueError(
                f"{self.name} has the choices {', '.join(self.choices) or 'none'}, not {', '.join(variant)}"
            )
        for name, value in variant.items():
            if value not in self.choices[name]:
                raise ValueError(f"{self.name}: {name} is one of {self.choices[name]}, not {value!r}")


@dataclass(frozen=True)
class Written:
    """A question that a person marks. criteria: (points, what earns them); they add up to the question's points."""

    name: str
    title: str
    minutes: int
    difficulty: int
    criteria: Sequence[tuple[float, str]]

    @property
    def points(self) -> float:
        return sum(points for points, _ in self.criteria)


@dataclass(frozen=True)
class Assignment:
    """name: its folder, "a1_latents_and_metrics". exercises and written: in the order of the notebook."""

    name: str
    title: str
    exercises: tuple[Exercise, ...]
    written: tuple[Written, ...]

    @property
    def points(self) -> float:
        return sum(each.points for each in (*self.exercises, *self.written))


def assignment_names() -> list[str]:
    """The assignments that there are, in order: those whose notebook has a template."""
    return sorted(
        path.name.removesuffix(".py.j2") for path in (Path(__file__).parent / "sources").glob("a[0-9]_*.py.j2")
    )


def find_assignment(name: str) -> Assignment:
    """Raises ValueError, with the names that there are, for another one."""
    if name not in assignment_names():
        raise ValueError(f"there is no assignment {name!r}; there are {', '.join(assignment_names())}")
    return importlib.import_module(f"devil_lib.grading.{name}").ASSIGNMENT


def find_exercise(name: str) -> Exercise:
    """The exercise "<assignment>/<exercise>".

    Raises:
        ValueError: there is none of this name; the message lists those there are.
    """
    if not re.fullmatch(r"\w+/[\w-]+", name):
        raise ValueError(f"an exercise is named '<assignment>/<exercise>', not {name!r}")
    assignment = find_assignment(name.partition("/")[0])
    found = {exercise.name: exercise for exercise in assignment.exercises}
    if name not in found:
        raise ValueError(f"there is no exercise {name!r}; there are {', '.join(found)}")
    return found[name]
