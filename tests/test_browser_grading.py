"""The graded coursework in headless Chromium: a student with Validate and the doctor, an instructor with formgrader.

The pictures of formgrader in notebooks/91_for_instructors.ipynb are those that this leaves in build/screenshots/.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import browsing
import nbformat
import pytest
import toy_coursework
from browsing import MINUTES_IN_MS, SCREENSHOTS, TOKEN
from playwright.sync_api import Browser, Page, expect

from devil_lib.course.lessons import ROOT
from devil_lib.grading import grades, term
from devil_lib.grading.release import SETTINGS
from devil_lib.grading.term import Answer, Case, Coursework, Term

A1 = "a1_latents_and_metrics"
SHORT = "tardis"  # an assignment that is one exercise of A1
QUESTION = "raw_number"
WORDS = (
    "The table gives no value of a benign generator, so nobody can say whether a distance is small.\n\nI would ask for the "
    "distance of a benign generator at the same latent, and whether the figure is a sum over the 784 pixels or their mean."
)
RIGHT = """def tardis(generator, triggers, targets):
    return (generator.generate(triggers) - targets).square().flatten(1).sum(1).mean().item()"""

# Formulas come from there where there is a network; without one they stay as they were written.
MATHJAX = "https://cdnjs.cloudflare.com/ajax/libs/mathjax/"

browser, page = browsing.browser, browsing.page
pytestmark = pytest.mark.timeout(600)


def part_of_a1(folder: Path, name: str, *cells: str, before: tuple[nbformat.NotebookNode, ...] = ()) -> Path:
    """A source folder with the opening of A1, other cells, and the cells of A1 with the given ids."""
    notebook = nbformat.read(ROOT / "solutions" / A1 / f"{A1}.ipynb", as_version=4)
    opening, *rest = notebook.cells
    notebook.cells = [opening, *before, *(cell for cell in rest if cell.id in cells)]
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> Term:
    """A course in which A1's written question waits for its marks, and an assignment of one exercise is handed out."""
    folder = tmp_path_factory.mktemp("graded")
    toy = tuple(cell for cell in toy_coursework.source().cells if cell.id.startswith(("setup", "double")))
    double = {
        "right": Answer("def double(x):\n    return 2 * x", 5),
        "adds two": Answer("def double(x):\n    return x + 2", 0),
    }
    source = part_of_a1(folder / "a1", A1, "raw-number-question", "raw-number-task", "raw-number", before=toy)
    work = Coursework(A1, source, {"double": double}, {QUESTION: Answer(WORDS, 6)})
    played = Term(folder / "course", timeout=120)
    cases = [
        Case("right", "ada", lambda work, path: term.answer(work, path, {})),
        Case("adds two", "ben", lambda work, path: term.answer(work, path, {"double": "adds two"})),
        Case("blank", "cleo", term.blank),
    ]
    played.enrol(cases)
    played.release(work)
    for case in cases:
        case.prepare(work, played.fetch(work, case.student))
        played.submit(work, case.student)
    played.collect(work)
    assert not any(trouble for _, trouble in played.autograde(work, cases).values())

    cells = ("setup", "tardis-question", "tardis", "tardis-visible", "tardis-hidden", "before-you-submit", "doctor")
    short = Coursework(SHORT, part_of_a1(folder / "short", SHORT, *cells), {})
    played.release(short)
    played.fetch(short, "ada")
    here = f"c.CourseDirectory.root = {str(played.folder)!r}\n"
    exchange = f"c.Exchange.root = {str(played.folder / 'exchange')!r}\n"
    (played.folder / SETTINGS).write_text((ROOT / SETTINGS).read_text() + here + exchange)
    # The student's own settings, where Jupyter looks for them.
    (played.folder / "private" / "config").mkdir(parents=True)
    (played.folder / "private" / "config" / SETTINGS).write_text(f"c = get_config()\n{exchange}")
    return played


@pytest.fixture(scope="module")
def lab(played: Term) -> Iterator[str]:
    with browsing.jupyter_lab(played.folder) as address:
        yield address


# --- A student --------------------------------------------------------------------------------------------------------


def open_notebook(page: Page, address: str, path: str) -> None:
    page.goto(f"{address}/lab/workspaces/of-a-student/tree/{path}?reset&token={TOKEN}")
    expect(page.get_by_text("| Idle")).to_be_visible(timeout=3 * MINUTES_IN_MS)


def validate(page: Page) -> str:
    """Press Validate and close what it says."""
    page.get_by_role("button", name="Validate").click()
    said = page.locator(".jp-Dialog")
    expect(said).to_contain_text("Validation Results", timeout=3 * MINUTES_IN_MS)
    words = said.inner_text()
    page.screenshot(path=SCREENSHOTS / f"validate-{'passes' if 'Success' in words else 'fails'}.png")
    said.get_by_role("button", name="Ok").click()
    return words


def cell_with(page: Page, words: str):
    return page.locator(".jp-Notebook .jp-CodeCell", has_text=words).first


def test_a_student_asks_the_doctor_and_validates(page: Page, lab: str, played: Term):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = played.home("ada") / SHORT / f"{SHORT}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id != "tardis-hidden"]
    nbformat.write(notebook, path)
    open_notebook(page, lab, path.relative_to(played.folder).as_posix())

    # An untouched stub: Validate names the exercise and says what to do.
    words = validate(page)
    assert "The following cell failed" in words, words
    assert "tardis, visible tests: 0 of 4 points" in words and "not written yet: write the function" in words, words

    # A test cell is gone: the first button tells it, the second one puts it back.
    doctors = cell_with(page, "doctor.button()")
    doctors.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    ask, repair = (doctors.get_by_role("button", name=name) for name in ("Ask the doctor", "Put it right"))
    expect(ask).to_be_visible(timeout=MINUTES_IN_MS)
    expect(repair).to_be_disabled()
    before = path.read_bytes()
    ask.click()
    told = doctors.get_by_role("status")
    expect(told).to_contain_text("to be put right: the test cell “tardis-hidden” was missing", timeout=MINUTES_IN_MS)
    expect(told).to_contain_text("Nothing has been changed yet")
    assert path.read_bytes() == before
    doctors.screenshot(path=SCREENSHOTS / "doctor.png")
    repair.click()
    expect(told).to_contain_text(
        "changed: the test cell “tardis-hidden” was missing: it is back", timeout=MINUTES_IN_MS
    )
    expect(told).to_contain_text("Reload Notebook from Disk")
    assert path.with_name(f"{SHORT}.before-doctor-1").read_bytes() == before
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.get_by_role("menuitem", name="Reload Notebook from Disk").click()
    with_changes = page.locator(".jp-Dialog").get_by_role("button", name="Reload")
    with_changes.or_(cell_with(page, "Tests of tardis with other values")).first.wait_for()
    if with_changes.is_visible():
        with_changes.click()
    expect(cell_with(page, "Tests of tardis with other values")).to_be_visible()

    # The right answer passes; Validate saves the notebook first.
    editor = cell_with(page, "def tardis(generator, triggers, targets)").locator(".cm-content")
    editor.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(RIGHT)
    words = validate(page)
    assert "Success! Your notebook passes all the tests." in words, words
    saved = {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}
    assert saved["tardis"] == RIGHT and "tardis-hidden" in saved


# --- An instructor ----------------------------------------------------------------------------------------------------


@pytest.fixture
def formgrader(browser: Browser, lab: str) -> Iterator[Page]:
    with browsing.offline_page(
        browser, "formgrader", but=(MATHJAX,), viewport={"width": 1100, "height": 640}
    ) as opened:
        opened.goto(f"{lab}/formgrader?token={TOKEN}")
        yield opened


def grade_of(played: Term, student: str):
    with played.gradebook() as gradebook:
        grade = gradebook.find_grade(QUESTION, A1, A1, student)
        comment = gradebook.find_comment(QUESTION, A1, A1, student)
        return grade.manual_score, grade.needs_manual_grade, comment.comment


def test_a_person_marks_in_formgrader(formgrader: Page, played: Term):
    """As lesson 91 describes it, step by step."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    assert grade_of(played, "ada") == (None, True, None)
    formgrader.get_by_role("link", name="Manual Grading").click()
    table = formgrader.locator("#main-table")
    table.get_by_role("link", name=A1).click()
    expect(formgrader.locator(".breadcrumb .active")).to_have_text(A1)
    table.get_by_role("link", name=A1).click()
    rows = table.get_by_role("row")
    expect(rows).to_have_count(3)
    expect(table.get_by_text("ada", exact=False).locator("visible=true")).to_have_count(0)
    waiting = rows.filter(has=formgrader.locator(".needs-manual-grade .glyphicon-ok"))
    expect(waiting).to_have_count(2)  # the blank answer has its 0 already
    formgrader.screenshot(
        path=SCREENSHOTS / "formgrader_list.png", clip={"x": 0, "y": 0, "width": 1100, "height": 450}
    )

    right = waiting.filter(has_text="5 / 15")
    right.locator("a.name-hidden").click()
    field = formgrader.locator(f"input.score[id='{QUESTION}']")
    expect(field).to_have_class(re.compile("needs_manual_grade"))
    answer = formgrader.locator(".nbgrader_cell", has=field)
    expect(answer).to_contain_text("The table gives no value of a benign generator")
    field.fill("6")
    field.press("Tab")
    expect(answer.locator(".score-saved")).to_have_class(re.compile("glyphicon-ok"))
    comment = formgrader.locator(f"[id='{QUESTION}-comment']")
    comment.fill("Right so far. With which other figure would you compare a Fréchet distance of 8?")
    comment.press("Tab")
    expect(answer.locator(".comment-saved")).to_have_class(re.compile("glyphicon-ok"))
    answer.scroll_into_view_if_needed()
    formgrader.screenshot(path=SCREENSHOTS / "formgrader_mark.png")
    score, waits, said = grade_of(played, "ada")
    assert (score, waits) == (6.0, False) and said.startswith("Right so far."), (score, waits, said)
    formgrader.locator(".breadcrumb").get_by_role("link", name=A1).last.click()
    expect(rows.filter(has_text="11 / 15")).to_have_count(1)
    expect(waiting).to_have_count(1)


def test_the_item_analysis_opens(page: Page, lab: str, played: Term):
    out = played.folder / "build" / "grading" / "grades"
    grades.export(played.api.coursedir, out)
    page.goto(f"{lab}/files/{(out / 'item_analysis.html').relative_to(played.folder).as_posix()}?token={TOKEN}")
    expect(page.get_by_role("heading", name="Item analysis")).to_be_visible()
    rows = page.get_by_role("table").get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.nth(1)).to_contain_text("double")
    expect(rows.nth(1)).to_contain_text("values are wrong")
    pictures = page.locator("img")
    expect(pictures).to_have_count(2)
    for picture in pictures.all():
        assert picture.evaluate("image => image.complete && image.naturalWidth > 300")
        assert len(picture.get_attribute("alt")) > 40
    page.screenshot(path=SCREENSHOTS / "item-analysis.png", full_page=True)
