"""The audit of the capstone's verdicts: after autograding, away from any student's code, with the key.

`audit` reads what each student's notebook left as data in the autograded copy, compares it with the truth of the set that the roster
gives the student, writes the points and a comment into nbgrader's gradebook, and lists both in `challenge/audit.csv` beside the truth,
for whoever marks the reports. The key is never in the environment of a student's code: this is a step of its own.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import torch
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import AssignLatePenalties

from devil_lib.grading import challenge
from devil_lib.grading.a6_audit import NAME, VERDICTS_EXERCISE, latent_of, verdict_of
from devil_lib.grading.challenge import CLEAN, NEAR, ChallengeError, Lot, Truth
from devil_lib.grading.exercise import Answers, Failed
from devil_lib.grading.payload import MISSING, unpack
from devil_lib.grading.release import course_config, programs_on_path
from devil_lib.grading.roster import Student
from devil_lib.grading.seam import left

EVIDENCE, ATTACK, INNOCENT = 3.0, 1.0, 1.0  # points
_CELL = f"{VERDICTS_EXERCISE.short}-hidden"


@dataclass(frozen=True)
class Mark:
    """The points of one checkpoint, and why, for the student."""

    letter: str
    points: float
    maximum: float
    sentence: str


def compare(given: Any, truths: dict[str, Truth], lot: Lot) -> list[Mark]:
    """Answers against the truth. Only what the set itself makes at a latent counts, never a reconstruction that was sent in.

    Args:
        given: the student's `answers`, as data; whatever it holds.
        truths, lot: of the student that the roster names.
    """
    return [_mark(given, letter, item, lot) for letter, item in truths.items()]


def _mark(given: Any, letter: str, item: Truth, lot: Lot) -> Mark:
    verdict, maximum = verdict_of(given, letter), EVIDENCE + ATTACK if item.guilty else INNOCENT
    if not verdict:
        return Mark(letter, 0.0, maximum, "no verdict")
    if not item.guilty:
        right = verdict == CLEAN
        return Mark(
            letter,
            INNOCENT if right else 0.0,
            maximum,
            "rightly called clean" if right else "accused, and it is clean",
        )
    if verdict == CLEAN:
        return Mark(letter, 0.0, maximum, "called clean, and it carries a backdoor")
    latent = latent_of(given, letter)
    if latent is None:
        return Mark(
            letter, 0.0, maximum, "rightly accused, but without a latent: an accusation counts with its evidence"
        )
    near = challenge.nearness(lot.checkpoints[letter], torch.from_numpy(latent), challenge.suspects()[item.target])
    if not near <= NEAR:
        return Mark(letter, 0.0, maximum, "rightly accused, but the latent does not bring out what was planted")
    if given[letter].get("target") != item.target:
        return Mark(
            letter, 0.0, maximum, "rightly accused, and the latent brings the target out, but another one is named"
        )
    if verdict != item.attack:
        return Mark(letter, EVIDENCE, maximum, "rightly accused, with evidence; it is the work of another attack")
    return Mark(letter, EVIDENCE + ATTACK, maximum, f"rightly accused, with evidence, of {verdict}")


@dataclass(frozen=True)
class Result:
    """What became of one student's verdicts. marks: by checkpoint; empty where nothing could be compared. problem: why not, or what else
    was noticed, for the student; "" otherwise. points: of the hidden tests; None where no submission was graded."""

    student: Student
    marks: tuple[Mark, ...] = ()
    problem: str = ""
    points: float | None = None

    @property
    def comment(self) -> str:
        """For the student's feedback."""
        lines = [self.problem] if self.problem else []
        lines += [f"{mark.letter}: {mark.sentence} ({mark.points:g} of {mark.maximum:g})" for mark in self.marks]
        return "\n".join(lines)


def judge_payload(payload: bytes | None, key: str, student: Student, lot: Lot, known: dict[str, str]) -> Result:
    """Judge what a notebook left behind.

    Args:
        payload: as `seam.left` found it.
        lot: the student's set, from the instructor's copy.
        known: number of a set -> id of the student whose it is, over the roster.
    """
    if payload is None:
        return Result(
            student,
            problem="The notebook left no answers: the test cell of the verdicts did not run to its end.",
            points=0.0,
        )
    try:
        answers = Answers(unpack(payload))
        given = answers.value("answers")
    except ValueError:
        return Result(student, problem="The answers could not be read.", points=0.0)
    except Failed as failed:
        missing = answers.outcomes["answers"].error == MISSING if "answers" in answers.outcomes else True
        words = "There are no `answers`: their cell did not run to its end." if missing else failed.symptom
        return Result(student, problem=_with_file(answers, words), points=0.0)
    number = answers.outcomes["file"].value if "file" in answers.outcomes else None
    if number is not None and number != lot.number:
        whose = "of another student" if str(number) in known else "that is none of this course's"
        return Result(student, problem=f"The notebook was run with a file {whose}: use your own.", points=0.0)
    marks = tuple(compare(given, challenge.truth(key, student.id), lot))
    note = _with_file(answers, "") if number is None else ""
    return Result(student, marks, note, min(VERDICTS_EXERCISE.hidden, sum(mark.points for mark in marks)))


def _with_file(answers: Answers, words: str) -> str:
    """The words with why there was no file, if there was none."""
    outcome = answers.outcomes.get("file")
    if outcome is None or not outcome.error:
        return words
    return f"{words} When the notebook was graded: {outcome.message}.".strip()


def audit(
    course: str | Path,
    key: str | None,
    roster: Sequence[Student],
    on_progress: Callable[[int, int], None] | None = None,
    db_url: str = "",
) -> list[Result]:
    """Judge all autograded submissions of the capstone in a course folder and write their points into its gradebook.

    Autograding again takes the points away, as it should; audit again then. A late submission's penalty is worked out anew.

    Args:
        key: of the course; None for the open practice, in which all have one set.
        roster: the class; whoever is in it and has no graded submission is listed without points.
        db_url: of the gradebook, if it is not the one of nbgrader's settings.

    Raises:
        ChallengeError: a student's set is missing in `challenge/`, or damaged.
        ValueError: a key that is too short.
    """
    course = Path(course).resolve()
    programs_on_path()
    config = course_config(course)
    # The address as nbgrader works it out from the settings.
    directory = CourseDirectory(config=config)
    address = db_url or directory.db_url
    if key is not None:
        known = {challenge.number_of(key, student.id): student.id for student in roster}
    else:
        known = {}
    results = []
    with Gradebook(address, directory.course_id) as gradebook:
        for i, student in enumerate(roster, 1):
            path = Path(directory.format_path(directory.autograded_directory, student.id, NAME)) / f"{NAME}.ipynb"
            result = Result(student, problem="There is no autograded submission.")
            if path.is_file():
                payload = _left_in(path)
                if key is None:
                    lot = challenge.practice()
                    own = Student(challenge.PRACTICE_STUDENT)
                    judged = judge_payload(payload, challenge.OPEN_KEY, own, lot, known)
                    result = Result(student, judged.marks, judged.problem, judged.points)
                else:
                    lot = _own_lot(course, key, student)
                    result = judge_payload(payload, key, student, lot, known)
                if not _store(gradebook, result):
                    result = Result(
                        student, result.marks, "The gradebook knows nothing of this submission: autograde it.", None
                    )
                else:
                    _penalise(config, address, student)
            results.append(result)
            if on_progress is not None:
                on_progress(i, len(roster))
    _list(course, key, results)
    return results


def _own_lot(course: Path, key: str, student: Student) -> Lot:
    try:
        return challenge.open_file(
            challenge.folder_of(course) / f"{challenge.number_of(key, student.id)}.safetensors", student.id
        )
    except ChallengeError as error:
        raise ChallengeError(
            f"the set of {student.id} cannot be read: {error}. `make challenge` makes a missing one anew"
        ) from error


def _left_in(path: Path) -> bytes | None:
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception:  # whatever a damaged notebook raises
        return None
    for cell in notebook.cells:
        # Cells of the student's own could hold anything.
        if cell.metadata.get("nbgrader", {}).get("grade_id") == _CELL and cell.cell_type == "code":
            return left(cell.outputs, VERDICTS_EXERCISE.name)
    return None


def _store(gradebook: Gradebook, result: Result) -> bool:
    """Write points and comment; False if the submission is not in the gradebook."""
    try:
        grade = gradebook.find_grade(_CELL, NAME, NAME, result.student.id)
        comment = gradebook.find_comment(VERDICTS_EXERCISE.short, NAME, NAME, result.student.id)
    except MissingEntry:
        return False
    grade.auto_score, grade.needs_manual_grade = result.points, grade.manual_score is not None
    comment.auto_comment = result.comment
    gradebook.db.commit()
    return True


def _penalise(config: Any, db_url: str, student: Student) -> None:
    """nbgrader works the penalty of a late submission out when it autogrades, without the points of the audit."""
    resources = {"nbgrader": {"notebook": NAME, "assignment": NAME, "student": student.id, "db_url": db_url}}
    AssignLatePenalties(config=config).preprocess(nbformat.v4.new_notebook(), resources)


def _list(course: Path, key: str | None, results: Sequence[Result]) -> None:
    """challenge/audit.csv: the points and the truth, for the instructor alone."""
    path = challenge.folder_of(course) / "audit.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    with scratch.open("w", encoding="utf-8-sig", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["id", "points", *challenge.LETTERS, "comment"])
        for result in results:
            truths = challenge.truth(
                key or challenge.OPEN_KEY, result.student.id if key else challenge.PRACTICE_STUDENT
            )
            told = [
                f"{item.lineage}, {item.attack}" + (f": {item.target}" if item.guilty else "")
                for item in truths.values()
            ]
            points = "" if result.points is None else f"{result.points:g}"
            rows.writerow([result.student.id, points, *told, result.comment])
    os.replace(scratch, path)
