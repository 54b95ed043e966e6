"""The assignments as `make class` rehearses them: nbgrader's sources, with the answers of tests/answers."""

from pathlib import Path

from grading_answers import answers_to

from devil_lib.course.lessons import ROOT
from devil_lib.grading.exercise import find_assignment
from devil_lib.grading.term import Answer, Coursework

WRITTEN = "An answer in words, which a person reads."


def coursework(folder: Path) -> list[Coursework]:
    """Every assignment that has answers; their sources are where they are, and nothing is written to the folder."""
    names = sorted(path.stem for path in (ROOT / "tests" / "answers").glob("[a-z]*.py"))
    return [of_assignment(name) for name in names if (ROOT / "solutions" / name).is_dir()]


def of_assignment(name: str) -> Coursework:
    answers = {
        exercise: {each.name: Answer(each.code.strip("\n"), each.visible + each.hidden) for each in known}
        for exercise, known in answers_to(name).items()
    }
    # Half of the points, so that a mark by hand can be told from a mark by nbgrader.
    written = {each.name: Answer(WRITTEN, each.points / 2) for each in find_assignment(name).written}
    return Coursework(name, ROOT / "solutions" / name, answers, written)
