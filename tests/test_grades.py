"""Grades as nbgrader, Canvas and Moodle read them, and the analysis of the exercises."""

import csv
import re
import shutil
from datetime import datetime

import nbformat
import numpy as np
import pytest
import toy_coursework
from nbformat.v4 import new_output
from nbgrader.api import Gradebook
from nbgrader.plugins import CsvExportPlugin

from devil_lib.course.lessons import ROOT
from devil_lib.grading import grades
from devil_lib.grading.release import programs_on_path

pytestmark = pytest.mark.filterwarnings("ignore:Object of type <Submitted")  # nbgrader's own use of its database

STUDENTS = {
    "ada": ("Lovelace", "Ada", "ada@example.org", "101"),
    "zoë garcía": ("García Márquez", "Zoë", None, None),
    "plain": (None, None, None, None),
    "idle": ("Idle", "Ida", "idle@example.org", "104"),
}
# Points of each exercise (double of 5, square of 5, why of 5); None: nothing was handed in.
POINTS = {"ada": (5.0, 4.5, 3.0), "zoë garcía": (2.0, 2.5, 4.0), "plain": (0.0, 1.25, 5.0), "idle": None}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A gradebook in a file; a new one takes seconds, so that each test has a copy of this."""
    programs_on_path()
    path = tmp_path_factory.mktemp("gradebook") / "gradebook.db"
    with Gradebook(f"sqlite:///{path}", "course") as gradebook:
        fill(gradebook)
    return path


def fill(gradebook):
    gradebook.add_assignment("toy", duedate=datetime(2026, 3, 1))
    gradebook.add_notebook("toy", "toy")
    for name, maximum in (("double-visible", 2), ("double-hidden", 3), ("square-visible", 1), ("square-hidden", 4)):
        gradebook.add_grade_cell(name, "toy", "toy", max_score=maximum, cell_type="code")
    gradebook.add_grade_cell("why", "toy", "toy", max_score=5, cell_type="markdown")
    for student, (last, first, email, lms) in STUDENTS.items():
        gradebook.add_student(student, last_name=last, first_name=first, email=email, lms_user_id=lms)
        if POINTS[student] is None:
            continue
        submission = gradebook.add_submission("toy", student, timestamp=datetime(2026, 2, 27, 12))
        double, square, why = POINTS[student]
        for name, score in {
            "double-visible": min(double, 2.0), "double-hidden": max(0.0, double - 2.0),
            "square-visible": min(square, 1.0), "square-hidden": max(0.0, square - 1.0), "why": why,
        }.items():  # fmt: skip
            grade = gradebook.find_grade(name, "toy", "toy", student)
            grade.auto_score = score
            grade.needs_manual_grade = student == "plain" and name == "why"
        if student == "plain":
            submission.notebooks[0].late_submission_penalty = 0.625
    gradebook.db.commit()


@pytest.fixture
def gradebook(tmp_path, template):
    shutil.copyfile(template, tmp_path / "gradebook.db")
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}", "course") as copied:
        yield copied


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


class TestGrades:
    def test_they_are_those_of_the_gradebook(self, gradebook):
        found = {grade.student_id: grade for grade in grades.grades(gradebook)}
        assert found.keys() == STUDENTS.keys()
        assert {name: grade.score for name, grade in found.items()} == {
            "ada": 12.5, "zoë garcía": 8.5, "plain": 5.625, "idle": 0.0,
        }  # fmt: skip
        assert {grade.max_score for grade in found.values()} == {15.0}
        assert [name for name, grade in found.items() if not grade.submitted] == ["idle"]
        assert [name for name, grade in found.items() if grade.needs_manual_grade] == ["plain"]

    def test_nbgraders_file_is_nbgraders(self, gradebook, tmp_path):
        CsvExportPlugin(to=str(tmp_path / "theirs.csv")).export(gradebook)
        grades.write_nbgrader(grades.grades(gradebook), tmp_path / "ours.csv")
        assert (tmp_path / "ours.csv").read_text() == (tmp_path / "theirs.csv").read_text()

    def test_a_comma_in_a_name_breaks_no_column(self, gradebook, tmp_path):
        gradebook.find_student("ada").last_name = "Lovelace, Countess of"
        grades.write_nbgrader(grades.grades(gradebook), tmp_path / "grades.csv")
        heading, *rows = rows_of(tmp_path / "grades.csv")
        names = {row[heading.index("student_id")]: dict(zip(heading, row, strict=True))["last_name"] for row in rows}
        assert names["ada"] == "Lovelace, Countess of"

    def test_canvas(self, gradebook, tmp_path):
        """As Canvas's importer reads it: who a row is about, by ID or login, and the points of each assignment."""
        grades.write_canvas(grades.grades(gradebook), tmp_path / "canvas.csv", {"toy": "A toy (77)"})
        heading, possible, *rows = rows_of(tmp_path / "canvas.csv")
        assert heading[:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
        assert heading[5:] == ["A toy (77)"]
        assert "Points Possible" in possible[0] and possible[5] == "15" and not any(possible[1:5])
        assert {row[3]: (row[0], row[1], row[5]) for row in rows} == {
            "ada": ("Lovelace, Ada", "101", "12.5"),
            "zoë garcía": ("García Márquez, Zoë", "", "8.5"),
            "plain": ("plain", "", "5.62"),
            "idle": ("Idle, Ida", "104", ""),
        }
        assert all(len(row) == len(heading) for row in (possible, *rows))

    def test_moodle(self, gradebook, tmp_path):
        """As Moodle's importer reads it: a column that identifies, numbers with a point, "-" for no grade."""
        grades.write_moodle(grades.grades(gradebook), tmp_path / "moodle.csv")
        heading, *rows = rows_of(tmp_path / "moodle.csv")
        assert heading == ["First name", "Last name", "ID number", "Email address", "toy"]
        entries = {row[2]: dict(zip(heading, row, strict=True)) for row in rows}
        assert {name: entry["toy"] for name, entry in entries.items()} == {
            "ada": "12.5", "zoë garcía": "8.5", "plain": "5.62", "idle": "-",
        }  # fmt: skip
        assert entries["ada"]["Email address"] == "ada@example.org" and entries["zoë garcía"]["First name"] == "Zoë"


class TestSymptoms:
    def cell(self, *outputs):
        cell = toy_coursework.graded("check()", 4)
        cell.outputs = list(outputs)
        return cell

    def test_they_are_the_crossed_lines_without_figures(self):
        text = (
            "exercise, visible tests: 1 of 2 points\n✓ the shape is right\n✗ the mean: it is not 0, so that the noise\n"
            "  has a drift (0.31 instead of 0)\n✗ 3 of 12 values are wrong\n"
        )
        stream = new_output("stream", name="stdout", text=text)
        assert grades.symptoms(self.cell(stream, stream)) == [
            "the mean: it is not …, so that the noise has a drift",
            "… of … values are wrong",
        ]

    def test_an_error_is_one(self):
        error = new_output("error", ename="NameError", evalue="name 'double' is not defined", traceback=[])
        assert grades.symptoms(self.cell(error)) == ["NameError: name 'double' is not defined"]


def test_exercises_are_named_by_their_answers():
    assert grades.exercises_of(toy_coursework.source()) == {
        "double-visible": "double", "double-hidden": "double",
        "square-visible": "square", "square-hidden": "square", "why": "why",
    }  # fmt: skip


@pytest.fixture
def course(gradebook, tmp_path):
    """A course whose students `ada` and `plain` met symptoms."""
    said = {
        "ada": "✓ double\n",
        "zoë garcía": "✗ double: 1 of 2 values are wrong\n",
        "plain": "✗ double: 2 of 2 values are wrong\n",
    }
    for student, text in said.items():
        notebook = toy_coursework.source()
        for cell in notebook.cells:
            if cell.id.startswith("double-"):
                cell.outputs = [new_output("stream", name="stdout", text=text)]
        folder = tmp_path / "build" / "grading" / "autograded" / student / "toy"
        folder.mkdir(parents=True)
        nbformat.write(notebook, folder / "toy.ipynb")
    return tmp_path


class TestAnalysis:
    def test_the_figures(self, gradebook, course):
        paths = sorted(course.rglob("toy.ipynb"))
        items = grades.analyse(gradebook, "toy", paths)
        assert [(item.exercise, item.maximum, item.submissions) for item in items] == [
            ("double", 5.0, 3), ("square", 5.0, 3), ("why", 5.0, 3),
        ]  # fmt: skip
        points = np.array([POINTS[name] for name in POINTS if POINTS[name]])
        for i, item in enumerate(items):
            assert item.difficulty == pytest.approx(points[:, i].mean() / 5)
            rest = points.sum(axis=1) - points[:, i]
            assert item.discrimination == pytest.approx(np.corrcoef(points[:, i], rest)[0, 1])
        assert items[2].discrimination < 0 < items[0].discrimination
        # Once for each student, though visible and hidden tests said it.
        assert items[0].misconceptions == (("double: … of … values are wrong", 2),)

    def test_what_does_not_vary_does_not_discriminate(self, gradebook, course):
        for student in ("ada", "zoë garcía", "plain"):
            gradebook.find_grade("why", "toy", "toy", student).auto_score = 1.0
        gradebook.db.commit()
        assert grades.analyse(gradebook, "toy", course.rglob("toy.ipynb"))[2].discrimination is None

    def test_nothing_autograded(self, gradebook):
        with pytest.raises(grades.GradesError, match="has been autograded"):
            grades.analyse(gradebook, "toy", [])

    def test_the_command_writes_everything(self, course, capsys):
        assert grades.main(["--course", str(course), "--name", "toy=A toy (77)"]) == 0
        told = capsys.readouterr().out
        assert "4 grades of 4 students" in told and "1 of them still wait" in told
        out = course / "build" / "grading" / "grades"
        assert {path.name for path in out.iterdir()} == {
            "grades.csv", "canvas.csv", "moodle.csv", "items.csv", "item_analysis.html",
        }  # fmt: skip
        page = (out / "item_analysis.html").read_text()
        assert page.count("<img ") == 2 and "http" not in re.sub(r"data:image/png;base64,[^\"]*", "", page)
        alternatives = re.findall(r'<img alt="([^"]*)"', page)
        assert "double 0.47 and" in alternatives[0] and "2 for double, double: … of …" in alternatives[1]
        heading, *rows = rows_of(out / "items.csv")
        assert [row[1] for row in rows] == ["double", "square", "why"] and all(
            len(row) == len(heading) for row in rows
        )

    def test_the_course_folders_own_settings_count(self, course, tmp_path):
        """PostgreSQL's address stands in the folder's nbgrader_config.py, where nbgrader itself reads it."""
        assert grades.course_directory(course).db_url == f"sqlite:///{course / 'gradebook.db'}"
        settings = (
            ROOT / "nbgrader_config.py"
        ).read_text() + "\nc.CourseDirectory.db_url = 'postgresql://there/ours'\n"
        (course / "nbgrader_config.py").write_text(settings)
        assert grades.course_directory(course).db_url == "postgresql://there/ours"
        assert grades.course_directory(course, "sqlite:///other.db").db_url == "sqlite:///other.db"

    def test_without_a_gradebook(self, tmp_path, capsys):
        assert grades.main(["--course", str(tmp_path / "empty")]) == 2
        assert "there is no gradebook" in capsys.readouterr().err
        assert not (tmp_path / "empty").exists()
