"""The commands of the graded coursework.

python -m devil_lib.grading release [--out FOLDER] [--assignment NAME]: build it (`make release`).
python -m devil_lib.grading challenge --roster FILE [--out FOLDER]: a set of checkpoints for each student (`make challenge`).
python -m devil_lib.grading audit --roster FILE [--out FOLDER]: compare the verdicts on them with the truth, after autograding.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from devil_lib import show
from devil_lib.course.lessons import ROOT
from devil_lib.grading.release import ReleaseError, release


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m devil_lib.grading", description="Graded coursework through nbgrader."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "release",
        help="write solutions/ and exercises/",
        description="Without a key: the open practice in the repository. With a key in the environment variable DEVIL_COURSE_KEY: "
        "a variant of it in a folder outside the repository.",
    )
    build.add_argument(
        "--out", type=Path, help="course folder (default: the repository; with a key, devil-coursework beside it)"
    )
    build.add_argument("--assignment", action="append", default=[], metavar="NAME", help="only this one (repeatable)")
    sets = commands.add_parser(
        "challenge",
        help="a set of unknown checkpoints for each student of the capstone",
        description="With the key in the environment variable DEVIL_COURSE_KEY: one file for each student in FOLDER/challenge, and "
        "handout.csv, which says whose is whose. Files that are there already are kept.",
    )
    sets.add_argument(
        "--practice", action="store_true", help="make the set of the open practice anew instead, without a key"
    )
    compared = commands.add_parser(
        "audit",
        help="points for the capstone's verdicts, after autograding",
        description="With the key in DEVIL_COURSE_KEY: reads the answers in the autograded notebooks, compares them with the truth of "
        "each student's set, and writes points and comments into the gradebook. Without a key: of the open practice.",
    )
    for command in (sets, compared):
        command.add_argument(
            "--roster", type=Path, help="CSV file with a column `id`, and if you like first_name, last_name and email"
        )
        command.add_argument("--out", type=Path, help="course folder (default: that of `release`)")
    given = parser.parse_args(arguments)
    # In the environment, because a command line is shown to everyone on the machine.
    key = os.environ.get("DEVIL_COURSE_KEY") or None
    folder = given.out or (ROOT.parent / "devil-coursework" if key else ROOT)
    try:
        if given.command == "challenge":
            _challenge(given, key, folder)
        elif given.command == "audit":
            _audit(given, key, folder)
        else:
            for path in release(folder, key, given.assignment):
                print(f"{path.parent.name}: released to {path.parent}")
    except (ValueError, OSError, ReleaseError) as error:
        print(f"{given.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _challenge(given: argparse.Namespace, key: str | None, folder: Path) -> None:
    # Training is not needed for the other commands.
    from devil_lib.grading import challenge

    if given.practice:
        challenge.write_practice()
        print(f"the set of the open practice: {challenge.PRACTICE}")
        return
    if key is None:
        raise ValueError(
            "a set is made from the course's key: give it with KEY=, or in the environment variable DEVIL_COURSE_KEY"
        )
    students = _students(given)
    print(
        "Training the generators that all sets are made of takes a minute; then each student's set 15 to 20 seconds."
    )
    told = show.progress(len(students), "sets of checkpoints")
    handout = challenge.make_all(folder, key, students, on_progress=lambda done, _: told(done))
    print(f"{len(students)} sets, and whose is whose: {handout}")


def _audit(given: argparse.Namespace, key: str | None, folder: Path) -> None:
    from devil_lib.grading.audit import audit
    from devil_lib.grading.challenge import folder_of

    students = _students(given)
    told = show.progress(len(students), "verdicts")
    results = audit(folder, key, students, on_progress=lambda done, _: told(done))
    for result in results:
        points = "  -" if result.points is None else f"{result.points:3g}"
        print(f"{points}  {result.student.id}" + (f": {result.problem}" if result.problem else ""))
    print(f"points, truth and comments: {folder_of(folder) / 'audit.csv'}")


def _students(given: argparse.Namespace) -> list:
    from devil_lib.grading.roster import read_roster

    if given.roster is None:
        raise ValueError("name the class with ROSTER=roster.csv (--roster): a CSV file with a column `id`")
    return read_roster(given.roster)


if __name__ == "__main__":
    sys.exit(main())
