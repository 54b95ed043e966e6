"""A term in rehearsal: simulated students, on nbgrader's real exchange and gradebook, and the points they should have.

python -m devil_lib.grading.term [--coursework FILE] [--students 30] [--jobs 4]     (`make class`)

A coursework is an assignment's source with answers whose points are known. Its students hand in right and wrong
answers, nothing, code that crashes, late work, and every accident that nbgrader was measured not to survive. All of it
goes the way that it goes in a term: release, fetch, submit, collect, autograde, mark by hand, feedback, export.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import csv
import functools
import importlib.util
import logging
import random
import shutil
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.apps.api import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import ClearHiddenTests
from sqlalchemy.exc import SAWarning
from traitlets.config import Config

from devil_lib import show
from devil_lib.course.lessons import ROOT
from devil_lib.grading import audit, grades
from devil_lib.grading.graders import GraderEnded, graders, usual_jobs
from devil_lib.grading.late import PenaltyPerDay
from devil_lib.grading.release import course_config, programs_on_path
from devil_lib.grading.roster import Student


class TermError(RuntimeError):
    """A step of the term failed for the whole class; the message holds nbgrader's own."""


@dataclass(frozen=True)
class Answer:
    """The text of an answer cell, and the points that all tests of its exercise together must give it."""

    source: str
    points: float


@dataclass(frozen=True)
class Coursework:
    """An assignment with answers whose points are known.

    Attributes:
        name: of the assignment, as nbgrader shall call it.
        source: the folder of nbgrader's source: one notebook, called as the assignment.
        answers: exercise (the grade id of its answer cell) -> kind -> answer. The first kind is a right one.
        written: question marked by hand (the grade id of its cell) -> a text, and the points that a person gives it.
        accidents: whether the accidents are rehearsed too.
    """

    name: str
    source: Path
    answers: Mapping[str, Mapping[str, Answer]]
    written: Mapping[str, Answer] = field(default_factory=dict)
    accidents: bool = True

    def right(self, exercise: str) -> Answer:
        return next(iter(self.answers[exercise].values()))

    def notebook(self) -> NotebookNode:
        """nbgrader's source."""
        return nbformat.read(self.source / f"{self.name}.ipynb", as_version=4)


# --- What a student does ----------------------------------------------------------------------------------------------

Points = dict[str, float]  # exercise, or question marked by hand -> points
Prepare = Callable[[Coursework, Path], Points]  # changes the fetched notebook, and says what it is worth


@dataclass(frozen=True)
class Case:
    """A student and what they hand in; `hangs`: the tests of the first exercise never end."""

    name: str
    student: str
    prepare: Prepare
    late: bool = False
    hangs: bool = False


def _open(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def _cell(notebook: NotebookNode, name: str) -> NotebookNode:
    return next(cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == name)


def answer(work: Coursework, path: Path, kinds: Mapping[str, str], written: bool = True) -> Points:
    """Write answers into a notebook: of the named kind, else the right one."""
    notebook, points = _open(path), {}
    for exercise, known in work.answers.items():
        given = known[kinds[exercise]] if exercise in kinds else work.right(exercise)
        _cell(notebook, exercise).source = given.source
        points[exercise] = given.points
    for question, given in work.written.items():
        if written:
            _cell(notebook, question).source = given.source
        points[question] = given.points if written else 0.0
    nbformat.write(notebook, path)
    return points


def _answers(kinds: Mapping[str, str]) -> Prepare:
    return lambda work, path: answer(work, path, kinds)


def blank(work: Coursework, path: Path) -> Points:
    """Nothing is answered."""
    return dict.fromkeys([*work.answers, *work.written], 0.0)


def crashing(work: Coursework, path: Path) -> Points:
    """Every function raises an exception."""
    points = answer(work, path, {})
    for exercise in work.answers:
        _rewrite(path, exercise, _hollow(work.right(exercise).source, "raise RuntimeError('a crash')"))
        points[exercise] = 0.0
    return points


def _rewrite(path: Path, exercise: str, source: str) -> None:
    notebook = _open(path)
    _cell(notebook, exercise).source = source
    nbformat.write(notebook, path)


def _hollow(source: str, body: str) -> str:
    """Code that defines the functions and classes of an answer, each of which does nothing but the body."""
    indented = "\n".join("    " + line for line in body.splitlines())
    parts = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            parts.append(f"def {node.name}(*arguments, **options):\n{indented}")
        elif isinstance(node, ast.ClassDef):
            inner = "\n".join("    " + line for line in indented.splitlines())
            parts.append(f"class {node.name}:\n    def __init__(self, *arguments, **options):\n{inner}")
    return "\n\n".join(parts) or body


# --- The time that a notebook takes -----------------------------------------------------------------------------------

STATED = 60.0  # seconds of one processor that the whole of an assignment takes at most, imports included
IMPORTS = 10.0  # of these, for what its kernel has to load; those that grade have it loaded before
_STOPWATCH = "seconds-of-a-processor"


def add_stopwatch(notebook: NotebookNode) -> None:
    """A last cell that prints the seconds of a processor which the kernel took: other work beside it does not count."""
    notebook.cells.append(nbformat.v4.new_code_cell("import time\nprint(time.process_time())", id=_STOPWATCH))


def processor_seconds(notebook: NotebookNode) -> float | None:
    """What the stopwatch of an executed notebook printed, None if it has none or never came to it."""
    printed = [output.get("text", "") for cell in notebook.cells if cell.id == _STOPWATCH for output in cell.outputs]
    return float(printed[0]) if printed and printed[0] else None


# --- Accidents --------------------------------------------------------------------------------------------------------


def _noisy(noise: str) -> Prepare:
    """The right answers; whenever the first one's function is called the first time, it makes a noise."""

    def prepare(work: Coursework, path: Path) -> Points:
        points = answer(work, path, {})
        exercise = next(iter(work.answers))
        source = work.right(exercise).source
        names = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        indented = "\n".join("                " + line for line in noise.splitlines())
        wrapper = (
            "def _noisy(function):\n    heard = []\n    def with_noise(*arguments, **options):\n"
            f"        if not heard:\n            heard.append(1)\n            if True:\n{indented}\n"
            "        return function(*arguments, **options)\n    return with_noise"
        )
        wrapped = "\n".join(f"{name} = _noisy({name})" for name in names)
        _rewrite(path, exercise, f"{source}\n\n{wrapper}\n{wrapped}")
        return points

    return prepare


def _fatal(body: str) -> Prepare:
    """The right answers, apart from the first, whose functions do something that nobody survives."""

    def prepare(work: Coursework, path: Path) -> Points:
        points = answer(work, path, {})
        exercise = next(iter(work.answers))
        _rewrite(path, exercise, _hollow(work.right(exercise).source, body))
        return points | {exercise: 0.0}

    return prepare


def _damaged(damage: Callable[[NotebookNode, list[str], list[str]], None], lost: bool = False) -> Prepare:
    """The right answers in a notebook that something happened to.

    Args:
        damage: changes a notebook, given the names of its answers and those of the first exercise's tests.
        lost: whether the first exercise's points are lost.
    """

    def prepare(work: Coursework, path: Path) -> Points:
        points = answer(work, path, {})
        notebook, first = _open(path), next(iter(work.answers))
        exercise_of = grades.exercises_of(notebook)
        tests = [name for name, exercise in exercise_of.items() if exercise == first]
        damage(notebook, list(work.answers), tests)
        nbformat.write(notebook, path)
        return points | ({first: 0.0} if lost else {})

    return prepare


def _without(notebook: NotebookNode, names: Iterable[str]) -> None:
    gone = [_cell(notebook, name) for name in names]
    notebook.cells = [cell for cell in notebook.cells if not any(cell is other for other in gone)]


def _delete_test(notebook: NotebookNode, answers: list[str], tests: list[str]) -> None:
    _without(notebook, tests[:1])


def _delete_question(notebook: NotebookNode, answers: list[str], tests: list[str]) -> None:
    _without(notebook, [answers[0], *tests])


def _double_test(notebook: NotebookNode, answers: list[str], tests: list[str]) -> None:
    twin = copy.deepcopy(_cell(notebook, tests[0]))
    twin.id = "a-copy"
    notebook.cells.append(twin)


def _double_answer(notebook: NotebookNode, answers: list[str], tests: list[str]) -> None:
    right = _cell(notebook, answers[0])
    first_try = copy.deepcopy(right)
    first_try.id, first_try.source = "a-first-try", _hollow(right.source, "return None")
    notebook.cells.insert(notebook.cells.index(right), first_try)


def _strip(notebook: NotebookNode, answers: list[str], tests: list[str]) -> None:
    for number, cell in enumerate(notebook.cells):
        cell.metadata.clear()
        cell.id = f"stripped-{number}"


def _edit(notebook: NotebookNode, answers: list[str], tests: list[str]) -> None:
    for name in tests:
        _cell(notebook, name).source = "1000.0"


def _retype(notebook: NotebookNode, answers: list[str], tests: list[str]) -> None:
    for name, kind in ((tests[0], "raw"), (answers[0], "markdown")):
        cell = _cell(notebook, name)
        cell.cell_type = kind
        del cell["outputs"], cell["execution_count"]


def _on_file(change: Callable[[Path], Any], lost: bool = False) -> Prepare:
    """The right answers in a file that something happened to."""

    def prepare(work: Coursework, path: Path) -> Points:
        points = answer(work, path, {})
        change(path)
        return dict.fromkeys(points, 0.0) if lost else points

    return prepare


_STUBBORN = """import time
while True:
    try:
        time.sleep(0.1)
    except BaseException:
        pass"""

ACCIDENTS: Mapping[str, Prepare] = {
    "a deleted test cell": _damaged(_delete_test),
    "an answer and its tests deleted": _damaged(_delete_question, lost=True),
    "a duplicated test cell": _damaged(_double_test),
    "a duplicated answer cell": _damaged(_double_answer),
    "stripped metadata": _damaged(_strip),
    "an edited test": _damaged(_edit),
    "changed cell types": _damaged(_retype),
    "a warning and stderr": _noisy("import sys, warnings\nwarnings.warn('slow')\nprint('careful', file=sys.stderr)"),
    "a progress bar": _noisy("import tqdm\nfor _ in tqdm.tqdm(range(3)): pass"),
    "200,000 printed lines": _noisy("for number in range(200_000): print('line', number)"),
    "an infinite loop": _fatal("while True: pass"),
    "a loop that ignores interrupts": _fatal(_STUBBORN),
    "a killed kernel": _fatal("import os\nos._exit(1)"),
    "a missing file": _on_file(Path.unlink, lost=True),
    "a renamed file": _on_file(lambda path: path.rename(path.with_name(f"{path.stem} (final).ipynb"))),
    "a corrupt notebook": _on_file(lambda path: path.write_text(path.read_text()[:200]), lost=True),
    "a name with accents and spaces": _on_file(lambda path: path.rename(path.with_name("Übung von Zoë.ipynb"))),
}


def roster(work: Coursework, students: int = 0, seed: int = 0) -> list[Case]:
    """The class of a coursework: every answer at least once, the accidents, and mixtures up to the number."""
    kinds = {exercise: list(known) for exercise, known in work.answers.items()}
    cases: list[Case] = []

    def add(name: str, prepare: Prepare, student: str = "", **flags: bool) -> None:
        cases.append(Case(name, student or f"student-{len(cases) + 1:03d}", prepare, **flags))

    for number in range(max(map(len, kinds.values()))):
        own = {exercise: names[number] for exercise, names in kinds.items() if number < len(names)}
        words = textwrap.shorten(", ".join(dict.fromkeys(own.values())), 40, placeholder=" …")
        add(f"answers {number + 1}: {words}", _answers(own))
    if work.accidents:
        half = {name: names[-1] for name, names in list(kinds.items())[::2]}
        add("partly right", _answers(half))
        worst = {name: min(own, key=lambda kind: own[kind].points) for name, own in work.answers.items()}
        add("wrong", _answers(worst))
        add("blank", blank)
        add("crashing", crashing)
        add("late", _answers({}), late=True)
        for name, prepare in ACCIDENTS.items():
            add(name, prepare, "zoë garcía" if "accents" in name else "", hangs="loop" in name)
    draw = random.Random(seed)
    while len(cases) < students:
        add(f"mixture {len(cases) + 1}", _answers({name: draw.choice(names) for name, names in kinds.items()}))
    return cases


# --- Odd scores -------------------------------------------------------------------------------------------------------


def odd_scores(folder: Path) -> Coursework:
    """A coursework whose test cell ends in whatever the answer holds: the scores that nbgrader reads wrongly."""
    values = {
        "a number": ("4.0", 4.0),
        "a NumPy number": ("np.float64(1.5)", 1.5),
        "a NumPy number of 0": ("np.int64(0)", 0.0),
        "above the maximum": ("99.0", 4.0),
        "below 0": ("-1.0", 0.0),
        "not a number": ("float('nan')", 0.0),
        "a comparison that is false": ("1 == 2", 0.0),
        "an empty text": ("''", 0.0),
    }
    flags = {"schema_version": 3, "task": False}
    answer_cell = flags | {"grade": False, "solution": True, "locked": False, "grade_id": "score"}
    test_cell = flags | {"grade": True, "solution": False, "locked": True, "grade_id": "score-test", "points": 4}
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                "import numpy as np\n\n### BEGIN SOLUTION\nscore = 4.0\n### END SOLUTION",
                id="score",
                metadata={"nbgrader": answer_cell},
            ),
            nbformat.v4.new_code_cell("score", id="score-test", metadata={"nbgrader": test_cell}),
        ],
        metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    )
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / "odd_scores.ipynb")
    known = {name: Answer(f"import numpy as np\nscore = {value}", points) for name, (value, points) in values.items()}
    return Coursework("odd_scores", folder, {"score": known}, accidents=False)


# --- The term ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Patience:
    """Seconds for each cell when grading (0: the course's own), and for cells of which it is known that they hang."""

    timeout: int = 0
    hanging: int = 0
    cells: tuple[str, ...] = ()

    def put_into(self, config: Config) -> None:
        usual = self.timeout or config.ExecutePreprocessor.timeout
        config.ExecutePreprocessor.timeout = usual
        if self.cells:
            # So that a rehearsal need not wait, and every other cell has its time, however busy the machine is.
            config.ExecutePreprocessor.timeout_func = lambda cell: (
                self.hanging if cell.metadata.get("nbgrader", {}).get("grade_id") in self.cells else usual
            )
            config.ExecutePreprocessor.iopub_timeout = max(5, self.hanging)


def settings(folder: Path, db_url: str = "", patience: Patience = Patience()) -> Config:
    """nbgrader's settings of this course for a course in another folder, with an exchange in it."""
    config = course_config(folder)
    config.Exchange.root = str(folder / "exchange")
    if db_url:
        config.CourseDirectory.db_url = db_url
    patience.put_into(config)
    return config


def open_course(folder: Path, db_url: str = "", patience: Patience = Patience()) -> NbGraderAPI:
    """nbgrader for a course folder."""
    programs_on_path()
    (folder / "exchange").mkdir(parents=True, exist_ok=True)
    (folder / "exchange").chmod(0o777)
    # nbgrader's own use of its database warns at each new submission.
    warnings.filterwarnings("ignore", "Object of type <Submitted", SAWarning)
    logger = logging.getLogger("traitlets")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return NbGraderAPI(config=settings(folder, db_url, patience))


@dataclass(frozen=True)
class Row:
    """A submission: the points it should have and has, by exercise, the scores after penalties, and its feedback.

    seconds: that grading took, beside other submissions. processor: seconds of one processor that the notebook took, where measured.
    """

    assignment: str
    case: str
    student: str
    expected: Points
    actual: Points
    expected_score: float
    score: float
    feedback: str
    seconds: float
    processor: float | None = None

    @property
    def as_expected(self) -> bool:
        return (
            {name: round(value, 6) for name, value in self.expected.items()}
            == {name: round(value, 6) for name, value in self.actual.items()}
            and abs(self.expected_score - self.score) < 1e-6
            and self.feedback != "LEAK"
        )


class Term:
    """A course in a scratch folder, and the steps of a term with one assignment in it.

    Args:
        folder: is made if need be.
        db_url: of the gradebook; by default SQLite in the folder.
        timeout: seconds for each cell when grading; by default the course's.
        patience: the same for cells of which it is known that they hang, so that a rehearsal need not wait.
        jobs: submissions that are graded at a time, each in a process of its own; by default as many as the machine can.
    """

    def __init__(self, folder: Path, db_url: str = "", timeout: int = 0, patience: int = 0, jobs: int = 0) -> None:
        self.folder, self.db_url, self.jobs = folder.resolve(), db_url, jobs or usual_jobs()
        self.timeout, self.patience = timeout, patience or timeout
        self.api = open_course(self.folder, db_url, Patience(timeout))

    @contextlib.contextmanager
    def gradebook(self) -> Iterator[Gradebook]:
        with Gradebook(self.api.coursedir.db_url, self.api.coursedir.course_id) as gradebook:
            yield gradebook

    def path(self, step: str, student: str, assignment: str) -> Path:
        """The folder of a step ("source", "release", "submitted", "autograded", "feedback")."""
        directory = getattr(self.api.coursedir, f"{step}_directory")
        return Path(self.api.coursedir.format_path(directory, student, assignment))

    def home(self, student: str) -> Path:
        """The folder in which a student works."""
        return self.folder / "home" / student

    def enrol(self, cases: Iterable[Case]) -> None:
        with self.gradebook() as gradebook:
            for number, case in enumerate(cases, 1):
                gradebook.update_or_create_student(
                    case.student,
                    first_name=case.student.partition(" ")[0].title(),
                    last_name=case.student.partition(" ")[2].title() or f"Number {number}",
                    email=f"student{number}@example.org",
                )

    def release(self, work: Coursework) -> None:
        source = self.path("source", ".", work.name)
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(work.source, source)
        self._must(self.api.generate_assignment(work.name))
        self._must(self.api.release_assignment(work.name))

    def fetch(self, work: Coursework, student: str) -> Path:
        """The student's notebook."""
        self.home(student).mkdir(parents=True, exist_ok=True)
        self._as_student("FetchAssignment", work, student)
        return self.home(student) / work.name / f"{work.name}.ipynb"

    def submit(self, work: Coursework, student: str) -> None:
        self._as_student("Submit", work, student)

    def close(self, work: Coursework) -> None:
        """What is submitted from now on is late."""
        with self.gradebook() as gradebook:
            gradebook.update_or_create_assignment(work.name, duedate=datetime.now(UTC).replace(tzinfo=None))

    def collect(self, work: Coursework) -> None:
        self._must(self.api.collect(work.name))

    def autograde(
        self, work: Coursework, cases: Sequence[Case], on_graded: Callable[[str], None] | None = None
    ) -> dict[str, tuple[float, str]]:
        """Student -> the seconds that grading took, and nbgrader's message where it failed.

        Args:
            on_graded: is told the assignment after each submission; by default a bar shows how far it is.
        """
        if on_graded is None:
            told = show.progress(len(cases), f"{work.name}: autograding")
            on_graded = lambda _: told(len(done))  # noqa: E731
        first = next(iter(work.answers))
        hanging = tuple(name for name, exercise in grades.exercises_of(work.notebook()).items() if exercise == first)
        jobs = {
            case.student: functools.partial(
                autograde,
                str(self.folder),
                self.db_url,
                Patience(self.timeout, self.patience, hanging if case.hangs else ()),
                work.name,
                case.student,
            )
            for case in cases
        }
        done: dict[str, tuple[float, str]] = {}
        for student, result in graders(self.jobs).run(jobs):
            done[student] = (0.0, str(result)) if isinstance(result, GraderEnded) else result
            on_graded(work.name)
        return done

    def audit(self, work: Coursework, students: Sequence[str]) -> None:
        """Give the points that a notebook cannot know, in the assignment that has such: of the open practice, without a key."""
        if work.name == audit.NAME:
            audit.audit(self.folder, None, [Student(student) for student in students], db_url=self.db_url)

    def mark(self, work: Coursework, student: str) -> None:
        """Give the points of the written questions, as a person does in formgrader: where nbgrader asks for a mark."""
        with self.gradebook() as gradebook:
            for notebook in gradebook.find_submission(work.name, student).notebooks:
                for grade in notebook.grades:
                    if grade.needs_manual_grade and grade.name in work.written:
                        grade.manual_score = work.written[grade.name].points
                        grade.needs_manual_grade = False
            gradebook.db.commit()

    def feedback(self, work: Coursework) -> None:
        self._must(self.api.generate_feedback(work.name))
        self._must(self.api.release_feedback(work.name))

    def fetch_feedback(self, work: Coursework, student: str) -> list[Path]:
        """The pages that the student received."""
        self._as_student("FetchFeedback", work, student)
        return sorted((self.home(student) / work.name / "feedback").rglob("*.html"))

    def export(self) -> Path:
        """The folder of the exported grades."""
        out = self.folder / "build" / "grading" / "grades"
        grades.export(self.api.coursedir, out)
        return out

    def _as_student(self, step: str, work: Coursework, student: str) -> None:
        own = CourseDirectory(parent=self.api)
        own.assignment_id, own.student_id = work.name, student
        app = getattr(self.api.exchange, step)(coursedir=own, authenticator=self.api.authenticator, parent=self.api)
        app.assignment_dir, app.cache = str(self.home(student)), str(self.home(student) / ".cache")
        app.start()

    def _must(self, result: Mapping[str, Any]) -> None:
        if not result["success"]:
            raise TermError(f"{result.get('log', '')}{result.get('error', '')}")


@functools.cache
def _course_of_this_process(folder: str, db_url: str, patience: Patience) -> NbGraderAPI:
    return open_course(Path(folder), db_url, patience)


def autograde(folder: str, db_url: str, patience: Patience, assignment: str, student: str) -> tuple[float, str]:
    """One submission; the course stays open in this process.

    Returns:
        the seconds that it took, and nbgrader's message where it failed.
    """
    start = time.perf_counter()
    result = _course_of_this_process(folder, db_url, patience).autograde(assignment, student)
    message = "" if result["success"] else result.get("log", "") + result.get("error", "")
    return time.perf_counter() - start, message


# --- The rehearsal ----------------------------------------------------------------------------------------------------


class TimeLeft:
    """Says how many of all submissions are graded and how long the rest is going to take, once in a while.

    Args:
        total: submissions of all assignments together.
        every: seconds between two lines.
    """

    def __init__(self, total: int, every: float = 30.0) -> None:
        self.total, self.every, self.done = total, every, 0
        self._start = self._said = time.monotonic()

    def __call__(self, assignment: str) -> None:
        self.done += 1
        now = time.monotonic()
        # The first ones wait for processes to start, and say little about the others.
        if (now - self._said >= self.every and self.done > 2) or self.done == self.total:
            self._said, so_far = now, now - self._start
            left = so_far / self.done * (self.total - self.done)
            print(
                f"{assignment}: {self.done} of {self.total} submissions graded in {_minutes(so_far)}, "
                f"about {_minutes(left)} left",
                flush=True,
            )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def rehearse(
    term: Term, work: Coursework, cases: Sequence[Case], on_graded: Callable[[str], None] | None = None
) -> list[Row]:
    """Take one assignment through a term.

    Args:
        on_graded: is told the assignment after each submission.

    Returns:
        for each case, what its submission should have been given and was given.

    Raises:
        TermError: a step failed for the whole class.
    """
    term.enrol(cases)
    term.release(work)
    expected = {}
    told = show.progress(len(cases), f"{work.name}: submitting")
    # The late ones come last: what is late is decided by the clock.
    for number, case in enumerate(sorted(cases, key=lambda case: case.late), 1):
        path = term.fetch(work, case.student)
        expected[case.student] = case.prepare(work, path)
        if case is cases[0]:  # all right answers
            notebook = _open(path)
            add_stopwatch(notebook)
            nbformat.write(notebook, path)
        if case.late:
            term.close(work)
        term.submit(work, case.student)
        told(number)
    term.collect(work)
    graded = term.autograde(work, cases, on_graded)
    for student, (_, trouble) in graded.items():
        if trouble:
            print(f"{work.name}, {student}: nbgrader could not grade this submission\n{trouble}", file=sys.stderr)
    term.audit(work, [case.student for case in cases])
    for case in cases:
        term.mark(work, case.student)
    term.feedback(work)
    exported = _read_scores(term.export() / "grades.csv", work.name)
    exercise_of = grades.exercises_of(work.notebook())
    secrets = _hidden_lines(work)
    rows = []
    with term.gradebook() as gradebook:
        for case in cases:
            submission = gradebook.find_submission(work.name, case.student)
            found = grades.points_by_exercise(submission, exercise_of)
            points = expected[case.student]
            rows.append(
                Row(
                    work.name,
                    case.name,
                    case.student,
                    points,
                    {name: value for name, (value, _) in found.items()},
                    sum(points.values()) - (_penalty(term, work, points) if case.late else 0.0),
                    exported[case.student],
                    _feedback(term, work, case, secrets),
                    graded[case.student][0],
                    _processor(term, work, case) if case is cases[0] else None,
                )
            )
    return rows


def _penalty(term: Term, work: Coursework, points: Points) -> float:
    """For the first day, of the points that were given automatically."""
    policy = PenaltyPerDay(config=term.api.config)
    return policy.late_submission_penalty("", sum(points[name] for name in work.answers), 1.0)


def _processor(term: Term, work: Coursework, case: Case) -> float | None:
    path = term.path("autograded", case.student, work.name) / f"{work.name}.ipynb"
    return processor_seconds(_open(path)) if path.is_file() else None


def _read_scores(path: Path, assignment: str) -> dict[str, float]:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["assignment"] == assignment]
    return {row["student_id"]: float(row["score"]) for row in rows}


def _hidden_lines(work: Coursework) -> set[str]:
    """The lines of the source that no student may see."""
    notebook = work.notebook()
    shown, _ = ClearHiddenTests().preprocess(copy.deepcopy(notebook), {})
    lines = [set(cell.source.splitlines()) for cell in (*notebook.cells, *shown.cells)]
    visible = set().union(*lines[len(notebook.cells) :])
    hidden = set().union(*lines[: len(notebook.cells)]) - visible
    return {line.strip() for line in hidden if "HIDDEN TESTS" not in line and len(line.strip()) > 5}


def _feedback(term: Term, work: Coursework, case: Case, secrets: set[str]) -> str:
    """Whether a page came back to the student, and whether it gives a hidden test away."""
    pages = term.fetch_feedback(work, case.student)
    for page in pages:
        text = "".join(BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").get_text().split())
        if any("".join(secret.split()) in text for secret in secrets):
            return "LEAK"
    return "returned" if pages else "none"


def table(rows: Sequence[Row]) -> str:
    """Expected and actual points of every row, and how many are equal."""
    width = max(len(row.case) for row in rows)
    lines, assignment = [], ""
    for row in rows:
        if row.assignment != assignment:
            assignment = row.assignment
            lines.append(f"\n{assignment}")
            lines.append(f"  {'submission':<{width}}  expected    actual  feedback  seconds")
        sign = "✓" if row.as_expected else "✗"
        numbers = f"{row.expected_score:8.2f}  {row.score:8.2f}  {row.feedback:<8}  {row.seconds:7.1f}"
        lines.append(f"{sign} {row.case:<{width}}  {numbers}")
        if not row.as_expected:
            lines.append(f"    expected {row.expected}")
            lines.append(f"    actual   {row.actual}")
    good = sum(row.as_expected for row in rows)
    lines.append(f"\n{good} of {len(rows)} submissions have the points that they should have")
    for row in rows:
        if row.processor is not None:
            sign = "✓" if row.processor <= STATED - IMPORTS else "✗"
            lines.append(
                f"{sign} {row.assignment} with right answers took {row.processor:.0f} s of one processor; {STATED - IMPORTS:.0f} s and "
                f"{IMPORTS:.0f} s of imports are what a student is told"
            )
    return "\n".join(lines)


def load(path: Path, folder: Path) -> list[Coursework]:
    """The coursework of a Python file: what its function `coursework(folder)` makes in a scratch folder.

    Raises:
        TermError: the file has no such function.
    """
    spec = importlib.util.spec_from_file_location(f"coursework_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise TermError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    # As for a script: what lies beside the file can be imported by it.
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    if not hasattr(module, "coursework"):
        raise TermError(f"{path} has no function `coursework(folder)`")
    made = module.coursework(folder)
    return [made] if isinstance(made, Coursework) else list(made)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m devil_lib.grading.term", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--coursework", action="append", type=Path, metavar="FILE",
        help="a Python file with a function `coursework(folder)` (repeatable; default: tests/coursework.py)",
    )  # fmt: skip
    parser.add_argument(
        "--students", type=int, default=30, help="of each assignment, at least (default: %(default)s)"
    )
    parser.add_argument(
        "--jobs", type=int, default=usual_jobs(),
        help="submissions graded at a time (default: one for each processor, at most four; here %(default)s)",
    )  # fmt: skip
    parser.add_argument("--timeout", type=int, default=60, help="seconds for each cell (default: %(default)s)")
    parser.add_argument("--db-url", default="", metavar="URL", help="of an empty gradebook, such as postgresql://...")
    parser.add_argument("--folder", type=Path, help="where to keep everything (default: a temporary folder)")
    given = parser.parse_args(arguments)
    start = time.perf_counter()
    files = given.coursework or [ROOT / "tests" / "coursework.py"]
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="devil-class-")))
        if given.folder and folder.exists() and any(folder.iterdir()):
            print(f"make class: {folder} is not empty, and a term starts with nothing: name another", file=sys.stderr)
            return 2
        try:
            # Of the cells that hang it is known that they do: no need to wait for them as long as for others.
            term = Term(folder / "course", given.db_url, given.timeout, min(10, given.timeout), given.jobs)
            works = [odd_scores(folder / "sources" / "odd_scores")]
            works += [work for path in files for work in load(path.resolve(), folder / "sources" / path.stem)]
            classes = [(work, roster(work, given.students if work.accidents else 0)) for work in works]
            left, rows = TimeLeft(sum(len(cases) for _, cases in classes)), []
            for work, cases in classes:
                played = rehearse(term, work, cases, left)
                print(table(played), flush=True)
                rows += played
        except (TermError, OSError) as error:
            print(f"make class: {error}", file=sys.stderr)
            return 2
    equal = sum(row.as_expected for row in rows)
    print(
        f"\n{len(works)} assignments, {equal} of {len(rows)} submissions as expected, {_minutes(time.perf_counter() - start)}"
    )
    return 0 if all(row.as_expected for row in rows) else 1


if __name__ == "__main__":
    # Under its own name, so that the classes of a coursework's file are these.
    from devil_lib.grading import term

    sys.exit(term.main())
