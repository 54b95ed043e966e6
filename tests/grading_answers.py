"""Answers to the graded exercises, right and wrong: each judged by what its test cells call, and one of each kind through nbgrader.

A file `tests/answers/<assignment>.py` holds `ANSWERS`: exercise -> answers. `told` judges one here, in a second or less. `graded` lets
nbgrader grade four submissions, which takes half a minute each: the solution, with everything that the notebook shows besides; a
wrong answer to each exercise; one that crashes; and nothing. From the latter three the cells that no marks depend on are taken out,
as a student may, because they take most of the time. `make class` hands every answer in.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.validator import Validator
from processes import one_of_several
from released import with_holes

from devil_lib.grading.exercise import Exercise, find_assignment, find_exercise
from devil_lib.grading.graders import graders, usual_jobs
from devil_lib.grading.release import course_config, release
from devil_lib.grading.seam import Verdict, ask, judge
from devil_lib.grading.source import render
from devil_lib.grading.term import Patience, add_stopwatch, autograde, processor_seconds
from devil_lib.grading.variants import hidden_seed, variant_for

PREAMBLE = "import copy\nimport math\nimport numpy as np\nimport torch\nfrom devil_lib import spectra\n"  # what the notebooks' setup cells import
RUNAWAY = (
    300.0  # seconds of a processor; an assignment takes up to 60 on a usual machine, which `make class` compares
)


def cell(code: str) -> str:
    """The code of an answer without the empty lines around it, so that its first line is line 1, as in a cell."""
    return code.strip("\n")


@dataclass(frozen=True)
class Answer:
    """One answer to an exercise.

    name: what is right or wrong about it, as a test's name. code: the whole of its answer cell.
    visible, hidden: the points that it gets. says: a part of the sentence that the student sees.
    """

    name: str
    code: str
    visible: float
    hidden: float
    says: str = ""


def right(name: str, code: str, points: float = 4.0) -> Answer:
    return Answer(f"right: {name}", code, points, points)


def wrong(name: str, code: str, points: float, says: str, hidden: float | None = None) -> Answer:
    """`hidden`: the points of the hidden tests, where they are not those of the visible ones."""
    return Answer(f"wrong: {name}", code, points, points if hidden is None else hidden, says)


def blank(code: str) -> Answer:
    return Answer("blank", code, 0.0, 0.0, "not written yet")


def crashing(code: str, says: str, points: float = 0.0) -> Answer:
    return Answer("crashing", code, points, points, says)


def answers_to(assignment: str) -> dict[str, list[Answer]]:
    """The answers of `tests/answers/<assignment>.py`, with the solution's own and the stub's added to each exercise."""
    path = Path(__file__).parent / "answers" / f"{assignment}.py"
    spec = importlib.util.spec_from_file_location(f"answers_{assignment}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {}
    for exercise in find_assignment(assignment).exercises:
        own = Answer("right: the solution", solution_of(exercise), exercise.visible, exercise.hidden)
        received = blank(with_holes(_answer_cell(exercise)))
        found[exercise.short] = [own, *module.ANSWERS[exercise.short], received]
    return found


_source = functools.cache(render)


def _answer_cell(exercise: Exercise, key: str | None = None) -> nbformat.NotebookNode:
    """The answer cell of the source notebook."""
    notebook = _source(exercise.name.partition("/")[0], key)
    return next(
        each for each in notebook.cells if each.metadata.get("nbgrader", {}).get("grade_id") == exercise.short
    )


def solution_of(exercise: Exercise, key: str | None = None) -> str:
    """The answer of the source notebook."""
    return _answer_cell(exercise, key).source


def judged(exercise: Exercise, code: str, seed: int = 0, variant: Mapping[str, Any] | None = None) -> Verdict:
    """The verdict on an answer, without nbgrader."""
    namespace: dict[str, Any] = {}
    exec(PREAMBLE, namespace)
    exec(compile(cell(code), "<answer>", "exec"), namespace)
    variant = exercise.public() if variant is None else variant
    return judge(exercise.name, variant, seed, ask(exercise, namespace, variant, seed, quiet=True))


@dataclass(frozen=True)
class Graded:
    """What nbgrader made of an answer: the points of its two test cells, None where a person has to mark, and what they printed."""

    visible: float | None
    hidden: float | None
    visible_text: str
    hidden_text: str


def told(exercise: Exercise, answer: Answer) -> Graded:
    """What the two test cells give an answer and print, without nbgrader."""
    visible, hidden = (judged(exercise, answer.code, seed) for seed in (0, hidden_seed(exercise)))
    return Graded(
        visible.points(exercise.visible), hidden.points(exercise.hidden),
        unwrapped(visible.text(exercise.visible)), unwrapped(hidden.text(exercise.hidden, hidden=True)),
    )  # fmt: skip


@dataclass
class Results:
    """answers: those that were handed in, by exercise and name. whole: the autograded solution. written: for each submission the points of the hand-marked
    cells, None where a person has to mark."""

    answers: dict[tuple[str, str], Graded] = field(default_factory=dict)
    whole: nbformat.NotebookNode | None = None
    written: list[dict[str, float | None]] = field(default_factory=list)


KINDS = ("right", "wrong", "crashing", "blank")


def handed_in(assignment: str, every: str = "") -> list[dict[str, Answer]]:
    """The submissions that nbgrader grades, exercise -> answer: the first of each kind, in the order of `KINDS`. Those of the exercise
    `every` are all among them, in their own order, with nothing for the other exercises once each kind was there."""
    found = []
    for short, answers in answers_to(assignment).items():
        kinds = [next(each for each in answers if each.name.startswith(kind)) for kind in KINDS]
        found.append((short, answers if short == every else kinds))
    number = max(len(answers) for _, answers in found)
    return [{short: answers[min(i, len(answers) - 1)] for short, answers in found} for i in range(number)]


def graded(assignment: str, folder: Path, every: str = "") -> Results:
    """The submissions of `handed_in` graded by nbgrader in a course folder of its own."""
    return start(assignment, folder, every)()


def start(assignment: str, folder: Path, every: str = "") -> Callable[[], Results]:
    """Let other processes grade what is handed in; a function that waits for them and hands back what they made of it. Where pytest
    itself has several processes at work, nothing is graded before it is waited for, and one at a time."""
    written = [each.name for each in find_assignment(assignment).written]
    (released,) = release(folder, names=[assignment])
    config, tasks, submissions = course_config(folder), {}, handed_in(assignment, every)
    for i, answers in enumerate(submissions):
        codes = {short: answer.code for short, answer in answers.items()}
        if i == 0:
            codes |= dict.fromkeys(written, "An answer in words.")
        place = folder / config.CourseDirectory.submitted_directory / student(i) / assignment / f"{assignment}.ipynb"
        submit(released, codes, place, whole=i == 0)
        tasks[i] = functools.partial(autograde, str(folder), "", Patience(), assignment, student(i))

    def grade(jobs: int) -> dict[int, Any]:
        return dict(graders(jobs).run(tasks))

    if one_of_several():
        wait = functools.partial(grade, 1)
    else:
        waiting = ThreadPoolExecutor(1)
        wait = waiting.submit(grade, usual_jobs()).result
        waiting.shutdown(wait=False)

    def finish() -> Results:
        for i, result in wait().items():
            assert isinstance(result, tuple) and not result[1], f"{student(i)}: {result}"
        return _read(assignment, folder, submissions)

    return finish


def is_needed(request: pytest.FixtureRequest) -> bool:
    """Whether a test of the module that was chosen asks for the fixture `results`."""
    return any("results" in item.fixturenames for item in request.session.items if item.path == request.path)


def _read(assignment: str, folder: Path, submissions: Sequence[Mapping[str, Answer]]) -> Results:
    """What nbgrader made of the submissions, each of which answered the exercises as given."""
    config, results = course_config(folder), Results()
    written = [each.name for each in find_assignment(assignment).written]
    for i, chosen in enumerate(submissions):
        autograded = nbformat.read(
            folder / config.CourseDirectory.autograded_directory / student(i) / assignment / f"{assignment}.ipynb",
            as_version=4,
        )
        if i == 0:
            results.whole = autograded
        scores = scores_of(folder, assignment, student(i))
        results.written.append({name: scores[name] for name in written})
        for short, answer in chosen.items():
            results.answers[short, answer.name] = Graded(
                scores[f"{short}-visible"], scores[f"{short}-hidden"],
                printed(autograded, f"{short}-visible"), printed(autograded, f"{short}-hidden"),
            )  # fmt: skip
    return results


def student(i: int) -> str:
    return f"student{i:02}"


def submit(released: Path, codes: Mapping[str, str], to: Path, whole: bool = True) -> Path:
    """A copy of the released notebook with answer cells (by grade_id) filled in; hands back where it is. `whole`: with the code
    that only shows something, and a last cell that prints the seconds of a processor that all took."""
    notebook = nbformat.read(released, as_version=4)
    if whole:
        add_stopwatch(notebook)
    else:
        notebook.cells = [
            each for each in notebook.cells if each.cell_type == "markdown" or "nbgrader" in each.metadata
        ]
    for each in notebook.cells:
        grade_id = each.metadata.get("nbgrader", {}).get("grade_id")
        if grade_id in codes:
            each.source = cell(codes[grade_id])
    to.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, to)
    return to


def scores_of(folder: Path, assignment: str, student: str) -> dict[str, float | None]:
    """What nbgrader's gradebook says of each graded cell; None is "a person has to mark this"."""
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as gradebook:
        grades = gradebook.find_submission_notebook(assignment, assignment, student).grades
        return {grade.name: grade.auto_score for grade in grades}


def printed(notebook: nbformat.NotebookNode, grade_id: str) -> str:
    """The text that a cell printed, unwrapped."""
    found = next(each for each in notebook.cells if each.metadata.get("nbgrader", {}).get("grade_id") == grade_id)
    return unwrapped("".join(output.text for output in found.outputs if output.output_type == "stream"))


def unwrapped(verdict: str) -> str:
    """The text of a verdict with the line breaks within a sentence taken out."""
    return re.sub(r"\n  (?=\S)", " ", verdict)


def validated(notebook: Path) -> dict[str, Any]:
    """What the button Validate says: `failed` lists the cells that fail, with their errors."""
    return Validator().validate(str(notebook))


# --- What holds for every assignment -------------------------------------------------------------------------------------------


def every_answer(assignment: str) -> list[Any]:
    """pytest's parameters `exercise, answer` for each answer to each exercise."""
    return _parameters((short, answer) for short, answers in answers_to(assignment).items() for answer in answers)


def every_handed_in(assignment: str) -> list[Any]:
    """The same for those answers that nbgrader grades."""
    return _parameters(dict.fromkeys(pair for answers in handed_in(assignment) for pair in answers.items()))


def _parameters(pairs: Iterable[tuple[str, Answer]]) -> list[Any]:
    return [
        pytest.param(short, answer, id=f"{short}-{answer.name.replace(': ', '-').replace(' ', '-')}")
        for short, answer in pairs
    ]


def check_answers_of(assignment: str) -> None:
    """At least two right answers, four wrong ones, a blank and a crashing one to each exercise, all told apart by name."""
    for short, answers in answers_to(assignment).items():
        names = [answer.name for answer in answers]
        assert len(set(names)) == len(names), short
        counts = {
            kind: sum(name.startswith(kind) for name in names) for kind in ("right", "wrong", "blank", "crashing")
        }
        assert counts["right"] >= 3 and counts["wrong"] >= 4, (short, counts)  # the solution is one of the right ones
        assert counts["blank"] == counts["crashing"] == 1, (short, counts)
        for answer in answers:
            if answer.name.startswith("wrong"):
                assert answer.visible + answer.hidden < find_exercise(f"{assignment}/{short}").points, (
                    short,
                    answer.name,
                )


def check_points(assignment: str, short: str, answer: Answer, result: Graded) -> None:
    """The answer was given exactly its points, and the student is told the symptom, of a hidden test without any figure."""
    exercise = find_exercise(f"{assignment}/{short}")
    assert (result.visible, result.hidden) == (answer.visible, answer.hidden), (
        result.visible_text + result.hidden_text
    )
    for points, maximum, text in (
        (answer.visible, exercise.visible, result.visible_text), (answer.hidden, exercise.hidden, result.hidden_text),
    ):  # fmt: skip
        assert f"{points:g} of {maximum:g} points" in text
        if points < maximum:
            assert answer.says in text, text
        else:
            assert "✗" not in text
    told = result.hidden_text.partition("\n")[2]
    assert not re.search(r"\d\.\d|yours is|seed|hidden=", told), f"a hidden test tells its figures: {told}"


def check_other_seeds(assignment: str, short: str, answer: Answer, seeds: range = range(1, 4)) -> None:
    """The points do not hang on the seed."""
    exercise = find_exercise(f"{assignment}/{short}")
    for seed in seeds:
        verdict = judged(exercise, answer.code, seed)
        assert verdict.points(exercise.hidden) == answer.hidden, f"seed {seed}: {verdict.text(exercise.hidden)}"


def check_variants(assignment: str) -> None:
    """In every variant the solution made for it gets all points, and the open practice's solution does not."""
    for exercise in find_assignment(assignment).exercises:
        assert exercise.choices, f"{exercise.name} has no variants"
        keys = keys_for_all_variants(exercise)
        for variant, key in keys.items():
            own = judged(exercise, solution_of(exercise, key), 5, dict(variant))
            assert own.share == 1.0, f"{exercise.name}, {variant}: {own.text(exercise.hidden)}"
            public = judged(exercise, solution_of(exercise), 5, dict(variant))
            assert public.share < 1.0, (
                f"{exercise.name}: the public solution gets all points in the variant {variant}"
            )


def keys_for_all_variants(exercise: Exercise) -> dict[tuple, str]:
    """A key for each variant but the public one."""
    count = math.prod(len(values) for values in exercise.choices.values()) - 1
    found: dict[tuple, str] = {}
    for i in range(100 * count):
        key = f"a key for the tests {i}"
        found.setdefault(tuple(variant_for(exercise, key).items()), key)
        if len(found) == count:
            return found
    raise AssertionError(f"{exercise.name}: no key draws some variants")


def check_whole(assignment: str, results: Results) -> None:
    """The solution runs from its first cell to its last without an error, and comes to an end in reasonable time; a written answer
    waits for a person, and one that is missing does not."""
    for each in results.whole.cells:
        for output in each.get("outputs", []):
            assert output.output_type != "error", f"cell {each.id}: {output.get('evalue')}"
    answered, *blank_ones = results.written
    assert set(answered.values()) == {None}
    assert all(set(each.values()) == {0.0} for each in blank_ones)
    assert 1.0 < processor_seconds(results.whole) <= RUNAWAY
