"""A small term on nbgrader's real exchange and gradebook: every submission has its points, no feedback shows a test."""

import copy
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import nbformat
import pytest
import toy_coursework
from missing import missing
from nbformat.v4 import new_code_cell, new_output

from devil_lib.grading import term
from devil_lib.grading.feedback import INSTEAD, HideTests
from devil_lib.grading.late import PenaltyPerDay
from devil_lib.grading.term import Answer, Case, Coursework, Term, TermError

# Seconds: the first for cells that end, on a machine with other work; the second for those that are known not to.
PATIENCE = {"timeout": 120, "patience": 3}


def assert_all_as_expected(rows):
    assert all(row.as_expected for row in rows), term.table(rows)


# --- SQLite -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A term with every accident: (the term, the coursework, its rows)."""
    folder = tmp_path_factory.mktemp("term")
    work = toy_coursework.coursework(folder / "sources")
    played = Term(folder / "course", **PATIENCE)
    return played, work, term.rehearse(played, work, term.roster(work))


class TestTerm:
    def test_every_submission_has_its_points(self, played):
        _, _, rows = played
        assert_all_as_expected(rows)
        score = {row.case: row.score for row in rows}
        # Stated once more by hand: 5 + 5 for the code and 3.5 for the written answer.
        assert score["answers 1: right"] == 13.5
        assert score["a renamed file"] == score["stripped metadata"] == score["an edited test"] == 13.5
        assert score["an infinite loop"] == score["a loop that ignores interrupts"] == score["a killed kernel"] == 8.5
        assert score["late"] == 12.5, "a tenth of the points that were given automatically"
        assert score["answers 4: whole numbers only"] == 12.5 and score["wrong"] == 4.0 and score["crashing"] == 3.5
        assert score["blank"] == score["a missing file"] == score["a corrupt notebook"] == 0.0

    def test_every_accident_is_played(self, played):
        assert term.ACCIDENTS.keys() <= {row.case for row in played[2]} and len(term.ACCIDENTS) == 17

    def test_feedback_reaches_everyone_who_handed_in_a_notebook(self, played):
        assert {row.case for row in played[2] if row.feedback != "returned"} == {"a missing file"}

    def test_feedback_says_what_the_doctor_did(self, played):
        done, work, rows = played
        student = next(row.student for row in rows if row.case == "a duplicated answer cell")
        (page,) = done.fetch_feedback(work, student)
        assert "no answer was changed" in page.read_text() and "the last version counts" in page.read_text()

    def test_originals_are_kept(self, played):
        done, work, rows = played
        student = next(row.student for row in rows if row.case == "a corrupt notebook")
        kept = done.path("submitted", student, work.name).parents[1].with_name("originals") / student / work.name
        assert (kept / "toy.ipynb").read_bytes() == (done.home(student) / "toy" / "toy.ipynb").read_bytes()

    def test_a_person_is_asked_for_the_written_answers_alone(self, played):
        done, work, _ = played
        with done.gradebook() as gradebook:
            waiting = [one for one in gradebook.assignment_submissions(work.name) if one.needs_manual_grade]
        assert not waiting

    def test_the_table_shows_what_differs(self, played):
        rows = played[2]
        assert f"{len(rows)} of {len(rows)} submissions" in term.table(rows)
        wrong = copy.copy(rows[0])
        object.__setattr__(wrong, "actual", {**wrong.actual, "double": 1.0})
        assert (
            not wrong.as_expected
            and "✗ answers 1: right" in term.table([wrong])
            and "'double': 1.0" in term.table([wrong])
        )
        leaked = copy.copy(rows[0])
        object.__setattr__(leaked, "feedback", "LEAK")
        assert not leaked.as_expected

    def test_the_time_of_the_right_answers_is_told(self, played):
        rows = played[2]
        assert rows[0].processor > 0.0 and all(row.processor is None for row in rows[1:])
        words = f"{rows[0].assignment} with right answers took"
        assert f"✓ {words}" in term.table(rows)
        slow = copy.copy(rows[0])
        object.__setattr__(slow, "processor", term.STATED)
        assert f"✗ {words} 60 s of one processor" in term.table([slow])

    def test_a_leak_is_noticed(self, played):
        done, work, rows = played
        secrets = term._hidden_lines(work)
        assert any("421" in line for line in secrets)
        case = Case("right", rows[0].student, term.blank)
        assert term._feedback(done, work, case, secrets) == "returned"
        assert term._feedback(done, work, case, {"def double(x):"}) == "LEAK", "a line that the page does show"


def test_odd_scores(played, tmp_path):
    work = term.odd_scores(tmp_path / "source")
    rows = term.rehearse(played[0], work, term.roster(work))
    assert_all_as_expected(rows)
    assert {row.case.partition(": ")[2]: row.score for row in rows} == {
        "a number": 4.0, "a NumPy number": 1.5, "a NumPy number of 0": 0.0, "above the maximum": 4.0, "below 0": 0.0,
        "not a number": 0.0, "a comparison that is false": 0.0, "an empty text": 0.0,
    }  # fmt: skip


def test_the_time_left_is_told_once_in_a_while(monkeypatch, capsys):
    now = iter([0.0, *(20.0 * i for i in range(1, 11))])
    monkeypatch.setattr(term.time, "monotonic", lambda: next(now))
    left = term.TimeLeft(10, every=60.0)
    for _ in range(10):
        left("a1")
    assert capsys.readouterr().out.splitlines() == [
        "a1: 3 of 10 submissions graded in 60 s, about 2 min left",
        "a1: 6 of 10 submissions graded in 2 min, about 80 s left",
        "a1: 9 of 10 submissions graded in 3 min, about 20 s left",
        "a1: 10 of 10 submissions graded in 3 min, about 0 s left",
    ]


# --- Rosters and files ------------------------------------------------------------------------------------------------


class TestRoster:
    @pytest.fixture
    def work(self, tmp_path):
        return toy_coursework.coursework(tmp_path)

    def test_every_answer_is_handed_in(self, work):
        cases = term.roster(work)
        assert [case.name for case in cases][:4] == [
            "answers 1: right",
            "answers 2: right by adding, twice instead",
            "answers 3: adds two",
            "answers 4: whole numbers only",
        ]
        assert len({case.student for case in cases}) == len(cases)

    def test_it_is_filled_up_the_same_each_time(self, work, tmp_path):
        cases = term.roster(work, 50)
        assert len(cases) == 50 and len({case.student for case in cases}) == 50
        notebook = tmp_path / "toy.ipynb"
        given = []
        for _ in range(2):
            nbformat.write(toy_coursework.source(), notebook)
            given.append([case.prepare(work, notebook) for case in term.roster(work, 50)[-5:]])
        assert given[0] == given[1] and len({str(points) for points in given[0]}) > 1

    def test_hollow_answers_keep_their_names(self):
        source = "import math\n\ndef f(x):\n    return 1\n\nclass C:\n    a = 1\n"
        space = {}
        exec(term._hollow(source, "raise KeyError('x')"), space)
        for name in ("f", "C"):
            with pytest.raises(KeyError):
                space[name](1, y=2)


def test_a_file_without_coursework_is_refused(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(TermError, match="no function"):
        term.load(tmp_path / "empty.py", tmp_path)
    with pytest.raises(TermError, match="not a Python file"):
        term.load(tmp_path / "nothing.py", tmp_path)


def test_a_coursework_that_nbgrader_refuses(played, tmp_path):
    twin = toy_coursework.source().cells[4]
    twin.id = "a-twin"
    toy_coursework.write_source(tmp_path / "toy", twin)
    work = Coursework("refused", tmp_path / "toy", {"double": {"right": Answer("", 5)}})
    with pytest.raises(TermError, match="Duplicate grade id"):
        played[0].release(work)


@pytest.mark.parametrize(
    ("hours", "grace", "share"),
    [(0.001, 0, 0.1), (24, 0, 0.1), (24.5, 0, 0.2), (300, 0, 1.0), (2, 3, 0.0), (26, 3, 0.1), (0, 0, 0.0)],
)
def test_a_late_day_costs_its_share(hours, grace, share):
    policy = PenaltyPerDay(grace_hours=grace)
    assert policy.late_submission_penalty("ada", 40.0, hours * 3600) == pytest.approx(share * 40.0)


# --- Feedback ---------------------------------------------------------------------------------------------------------


class TestHiddenTests:
    def hidden(self, *outputs, elsewhere=()):
        """The outputs of a cell with hidden tests, and of a later one, as the feedback shows them."""
        notebook = toy_coursework.source()
        cell = next(cell for cell in notebook.cells if cell.id == "double-hidden")
        cell.outputs = list(outputs)
        notebook.cells.append(new_code_cell("later()", outputs=list(elsewhere)))
        cleaned, _ = HideTests().preprocess(notebook, {})
        text = nbformat.writes(cleaned)
        assert "421" not in text and "HIDDEN" not in text
        cell = next(cell for cell in cleaned.cells if cell.id == "double-hidden")
        assert cell.source == "# The hidden tests of double stand here when your work is marked."
        return cell.outputs, cleaned.cells[-1].outputs

    LINE = 'check(double, [(-3.5, -7.0), (421, 842), (0, 0)], "double of other numbers", 3.0)'

    def test_an_error_keeps_its_name(self):
        coloured = "\x1b[31mcheck\x1b[39m(double, [(-\x1b[34m3.5\x1b[39m, -7.0), (421, 842), (0, 0)], 'x')"
        error = new_output("error", ename="AssertionError", evalue="842 is not 421", traceback=["----", coloured])
        ((found,), _) = self.hidden(error)
        assert (found.ename, found.evalue) == ("AssertionError", "in a hidden test")
        assert found.traceback == ["AssertionError: in a hidden test"]

    def test_a_missing_name_is_told(self):
        error = new_output("error", ename="NameError", evalue="name 'double' is not defined", traceback=[self.LINE])
        ((found,), _) = self.hidden(error)
        assert found.evalue == "name 'double' is not defined" and "421" not in str(found.traceback)

    def test_what_a_students_code_prints_of_it_is_taken_out(self):
        printed = new_output("stream", name="stdout", text=f"before\n  {self.LINE}\nafter\n")
        ((found,), _) = self.hidden(printed)
        assert found.text == f"before\n{INSTEAD}\nafter\n"

    def test_also_in_another_cell(self):
        traceback = new_output(
            "error",
            ename="ValueError",
            evalue="no",
            traceback=["first\n\x1b[32m----> 2\x1b[0m " + self.LINE + "\nlast"],
        )
        page = new_output(
            "display_data", data={"text/html": self.LINE.replace('"', "&quot;"), "text/plain": repr(self.LINE)}
        )
        _, (first, second) = self.hidden(elsewhere=(traceback, page))
        assert first.traceback == [f"first\n{INSTEAD}\nlast"] and first.evalue == "no"
        assert set(second.data.values()) == {INSTEAD}

    def test_the_marks_in_a_students_cell_end_nothing(self):
        notebook = toy_coursework.source()
        answer = next(cell for cell in notebook.cells if cell.id == "double")
        answer.source = "### BEGIN HIDDEN TESTS\ndef double(x): return 2 * x"
        cleaned, _ = HideTests().preprocess(notebook, {})
        assert "def double(x): return 2 * x" in nbformat.writes(cleaned) and "421" not in nbformat.writes(cleaned)

    def test_the_rest_stays(self):
        verdict = new_output("stream", name="stdout", text="✗ double: 1 of 3 values are wrong\n")
        result = new_output("execute_result", data={"text/plain": "2.0"}, execution_count=1)
        outputs, _ = self.hidden(verdict, result)
        assert outputs == [verdict, result]


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def _program(name, places=Path("/usr/lib/postgresql")):
    found = shutil.which(name) or next(map(str, sorted(places.glob(f"*/bin/{name}"), reverse=True)), None)
    return found or missing(f"no PostgreSQL here: {name} is missing (Debian's package postgresql)")


@pytest.fixture
def postgres():
    """The address of an empty database on this machine alone, by a server that ends with the test."""
    if importlib.util.find_spec("psycopg") is None:
        missing("the driver psycopg is missing: run `make env`")
    initdb, control = _program("initdb"), _program("pg_ctl")
    # The server refuses to run as the superuser.
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Below /tmp, which everyone may enter, and short, as the path of a socket has to be.
    with tempfile.TemporaryDirectory(prefix="devil-pg-", dir="/tmp") as folder:
        if user:
            shutil.chown(folder, "nobody", "nogroup")
        data, log = Path(folder) / "data", Path(folder) / "log"
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"

        def run(*command):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, **user)
            assert done.returncode == 0, done.stdout + done.stderr

        run(initdb, "-D", data, "-U", "devil", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        run(control, "-D", data, "-l", log, "-o", options, "-w", "start")
        try:
            yield f"postgresql+psycopg://devil@127.0.0.1:{port}/postgres"
        finally:
            run(control, "-D", data, "-m", "immediate", "-w", "stop")


def test_a_missing_server_is_skipped_but_not_on_ci(monkeypatch, tmp_path):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"no-such-program is missing .* has to run"):
        _program("no-such-program", tmp_path)
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no-such-program is missing"):
        _program("no-such-program", tmp_path)


def test_the_same_term_on_postgresql(postgres, tmp_path):
    work = toy_coursework.coursework(tmp_path / "sources")
    played = Term(tmp_path / "course", postgres, **PATIENCE, jobs=2)
    rows = term.rehearse(played, work, term.roster(work))
    assert_all_as_expected(rows)
    assert not (tmp_path / "course" / "gradebook.db").exists()
