"""Grades out of nbgrader's gradebook: files for its readers, Canvas and Moodle, and an analysis of the exercises.

python -m devil_lib.grading.grades [--course FOLDER] [--out FOLDER]     (`make grades`)
"""

from __future__ import annotations

import argparse
import csv
import html
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
import numpy as np
from matplotlib.figure import Figure
from nbformat import NotebookNode
from nbgrader import utils
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.exc import SQLAlchemyError

from devil_lib import show
from devil_lib.course.lessons import ROOT
from devil_lib.grading.execute import LOST
from devil_lib.grading.release import course_config


class GradesError(ValueError):
    """There is nothing to export, or not where it was looked for; the message says what to do."""


# --- Grades -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grade:
    """What one student has for one assignment, in points; `submitted` is false where nothing was handed in."""

    assignment: str
    duedate: str
    timestamp: str
    student_id: str
    last_name: str
    first_name: str
    email: str
    lms_user_id: str
    raw_score: float
    late_submission_penalty: float
    score: float
    max_score: float
    submitted: bool
    needs_manual_grade: bool


def grades(gradebook: Gradebook) -> list[Grade]:
    """The grades of every student for every assignment, in the gradebook's order."""
    found = []
    for assignment in gradebook.assignments:
        for student in gradebook.students:
            try:
                submission = gradebook.find_submission(assignment.name, student.id)
            except MissingEntry:
                submission = None
            raw = submission.score if submission else 0.0
            penalty = submission.late_submission_penalty if submission else 0.0
            found.append(
                Grade(
                    assignment=assignment.name,
                    duedate=_text(assignment.duedate),
                    timestamp=_text(submission.timestamp) if submission else "",
                    student_id=student.id,
                    last_name=_text(student.last_name),
                    first_name=_text(student.first_name),
                    email=_text(student.email),
                    lms_user_id=_text(student.lms_user_id),
                    raw_score=raw,
                    late_submission_penalty=penalty,
                    score=max(0.0, raw - penalty),
                    max_score=assignment.max_score,
                    submitted=submission is not None,
                    needs_manual_grade=bool(submission and submission.needs_manual_grade),
                )
            )
    return found


def _text(value: Any) -> str:
    return "" if value is None else str(value)


NBGRADER_COLUMNS = (
    "assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email",
    "raw_score", "late_submission_penalty", "score", "max_score",
)  # fmt: skip
CANVAS_COLUMNS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
MOODLE_COLUMNS = ("First name", "Last name", "ID number", "Email address")


def write_nbgrader(found: Iterable[Grade], path: Path) -> None:
    """What `nbgrader export` writes, apart from names with a comma, which break its columns."""
    rows = [[str(getattr(grade, name)) for name in NBGRADER_COLUMNS] for grade in found]
    _write_csv(path, [list(NBGRADER_COLUMNS), *rows])


def write_canvas(found: Iterable[Grade], path: Path, names: Mapping[str, str] | None = None) -> None:
    """A file for Canvas: Grades > Import. Students are found by ID (`lms_user_id`), login (`student_id`) or name.

    An assignment of the same title is filled in, or one given as "Title (number)"; else, Canvas makes a new one.
    Without a submission the entry stays empty, which changes nothing in Canvas.

    Args:
        names: assignment -> its heading in Canvas, where that is another.
    """
    students, assignments, points = _by_student(found)
    maximum = [_number(points[name]) for name in assignments]
    rows = [
        [_full_name(any_of), any_of.lms_user_id, "", any_of.student_id, "", *_row(own, assignments, "")]
        for any_of, own in students
    ]
    heading = [*CANVAS_COLUMNS, *((names or {}).get(name, name) for name in assignments)]
    _write_csv(path, [heading, ["    Points Possible", "", "", "", "", *maximum], *rows])


def write_moodle(found: Iterable[Grade], path: Path, names: Mapping[str, str] | None = None) -> None:
    """A file for Moodle: Grades > Import > CSV file. Map "ID number" or "Email address", and each assignment.

    Without a submission the entry is "-", which Moodle takes for no grade. Unless set up otherwise, it refuses grades
    above 100.

    Args:
        names: assignment -> its grade item in Moodle, where that is another.
    """
    students, assignments, _ = _by_student(found)
    rows = [
        [any_of.first_name, any_of.last_name, any_of.student_id, any_of.email, *_row(own, assignments, "-")]
        for any_of, own in students
    ]
    _write_csv(path, [[*MOODLE_COLUMNS, *((names or {}).get(name, name) for name in assignments)], *rows])


def _by_student(found: Iterable[Grade]) -> tuple[list[tuple[Grade, dict[str, Grade]]], list[str], dict[str, float]]:
    """(any grade of a student, for the names; the grades by assignment), the assignments, and their points."""
    points: dict[str, float] = {}
    own: dict[str, dict[str, Grade]] = {}
    for grade in found:
        points[grade.assignment] = grade.max_score
        own.setdefault(grade.student_id, {})[grade.assignment] = grade
    return [(next(iter(one.values())), one) for one in own.values()], list(points), points


def _row(own: Mapping[str, Grade], assignments: Sequence[str], nothing: str) -> list[str]:
    return [_number(own[name].score) if own[name].submitted else nothing for name in assignments]


def _full_name(grade: Grade) -> str:
    return ", ".join(part for part in (grade.last_name, grade.first_name) if part) or grade.student_id


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


# --- The analysis of the exercises ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """How an exercise did: its points, the number of submissions, difficulty (the mean share of the points, 0 to 1),
    discrimination (the correlation, -1 to 1, of its points with those of all other exercises; None where one of them
    does not vary), and the commonest symptoms of wrong answers with the number of students."""

    exercise: str
    maximum: float
    submissions: int
    difficulty: float
    discrimination: float | None
    misconceptions: tuple[tuple[str, int], ...]


def exercises_of(notebook: NotebookNode) -> dict[str, str]:
    """Graded cell -> exercise, by their grade ids: tests belong to the answer before them, whose id names it."""
    found, answer = {}, ""
    for cell in notebook.cells:
        if utils.is_solution(cell):
            answer = cell.metadata.nbgrader["grade_id"]
        if utils.is_grade(cell) or utils.is_task(cell):
            own = cell.metadata.nbgrader["grade_id"]
            found[own] = answer if answer and not utils.is_task(cell) else own
    return found


def points_by_exercise(submission: Any, exercise_of: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """Exercise -> (points, maximum) of a submission in the gradebook."""
    found = dict.fromkeys(exercise_of.values(), (0.0, 0.0))
    for notebook in submission.notebooks:
        for grade in notebook.grades:
            if grade.name in exercise_of:
                points, maximum = found[exercise_of[grade.name]]
                found[exercise_of[grade.name]] = (points + (grade.score or 0.0), maximum + grade.max_score)
    return found


def symptoms(cell: NotebookNode) -> list[str]:
    """What a test cell complained of: lines with ✗ and those that continue them, without figures, or its error."""
    found = []
    for output in cell.get("outputs", ()):
        if output.output_type == "error":
            found.append(output.evalue.split(".")[0] if output.ename == LOST else f"{output.ename}: {output.evalue}")
        elif output.output_type == "stream":
            found += re.findall(r"^✗ (.+(?:\n  .+)*)", output.text, re.MULTILINE)
    return list(dict.fromkeys(filter(None, map(_without_figures, found))))


def _without_figures(words: str) -> str:
    """A message as it is for everyone: figures in brackets are dropped, others become “…”."""
    words = re.sub(r"\s*\n\s*", " ", words.strip())
    words = re.sub(r"\s*\([^()]*\d[^()]*\)\s*$", "", words)
    return re.sub(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w])", "…", words).rstrip(": ")[:200]


def analyse(gradebook: Gradebook, assignment: str, autograded: Iterable[Path], most: int = 5) -> list[Item]:
    """The exercises of an assignment in order.

    Args:
        autograded: the autograded notebooks of the assignment.
        most: symptoms told of each exercise.

    Raises:
        GradesError: no autograded notebook.
    """
    exercise_of: dict[str, str] = {}
    complaints: dict[str, Counter[str]] = {}
    for path in autograded:
        notebook = nbformat.read(path, as_version=4)
        own = exercises_of(notebook)
        exercise_of |= own
        said: dict[str, list[str]] = {}
        for cell in notebook.cells:
            if utils.is_grade(cell):
                said.setdefault(own[cell.metadata.nbgrader["grade_id"]], []).extend(symptoms(cell))
        for exercise, words in said.items():
            # Once for each student, whether visible or hidden tests said it.
            complaints.setdefault(exercise, Counter()).update(set(words))
    if not exercise_of:
        raise GradesError(f"no submission of {assignment} has been autograded yet")
    names = list(dict.fromkeys(exercise_of.values()))
    rows = [points_by_exercise(one, exercise_of) for one in gradebook.assignment_submissions(assignment)]
    points = np.array([[row[name][0] for name in names] for row in rows])
    maxima = [rows[0][name][1] for name in names]
    return [
        Item(
            exercise=name,
            maximum=maxima[i],
            submissions=len(rows),
            difficulty=float(points[:, i].mean() / maxima[i]) if maxima[i] else 0.0,
            discrimination=_correlation(points[:, i], points.sum(axis=1) - points[:, i]),
            misconceptions=tuple(complaints.get(name, Counter()).most_common(most)),
        )
        for i, name in enumerate(names)
    ]


def _correlation(item: np.ndarray, rest: np.ndarray) -> float | None:
    if len(item) < 3 or np.ptp(item) == 0 or np.ptp(rest) == 0:
        return None
    return float(np.corrcoef(item, rest)[0, 1])


# --- The page ---------------------------------------------------------------------------------------------------------


def draw_items(items: Sequence[Item]) -> tuple[Figure, str]:
    """Difficulty and discrimination of each exercise as bars, and the picture in words."""
    values = {
        "mean share of the points": [item.difficulty for item in items],
        "correlation with the rest": [item.discrimination or 0.0 for item in items],
    }
    names = [re.sub("[-_]", "\n", item.exercise) for item in items]
    fig = show.bars.draw(values, names, "share, correlation")
    words = [f"{item.exercise} {item.difficulty:.2f} and {_two_digits(item.discrimination)}" for item in items]
    return fig, f"Two bars for each exercise, mean share of points and correlation with the rest: {'; '.join(words)}."


def draw_misconceptions(items: Sequence[Item], most: int = 10) -> tuple[Figure, str] | None:
    """The commonest symptoms over all exercises as bars, and the picture in words; None where there are none."""
    told = [(count, item.exercise, words) for item in items for words, count in item.misconceptions]
    told = sorted(told, key=lambda one: -one[0])[:most]
    if not told:
        return None
    with matplotlib.rc_context(show.style()):
        fig = Figure(figsize=(9.0, 0.6 + 0.5 * len(told)), layout="constrained")
        axes = fig.subplots()
        places = range(len(told))
        axes.barh(places, [count for count, _, _ in told], color=show.COLOURS[1], hatch="//", edgecolor="white")
        axes.set_yticks(places, [_short(f"{exercise}: {words}") for _, exercise, words in told], fontsize=9)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("students")
    return fig, "Bars of how many students met each symptom: " + "; ".join(
        f"{count} for {exercise}, {words}" for count, exercise, words in told
    )


def _short(words: str, longest: int = 62) -> str:
    return words if len(words) <= longest else words[: longest - 1] + "…"


def _two_digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def page(analyses: Mapping[str, Sequence[Item]]) -> str:
    """The analysis of each assignment as a page that needs no other file."""
    parts = []
    for assignment, items in analyses.items():
        columns = (
            "exercise",
            "points",
            "submissions",
            "difficulty",
            "discrimination",
            "commonest symptoms (students)",
        )
        rows = "".join(_table_row(item) for item in items)
        head = "".join(f'<th scope="col">{name}</th>' for name in columns)
        parts.append(f"<h2>{html.escape(assignment)}</h2>")
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
        fig, alt = draw_items(items)
        caption = "A hard exercise has a low share; one with a low correlation tests something else than the rest, or its test is wrong."
        parts.append(show.figure_html(fig, alt, caption))
        if (drawn := draw_misconceptions(items)) is not None:
            parts.append(show.figure_html(*drawn, "What to take up in class: the commonest symptoms."))
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "body{background:#fff;color:#222}table{border-collapse:collapse;margin:1rem 0}"
        "th,td{border-bottom:1px solid #999;padding:4px 10px;text-align:left;vertical-align:top}"
        "td.n{text-align:right}ul{margin:0;padding-left:1.2rem}"
    )
    explained = (
        "<p>Difficulty is the mean share of the points, from 0 to 1 (1: everyone had all). Discrimination is the "
        "correlation of an exercise's points with those of all others; from about 0.2 on, it tells strong from weak "
        "work.</p>"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Item analysis</title>'
        f"<style>{style}</style></head><body><h1>Item analysis</h1>{explained}{''.join(parts)}</body></html>\n"
    )


def _table_row(item: Item) -> str:
    told = "".join(f"<li>{html.escape(words)} ({count})</li>" for words, count in item.misconceptions)
    numbers = (
        _number(item.maximum),
        str(item.submissions),
        f"{item.difficulty:.2f}",
        _two_digits(item.discrimination),
    )
    cells = "".join(f'<td class="n">{number}</td>' for number in numbers)
    listed = f"<ul>{told}</ul>" if told else ""
    return f'<tr><th scope="row">{html.escape(item.exercise)}</th>{cells}<td>{listed}</td></tr>'


# --- All of it --------------------------------------------------------------------------------------------------------


def export(course: CourseDirectory, out: Path, names: Mapping[str, str] | None = None) -> list[Grade]:
    """Write grades.csv, canvas.csv, moodle.csv, items.csv and item_analysis.html of a course into a folder.

    Returns:
        the grades.

    Raises:
        GradesError: there is no gradebook, or no student or assignment in it.
    """
    if course.db_url.startswith("sqlite:///") and not Path(course.db_url.removeprefix("sqlite:///")).is_file():
        raise GradesError(
            f"there is no gradebook {course.db_url}: run `nbgrader autograde` first, or name the course"
        )
    out.mkdir(parents=True, exist_ok=True)
    with Gradebook(course.db_url, course.course_id) as gradebook:
        found = grades(gradebook)
        if not found:
            raise GradesError("the gradebook holds no student, or no assignment, yet")
        write_nbgrader(found, out / "grades.csv")
        write_canvas(found, out / "canvas.csv", names)
        write_moodle(found, out / "moodle.csv", names)
        analyses = {}
        for assignment in sorted({grade.assignment for grade in found}):
            pattern = course.format_path(course.autograded_directory, "*", assignment)
            folders = sorted(Path(course.root).glob(str(Path(pattern).relative_to(course.root))))
            notebooks = [path for folder in folders for path in sorted(folder.glob("*.ipynb"))]
            if notebooks:
                analyses[assignment] = analyse(gradebook, assignment, notebooks)
    rows = [
        [name, item.exercise, _number(item.maximum), str(item.submissions), f"{item.difficulty:.4f}",
         "" if item.discrimination is None else f"{item.discrimination:.4f}",
         *itertools.chain.from_iterable((words, str(count)) for words, count in item.misconceptions[:1])]
        for name, items in analyses.items() for item in items
    ]  # fmt: skip
    columns = [
        "assignment",
        "exercise",
        "points",
        "submissions",
        "difficulty",
        "discrimination",
        "symptom",
        "students",
    ]
    _write_csv(out / "items.csv", [columns, *(row + [""] * (len(columns) - len(row)) for row in rows)])
    (out / "item_analysis.html").write_text(page(analyses), encoding="utf-8")
    return found


def course_directory(folder: Path, db_url: str = "") -> CourseDirectory:
    """nbgrader's view of a course folder, by its own settings where it has some, and another gradebook's address if given."""
    config = course_config(folder)
    if db_url:
        config.CourseDirectory.db_url = db_url
    return CourseDirectory(config=config)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m devil_lib.grading.grades", description=__doc__.splitlines()[0])
    parser.add_argument("--course", type=Path, default=ROOT, metavar="FOLDER", help="the course (default: this one)")
    parser.add_argument(
        "--db-url", default="", metavar="URL", help="the gradebook (default: the course's gradebook.db)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: build/grading/grades of the course")
    parser.add_argument(
        "--name", action="append", default=[], metavar="ASSIGNMENT=HEADING",
        help="what Canvas and Moodle call an assignment, such as a4_detect='Detection (1234)' (repeatable)",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    out = given.out or given.course / "build" / "grading" / "grades"
    try:
        names = dict(name.split("=", 1) for name in given.name)
    except ValueError:
        parser.error("--name is of the form ASSIGNMENT=HEADING")
    try:
        found = export(course_directory(given.course.resolve(), given.db_url), out, names)
    except (GradesError, OSError, SQLAlchemyError) as error:
        print(f"make grades: {error}", file=sys.stderr)
        return 2
    unmarked = [grade for grade in found if grade.needs_manual_grade]
    print(f"{len(found)} grades of {len({grade.student_id for grade in found})} students written to {out}")
    if unmarked:
        print(f"{len(unmarked)} of them still wait for marks by hand: their scores will grow")
    return 0


if __name__ == "__main__":
    sys.exit(main())
