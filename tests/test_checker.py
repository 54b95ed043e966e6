"""The checker itself, on tiny notebooks that are wrong in one way each: it must fail for that reason and no other."""

import json
import os
import re
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from devil_lib.course import check, execute
from devil_lib.course.check import check_notebook, check_results
from devil_lib.course.lessons import LessonError, find_lessons, read_lesson

FIXTURES = Path(__file__).parent / "fixtures"


def run(name: str, folder: Path, **options) -> check.Report:
    return check_notebook(FIXTURES / f"{name}.ipynb", out_dir=folder, threads=1, **options)


def test_a_good_lesson_passes_and_gets_its_threads(tmp_path):
    report = run("10_good", tmp_path, parameters={"SEED": 3}, timeout=300)
    assert report.passed, str(report)
    assert report.results["claims"]["distance"] == {"value": 3.25, "below": 10.0, "above": None}
    assert report.results["figures"]["threads"] == 1, "OMP_NUM_THREADS must reach the kernel through its environment"
    assert (report.results["profile"], report.results["seed"]) == ("quick", 3)
    assert 0 < report.results["seconds"] < report.seconds
    injected = re.search(r'RESULTS = \\"([^"]+)\\"', report.executed.read_text().split("# Parameters")[1])[1]
    assert injected.startswith(".."), (
        "a path from the notebook's folder: the executed notebook names no machine's folder"
    )


@pytest.mark.parametrize(
    ("name", "kinds", "words"),
    [
        ("20_raises", ["error"], "RuntimeError: the generator collapsed"),
        ("40_wrong_parameter", ["parameters"], "no parameter 'RESULTS'"),
        ("50_no_figures", ["no results"], "lesson.finish()"),
        ("51_no_claims", ["no claims"], "no figure with a bar"),
        ("60_out_of_bounds", ["out of bounds"], "distance is 2.5, and the bar is below 1"),
        ("61_asserts", ["error", "out of bounds"], "AssertionError"),
        ("70_kernel_dies", ["kernel"], "the kernel died"),
    ],
)
def test_a_bad_lesson_fails_for_its_reason(name, kinds, words, tmp_path):
    report = run(name, tmp_path, timeout=300)
    assert [problem.kind for problem in report.problems] == kinds
    assert words in str(report)
    assert not report.passed


def test_a_lesson_that_never_ends_is_ended_with_its_kernel(tmp_path):
    start = time.perf_counter()
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    report = run("30_never_ends", tmp_path, timeout=3)
    assert [problem.kind for problem in report.problems] == ["timeout"]
    assert "longer than 3 s" in str(report)
    assert time.perf_counter() - start < 240
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not left, f"still running: {left}"


def test_a_run_is_ended_from_another_thread(tmp_path):
    stop = threading.Event()
    threading.Timer(3.0, stop.set).start()
    start = time.perf_counter()
    report = run("30_never_ends", tmp_path, timeout=300, stop=stop)
    assert [problem.kind for problem in report.problems] == ["kernel"]
    assert time.perf_counter() - start < 30


def test_parameters_are_checked_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "run_notebook", lambda *_, **__: pytest.fail("the lesson was run"))
    for wrong, words in (({"SEEDS": 1}, "no parameter 'SEEDS'"), ({"SEED": "1"}, "sets a int")):
        report = run("10_good", tmp_path, parameters=wrong)
        assert [problem.kind for problem in report.problems] == ["parameters"]
        assert words in str(report)
    with pytest.raises(ValueError, match="unknown profile 'fast'"):
        run("10_good", tmp_path, profile="fast")
    with pytest.raises(FileNotFoundError):
        run("99_absent", tmp_path)


def test_results_of_an_earlier_run_do_not_stand_in(tmp_path):
    good = {"claims": {"distance": {"value": 0.1, "below": 1, "above": None}}, "figures": {}}
    (tmp_path / "50_no_figures.json").write_text(json.dumps(good))
    assert [problem.kind for problem in run("50_no_figures", tmp_path, timeout=300).problems] == ["no results"]


def test_a_kernel_that_does_not_start_is_tried_once_more(tmp_path, monkeypatch):
    attempts = []

    def once(*arguments):
        attempts.append(arguments)
        outcome = "kernel" if len(attempts) == 1 else "passed"
        return execute.Execution(outcome, "no kernel", 0.0), False

    monkeypatch.setattr(execute, "_run_once", once)
    assert execute.run_notebook(FIXTURES / "10_good.ipynb", tmp_path / "a.ipynb", {}, timeout=9).outcome == "passed"
    assert len(attempts) == 2

    attempts.clear()
    monkeypatch.setattr(
        execute, "_run_once", lambda *a: (attempts.append(a), (execute.Execution("kernel", "", 0), False))[1]
    )
    assert execute.run_notebook(FIXTURES / "10_good.ipynb", tmp_path / "a.ipynb", {}, timeout=9).outcome == "kernel"
    assert len(attempts) == 2, "only one more attempt"

    attempts.clear()
    monkeypatch.setattr(
        execute, "_run_once", lambda *a: (attempts.append(a), (execute.Execution("kernel", "", 0), True))[1]
    )
    execute.run_notebook(FIXTURES / "10_good.ipynb", tmp_path / "a.ipynb", {}, timeout=9)
    assert len(attempts) == 1, "a kernel that died in the middle of a lesson is a fault, not a failed start"


def test_a_kernel_that_dies_on_its_start_is_reported(tmp_path):
    kernel = tmp_path / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    count = tmp_path / "starts"
    program = f"open({str(count)!r}, 'a').write('x'); raise SystemExit(3)"
    kernel.write_text(
        json.dumps({"argv": [sys.executable, "-c", program], "display_name": "x", "language": "python"})
    )
    report = run("10_good", tmp_path, timeout=300, environment={"JUPYTER_PATH": str(tmp_path)})
    assert [problem.kind for problem in report.problems] == ["kernel"]
    assert count.read_text() == "xx", "started once, and once more"


@pytest.mark.parametrize(
    ("claim", "kind"),
    [
        ('{"value": NaN, "below": 1, "above": null}', "not finite"),
        ('{"value": -Infinity, "below": 1, "above": null}', "not finite"),
        ('{"value": "0.5", "below": 1, "above": null}', "not finite"),
        ('{"value": true, "below": 2, "above": null}', "not finite"),
        ('{"value": 0.5, "below": null, "above": null}', "no claims"),
        ('{"value": 1, "below": 1, "above": null}', "out of bounds"),
        ('{"value": 1, "below": null, "above": 1}', "out of bounds"),
        ('{"value": 3, "below": 2, "above": 1}', "out of bounds"),
    ],
)
def test_claims_are_held_against_their_own_bars(claim, kind, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(
        f'{{"claims": {{"good": {{"value": 0, "below": 1, "above": -1}}, "x": {claim}}}, "figures": {{}}}}'
    )
    assert [problem.kind for problem in check_results(path)[1]] == [kind]


def test_a_damaged_results_file_is_a_problem_not_a_crash(tmp_path):
    path = tmp_path / "r.json"
    for text in ("", "{", "[]", '{"claims": {}}'):
        path.write_text(text)
        assert [problem.kind for problem in check_results(path)[1]] == ["no results"]
    path.write_text('{"claims": {"a": {"value": 0, "below": 1, "above": null}}, "figures": {"b": NaN}}')
    assert [problem.kind for problem in check_results(path)[1]] == ["not finite"]


def test_a_lesson_has_one_cell_of_plain_literals(tmp_path):
    source = json.loads((FIXTURES / "10_good.ipynb").read_text())

    def written(change) -> Path:
        notebook = json.loads(json.dumps(source))
        change(notebook)
        path = tmp_path / "10_changed.ipynb"
        path.write_text(json.dumps(notebook))
        return path

    lesson = read_lesson(written(lambda notebook: None))
    assert lesson.parameters == {"PROFILE": "lab", "SEED": 0, "DATA": "auto", "RESULTS": ""}
    assert (lesson.title, lesson.reads_data) == ("A lesson that passes", True)
    with pytest.raises(LessonError, match="0 cells tagged"):
        read_lesson(written(lambda notebook: notebook["cells"][1]["metadata"].clear()))
    with pytest.raises(LessonError, match="2 cells tagged"):
        read_lesson(written(lambda notebook: notebook["cells"][2]["metadata"].update(tags=["parameters"])))
    for line in ("SEED = int('3')", "import os", "SEED: int = 0", "A = B = 1", "SEED += 1"):
        with pytest.raises(LessonError, match="plain `NAME = literal`"):
            read_lesson(written(lambda notebook, line=line: notebook["cells"][1].update(source=line)))
    (tmp_path / "11_text.ipynb").write_text("not a notebook")
    with pytest.raises(LessonError, match="is not a notebook"):
        read_lesson(tmp_path / "11_text.ipynb")


def test_lessons_are_found_in_order_and_by_name(tmp_path):
    names = [lesson.name for lesson in find_lessons(FIXTURES)]
    assert names == sorted(names)
    assert len(names) == len(list(FIXTURES.glob("*.ipynb")))
    assert [lesson.name for lesson in find_lessons(FIXTURES, ["10_good.ipynb"])] == ["10_good"]
    with pytest.raises(LessonError, match="no lesson 99_none: there are 10_good"):
        find_lessons(FIXTURES, ["99_none", "10_good"])
    with pytest.raises(LessonError, match="no lesson in"):
        find_lessons(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="processes are listed as POSIX does")
def test_ending_a_process_that_is_gone_is_no_error():
    execute.end_process_tree(2**22 + 1)
