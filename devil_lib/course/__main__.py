"""The commands of the course, `devil-lib` or `python -m devil_lib.course`.

devil-lib run [--profile quick] [--lesson 22_red] ...: execute the lessons (`make course`)
devil-lib doctor FILE ...: put right what happened to a notebook of the coursework before it is handed in
"""

from __future__ import annotations

import argparse
import ast
import signal
import sys
from pathlib import Path
from typing import Any

from devil_lib.course.lessons import NOTEBOOKS, ROOT, LessonError
from devil_lib.course.runner import CourseSettings, run_course
from devil_lib.lesson import PROFILES


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="devil-lib", description="The commands of the course.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute the lessons and write their pages, an index and results.json")
    run.add_argument("--profile", default="quick", choices=PROFILES, help="default: quick")
    run.add_argument("--lesson", action="append", default=[], metavar="NAME", help="only this lesson (repeatable)")
    run.add_argument(
        "--parameter", action="append", default=[], type=_parameter, metavar="NAME=VALUE",
        help="a value for every parameters cell, such as SEED=1 or DATA=digits (repeatable)",
    )  # fmt: skip
    run.add_argument("--jobs", type=int, default=CourseSettings.jobs, help="lessons at a time (default: %(default)s)")
    run.add_argument("--fresh", action="store_true", help="run again what is already there")
    run.add_argument("--timeout", type=float, help="seconds that a lesson may take (default: by profile)")
    run.add_argument("--notebooks", type=Path, default=NOTEBOOKS, help="folder of the lessons")
    run.add_argument("--out", type=Path, default=ROOT / "build" / "course", help="folder for what is made")
    doctor = commands.add_parser("doctor", help="repair notebooks of the coursework before they are handed in")
    doctor.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a notebook, or a folder of them")
    doctor.add_argument(
        "--release",
        type=Path,
        metavar="FOLDER",
        help="where the released notebooks are (default: nbgrader's exchange, and exercises/)",
    )
    given = parser.parse_args(arguments)
    return _doctor(given) if given.command == "doctor" else _run(given)


def _run(given: argparse.Namespace) -> int:
    # Ended from outside, a run cleans up after itself as it does when interrupted by hand.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        settings = CourseSettings(
            profile=given.profile,
            names=tuple(given.lesson),
            parameters=dict(given.parameter),
            jobs=given.jobs,
            fresh=given.fresh,
            timeout=given.timeout,
            folder=given.notebooks,
            out=given.out.resolve(),
        )
        return run_course(settings)
    except (LessonError, ValueError, OSError) as error:
        print(f"make course: {error}", file=sys.stderr)
        return 2


def _doctor(given: argparse.Namespace) -> int:
    # Imported here, because nbgrader takes seconds to load, and the lessons need none of it.
    from devil_lib.grading import doctor

    try:
        release = given.release or doctor.releases()
        reports = [doctor.treat(path, release) for one in given.files for path in doctor.notebooks_at(one)]
    except (doctor.DoctorError, OSError) as error:
        print(f"devil-lib doctor: {error}", file=sys.stderr)
        return 2
    print("\n".join(map(str, reports)))
    return 1 if any(report.doubts for report in reports) else 0


def _parameter(text: str) -> tuple[str, Any]:
    """NAME=VALUE, where the value is a Python literal, or else the text itself."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    sys.exit(main())
