"""JupyterLab in headless Chromium: a learner opens a lesson, runs it, and moves its slider by keyboard."""

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import browsing
import nbformat
import pytest
from browsing import MINUTES_IN_MS, SCREENSHOTS, TOKEN
from playwright.sync_api import Page, expect

from devil_lib.course.lessons import NOTEBOOKS

LIMIT = 8 * MINUTES_IN_MS
browser, page = browsing.browser, browsing.page

pytestmark = pytest.mark.timeout(900)


def lesson(name: str):
    return pytest.param(
        name, marks=pytest.mark.skipif(not (NOTEBOOKS / f"{name}.ipynb").is_file(), reason=f"{name} does not exist")
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """JupyterLab on a copy of the notebooks, profile quick: its address, and the folder that it shows."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(NOTEBOOKS, root / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for path in (root / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", ()):
                results = root / "results" / f"{path.stem}.json"
                cell.source += f'\nPROFILE = "quick"\nRESULTS = {results.as_posix()!r}'
        nbformat.write(notebook, path)
    with browsing.jupyter_lab(root) as address:
        yield address, root


def run_all_cells(page: Page, address: str, name: str) -> None:
    """Open a lesson in a workspace of its own, run every cell by the menu and wait for the last one."""
    page.goto(f"{address}/lab/workspaces/{name}/tree/notebooks/{name}.ipynb?reset&token={TOKEN}")
    expect(page.get_by_text("| Idle")).to_be_visible(timeout=3 * MINUTES_IN_MS)
    prompts = page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt")
    count = prompts.count()
    assert count > 2
    for _ in range(3):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        try:
            expect(prompts.first).to_have_text(re.compile(r"\[(\*|\d+)\]"), timeout=MINUTES_IN_MS)
            break
        except AssertionError:
            # JupyterLab drops a request that comes while it is still connecting; a learner would ask again.
            continue
    # A cell that waits or runs shows [*]; one that JupyterLab gave up on, because another raised, shows [ ] again.
    page.wait_for_function(
        """() => {
            const prompts = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')];
            const failed = document.querySelector('[data-mime-type="application/vnd.jupyter.error"]');
            return failed || (prompts.length && prompts.every(p => /\\[\\d+\\]/.test(p.textContent)));
        }""",
        timeout=LIMIT,
        polling=500,
    )
    assert prompts.count() == count


def saved(page: Page, root: Path, name: str) -> nbformat.NotebookNode:
    """Save by keyboard and read the file that a learner would have. The server empties it before it writes, so that half of a
    file is waited for as one that has not been saved yet."""
    path = root / "notebooks" / f"{name}.ipynb"
    before = path.stat().st_mtime_ns
    page.locator(".jp-Notebook").click(position={"x": 5, "y": 5})
    page.keyboard.press("Control+s")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        page.wait_for_timeout(200)
        if path.stat().st_mtime_ns != before:
            with contextlib.suppress(nbformat.reader.NotJSONError):
                return nbformat.read(path, as_version=4)
    return nbformat.read(path, as_version=4)


def assert_no_error(notebook: nbformat.NotebookNode) -> None:
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "error", f"cell {cell.id}: {output.ename}: {output.evalue}"
            assert output.get("name") != "stderr", f"cell {cell.id} warns: {output.text}"


@pytest.mark.parametrize("name", [lesson("00_start_here"), lesson("22_red")])
def test_a_learner_runs_a_lesson(name: str, page: Page, lab: tuple[str, Path]):
    address, root = lab
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    run_all_cells(page, address, name)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
    assert page.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0
    assert page.locator('[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
    assert page.locator(".jp-OutputArea-output img").count() > 0
    assert page.locator(".jp-OutputArea-output img:not([alt])").count() == 0
    assert_no_error(saved(page, root, name))
    results = json.loads((root / "results" / f"{name}.json").read_text())
    assert results["profile"] == "quick" and results["claims"]
    if name == "22_red":
        move_the_slider(page)


def move_the_slider(page: Page) -> None:
    """Move the first slider by keyboard alone and see its picture, and the words for it, change."""
    widget = page.locator(".jp-OutputArea-output .widget-vbox", has=page.get_by_role("slider")).first
    handle = widget.get_by_role("slider").first
    picture = widget.locator("img").first
    handle.scroll_into_view_if_needed()
    expect(picture).to_be_visible()
    widget.screenshot(path=SCREENSHOTS / "22_red-slider-before.png")
    source, words, value = (
        picture.get_attribute("src"), picture.get_attribute("alt"), handle.get_attribute("aria-valuenow"),
    )  # fmt: skip
    handle.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(handle).not_to_have_attribute("aria-valuenow", value, timeout=10_000)
    expect(widget.locator("img").first).not_to_have_attribute("src", source, timeout=MINUTES_IN_MS)
    assert widget.locator("img").first.get_attribute("alt") != words
    widget.screenshot(path=SCREENSHOTS / "22_red-slider-after.png")
    page.screenshot(path=SCREENSHOTS / "22_red-slider.png")
    assert page.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0
