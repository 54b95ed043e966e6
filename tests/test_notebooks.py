"""Every lesson runs through papermill, profile quick, and its claims are inside their bars.

With DEVIL_OFFLINE=1 only the lessons that read a data set are run, on the embedded digits.
"""

import functools
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from offline import remote_parts
from processes import one_of_several

from devil_lib.course.check import Report, check_notebook
from devil_lib.course.export import export_page
from devil_lib.course.lessons import NOTEBOOKS, ROOT, find_lessons
from devil_lib.course.runner import CourseSettings, usable_cores
from devil_lib.lesson import ANY_DATA, SWEEP_FILE

OFFLINE = os.environ.get("DEVIL_OFFLINE") == "1"
PARAMETERS = {"DATA": "digits"} if OFFLINE else {}
OUT = ROOT / "build" / ("test-digits" if OFFLINE else "test-lessons")
LESSONS = {
    lesson.name: lesson
    for lesson in (find_lessons() if any(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")) else ())
    if lesson.reads_data or not OFFLINE
}
# The bar is 90 s on two idle cores; a test must not fail because the machine is slow or another program is running.
TIMEOUT = 600


@pytest.fixture(scope="module")
def run(request) -> Iterator[Callable[[str], Report]]:
    """A function that hands back the report of a lesson by its name. In a single process the chosen lessons are all started, some at
    a time, and a test waits for its own; one of several processes runs the lesson that it is given."""
    chosen = {item.callspec.params["name"] for item in request.session.items if item.path == Path(__file__)}
    stop = threading.Event()
    alone = not one_of_several()
    jobs = CourseSettings.jobs if alone else 1
    threads = max(1, usable_cores() // jobs) if alone else 1
    pool = ThreadPoolExecutor(jobs)

    @functools.cache
    def start(name: str) -> Future[Report]:
        path = LESSONS[name].path
        return pool.submit(check_notebook, path, "quick", PARAMETERS, OUT, TIMEOUT, threads=threads, stop=stop)

    for name in LESSONS:
        if alone and name in chosen:
            start(name)
    yield lambda name: start(name).result()
    stop.set()
    pool.shutdown(wait=True, cancel_futures=True)


@pytest.mark.timeout(3 * TIMEOUT)
@pytest.mark.parametrize("name", LESSONS)
def test_lesson(name: str, run: Callable[[str], Report], tmp_path: Path):
    report = run(name)
    assert report.passed, str(report)
    results = report.results
    assert (results["lesson"], results["profile"]) == (name, "quick"), "a lesson names itself as its file is named"
    if OFFLINE:
        assert results["data"] == "digits"

    page = export_page(report.executed, tmp_path / f"{name}.html", source_folder=NOTEBOOKS, title=name)
    html = page.read_text(encoding="utf-8")
    assert remote_parts(html) == []
    assert "No description has been provided for this image" not in html, "every picture has a text alternative"

    stored = json.loads(SWEEP_FILE.read_text())["lessons"].get(name) if SWEEP_FILE.is_file() else None
    for data, entry in (stored or {}).items():
        if data in (results["data"], ANY_DATA):
            bars = {claim: (bar["below"], bar["above"]) for claim, bar in entry["claims"].items()}
            now = {claim: (bar["below"], bar["above"]) for claim, bar in results["claims"].items()}
            assert bars == now, "the stored sweep is of other claims: run `make sweep`"
