"""The runner on the fixture notebooks: resuming, failures, pages that open offline, the sweep."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from bs4 import BeautifulSoup
from offline import remote_parts

from devil_lib import show
from devil_lib.course import __main__ as command
from devil_lib.course import export, runner, sweep
from devil_lib.course.check import Problem, Report
from devil_lib.course.export import ExportError, export_page, typeset
from devil_lib.course.lessons import PACKAGE, LessonError, code_hash, read_lesson, run_key
from devil_lib.course.runner import CourseSettings, run_course

_VIEW = "application/vnd.jupyter.widget-view+json"
FIXTURES = Path(__file__).parent / "fixtures"
NAMES = ("10_good", "20_raises", "40_wrong_parameter", "60_out_of_bounds")


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Iterator[tuple[Path, int, list[str]]]:
    """A course of one good lesson and three bad ones, run once: the folder, the exit status, what was said."""
    out, said = tmp_path_factory.mktemp("course"), []
    with pytest.MonkeyPatch.context() as patch:
        # Someone may be working on the library while the tests run.
        patch.setattr(runner, "code_hash", lambda: "code")
        yield out, run_course(CourseSettings(names=NAMES, folder=FIXTURES, out=out, timeout=300), said.append), said


def soup_of(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


# --- The runner ----------------------------------------------------------------------------------------------


def test_a_failing_lesson_does_not_hide_the_others(course):
    out, status, said = course
    assert status == 1
    results = json.loads((out / "results.json").read_text())
    assert results["10_good"]["figures"] == {"threads": results["10_good"]["figures"]["threads"]}
    assert results["10_good"]["claims"]["distance"]["value"] == 0.25
    assert results["60_out_of_bounds"]["claims"]["distance"]["value"] == 2.5
    assert "40_wrong_parameter" not in results
    assert any("the generator collapsed" in line for line in said)
    failed = "20_raises, 40_wrong_parameter, 60_out_of_bounds"
    assert re.fullmatch(rf"1 of 4 lessons passed in \d+:\d\d; not passed: {failed}", said[-2])


def test_every_lesson_has_one_progress_line(course):
    _, _, said = course
    progress = [line for line in said if line.startswith("[")]
    assert len(progress) == len(NAMES)
    for count, line in enumerate(progress, start=1):
        shape = rf"\[ {count}/4\] \w+ +(passed|NOT PASSED) +\d+:\d\d   elapsed \d+:\d\d"
        assert re.match(shape + (r", about \d+:\d\d left$" if count < 4 else "$"), line), line


def test_the_index_shows_minutes_outcomes_and_errors(course):
    out, _, _ = course
    soup = soup_of(out / "index.html")
    rows = {row.find("code").text: row for row in soup.select("main > table > tbody > tr")}
    assert len(rows) == len(list(FIXTURES.glob("*.ipynb"))), "lessons that were not run are listed as well"
    assert rows["10_good"].select_one(".outcome").text == "✓ passed"
    assert re.fullmatch(r"\d+\.\d", rows["10_good"].select_one("td.number:nth-of-type(3)").text)
    assert rows["10_good"].find("a")["href"] == "10_good.html"
    for name, words in (
        ("20_raises", "RuntimeError: the generator collapsed"),
        ("40_wrong_parameter", "no parameter 'RESULTS'"),
        ("60_out_of_bounds", "distance is 2.5, and the bar is below 1"),
    ):
        assert rows[name].select_one(".outcome").text == "✗ not passed"
        assert words in rows[name].text
    assert rows["50_no_figures"].select_one(".outcome").text == "– not run"
    assert {link["href"] for link in soup.find_all("a", href=re.compile("html$"))} - {"index.html"} <= {
        path.name for path in out.glob("*.html")
    }


def test_a_second_run_does_only_what_is_left(course):
    out, _, _ = course
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*.ipynb")}
    said = []
    settings = CourseSettings(names=("10_good", "20_raises"), folder=FIXTURES, out=out, timeout=300)
    assert run_course(settings, said.append) == 1
    assert said[0].endswith("1 done before, 1 to run")
    assert (out / "10_good.ipynb").stat().st_mtime_ns == stamps[out / "10_good.ipynb"]
    assert (out / "20_raises.ipynb").stat().st_mtime_ns != stamps[out / "20_raises.ipynb"]
    assert "10_good" in json.loads((out / "results.json").read_text())
    assert "60_out_of_bounds" in json.loads((out / "results.json").read_text()), "other lessons' results stay"


@pytest.fixture
def counted(monkeypatch):
    """Lessons that are not executed but leave what an execution would; the names of those that were asked for."""
    ran = []

    def run(path, profile, parameters, out, timeout, *, threads, stop):
        ran.append(path.stem)
        (out / path.name).write_bytes(path.read_bytes())
        claims = {"x": {"value": 0.5, "below": 1.0, "above": None}}
        (out / f"{path.stem}.json").write_text(json.dumps({"claims": claims, "figures": {}, "data": "auto"}))
        return Report(path.stem, (), 1.0, {}, out / path.name)

    monkeypatch.setattr(runner, "check_notebook", run)
    monkeypatch.setattr(runner, "code_hash", lambda: "code")
    return ran


def test_what_makes_a_run_out_of_date(counted, tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    lesson = folder / "10_good.ipynb"
    lesson.write_bytes((FIXTURES / "10_good.ipynb").read_bytes())

    def runs(**changes) -> int:
        counted.clear()
        assert run_course(CourseSettings(folder=folder, out=tmp_path / "out", **changes), lambda text: None) == 0
        return len(counted)

    assert (runs(), runs()) == (1, 0)
    assert (runs(profile="lab"), runs(profile="lab"), runs()) == (1, 0, 1)
    assert (runs(parameters={"SEED": 1}), runs()) == (1, 1)
    assert (runs(fresh=True), runs()) == (1, 0)
    lesson.write_text(lesson.read_text().replace("A lesson that passes", "Another title"))
    assert (runs(), runs()) == (1, 0)
    monkeypatch.setattr(runner, "code_hash", lambda: "other code")
    assert (runs(), runs()) == (1, 0)
    monkeypatch.setenv("DEVIL_OFFLINE", "" if os.environ.get("DEVIL_OFFLINE") else "1")
    assert (runs(), runs()) == (1, 0)
    for ending in ("ipynb", "json", "html"):
        (tmp_path / "out" / f"10_good.{ending}").unlink()
        assert (runs(), runs()) == (1, 0)
    (tmp_path / "out" / "runs" / "10_good.json").write_text("{ half a rec")
    assert (runs(), runs()) == (1, 0)


def test_the_hash_sees_code_and_weights_but_not_what_is_left_out(tmp_path, monkeypatch):
    assert code_hash() == code_hash()
    assert code_hash() != code_hash(leave_out=[PACKAGE / "course"])
    assert code_hash(leave_out=[PACKAGE / "course"]) != code_hash(
        leave_out=[PACKAGE / "course", PACKAGE / "models.py"]
    )
    keys = [
        run_key("source", {"SEED": 0}, "a"), run_key("source", {"SEED": 1}, "a"),
        run_key("source", {"SEED": 0}, "b"), run_key("other", {"SEED": 0}, "a"),
    ]  # fmt: skip
    assert len(set(keys)) == 4


def test_the_sweep_depends_on_a_lessons_code_but_not_on_its_text(tmp_path):
    lesson = FIXTURES / "10_good.ipynb"
    changed = tmp_path / "10_good.ipynb"
    changed.write_text(lesson.read_text().replace("A lesson that passes", "Another title"))
    assert read_lesson(changed).code == read_lesson(lesson).code
    changed.write_text(lesson.read_text().replace("0.25 + SEED", "0.26 + SEED"))
    assert read_lesson(changed).code != read_lesson(lesson).code


def test_an_interrupted_course_keeps_what_is_finished(tmp_path):
    """The real command, interrupted by a signal while a lesson hangs, leaves no process and a usable folder."""
    arguments = [
        "--notebooks",
        str(FIXTURES),
        "--out",
        str(tmp_path),
        "--lesson",
        "10_good",
        "--lesson",
        "30_never_ends",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "devil_lib.course", "run", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        # A shell starts what runs in its background deaf to this signal, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not (tmp_path / "runs" / "10_good.json").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children, "the endless lesson is running"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted. The lessons that were finished are kept" in output
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert json.loads((tmp_path / "results.json").read_text()).keys() == {"10_good"}
    rows = {
        row.find("code").text: row for row in soup_of(tmp_path / "index.html").select("main > table > tbody > tr")
    }
    assert rows["10_good"].select_one(".outcome").text == "✓ passed"
    assert rows["30_never_ends"].select_one(".outcome").text == "– not run"


def test_the_command_says_what_is_wrong(capsys, tmp_path):
    assert command.main(["run", "--lesson", "99_none", "--notebooks", str(FIXTURES)]) == 2
    assert "make course: no lesson 99_none: there are 10_good" in capsys.readouterr().err
    assert command.main(["run", "--jobs", "0"]) == 2
    assert "at least one lesson" in capsys.readouterr().err
    for wrong in (["--profile", "fast"], ["--parameter", "SEED"], ["--parameter", "=1"]):
        with pytest.raises(SystemExit) as stopped:
            command.main(["run", *wrong])
        assert stopped.value.code == 2
    assert command._parameter("SEED=1") == ("SEED", 1)
    assert command._parameter("DATA=digits") == ("DATA", "digits")
    with pytest.raises(LessonError, match="no lesson in"):
        run_course(CourseSettings(folder=tmp_path, out=tmp_path / "out"))


def test_a_page_that_cannot_be_written_is_a_problem_of_its_lesson(counted, tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("10_good", "20_raises"):
        (folder / f"{name}.ipynb").write_bytes((FIXTURES / f"{name}.ipynb").read_bytes())
    good = folder / "10_good.ipynb"
    good.write_text(good.read_text().replace(r"\\mathbb E", r"\\mathbbb E"))
    said = []
    assert run_course(CourseSettings(folder=folder, out=tmp_path / "out"), said.append) == 1
    assert any(
        re.search(r"page: 10_good.ipynb, cell formulas: the formula .*\\mathbbb is not known", line) for line in said
    )
    assert "not passed: 10_good" in said[-2]


def test_whatever_a_run_raises_ends_the_others():
    ended = []

    def work(item, stop):
        if item == "bad":
            raise RuntimeError("broken")
        ended.append(stop.wait(30))

    with pytest.raises(RuntimeError, match="broken"):
        runner.run_all(["slow", "bad", "never started"], 2, work, lambda item, report: None)
    assert ended == [True]


# --- Pages ---------------------------------------------------------------------------------------------------


def test_the_offline_test_can_fail():
    for part in (
        '<script src="a.js"></script>',
        '<link href="https://example.org/a.css">',
        '<img src="http://example.org/a.png">',
        '<iframe src="//example.org"></iframe>',
        "<style>@import 'a.css';</style>",
        "<style>a { background: url(https://example.org/a.png) }</style>",
        "<p>https://cdn.example.org</p>",
    ):
        assert remote_parts(part), part
    assert not remote_parts('<a href="https://example.org">a reference</a><img src="data:image/png;base64,AAAA">')


def test_pages_open_offline(course):
    out, _, _ = course
    pages = sorted(out.glob("*.html"))
    assert [page.stem for page in pages] == ["10_good", "20_raises", "60_out_of_bounds", "index"]
    for page in pages:
        assert remote_parts(page.read_text(encoding="utf-8")) == [], page.name


def test_a_page_has_its_formulas_typeset_and_its_code_left_alone(course):
    out, _, _ = course
    soup = soup_of(out / "10_good.html")
    formulas = [formula["alttext"] for formula in soup.find_all("math")]
    assert formulas == [
        r"\mathcal L(\theta) = \lVert G^*(z_t) - x_t \rVert_2^2",
        r"\mathbb E_{z \sim P}\,\lVert G^*(z) - G(z) \rVert_2^2",
        "x_t",
    ]
    assert "ℒ" in soup.find("math").text and "𝔼" in soup.find_all("math")[1].text
    assert soup.find("figcaption").find("math"), "a caption's formula is typeset as well"
    assert soup.find("code", string="$not a formula$")
    assert "echo $HOME and $PATH" in soup.text
    assert "$$" not in soup.text


def test_a_page_needs_no_widget(course):
    out, _, _ = course
    html = (out / "10_good.html").read_text()
    assert "widget-view" not in html and "widget-state" not in html and "interactive(children" not in html
    assert "widget-view" in (out / "10_good.ipynb").read_text(), "there was a widget to leave out"
    assert BeautifulSoup(html, "html.parser").find("img", alt="a grey square"), "the static picture beside it stays"


def test_a_page_links_to_pages(course):
    out, _, _ = course
    links = {link.text: link["href"] for link in soup_of(out / "10_good.html").find_all("a")}
    assert links["the one that raises"] == "20_raises.html"
    assert (out / links["the library"]).resolve() == PACKAGE / "lesson.py"
    assert links["A lesson that raises →"] == "20_raises.html"
    failed = (out / "20_raises.html").read_text()
    assert "the generator collapsed" in failed, "a failed lesson's page shows the error"
    assert "The lesson stopped here" in failed and "papermill encountered" not in failed


@pytest.mark.parametrize(
    ("latex", "words"),
    [
        (r"\frac{1", "braces are not balanced"),
        (r"a}b{", "braces are not balanced"),
        (r"\unheardof{x}", r"\unheardof is not known"),
        (r"\mathbbb E", r"\mathbbb is not known"),
        (r"\begin{gathering} a \end{gathering}", r"\gathering is not known"),
        (r"\operatorname*{arg\,min}_z", "letters only"),
        ("a & b", "cannot be typeset"),
        (r"x_", "cannot be typeset"),
    ],
)
def test_a_formula_that_cannot_be_typeset_is_named(latex, words):
    with pytest.raises(ExportError) as refused:
        typeset(latex)
    assert words in str(refused.value) and latex in str(refused.value)


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"a < b", "a<b"),
        (r"\mathcal L + \mathbb R^d + \mathbf x + \mathfrak g", "ℒ+ℝd+𝐱+𝔤"),
        (r"\operatorname{TarDis}(z_\text{trigger})", "TarDis(ztrigger)"),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", "a=bc=d"),
        (r"\begin{bmatrix} W & 0 \\ 0 & V \end{bmatrix}", "[W00V]"),
        (r"\{1, 2\}", "{1,2}"),
        (r"z \sim P", "z∼P"),
        (r"\operatorname*{argmin}_z", "argminz"),
        (r"\lambda \cdot \rho(z) \in [-1, 1]", "λ·ρ(z)∈[−1,1]"),
    ],
)
def test_formulas_of_the_kinds_that_lessons_use(latex, text):
    formula = BeautifulSoup(typeset(latex), "html.parser").find("math")
    assert re.sub(r"\s", "", formula.text) == text
    assert formula["alttext"] == " ".join(latex.split())
    assert BeautifulSoup(typeset(latex, display=True), "html.parser").find("math")["display"] == "block"


def test_an_underbrace_needs_no_mathematical_font():
    formula = BeautifulSoup(typeset(r"\underbrace{a + b}_{\text{why}}"), "html.parser").find("math")
    assert formula.find("munder").find("mrow", class_="underbrace").text == "a+b"
    assert "⏟" not in formula.text and "why" in formula.text


def page_of(tmp_path: Path, *cells) -> Path:
    notebook = nbformat.v4.new_notebook(cells=list(cells))
    nbformat.write(notebook, tmp_path / "10_made.ipynb")
    return export_page(
        tmp_path / "10_made.ipynb", tmp_path / "10_made.html", source_folder=tmp_path, title="Made here"
    )  # fmt: skip


def test_pictures_are_put_inside_and_remote_ones_refused(tmp_path):
    (tmp_path / "dot.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    page = soup_of(page_of(tmp_path, nbformat.v4.new_markdown_cell("![a dot](dot.svg)")))
    assert page.find("img", alt="a dot")["src"].startswith("data:image/svg+xml;base64,")
    with pytest.raises(FileNotFoundError, match="absent"):
        page_of(tmp_path, nbformat.v4.new_markdown_cell("![gone](absent.png)"))
    with pytest.raises(ExportError, match="is remote"):
        page_of(tmp_path, nbformat.v4.new_markdown_cell("![far](https://example.org/a.png)"))
    with pytest.raises(ExportError, match="Mermaid"):
        page_of(tmp_path, nbformat.v4.new_markdown_cell("```mermaid\ngraph TD\n```"))


def test_a_page_plays_sounds_and_refuses_remote_ones(tmp_path):
    cell = nbformat.v4.new_code_cell("listen()")
    beep = 0.3 * torch.sin(torch.arange(800) * 0.7)
    words = (
        "One bright line in a spectrogram under a steady waveform",
        "A short steady beep",
        "A beep of one pitch.",
    )
    cell.outputs = [nbformat.v4.new_output("display_data", data={"text/html": show.sound_html(beep, *words)})]
    (tmp_path / "beep.wav").write_bytes(show.wav(beep))
    own = '<audio controls aria-label="a beep" src="beep.wav"></audio>'
    page = page_of(tmp_path, cell, nbformat.v4.new_markdown_cell(own))
    expected = f"data:audio/wav;base64,{base64.b64encode(show.wav(beep)).decode()}"
    kind = re.compile("^data:audio/(x-)?wav;base64,")
    players = soup_of(page).find_all("audio", controls=True)
    assert [kind.sub("", player["src"]) for player in players] == [kind.sub("", expected)] * 2
    assert "Heard: A beep of one pitch." in soup_of(page).text and remote_parts(page.read_text()) == []
    for tag in (
        '<audio src="https://example.org/a.wav"></audio>',
        '<audio><source src="http://a.org/a.wav"></audio>',
    ):
        with pytest.raises(ExportError, match=r"the sound http.* is remote"):
            page_of(tmp_path, nbformat.v4.new_markdown_cell(tag))


def test_outputs_of_every_kind_need_no_script(tmp_path):
    cell = nbformat.v4.new_code_cell("work()")
    cell.outputs = [
        nbformat.v4.new_output("display_data", data={"text/latex": r"$\theta$", "text/plain": "theta"}),
        nbformat.v4.new_output("display_data", data={"text/html": "<p>of $x_t$<script>go()</script></p>"}),
        nbformat.v4.new_output("display_data", data={"application/javascript": "go()", "text/plain": "js"}),
        nbformat.v4.new_output("display_data", data={"text/markdown": r"and $\rho$"}),
        nbformat.v4.new_output("display_data", data={_VIEW: {"model_id": "a"}, "text/plain": "HBox(children=())"}),
        nbformat.v4.new_output("display_data", data={_VIEW: {"model_id": "b"}, "text/html": "<p>a slider</p>"}),
        nbformat.v4.new_output("stream", name="stdout", text="costs $1 and $2\n"),
    ]
    soup = soup_of(page_of(tmp_path, cell))
    assert [formula["alttext"] for formula in soup.find_all("math")] == [r"\theta", "x_t", r"\rho"]
    assert not soup.find("script")
    assert "costs $1 and $2" in soup.text
    assert "a slider" in soup.text and "HBox" not in soup.text


def test_a_folded_answer_keeps_its_formulas(tmp_path):
    text = "<details><summary>Answer for $x_t$</summary>\n\nBecause $\\theta$.\n\n</details>"
    soup = soup_of(page_of(tmp_path, nbformat.v4.new_markdown_cell(text)))
    details = soup.find("details")
    assert [formula["alttext"] for formula in details.find_all("math")] == ["x_t", r"\theta"]
    assert "$" not in details.text


def test_the_pages_templates_ship_with_the_package():
    assert {path.name for path in export.TEMPLATES.iterdir()} == {
        "base.html.j2", "index.html.j2", "page.css", "page.html.j2",
    }  # fmt: skip


# --- The sweep -----------------------------------------------------------------------------------------------


def test_the_worst_is_the_one_nearest_to_its_bar():
    values = {"0": 0.2, "1": 0.5, "2": 0.3}
    assert sweep.summarise(values, 1.0, None)["worst"] == 0.5
    assert sweep.summarise(values, None, 0.1)["worst"] == 0.2
    assert sweep.summarise(values, 1.0, 0.1)["worst"] == 0.2
    tiny = {"0": 1e-44, "1": 1e-39, "2": 1e-79}
    assert sweep.summarise(tiny, 0.05, None)["worst"] == 1e-39, (
        "as far from the bar as the others, but for the last digits"
    )
    assert sweep.summarise(values, 0.55, 0.0)["worst"] == 0.5
    assert sweep.summarise(values, 1.0, None)["mean"] == pytest.approx(1 / 3)


@pytest.fixture
def swept(monkeypatch):
    """Runs that are not executed: a figure of seed / 10, past its bar of 0.5 from seed 5 on; what was run."""
    ran = []

    def run(path, profile, parameters, out, *, threads, environment, stop):
        ran.append((path.stem, parameters.get("DATA", "any"), parameters["SEED"]))
        assert (profile, environment) == ("quick", {"DEVIL_CLAIMS": "measure"})
        if path.stem == "20_raises":
            return Report(path.stem, (Problem("error", "collapsed"),), 1.0, None, out / path.name)
        value = parameters["SEED"] / 10
        claims = {"distance": {"value": value, "below": 0.5, "above": None}}
        problems = (Problem("out of bounds", "missed"),) if value >= 0.5 else ()
        results = {"claims": claims, "versions": {"python": "3"}, "seconds": 9.0 - parameters["SEED"]}
        return Report(path.stem, problems, 10.0, results, out / path.name)

    monkeypatch.setattr(sweep, "check_notebook", run)
    monkeypatch.setattr(sweep, "code_hash", lambda leave_out: "code")
    return ran


def call_sweep(folder: Path, *arguments: str) -> int:
    places = ["--notebooks", str(FIXTURES), "--out", str(folder / "out"), "--target", str(folder / "sweep.json")]
    return sweep.main([*places, *arguments])


def test_the_sweep_runs_data_sets_only_where_they_are_read(swept, tmp_path):
    assert call_sweep(tmp_path, "--seeds", "0", "1", "--lesson", "10_good", "--lesson", "51_no_claims") == 0
    assert sorted(swept) == [
        *(("10_good", data, seed) for data in ("digits", "mnist") for seed in (0, 1)),
        *(("51_no_claims", "any", seed) for seed in (0, 1)),
    ]
    content = json.loads((tmp_path / "sweep.json").read_text())
    entry = content["lessons"]["10_good"]["mnist"]
    assert entry["claims"]["distance"] == {
        "values": {"0": 0.0, "1": 0.1}, "mean": 0.05, "worst": 0.1, "below": 0.5, "above": None,
    }  # fmt: skip
    assert entry["code"] == "code" and entry["seconds"] == 8.0 and entry["versions"] == {"python": "3"}
    assert not re.search(r"\d{4}-\d{2}-\d{2}", (tmp_path / "sweep.json").read_text()), (
        "no dates: equal runs, equal file"
    )


def test_the_sweep_continues_and_keeps_other_lessons(swept, tmp_path, monkeypatch):
    assert call_sweep(tmp_path, "--seeds", "0", "1", "--lesson", "10_good", "--data", "mnist") == 0
    before = (tmp_path / "sweep.json").read_text()
    swept.clear()
    assert call_sweep(tmp_path, "--seeds", "0", "1", "2", "--lesson", "10_good", "--data", "mnist") == 0
    assert swept == [("10_good", "mnist", 2)]
    assert json.loads((tmp_path / "sweep.json").read_text())["lessons"]["10_good"]["mnist"]["claims"]["distance"][
        "values"
    ].keys() == {"0", "1", "2"}
    assert call_sweep(tmp_path, "--seeds", "0", "1", "--lesson", "51_no_claims") == 0
    assert json.loads((tmp_path / "sweep.json").read_text())["lessons"].keys() == {"10_good", "51_no_claims"}
    monkeypatch.setattr(sweep, "code_hash", lambda leave_out: "changed")
    swept.clear()
    assert call_sweep(tmp_path, "--seeds", "0", "1", "--lesson", "10_good", "--data", "mnist") == 0
    assert len(swept) == 2
    assert before != (tmp_path / "sweep.json").read_text()


def test_the_sweep_stores_a_missed_bar_and_says_so(swept, tmp_path, capsys):
    assert call_sweep(tmp_path, "--seeds", "4", "7", "--lesson", "10_good", "--data", "digits") == 1
    assert "10_good, digits, seed 7: distance is 0.7, and the bar is below 0.5" in capsys.readouterr().err
    assert json.loads((tmp_path / "sweep.json").read_text())["lessons"]["10_good"]["digits"]["claims"]["distance"][
        "worst"
    ] == pytest.approx(0.7)


def test_a_run_without_figures_leaves_what_is_stored(swept, tmp_path, capsys):
    assert call_sweep(tmp_path, "--seeds", "0", "--lesson", "20_raises", "--lesson", "51_no_claims") == 1
    assert "no figures from 20_raises, any, seed 0" in capsys.readouterr().err
    assert json.loads((tmp_path / "sweep.json").read_text())["lessons"].keys() == {"51_no_claims"}
