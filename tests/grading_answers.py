"""Answers to the graded exercises, right and wrong, run through nbgrader.

A file `tests/answers/<assignment>.py` holds `ANSWERS`: exercise -> answers. `graded` puts the first answer to each exercise into one
submission, the second answers into the next, and so on, and lets nbgrader grade them, so that as many submissions are graded as
the exercise with the most answers has.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbgrader.api import Gradebook
from nbgrader.apps.api import NbGraderAPI
from nbgrader.validator import Validator

from devil_lib.grading.exercise import Exercise, find_assignment
from devil_lib.grading.release import course_config, release
from devil_lib.grading.seam import Verdict, ask, judge
from devil_lib.grading.source import render

PREAMBLE = "import math\nimport numpy as np\nimport torch\n"  # what the notebooks' setup cells import


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
        stub = re.sub(r"### BEGIN SOLUTION.*### END SOLUTION", "raise NotImplementedError()", own.code, flags=re.DOTALL)
        found[exercise.short] = [own, *module.ANSWERS[exercise.short], blank(stub)]
    return found


def solution_of(exercise: Exercise, key: str | None = None) -> str:
    """The answer cell of the source notebook."""
    notebook = render(exercise.name.partition("/")[0], key)
    return next(each.source for each in notebook.cells if each.metadata.get("nbgrader", {}).get("grade_id") == exercise.short)


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


def graded(assignment: str, folder: Path) -> dict[tuple[str, str], Graded]:
    """Every answer, by exercise and name, graded by nbgrader in a course folder of its own."""
    answers = answers_to(assignment)
    (released,) = release(folder, names=[assignment])
    config = course_config(folder)
    api, results = NbGraderAPI(config=config), {}
    for i in range(max(map(len, answers.values()))):
        # An exercise with fewer answers is answered by its solution then.
        chosen = {short: each[i] if i < len(each) else each[0] for short, each in answers.items()}
        student = f"student{i:02}"
        submitted = folder / config.CourseDirectory.submitted_directory / student / assignment / f"{assignment}.ipynb"
        submit(released, {short: answer.code for short, answer in chosen.items()}, submitted)
        done = api.autograde(assignment, student)
        assert done["success"], done
        autograded = nbformat.read(
            folder / config.CourseDirectory.autograded_directory / student / assignment / f"{assignment}.ipynb", as_version=4
        )
        scores = scores_of(folder, assignment, student)
        for short, answer in chosen.items():
            results[short, answer.name] = Graded(
                scores[f"{short}-visible"], scores[f"{short}-hidden"],
                printed(autograded, f"{short}-visible"), printed(autograded, f"{short}-hidden"),
            )  # fmt: skip
    return results


def submit(released: Path, codes: Mapping[str, str], to: Path) -> Path:
    """A copy of the released notebook with answer cells (by grade_id) filled in; hands back where it is."""
    notebook = nbformat.read(released, as_version=4)
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
    """The text that a cell printed, with the line breaks within a sentence taken out."""
    found = next(each for each in notebook.cells if each.metadata.get("nbgrader", {}).get("grade_id") == grade_id)
    text = "".join(output.text for output in found.outputs if output.output_type == "stream")
    return re.sub(r"\n  (?=\S)", " ", text)


def validated(notebook: Path) -> dict[str, Any]:
    """What the button Validate says: `failed` lists the cells that fail, with their errors."""
    return Validator().validate(str(notebook))
