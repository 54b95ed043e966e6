"""python -m devil_lib.grading release [--out FOLDER] [--assignment NAME]: build the graded coursework (`make release`)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from devil_lib.course.lessons import ROOT
from devil_lib.grading.release import ReleaseError, release


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m devil_lib.grading", description="Graded coursework through nbgrader.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "release",
        help="write solutions/ and exercises/",
        description="Without a key: the open practice in the repository. With a key in the environment variable DEVIL_COURSE_KEY: "
        "a variant of it in a folder outside the repository.",
    )
    build.add_argument("--out", type=Path, help="course folder (default: the repository; with a key, devil-coursework beside it)")
    build.add_argument("--assignment", action="append", default=[], metavar="NAME", help="only this one (repeatable)")
    given = parser.parse_args(arguments)
    # In the environment, because a command line is shown to everyone on the machine.
    key = os.environ.get("DEVIL_COURSE_KEY") or None
    folder = given.out or (ROOT.parent / "devil-coursework" if key else ROOT)
    try:
        for path in release(folder, key, given.assignment):
            print(f"{path.parent.name}: released to {path.parent}")
    except (ValueError, OSError, ReleaseError) as error:
        print(f"make release: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
