"""The repository as a whole: notebooks without outputs, links that resolve, budgets, nothing of a particular machine."""

import ast
import io
import json
import math
import os
import re
import subprocess
import sys
import tokenize
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from devil_lib.course.lessons import NOTEBOOKS, ROOT, find_lessons, read_lesson
from devil_lib.course.sweep import summarise
from devil_lib.lesson import ANY_DATA, SWEEP_FILE, holds

LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))
README = ROOT / "README.md"
SCIENCE = ("attacks", "inspection", "sanitization", "metrics", "models")
TOP_LEVEL = {
    "README.md", "environment.yml", "notebooks", "devil_lib", "exercises", "solutions", "tests", "pyproject.toml",
    "Makefile", "LICENSE", "nbgrader_config.py",
}  # fmt: skip
MEGABYTE = 10**6


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """The files that a clone has."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


# --- Notebooks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
class TestNotebook:
    def test_it_is_a_clean_source(self, path):
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        nbformat.validate(notebook)
        assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
        assert notebook.metadata.kernelspec.name == "python3"
        assert notebook.metadata.language_info.name == "python"
        assert "widgets" not in notebook.metadata and "papermill" not in notebook.metadata
        for cell in notebook.cells:
            if cell.cell_type == "code":
                assert cell.outputs == [] and cell.execution_count is None, f"cell {cell.id} holds outputs"
                assert cell.source.strip(), f"cell {cell.id} is empty"

    def test_its_cells_have_readable_names(self, path):
        names = [cell.id for cell in nbformat.read(path, as_version=4).cells]
        assert len(set(names)) == len(names)
        for name in names:
            assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name), f"{name!r} is not a readable name"
            assert not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", name), f"{name!r} is a random number"

    def test_its_parameters_are_the_four(self, path):
        lesson = read_lesson(path)
        assert lesson.parameters == {"PROFILE": "lab", "SEED": 0, "DATA": "auto", "RESULTS": ""}
        assert list(lesson.parameters) == ["PROFILE", "SEED", "DATA", "RESULTS"]
        assert isinstance(lesson.metadata.get("reads_data"), bool), "metadata devil.reads_data is true or false"

    def test_it_begins_and_ends_as_a_lesson_does(self, path):
        cells = nbformat.read(path, as_version=4).cells
        assert re.fullmatch(r"[0-9][0-9]_[a-z0-9_]+", path.stem)
        assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        assert f'Lesson("{path.stem}"' in "\n".join(code), "a lesson names itself as its file is named"
        assert re.search(r"^lesson\.finish\(\)", code[-1], re.MULTILINE), "the last code cell is lesson.finish()"

    def test_it_shows_nothing_remote_and_nothing_unfinished(self, path):
        for cell in nbformat.read(path, as_version=4).cells:
            where = f"cell {cell.id}"
            assert not re.search(r"!\[[^\]]*\]\(\s*(https?:)?//|<img[^>]+src=['\"]?(https?:)?//", cell.source), where
            assert not re.search(r"\bMINUTES\b|\bTODO\b|\bTBD\b|\bFIXME\b|\bXXX\b", cell.source), where
            assert not re.search(r"^\s*[!%]\s*(pip|conda|wget|curl)\b", cell.source, re.MULTILINE), where
            for image in re.findall(r"!\[([^\]]*)\]\(|<img(?![^>]*alt=['\"][^'\"])[^>]*>", cell.source):
                assert image.strip(), f"{where}: a picture without a text alternative"

    def test_its_code_is_python(self, path):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                ast.parse(cell.source)


def test_no_helper_is_pasted_between_notebooks():
    homes = defaultdict(set)
    for path in LESSONS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type != "code":
                continue
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    homes[ast.dump(ast.Module(node.body, []))].add(f"{path.stem}: {node.name}")
    pasted = [sorted(places) for places in homes.values() if len({place.split(":")[0] for place in places}) > 1]
    assert not pasted, f"the same code in several notebooks belongs in the library: {pasted}"


# --- Text and links ------------------------------------------------------------------------------------------


def links_of(path: Path) -> list[str]:
    """The targets of all links and pictures of a Markdown file or a notebook's Markdown cells."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return re.findall(r"\]\(<?([^)\s>]+)", text) + re.findall(r"(?:href|src)=[\"']([^\"']+)", text)


def test_relative_links_resolve(tracked):
    broken = []
    for path in sorted({*LESSONS, *(file for file in tracked if file.suffix == ".md")}):
        for link in links_of(path):
            parts = urlsplit(link)
            if not parts.scheme and parts.path and not (path.parent / unquote(parts.path)).exists():
                broken.append(f"{path.relative_to(ROOT)}: {link}")
    assert not broken, broken


def readme() -> str:
    text = README.read_text(encoding="utf-8") if README.is_file() else ""
    return text or pytest.skip("README.md is not written yet")


def test_the_readmes_commands_are_the_ones_tested():
    text = readme()
    commands = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))))
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert {"lab", "test"} <= commands <= targets, f"README names {commands}, the Makefile has {targets}"
    assert re.search(r"^make test\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE), ".ci/run runs `make test`"


def test_the_readme_lists_every_lesson():
    text = readme()
    missing = [path.stem for path in LESSONS if path.stem not in text]
    assert not missing, f"README.md's curriculum leaves out {missing}"


def test_nothing_names_this_machine(tracked):
    patterns = {
        "the folder of this checkout": re.escape(str(ROOT)),
        "a home folder": r"(?<![\w.\])])/(?:root|work|home/\w+|Users/\w+)/\w",
        "a package index": r"(?:index-url|find-links|trusted-host)\s*[= ]\s*\S|https?://[^\s/]*/(?:simple|pypi)\b",
    }
    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60
    ).stdout
    for host in {urlsplit(url).hostname for url in re.findall(r"https?://[^\s'\"]+", configured)} - {
        "pypi.org",
        None,
    }:
        patterns["this machine's package index"] = re.escape(host)
    found = [
        f"{path.relative_to(ROOT)} names {what}: {match[0]!r}"
        for path in tracked
        for what, pattern in patterns.items()
        if path.name != Path(__file__).name and (match := re.search(pattern, text_of(path)))
    ]
    assert not found, found


# --- Budgets -------------------------------------------------------------------------------------------------


def test_the_top_level_holds_only_what_it_should(tracked):
    there = {path.relative_to(ROOT).parts[0] for path in tracked}
    assert {name for name in there if not name.startswith(".")} <= TOP_LEVEL


def lines_of_code(path: Path) -> int:
    """Lines that hold code: without blank lines, comments and docstrings, of which there cannot be too many."""
    text = path.read_text(encoding="utf-8")
    words: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and ast.get_docstring(node) is not None:
            words.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - words)


def test_the_science_can_be_read_in_an_afternoon():
    lines = {}
    for name in SCIENCE:
        files = [*ROOT.glob(f"devil_lib/{name}.py"), *ROOT.glob(f"devil_lib/{name}/**/*.py")]
        lines[name] = sum(lines_of_code(file) for file in files)
    assert sum(lines.values()) <= 2000, f"{sum(lines.values())} lines: {lines}"


def test_files_are_small_and_weights_hold_no_code(tracked):
    large = {
        str(path.relative_to(ROOT)): path.stat().st_size for path in tracked if path.stat().st_size > 5 * MEGABYTE
    }
    assert not large, large
    weights = [path for path in (ROOT / "devil_lib" / "weights").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in weights) <= 30 * MEGABYTE
    assert all(path.stat().st_size <= 5 * MEGABYTE for path in weights)
    pickles = [
        path.name for path in tracked if path.suffix in {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".h5"}
    ]
    assert not pickles, "only safetensors are shipped"


def test_the_code_is_tidy():
    checked = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


# --- What is stored ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SWEEP_FILE.is_file(), reason="`make sweep` has not been run yet")
def test_the_stored_sweep_is_whole_and_every_bar_holds():
    lessons = {lesson.name: lesson for lesson in find_lessons()}
    stored = json.loads(SWEEP_FILE.read_text())["lessons"]
    assert stored.keys() == lessons.keys(), "run `make sweep`"
    for name, sets in stored.items():
        assert sets.keys() == ({"mnist", "digits"} if lessons[name].reads_data else {ANY_DATA}), name
        for data, entry in sets.items():
            assert entry["claims"], f"{name}, {data}"
            for claim, figures in entry["claims"].items():
                values = figures["values"]
                where = f"{name}, {data}: {claim}"
                assert len(values) >= 3, f"{where}: at least three seeds"
                assert figures == summarise(values, figures["below"], figures["above"]), where
                assert math.isclose(figures["mean"], fmean(values.values())), where
                assert all(holds(value, figures["below"], figures["above"]) for value in values.values()), where


@pytest.mark.skipif(not SWEEP_FILE.is_file(), reason="`make sweep` has not been run yet")
def test_the_minutes_are_the_measured_ones():
    checked = subprocess.run(
        [sys.executable, "-m", "devil_lib.course.minutes", "--check"], capture_output=True, text=True, timeout=120
    )
    assert checked.returncode == 0, f"run `python -m devil_lib.course.minutes`: {checked.stdout}{checked.stderr}"


# --- The check that runs on every change ---------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
class TestCheck:
    @pytest.fixture
    def machine(self, tmp_path):
        """A copy of .ci/run in a folder with a `make` that notes how it is called; a function that runs it."""
        main, programs = tmp_path / "main", tmp_path / "bin"
        (main / ".ci").mkdir(parents=True)
        programs.mkdir()
        script = main / ".ci" / "run"
        script.write_bytes((ROOT / ".ci" / "run").read_bytes())
        script.chmod(0o755)
        for program in ("chromium", "initdb"):
            (programs / program).write_text("#!/bin/sh\n")
        (programs / "make").write_text(
            f'#!/bin/sh\necho "$* | ${{DEVIL_DATA-unset}} | ${{DEVIL_OFFLINE-unset}} | $CI | $(pwd)" >> {tmp_path}/log\n'
            f'case "$*" in *notebooks*) exit "$SECOND" ;; *) exit "$FIRST" ;; esac\n'
        )
        for program in programs.iterdir():
            program.chmod(0o755)

        def run(first: int = 0, second: int = 0) -> tuple[int, list[list[str]]]:
            environment = {key: value for key, value in os.environ.items() if not key.startswith("DEVIL_")}
            environment |= {"PATH": f"{programs}:{os.environ['PATH']}", "FIRST": str(first), "SECOND": str(second)}
            (tmp_path / "log").unlink(missing_ok=True)
            done = subprocess.run([script], env=environment, cwd="/", capture_output=True, timeout=60)
            return done.returncode, [line.split(" | ") for line in (tmp_path / "log").read_text().splitlines()]

        return run

    def test_it_runs_the_tests_and_then_the_embedded_set(self, machine, tmp_path):
        data = tmp_path / "shared" / "data"
        data.mkdir(parents=True)
        here = str(tmp_path / "main")
        assert machine() == (
            0,
            [
                ["test", str(data), "unset", "true", here],
                ["test ARGS=tests/test_notebooks.py", "unset", "1", "true", here],
            ],
        )

    def test_without_shared_data_nothing_is_set(self, machine):
        assert [call[1] for call in machine()[1]] == ["unset", "unset"]

    @pytest.mark.parametrize(("first", "second"), [(1, 0), (0, 1), (2, 2)])
    def test_either_failure_is_a_failure(self, machine, first, second):
        status, calls = machine(first, second)
        assert status == 1
        assert len(calls) == 2, "a failure does not hide the second part's outcome"
