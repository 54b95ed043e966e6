"""The seam between a student's code and the judge: ask, pack, judge, report.

`ask` runs the student's code and keeps what came back as data. `judge` sees nothing but these bytes, so that it can move into a
process of its own without any assignment changing.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import random
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from IPython import get_ipython
from IPython.display import display

from devil_lib.grading.exercise import Answers, Exercise, Failed, Variant, explain, find_exercise
from devil_lib.grading.payload import (
    INTERRUPTED,
    MISSING,
    NOT_DATA,
    UNWRITTEN,
    NotData,
    Outcome,
    as_data,
    pack,
    unpack,
)

_WIDTH = 82  # nbgrader cuts longer lines off when it validates


# --- Asking --------------------------------------------------------------------------------------------------------------


class Student:
    """The student's namespace, and what was asked of it. An exercise's `ask` calls its methods; nothing that the student's code
    does (an exception, an exit, an interrupt) gets out of them."""

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        self._namespace = namespace
        self.outcomes: dict[str, Outcome] = {}
        self._interrupted = False

    def call(
        self, label: str, function: str, *arguments: Any, then: Callable[[Any], Any] | None = None, **named: Any
    ) -> None:
        """Call the student's function and keep, under the label, what it returned.

        The global random states are set before, differently for each call, so that an answer that ignores the generator it was
        given is found out, in the same way each time.

        Args:
            then: makes data from what came back where that is none, such as samples of a generator that was returned.
        """

        def asked() -> Any:
            result = self._namespace[function](*arguments, **named)
            return result if then is None else then(result)

        self._keep(label, function, asked)

    def value(self, label: str, name: str, then: Callable[[Any], Any] | None = None) -> None:
        """Keep what the student's variable holds; `then` as for `call`."""
        self._keep(label, name, lambda: self._namespace[name] if then is None else then(self._namespace[name]))

    def _keep(self, label: str, name: str, asked: Callable[[], Any]) -> None:
        if self._interrupted:
            outcome = Outcome(error=INTERRUPTED)
        elif name not in self._namespace:
            outcome = Outcome(error=MISSING, message=f"there is no `{name}`")
        else:
            outcome = self._run(asked, name)
        self.outcomes[label] = outcome

    def _run(self, asked: Callable[[], Any], name: str) -> Outcome:
        try:
            with _seeded(1000 + len(self.outcomes)):
                return Outcome(as_data(asked()))
        except KeyboardInterrupt:
            self._interrupted = True
            return Outcome(error=INTERRUPTED)
        except NotData as error:
            return Outcome(error=NOT_DATA, message=str(error))
        except RecursionError as error:
            return Outcome(
                error="RecursionError", message="the function calls itself for ever", line=self._line(error, name)
            )
        except NotImplementedError as error:
            # PyTorch raises it too, for what a device or a layout cannot do: in its own code, or in C++ with a message.
            frames = self._frames(error, name)
            if frames and frames[-1][1] and not error.args:
                return Outcome(error=UNWRITTEN)
            return self._raised(error, name)
        except (Exception, SystemExit) as error:
            return self._raised(error, name)

    def _raised(self, error: BaseException, name: str) -> Outcome:
        return Outcome(error=type(error).__name__, message=_first_line(error), line=self._line(error, name))

    def _frames(self, error: BaseException, name: str) -> list[tuple[traceback.FrameSummary, bool]]:
        """Through what the exception went, the innermost last, and whether it is the student's own code."""
        code = getattr(self._namespace.get(name), "__code__", None)
        own = {code.co_filename} if code else set()
        try:
            frames = traceback.extract_tb(error.__traceback__)
        except Exception:  # a traceback that cannot be read must not cost more than its line
            return []
        return [(frame, frame.filename in own or "ipykernel_" in frame.filename) for frame in frames]

    def _line(self, error: BaseException, name: str) -> str:
        """The last line of the student's own code through which the exception went: "line 3: return a + b"."""
        lines = [frame for frame, is_own in self._frames(error, name) if is_own]
        # The cell that called `check` is the student's namespace too, and comes first.
        lines = [frame for frame in lines if "grading.check" not in (frame.line or "")]
        return f"line {lines[-1].lineno}: {lines[-1].line or ''}".rstrip(": ") if lines else ""


def _first_line(error: BaseException) -> str:
    try:
        return next(iter(str(error).splitlines()), "")[:200]
    except Exception:  # an exception whose own text raises
        return ""


@contextlib.contextmanager
def _seeded(seed: int):
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def ask(exercise: Exercise, namespace: Mapping[str, Any], variant: Variant, seed: int, quiet: bool = False) -> bytes:
    """Ask the student's code what the exercise asks, for one seed, and pack what came back.

    What the code writes to the error stream goes to the standard one: nbgrader takes any error output for a failed test, also
    that of a warning or a progress bar. `quiet`: what it prints is dropped; it would give the values of a hidden test away.
    """
    student = Student(namespace)
    out = io.StringIO() if quiet else sys.stdout
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        exercise.ask(student, variant, exercise.cases(variant, np.random.default_rng(seed)))
    try:
        return pack(student.outcomes)
    except NotData as error:
        return pack({label: Outcome(error=NOT_DATA, message=str(error)) for label in student.outcomes})


# --- Judging -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """Whether a property holds; if not, the symptom and the figures (see `exercise.Failed`)."""

    words: str
    weight: int
    held: bool
    symptom: str = ""
    measured: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a judge found. problem: one sentence where nothing could be judged, because the answer is missing or crashes."""

    exercise: str
    findings: tuple[Finding, ...]
    problem: tuple[str, str] = ("", "")

    @property
    def share(self) -> float:
        """The part of the points that is earned, 0 to 1."""
        return sum(each.weight for each in self.findings if each.held) / sum(each.weight for each in self.findings)

    def points(self, maximum: float) -> float:
        """The points, to a hundredth, as a plain float and never above the maximum."""
        return min(float(maximum), round(float(maximum) * self.share, 2))

    def text(self, maximum: float, hidden: bool = False) -> str:
        """The verdict for the student; of a hidden test it names properties and symptoms, and no figure."""
        title = self.exercise.partition("/")[2]
        lines = [
            f"{title}, {'hidden' if hidden else 'visible'} tests: {self.points(maximum):g} of {maximum:g} points"
        ]
        if self.problem[0]:
            return "\n".join([*lines, *_wrapped("✗ ", _sentence(*self.problem, hidden))])
        for each in self.findings:
            words = each.words if each.held else f"{each.words}: {_sentence(each.symptom, each.measured, hidden)}"
            lines += _wrapped("✓ " if each.held else "✗ ", words)
        return "\n".join(lines)


def _sentence(symptom: str, measured: str, hidden: bool) -> str:
    return symptom if hidden or not measured else f"{symptom} ({measured})"


def _wrapped(sign: str, words: str) -> list[str]:
    return textwrap.wrap(words, _WIDTH, initial_indent=sign, subsequent_indent="  ")


def judge(name: str, variant: Variant, seed: int, payload: bytes) -> Verdict:
    """Judge packed answers of the exercise for a variant and a seed. Sees data only, and never raises because of them.

    Raises:
        ValueError: there is no such exercise or variant.
    """
    exercise = find_exercise(name)
    exercise.check_variant(variant)
    try:
        answers = Answers(unpack(payload))
    except ValueError:
        return _nothing(exercise, ("the answer could not be read", ""))
    # The same exception at the same line, whatever was asked: to be told once. Its words may differ with what was asked.
    troubles = {(outcome.error, outcome.line) for outcome in answers.outcomes.values()}
    if len(troubles) == 1 and next(iter(troubles))[0]:
        return _nothing(exercise, explain(next(iter(answers.outcomes.values()))))
    cases = exercise.cases(variant, np.random.default_rng(seed))
    return Verdict(name, tuple(_find(each, answers, cases, variant) for each in exercise.properties))


def _nothing(exercise: Exercise, problem: tuple[str, str]) -> Verdict:
    return Verdict(
        exercise.name, tuple(Finding(each.words, each.weight, False) for each in exercise.properties), problem
    )


def _find(each: Any, answers: Answers, cases: Any, variant: Variant) -> Finding:
    try:
        with np.errstate(all="ignore"):
            each.test(answers, cases, variant)
    except Failed as failed:
        return Finding(each.words, each.weight, False, failed.symptom, failed.measured)
    except Exception as error:  # data of a form that the judge did not foresee must not end the notebook
        return Finding(
            each.words, each.weight, False, f"the answer has a form that cannot be judged ({type(error).__name__})"
        )
    return Finding(each.words, each.weight, True)


# --- Answers that are judged later ---------------------------------------------------------------------------------------------

LEFT = "application/vnd.devil.answer+json"


def leave(name: str, payload: bytes) -> None:
    """Put a packed answer into the output of the cell that runs, from where `left` takes it. Nothing outside a notebook."""
    if get_ipython() is not None:
        data = {"exercise": name, "payload": base64.b64encode(payload).decode("ascii")}
        # The words are for pages, which know nothing of this kind of output.
        display({LEFT: data, "text/plain": "(your answers, as data)"}, raw=True)


def left(outputs: Iterable[Mapping[str, Any]], name: str) -> bytes | None:
    """The packed answer to an exercise in a cell's outputs, None if there is none."""
    for output in outputs:
        entry = output.get("data", {}).get(LEFT)
        if isinstance(entry, dict) and entry.get("exercise") == name:
            try:
                return base64.b64decode(str(entry.get("payload")), validate=True)
            except ValueError:
                return None
    return None


# --- Both, in a test cell --------------------------------------------------------------------------------------------------


def check(
    name: str, namespace: Mapping[str, Any], variant: Variant | None = None, seed: int = 0, hidden: bool = False
) -> float | None:
    """Test an answer, print the verdict and return its points: the last line of a test cell.

    Args:
        name: "<assignment>/<exercise>".
        namespace: the notebook's `globals()`. The function is looked up in it by name, so that one that is missing is a sentence
            in the verdict and no exception with the source of a hidden test.
        variant: what the key drew; by default the public one.
        seed: of the values asked with.
        hidden: the hidden tests: their points, and a report without figures.

    Returns:
        The points as a plain float between 0 and the maximum. nbgrader gives full marks to whatever it cannot read as a number,
        a NumPy number among them. None for the hidden tests of an audited exercise: then the cell shows no result, and waits for
        its points.

    Raises:
        ValueError: there is no such exercise or variant.
    """
    exercise = find_exercise(name)
    variant = exercise.public() if variant is None else dict(variant)
    exercise.check_variant(variant)
    payload = ask(exercise, namespace, variant, seed, quiet=hidden)
    if hidden and exercise.audited:
        leave(name, payload)
        print(
            f"{exercise.short}: the other {exercise.hidden:g} points are given by the audit, which compares your answers with the truth."
        )
        return None
    verdict = judge(name, variant, seed, payload)
    maximum = exercise.hidden if hidden else exercise.visible
    points = verdict.points(maximum)
    # Lab's Validate shows of a failed cell what stands on its error stream; there, no points are at stake.
    validating = os.environ.get("NBGRADER_EXECUTION") == "validate"
    print(verdict.text(maximum, hidden), file=sys.stderr if validating and points < maximum else sys.stdout)
    return points
