"""Running the course: every lesson in order, a page of each, an index and one file of figures; resumable."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from devil_lib.course.check import Problem, Report, check_notebook
from devil_lib.course.export import ExportError, Link, export_page, plain, render
from devil_lib.course.lessons import NOTEBOOKS, ROOT, LessonFile, code_hash, find_lessons, run_key
from devil_lib.lesson import SWEEP_FILE, bar_text, holds, write_json

Say = Callable[[str], None]
T = TypeVar("T")


def usable_cores() -> int:
    """The cores that this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class CourseSettings:
    """What to run and how.

    profile: "quick", "lab" or "full". names: lessons to run, all if empty. parameters: further values for every
    parameters cell. jobs: lessons at a time. fresh: run again what is already there. timeout: seconds a lesson may
    take, None for the profile's own. folder: the notebooks. out: the folder that receives everything.
    """

    profile: str = "quick"
    names: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    jobs: int = 2
    fresh: bool = False
    timeout: float | None = None
    folder: Path = NOTEBOOKS
    out: Path = ROOT / "build" / "course"

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs is {self.jobs}: at least one lesson runs at a time")


@dataclass(frozen=True)
class Record:
    """What is kept of a lesson's run, beside its notebook, page and results: the key it was made under, how it was
    run, its problems and its seconds."""

    key: str
    profile: str
    parameters: dict[str, Any]
    problems: tuple[str, ...]
    seconds: float


def run_course(settings: CourseSettings, say: Say = print) -> int:
    """Run the lessons; the exit status is 0 if all passed, 1 if one did not, 130 after an interruption.

    Leaves in `settings.out`, for each lesson, the executed notebook, an offline page and its results, and for all
    index.html and results.json, both rewritten after every lesson. Run again, it continues: a lesson is not repeated
    while its notebook, the package, the profile and the parameters are what they were.

    Raises:
        LessonError: no lesson of that name, or none at all.
    """
    course = find_lessons(settings.folder)
    chosen = find_lessons(settings.folder, settings.names)
    settings.out.mkdir(parents=True, exist_ok=True)
    code = code_hash()
    keys = {lesson.name: _key(lesson, settings, code) for lesson in course}
    todo = [lesson for lesson in chosen if settings.fresh or not _is_done(lesson, settings, keys[lesson.name])]

    cores = usable_cores()
    threads = max(1, cores // settings.jobs)
    done_before = len(chosen) - len(todo)
    say(
        f"{len(chosen)} lesson{'s' if len(chosen) != 1 else ''}, profile {settings.profile}, {settings.jobs} at a time"
        f" with {threads} thread{'s' if threads > 1 else ''} each"
        + (f"; {done_before} done before, {len(todo)} to run" if done_before else "")
    )
    clock = _Clock(settings, todo)

    def work(lesson: LessonFile, stop: threading.Event) -> Report:
        clock.started(lesson)
        # The old record goes first, so that an interrupted run is never taken for a finished one.
        _record_path(settings, lesson.name).unlink(missing_ok=True)
        return check_notebook(
            lesson.path, settings.profile, settings.parameters, settings.out, settings.timeout,
            threads=threads, stop=stop,
        )  # fmt: skip

    def done(lesson: LessonFile, report: Report) -> None:
        report = _page(lesson, report, course, settings)
        _keep(report, settings, keys[lesson.name])
        _summarise(course, settings, keys)
        clock.finished(lesson, report, say)

    try:
        run_all(todo, settings.jobs, work, done, clock.show)
    except KeyboardInterrupt:
        _summarise(course, settings, keys)
        say("Interrupted. The lessons that were finished are kept; the same command continues with the others.")
        return 130

    _summarise(course, settings, keys)
    records = {lesson.name: _read_record(settings, lesson.name) for lesson in chosen}
    failed = [name for name, record in records.items() if record is None or record.problems]
    say(f"{len(chosen) - len(failed)} of {len(chosen)} lessons passed in {_clock_text(clock.elapsed())}" + (
        f"; not passed: {', '.join(failed)}" if failed else ""
    ))  # fmt: skip
    say(f"Open {_short(settings.out / 'index.html')}")
    return 1 if failed else 0


def run_all(
    items: Iterable[T],
    jobs: int,
    work: Callable[[T, threading.Event], Report],
    done: Callable[[T, Report], None],
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Work on items, some at a time and in order; `done` and, every second, `tick` are called in this thread.

    Raises:
        whatever `work` or `done` raise, and KeyboardInterrupt; the event given to `work` is then set and waited for.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(jobs)
    try:
        waiting = {pool.submit(work, item, stop): item for item in items}
        while waiting:
            for future in wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED).done:
                done(waiting.pop(future), future.result())
            tick()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


# --- One lesson ----------------------------------------------------------------------------------------------


def _page(lesson: LessonFile, report: Report, course: list[LessonFile], settings: CourseSettings) -> Report:
    """Write the lesson's page, also of one that failed; a page that cannot be written is a problem of the lesson."""
    page = settings.out / f"{lesson.name}.html"
    page.unlink(missing_ok=True)
    if not report.executed.is_file():
        return report
    names = [other.name for other in course]
    at = names.index(lesson.name)
    there = set(settings.names or names) | {path.stem for path in settings.out.glob("*.html")}
    links = [
        Link(f"{course[i].name}.html", plain(course[i].title))
        if 0 <= i < len(course) and course[i].name in there
        else None
        for i in (at - 1, at + 1)
    ]
    outcome = "passed" if report.passed else "not passed"
    summary = f"profile {settings.profile} · {outcome} · {report.seconds / 60:.1f} minutes"
    try:
        export_page(
            report.executed,
            page,
            source_folder=settings.folder,
            title=plain(lesson.title),
            summary=summary,
            before=links[0],
            after=links[1],
        )
    except (ExportError, OSError) as error:
        return dataclasses.replace(report, problems=(*report.problems, Problem("page", str(error))))
    return report


def _key(lesson: LessonFile, settings: CourseSettings, code: str) -> str:
    # The data set that "auto" finds depends on these variables as much as on the parameters.
    found_by = {name: os.environ.get(name, "") for name in ("DEVIL_DATA", "DEVIL_OFFLINE")}
    source = lesson.path.read_text(encoding="utf-8")
    return run_key(source, {"PROFILE": settings.profile, **settings.parameters, **found_by}, code)


def _record_path(settings: CourseSettings, name: str) -> Path:
    return settings.out / "runs" / f"{name}.json"


def _keep(report: Report, settings: CourseSettings, key: str) -> None:
    problems = tuple(map(str, report.problems))
    record = Record(key, settings.profile, dict(settings.parameters), problems, round(report.seconds, 1))
    write_json(_record_path(settings, report.lesson), dataclasses.asdict(record))


def _read_record(settings: CourseSettings, name: str) -> Record | None:
    try:
        return Record(**json.loads(_record_path(settings, name).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _is_done(lesson: LessonFile, settings: CourseSettings, key: str) -> bool:
    record = _read_record(settings, lesson.name)
    files = (settings.out / f"{lesson.name}.{ending}" for ending in ("ipynb", "json", "html"))
    return bool(record and record.key == key and not record.problems and all(file.is_file() for file in files))


# --- All lessons ---------------------------------------------------------------------------------------------


def _summarise(course: list[LessonFile], settings: CourseSettings, keys: Mapping[str, str]) -> None:
    """Write index.html and results.json from what lies in the folder."""
    rows, results = [], {}
    total = 0.0
    for lesson in course:
        record = _read_record(settings, lesson.name)
        content = _read_results(settings.out / f"{lesson.name}.json") if record else None
        if content:
            results[lesson.name] = content
        rows.append(_row(lesson, record, content, settings, keys[lesson.name]))
        total += record.seconds if record else 0.0
    write_json(settings.out / "results.json", results)
    passed = sum(row["style"] == "passed" for row in rows)
    page = render(
        "index.html.j2",
        title="The course",
        summary=f"{passed} of {len(rows)} lessons passed · {total / 60:.1f} minutes in all",
        introduction=(
            "Every lesson was executed from its source; a lesson has passed if it ran to its end and each of its claims "
            "is inside the bar that it states. The figures themselves are in results.json."
        ),
        rows=rows,
        footer="Code: MIT licence. Lesson text: CC BY 4.0. Weights: as the data they were trained on.",
    )
    (settings.out / "index.html").write_text(page, encoding="utf-8")


def _read_results(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _row(
    lesson: LessonFile, record: Record | None, content: dict[str, Any] | None, settings: CourseSettings, key: str
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": lesson.name,
        "title": plain(lesson.title),
        "page": f"{lesson.name}.html" if (settings.out / f"{lesson.name}.html").is_file() else "",
        "outcome": "– not run",
        "style": "absent",
        "minutes": "",
        "setting": "",
        "note": "",
        "problems": (),
        "claims": [
            {
                "name": name,
                "value": f"{claim['value']:.4g}",
                "bar": bar_text(claim["below"], claim["above"]),
                "held": holds(claim["value"], claim["below"], claim["above"]),
            }
            for name, claim in (content or {}).get("claims", {}).items()
        ],
    }
    if record is None:
        return row
    row["minutes"] = f"{record.seconds / 60:.1f}"
    row["setting"] = record.profile + (f", {content['data']}" if content else "")
    row["problems"] = record.problems
    row["outcome"], row["style"] = ("✗ not passed", "failed") if record.problems else ("✓ passed", "passed")
    if record.key != key and record.profile == settings.profile:
        row["note"] = "an earlier run: the lesson, the library or the parameters have changed since"
    return row


# --- Progress ------------------------------------------------------------------------------------------------


class _Clock:
    """Elapsed and remaining time: what a lesson took before, else what it took in the sweep, else the mean of the others."""

    def __init__(self, settings: CourseSettings, todo: list[LessonFile]) -> None:
        self._start = time.perf_counter()
        self._jobs, self._total, self._count = settings.jobs, len(todo), 0
        self._left = {lesson.name: self._expected(lesson, settings) for lesson in todo}
        self._started: dict[str, float] = {}
        self._took: list[float] = []

    @staticmethod
    def _expected(lesson: LessonFile, settings: CourseSettings) -> float | None:
        record = _read_record(settings, lesson.name)
        if record and record.profile == settings.profile:
            return record.seconds
        stored = _read_results(SWEEP_FILE) if settings.profile == "quick" else None
        runs = (stored or {}).get("lessons", {}).get(lesson.name, {}).values()
        return max((run["seconds"] for run in runs), default=None)

    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    def started(self, lesson: LessonFile) -> None:
        self._started[lesson.name] = time.perf_counter()

    def finished(self, lesson: LessonFile, report: Report, say: Say) -> None:
        self._count += 1
        self._left.pop(lesson.name)
        self._started.pop(lesson.name, None)
        self._took.append(report.seconds)
        remaining = f", about {_clock_text(self._remaining())} left" if self._left else ""
        self._wipe()
        say(
            f"[{self._count:>2}/{self._total}] {lesson.name:<26} {'passed' if report.passed else 'NOT PASSED':<10}"
            f" {_clock_text(report.seconds):>6}   elapsed {_clock_text(self.elapsed())}{remaining}"
        )
        for problem in report.problems:
            say(f"        {problem}")

    def show(self) -> None:
        """On a terminal, a line that is overwritten: what is running and since when."""
        if sys.stdout.isatty() and self._started:
            now = time.perf_counter()
            running = ", ".join(f"{name} {_clock_text(now - at)}" for name, at in self._started.copy().items())
            print(f"\r\x1b[K        running {running}; elapsed {_clock_text(self.elapsed())}", end="", flush=True)

    def _wipe(self) -> None:
        if sys.stdout.isatty():
            print("\r\x1b[K", end="")

    def _remaining(self) -> float:
        mean = sum(self._took) / len(self._took)
        now = time.perf_counter()
        left = (
            max(0.0, (mean if expected is None else expected) - (now - self._started.get(name, now)))
            for name, expected in self._left.items()
        )
        return sum(left) / min(self._jobs, max(1, len(self._left)))


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _short(path: Path) -> str:
    """A path from the current folder where it lies inside it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
