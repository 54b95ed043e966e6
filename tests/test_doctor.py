"""The submission doctor: every accident repaired, no answer touched, no original lost."""

import copy
import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib

import nbformat
import pytest
import toy_coursework
from nbformat.v4 import new_code_cell, new_markdown_cell
from nbgrader.preprocessors import CheckCellMetadata, ClearHiddenTests, ClearSolutions, ComputeChecksums, LockCells
from traitlets.config import Config

from devil_lib.course.__main__ import main
from devil_lib.grading import doctor

ANSWERS = {
    "double": "def double(x):\n    return x + x  # é",
    "square": "import math\n\ndef square(x):\n    return x * x",
    "why": "Because a turn by 180° done twice is none.",
}


def released():
    """The release as nbgrader's preprocessors make it from the source."""
    notebook = toy_coursework.source()
    for preprocessor in (LockCells, ClearSolutions, ClearHiddenTests, ComputeChecksums):
        notebook, _ = preprocessor(config=Config({preprocessor.__name__: {"enabled": True}})).preprocess(notebook, {})
    return notebook


@pytest.fixture
def release():
    return released()


@pytest.fixture
def work(release):
    """A student's notebook with all answers."""
    notebook = copy.deepcopy(release)
    for cell in notebook.cells:
        if cell.id in ANSWERS:
            cell.source = ANSWERS[cell.id]
    return notebook


def place(notebook, name):
    return next(
        i for i, cell in enumerate(notebook.cells) if cell.metadata.get("nbgrader", {}).get("grade_id") == name
    )


def cell_of(notebook, name):
    return notebook.cells[place(notebook, name)]


def repair(notebook, release):
    """A repaired notebook that nbgrader accepts, whose answers are those of `ANSWERS`; a second visit finds nothing."""
    before = copy.deepcopy(notebook)
    repaired, changes, doubts = doctor.repair(notebook, release)
    assert notebook == before, "the doctor works on a copy"
    nbformat.validate(repaired)
    CheckCellMetadata().preprocess(repaired, {})
    names = [cell.metadata.nbgrader.grade_id for cell in repaired.cells if "nbgrader" in cell.metadata]
    assert sorted(names) == sorted(cell.id for cell in release.cells if "nbgrader" in cell.metadata)
    for master in release.cells:
        if "nbgrader" in master.metadata:
            cell = cell_of(repaired, master.id)
            assert cell.metadata.nbgrader == master.metadata.nbgrader and cell.cell_type == master.cell_type
            if not master.metadata.nbgrader.solution:
                assert cell.source == master.source
    for answer, tests in {"double": ("visible", "hidden"), "square": ("visible", "hidden")}.items():
        assert all(place(repaired, answer) < place(repaired, f"{answer}-{test}") for test in tests)
    again = doctor.repair(repaired, release)
    assert again[1:] == ([], [])
    return repaired, changes, doubts


def check(notebook, release, *expected, answers=ANSWERS, doubts=0):
    repaired, changes, found = repair(notebook, release)
    assert {name: cell_of(repaired, name).source for name in ANSWERS} == answers
    assert len(changes) == len(expected), changes
    for change, words in zip(changes, expected, strict=True):
        assert words in change
    assert len(found) == doubts, found
    return repaired


class TestAccidents:
    def test_nothing(self, work, release):
        assert check(work, release) == work

    def test_a_blank_notebook_is_whole(self, release):
        assert doctor.repair(release, release)[1:] == ([], [])

    @pytest.mark.parametrize("name", ["double-visible", "double-hidden", "square-hidden", "setup", "double-question"])
    def test_a_deleted_cell(self, work, release, name):
        where = place(work, name)
        work.cells.pop(where)
        repaired = check(work, release, f"“{name}” was missing: it is back")
        assert place(repaired, name) == where

    def test_a_deleted_answer(self, work, release):
        work.cells = [cell for cell in work.cells if not cell.id.startswith("double")]
        stub = cell_of(release, "double").source
        answers = {**ANSWERS, "double": stub}
        check(work, release, "double-question", "empty as in the release", "visible", "hidden", answers=answers)

    def test_everything_deleted(self, work, release):
        work.cells = []
        stubs = {name: cell_of(release, name).source for name in ANSWERS}
        repaired = check(work, release, *["is back"] * 11, answers=stubs)
        assert [cell.id for cell in repaired.cells] == [cell.id for cell in release.cells[1:]]

    def test_a_duplicated_test(self, work, release):
        twin = copy.deepcopy(cell_of(work, "square-visible"))
        work.cells.insert(place(work, "why"), twin)
        check(work, release, "unchanged copy of the test cell “square-visible” was taken out")

    def test_a_duplicated_answer_keeps_the_last_that_was_edited(self, work, release):
        first, blank = copy.deepcopy(cell_of(work, "double")), copy.deepcopy(cell_of(release, "double"))
        first.source = "def double(x):\n    return x  # a first try"
        where = place(work, "double")
        work.cells.insert(where + 1, blank)
        work.cells.insert(where, first)
        repaired = check(work, release, "an earlier one stays", "unchanged copy of the answer cell “double”")
        assert repaired.cells[where].source == first.source and "nbgrader" not in repaired.cells[where].metadata

    def test_an_answer_copied_below_its_tests(self, work, release):
        better = copy.deepcopy(cell_of(work, "double"))
        cell_of(work, "double").source = "def double(x):\n    return 3 * x"
        work.cells.insert(place(work, "square"), better)
        behind = ["stands behind it"] * 2
        check(work, release, "the last version counts", *behind)

    def test_a_test_moved_above_its_answer(self, work, release):
        test = work.cells.pop(place(work, "square-hidden"))
        work.cells.insert(0, test)
        check(work, release, "“square-hidden” stood before the answer")

    def test_stripped_metadata(self, work, release):
        for cell in work.cells:
            cell.metadata.clear()
        check(work, release, *["has it again"] * 11)

    def test_stripped_metadata_and_new_ids(self, work, release):
        for number, cell in enumerate(work.cells):
            cell.metadata.clear()
            cell.id = f"new-{number}"
        work.cells.insert(5, new_code_cell("double(3)"))
        work.cells.insert(0, new_markdown_cell("My name is Zoë."))
        repaired = check(work, release, *["has it again"] * 11, doubts=1)
        assert [cell.source for cell in repaired.cells] == [cell.source for cell in work.cells]

    def test_an_old_format_without_ids(self, work, release):
        for cell in work.cells:
            cell.metadata.clear()
            del cell["id"]
        work.nbformat_minor = 4
        old = nbformat.reads(json.dumps(work), as_version=4)
        check(old, release, *["has it again"] * 11, doubts=1)

    def test_some_stripped_metadata(self, work, release):
        for name in ("double", "square-visible", "why"):
            cell_of(work, name).metadata.clear()
        check(work, release, *["has it again"] * 3)

    def test_broken_metadata(self, work, release):
        cell_of(work, "double").metadata.nbgrader = {}
        cell_of(work, "square").metadata.nbgrader = {"grade": False, "solution": True, "locked": False}
        work.cells.append(new_code_cell("1", metadata={"nbgrader": {"grade": True, "grade_id": "mine", "points": 9}}))
        check(work, release, "“double” had lost", "“square” had lost", "“mine” is not of this assignment")

    def test_an_edited_test(self, work, release):
        cell_of(work, "double-visible").source = "100.0"
        cell_of(work, "double-visible").metadata.nbgrader.points = 100
        check(work, release, "the text of the test cell “double-visible” was not the released one")

    def test_an_answer_in_a_test_cell_is_not_lost(self, work, release):
        answer = cell_of(work, "square")
        test = cell_of(work, "square-visible")
        test.source = answer.source + "\n" + test.source
        answer.source = cell_of(release, "square").source
        answers = {**ANSWERS, "square": answer.source}
        repaired = check(work, release, "“square-visible” was not the released one", answers=answers, doubts=1)
        assert "def square(x):\n    return x * x" in repaired.cells[place(repaired, "square-visible") - 1].source

    @pytest.mark.parametrize("kind", ["markdown", "raw"])
    def test_a_changed_type(self, work, release, kind):
        for name in ("double", "double-hidden"):
            cell = cell_of(work, name)
            cell.cell_type = kind
            del cell["outputs"], cell["execution_count"]
        why = cell_of(work, "why")
        why.cell_type, why.outputs, why.execution_count = "code", [], None
        became = f"had become {kind}: it is code again"
        check(work, release, became, became, "“why” had become code: it is markdown again")

    def test_another_release_is_refused(self, work, release):
        for cell in work.cells:
            if "nbgrader" in cell.metadata:
                cell.metadata.nbgrader.checksum = "0" * 32
        with pytest.raises(doctor.DoctorError, match="another release"):
            doctor.repair(work, release)

    def test_a_corrected_test_is_brought_up_to_date(self, work, release):
        corrected = copy.deepcopy(release)
        cell_of(corrected, "double-visible").source = 'check(double, [(1, 2)], "double", 2.0)'
        corrected, _ = ComputeChecksums().preprocess(corrected, {})
        check(work, corrected, "“double-visible” was not the released one")


# --- Files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def exercises(tmp_path, release):
    folder = tmp_path / "exercises" / "toy"
    folder.mkdir(parents=True)
    nbformat.write(release, folder / "toy.ipynb")
    other = nbformat.v4.new_notebook(cells=[new_code_cell("print('another assignment, of a few lines of code')")])
    (tmp_path / "exercises" / "other").mkdir()
    nbformat.write(other, tmp_path / "exercises" / "other" / "other.ipynb")
    return folder.parent


@pytest.fixture
def broken(work, tmp_path):
    """A notebook without one of its tests, in a folder with an accent and a space."""
    work.cells.pop(place(work, "double-hidden"))
    path = tmp_path / "Hausübung 1" / "toy (José).ipynb"
    path.parent.mkdir()
    nbformat.write(work, path)
    return path


class TestFiles:
    def test_the_original_is_kept_each_time(self, broken, exercises):
        before = broken.read_bytes()
        report = doctor.treat(broken, exercises)
        assert len(report.changes) == 1 and not report.doubts
        assert report.original == broken.with_name("toy (José).before-doctor-1")
        assert report.original.read_bytes() == before != broken.read_bytes()
        assert "it is back" in str(report) and "No answer of yours was changed" in str(report)
        assert doctor.treat(broken, exercises).original is None
        broken.write_bytes(before)
        assert doctor.treat(broken, exercises).original == broken.with_name("toy (José).before-doctor-2")
        assert report.original.read_bytes() == before
        assert len(list(broken.parent.iterdir())) == 3

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty"),
            (b"\0\0\0\0", "is empty"),
            (b'{"cells": [{"cell_type": "co', "damaged"),
            (b"[1, 2]", "damaged"),
            (b'{"cells": 3, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "damaged"),
            (b"\xff\xfe\x00", "cannot be read"),
            (b"{\n<<<<<<< mine\n=======\n>>>>>>> theirs\n}", "conflict marks"),
        ],
    )
    def test_a_damaged_file_is_reported_and_left(self, tmp_path, exercises, work, content, words):
        path = tmp_path / "toy.ipynb"
        path.write_bytes(content)
        report = doctor.treat(path, exercises)
        assert words in str(report) and "Fetch the assignment again" in str(report) and path.read_bytes() == content
        checkpoint = tmp_path / ".ipynb_checkpoints" / "toy-checkpoint.ipynb"
        checkpoint.parent.mkdir()
        nbformat.write(work, checkpoint)
        assert "toy-checkpoint.ipynb, which can be read" in str(doctor.treat(path, exercises))

    def test_a_missing_file(self, tmp_path, exercises):
        assert "is not there" in str(doctor.treat(tmp_path / "toy.ipynb", exercises))

    def test_a_notebook_of_no_assignment(self, tmp_path, exercises):
        path = tmp_path / "holiday.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[new_code_cell("1")]), path)
        with pytest.raises(doctor.DoctorError, match=r"no released notebook.*--release"):
            doctor.treat(path, exercises)
        with pytest.raises(doctor.DoctorError, match="does not exist"):
            doctor.treat(path, tmp_path / "nowhere")

    def test_the_command(self, broken, exercises, capsys):
        assert main(["doctor", str(broken.parent), "--release", str(exercises)]) == 0
        assert "it is back" in capsys.readouterr().out
        assert main(["doctor", str(broken), "--release", str(exercises)]) == 0
        assert "nothing to repair" in capsys.readouterr().out
        assert main(["doctor", str(broken), "--release", str(exercises / "other")]) == 2
        assert "no released notebook" in capsys.readouterr().err
        broken.write_text("{")
        assert main(["doctor", str(broken), "--release", str(exercises)]) == 1
        assert "damaged" in capsys.readouterr().out

    def test_it_is_a_command_of_the_package(self):
        scripts = tomllib.loads((doctor.ROOT / "pyproject.toml").read_text())["project"]["scripts"]
        assert importlib.metadata.EntryPoint("devil-lib", scripts["devil-lib"], "console_scripts").load() is main

    def test_a_visit_from_a_cell(self, broken, exercises, monkeypatch, capsys):
        monkeypatch.setenv("JPY_SESSION_NAME", str(broken))
        doctor.visit(release=exercises)
        assert "Reload Notebook from Disk" in capsys.readouterr().out
        doctor.visit(release=exercises)
        assert "nothing to repair" in capsys.readouterr().out
        monkeypatch.delenv("JPY_SESSION_NAME")
        with pytest.raises(doctor.DoctorError, match="which notebook"):
            doctor.visit()


class TestButton:
    @pytest.fixture
    def button(self, broken, exercises):
        return doctor.DoctorButton(broken, [exercises])

    def test_the_first_says_what_the_second_does(self, button, broken):
        before = broken.read_bytes()
        assert button.repair.disabled
        button.look.click()
        assert "to be put right: the test cell “double-hidden” was missing" in button.says.value
        assert "Nothing has been changed yet" in button.says.value and "seconds ago" in button.says.value
        assert broken.read_bytes() == before and list(broken.parent.iterdir()) == [broken]
        assert not button.look.disabled and not button.repair.disabled
        button.repair.click()
        assert "changed: the test cell “double-hidden” was missing: it is back" in button.says.value
        assert "Reload Notebook from Disk" in button.says.value and button.repair.disabled
        assert broken.read_bytes() != before
        assert broken.with_name("toy (José).before-doctor-1").read_bytes() == before
        button.look.click()
        assert "nothing to repair" in button.says.value and button.repair.disabled

    def test_an_old_state_is_told(self, button, broken):
        os.utime(broken, (1, os.stat(broken).st_mtime - 600))
        button.look.click()
        assert "10 minutes ago; if you changed it since then, save it" in button.says.value

    def test_what_cannot_be_helped_is_told(self, broken, exercises):
        button = doctor.DoctorButton(broken, exercises / "other")
        button.look.click()
        assert "The doctor cannot help: no released notebook" in button.says.value
        assert button.repair.disabled and not button.look.disabled
        broken.write_text("{<b>")
        button.look.click()
        assert "damaged" in button.says.value and "<b>" not in button.says.value and button.repair.disabled

    def test_where_nobody_looks_it_is_a_sentence(self, monkeypatch, broken, capsys):
        monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
        doctor.button()
        monkeypatch.setenv("JPY_SESSION_NAME", str(broken))
        monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
        doctor.button()
        assert capsys.readouterr().out.count("devil-lib doctor") == 2


class TestReleases:
    def test_that_of_the_exchange_counts_before_the_practice(self, tmp_path, release, exercises, monkeypatch):
        """The two differ in a test, as a keyed release and the open practice do."""
        outbound = tmp_path / "exchange" / "our-course" / "outbound" / "toy"
        outbound.mkdir(parents=True)
        ours = copy.deepcopy(release)
        for cell in ours.cells:
            if cell.id in ("double-visible", "double-hidden", "square-visible", "square-hidden"):
                cell.source += "  # ours"
        ours, _ = ComputeChecksums().preprocess(ours, {})
        nbformat.write(ours, outbound / "toy.ipynb")
        (outbound / "notes.ipynb").write_text("no notebook")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "nbgrader_config.py").write_text(
            f"c = get_config()\nc.Exchange.root = {str(tmp_path / 'exchange')!r}\n"
        )
        assert doctor.releases() == [outbound.parent, doctor.RELEASES]
        mine = copy.deepcopy(ours)
        mine.cells.pop(place(mine, "double-visible"))
        assert doctor.find_release(mine, "toy", [exercises, outbound.parent]) == outbound / "toy.ipynb"
        assert doctor.find_release(release, "toy", [exercises, outbound.parent]) == exercises / "toy" / "toy.ipynb"


def test_a_notebook_that_is_graded_loads_no_nbgrader():
    """It takes seconds, for every submission."""
    code = "import sys; from devil_lib.grading import doctor; doctor.button(); print('nbgrader' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.endswith("False\n"), done.stdout + done.stderr


# --- Submissions ------------------------------------------------------------------------------------------------------


class TestSubmission:
    @pytest.fixture
    def submit(self, tmp_path, exercises):
        """A function that treats a submission of the given files; the report, and the notebook of the expected name."""

        def treated(**files):
            folder, originals = tmp_path / "submitted", tmp_path / "originals"
            folder.mkdir()
            for name, content in files.items():
                path = folder / f"{name}.ipynb"
                path.write_bytes(content) if isinstance(content, bytes) else nbformat.write(content, path)
            before = {path.name: path.read_bytes() for path in folder.iterdir()}
            (report,) = doctor.treat_submission(folder, exercises / "toy", originals)
            if report.changes:
                assert {path.name: path.read_bytes() for path in originals.iterdir()} == before
            else:
                assert not originals.exists()
            again = doctor.treat_submission(folder, exercises / "toy", originals)
            assert not again[0].changes, "a second treatment finds nothing"
            notebook = nbformat.read(folder / "toy.ipynb", as_version=4)
            record = folder / doctor.RECORD
            renamed = json.loads(record.read_text())["renamed"] if record.exists() else {}
            return report, notebook, renamed

        return treated

    def test_a_whole_one_is_left(self, submit, work):
        report, notebook, renamed = submit(toy=work)
        assert notebook == work and not report.doubts and not renamed

    @pytest.mark.parametrize("name", ["toy_mine", "toy (1)", "Übung von José"])
    def test_a_renamed_file(self, submit, work, name):
        report, notebook, renamed = submit(**{name: work})
        assert f"your work was in “{name}.ipynb”" in report.changes[0]
        assert cell_of(notebook, "double").source == ANSWERS["double"]
        assert notebook.cells[0].id == doctor.NOTE and name in notebook.cells[0].source
        assert renamed == {"toy": name}

    def test_a_copy_beside_an_untouched_release(self, submit, work, release):
        _, notebook, renamed = submit(toy=release, copy=work)
        assert cell_of(notebook, "square").source == ANSWERS["square"] and renamed == {"toy": "copy"}

    def test_the_expected_file_counts_if_it_was_worked_on(self, submit, work, release):
        _, notebook, renamed = submit(toy=work, copy=release)
        assert notebook == work and not renamed

    def test_a_damaged_file_with_a_copy(self, submit, work):
        report, notebook, _ = submit(toy=b"{", backup=work)
        assert "damaged" in report.doubts[0] and cell_of(notebook, "why").source == ANSWERS["why"]

    @pytest.mark.parametrize("files", [{"toy": b"{"}, {"toy": b""}, {}, {"holiday": nbformat.v4.new_notebook()}])
    def test_nothing_usable_becomes_a_blank(self, submit, release, files):
        report, notebook, _ = submit(**files)
        assert "a blank notebook stands in its place" in report.changes[0] and report.doubts
        assert notebook.cells[0].id == doctor.NOTE and report.doubts[0] in notebook.cells[0].source
        assert notebook.cells[1:] == release.cells

    def test_the_note_says_what_was_changed(self, submit, work):
        work.cells.pop(place(work, "double-hidden"))
        report, notebook, _ = submit(toy=work)
        assert report.changes[0] in notebook.cells[0].source and "no answer was changed" in notebook.cells[0].source


def test_interrupted_writing_leaves_the_old_file(broken, exercises, monkeypatch):
    before = broken.read_bytes()

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        doctor.treat(broken, exercises)
    assert broken.read_bytes() == before
