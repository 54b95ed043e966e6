"""The sweep over seeds: every lesson's claims, quick profile, several seeds and data sets (`make sweep`).

python -m devil_lib.course.sweep [--seeds 0 1 2] [--data mnist digits] [--lesson 22_red]

Writes devil_lib/results/sweep.json: per lesson, data set and claim the value of each seed, their mean, the worst of
them, and the bar; beside them the seconds of a run, the versions and a hash of the code that they were measured
with. A lesson prints the stored mean and worst beside its own figure. Interrupted, it continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import Any

from devil_lib.course.check import Report, check_notebook
from devil_lib.course.lessons import (
    NOTEBOOKS,
    PACKAGE,
    ROOT,
    LessonError,
    LessonFile,
    code_hash,
    find_lessons,
    run_key,
)
from devil_lib.course.runner import run_all, usable_cores
from devil_lib.lesson import ANY_DATA, SWEEP_FILE, bar_text, holds, versions, write_json

PROFILE = "quick"


@dataclass(frozen=True)
class Task:
    """One run: a lesson, a data set ("any" for a lesson that reads none) and a seed."""

    lesson: LessonFile
    data: str
    seed: int

    @property
    def parameters(self) -> dict[str, Any]:
        return {"SEED": self.seed} | ({} if self.data == ANY_DATA else {"DATA": self.data})

    def folder(self, out: Path) -> Path:
        return out / self.data / str(self.seed)


def tasks_of(lessons: Iterable[LessonFile], seeds: Iterable[int], data: Iterable[str]) -> list[Task]:
    """All runs of a sweep; a lesson that reads no data set is run once per seed."""
    return [
        Task(lesson, name, seed)
        for lesson in lessons
        for name in (data if lesson.reads_data else (ANY_DATA,))
        for seed in seeds
    ]


def run_sweep(tasks: list[Task], out: Path, target: Path = SWEEP_FILE, jobs: int = 2) -> int:
    """Run what is not there yet and write the sweep file; 0 if every claim held, 1 if not, 130 after an interruption.

    A missed bar does not end a run: its figure is what the sweep is for. A run that ends in another way leaves no
    figures, and its lesson and data set then keep what the file already says about them.
    """
    # What runs the lessons, and the sweep itself, have no part in the figures.
    code = code_hash(leave_out=(target, PACKAGE / "course"))
    keys = {task: run_key(task.lesson.code, {"PROFILE": PROFILE, **task.parameters}, code) for task in tasks}
    todo = [task for task in tasks if _stored(task, out).get("key") != keys[task]]
    print(f"{len(tasks)} runs, {len(tasks) - len(todo)} done before, {jobs} at a time")
    broken: list[str] = []
    threads = max(1, usable_cores() // jobs)

    def work(task: Task, stop: threading.Event) -> Report:
        return check_notebook(
            task.lesson.path, PROFILE, task.parameters, task.folder(out),
            threads=threads, environment={"DEVIL_CLAIMS": "measure"}, stop=stop,
        )  # fmt: skip

    def done(task: Task, report: Report) -> None:
        others = [str(problem) for problem in report.problems if problem.kind != "out of bounds"]
        name = f"{task.lesson.name}, {task.data}, seed {task.seed}"
        print(f"{name}: {'; '.join(map(str, report.problems)) or 'held'} ({report.seconds:.0f} s)", flush=True)
        if others or report.results is None:
            broken.append(name)
            return
        kept = {"key": keys[task], "claims": report.results["claims"], "versions": report.results["versions"]}
        kept["seconds"] = report.results["seconds"]
        write_json(_stored_path(task, out), kept)

    try:
        run_all(todo, jobs, work, done)
    except KeyboardInterrupt:
        print("Interrupted. The runs that were finished are kept; the same command continues with the others.")
        return 130
    missed = _write(tasks, keys, code, out, target)
    for text in (*(f"no figures from {name}" for name in broken), *missed):
        print(text, file=sys.stderr)
    return 1 if broken or missed else 0


def summarise(values: dict[str, float], below: float | None, above: float | None) -> dict[str, Any]:
    """One claim over the seeds: values by seed, mean, worst (the one nearest to its bar, or furthest past it), bar."""

    def room(value: float) -> Fraction:
        # Exactly: of p-values far below a bar of 0.05 every rounded difference would be the bar itself.
        at = Fraction(value)
        return min(
            ([] if below is None else [Fraction(below) - at]) + ([] if above is None else [at - Fraction(above)])
        )

    return {
        "values": values,
        "mean": fmean(values.values()),
        "worst": min(values.values(), key=room),
        "below": below,
        "above": above,
    }


def _write(tasks: list[Task], keys: dict[Task, str], code: str, out: Path, target: Path) -> list[str]:
    """Merge into the sweep file what the runs left; the claims that were missed, in words."""
    lessons = json.loads(target.read_text(encoding="utf-8"))["lessons"] if target.is_file() else {}
    missed = []
    for name, data in dict.fromkeys((task.lesson.name, task.data) for task in tasks):
        same = [task for task in tasks if (task.lesson.name, task.data) == (name, data)]
        runs = {str(task.seed): _stored(task, out) for task in same}
        if not all(_stored(task, out).get("key") == keys[task] for task in same):
            continue
        first = next(iter(runs.values()))
        if any(run["claims"].keys() != first["claims"].keys() for run in runs.values()):
            missed.append(f"{name}, {data}: the claims differ between the seeds, so they cannot be compared")
            continue
        claims = {}
        for claim, bar in first["claims"].items():
            values = {seed: run["claims"][claim]["value"] for seed, run in runs.items()}
            claims[claim] = summarise(values, bar["below"], bar["above"])
            missed += [
                f"{name}, {data}, seed {seed}: {claim} is {value:.4g}, and the bar is"
                f" {bar_text(bar['below'], bar['above'])}"
                for seed, value in values.items()
                if not holds(value, bar["below"], bar["above"])
            ]
        lessons.setdefault(name, {})[data] = {
            "profile": PROFILE,
            "code": code,
            "versions": first["versions"],
            # The shortest: on a machine that does other things besides, the others say more about those.
            "seconds": min(run["seconds"] for run in runs.values()),
            "claims": claims,
        }
    write_json(target, {"versions": versions(), "lessons": dict(sorted(lessons.items()))})
    print(f"Wrote {target.name}: {len(lessons)} lessons")
    return missed


def _stored_path(task: Task, out: Path) -> Path:
    return task.folder(out) / f"{task.lesson.name}.run.json"


def _stored(task: Task, out: Path) -> dict[str, Any]:
    try:
        return json.loads(_stored_path(task, out).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m devil_lib.course.sweep", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", nargs="+", default=["mnist", "digits"], help="for the lessons that read a data set")
    parser.add_argument("--lesson", action="append", default=[], metavar="NAME", help="only this lesson (repeatable)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--notebooks", type=Path, default=NOTEBOOKS, help="folder of the lessons")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "sweep", help="folder for the runs")
    parser.add_argument("--target", type=Path, default=SWEEP_FILE, help="the file to write")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        tasks = tasks_of(find_lessons(given.notebooks, given.lesson), given.seeds, given.data)
        return run_sweep(tasks, given.out.resolve(), given.target, given.jobs)
    except (LessonError, ValueError, OSError) as error:
        print(f"make sweep: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
