"""A small assignment made by code: two code exercises of 5 points with hidden tests, and a written question of 5."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from devil_lib.grading.term import Answer, Coursework

NAME = "toy"

SETUP = '''\
def check(function, cases, name, maximum):
    """The points of a function for cases of (argument, value), and a line that says what held."""
    wrong = 0
    for given, wanted in cases:
        try:
            wrong += function(given) != wanted
        except Exception as error:
            print(f"✗ {name}: {type(error).__name__}: {error}")
            return 0.0
    print(f"✗ {name}: {wrong} of {len(cases)} values are wrong" if wrong else f"✓ {name}")
    return maximum * (1 - wrong / len(cases))'''

DOUBLE = '''\
def double(x):
    """Twice the number x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION'''

SQUARE = '''\
def square(x):
    """The square of the number x."""
    ### BEGIN SOLUTION
    return x**2
    ### END SOLUTION'''


def _hidden(function: str, cases: str, points: float) -> str:
    return (
        f"# The hidden tests of {function} stand here when your work is marked.\n### BEGIN HIDDEN TESTS\n"
        f'check({function}, {cases}, "{function} of other numbers", {points})\n### END HIDDEN TESTS'
    )


def _cell(kind: str, grade_id: str, source: str, points: float | None = None, solution: bool = False) -> NotebookNode:
    make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    nbgrader = {
        "schema_version": 3,
        "grade": points is not None,
        "solution": solution,
        "locked": not solution,
        "task": False,
        "grade_id": grade_id,
    }
    if points is not None:
        nbgrader["points"] = points
    return make(source, id=grade_id, metadata={"nbgrader": nbgrader})


def source(*extra: NotebookNode) -> NotebookNode:
    """nbgrader's source notebook of the assignment, with further cells at its end."""
    cells = [
        nbformat.v4.new_markdown_cell("# A toy assignment", id="opening"),
        _cell("code", "setup", SETUP),
        _cell("markdown", "double-question", "Write a function that doubles a number."),
        _cell("code", "double", DOUBLE, solution=True),
        _cell("code", "double-visible", 'check(double, [(1, 2), (5, 10)], "double", 2.0)', 2),
        _cell("code", "double-hidden", _hidden("double", "[(-3.5, -7.0), (421, 842), (0, 0)]", 3.0), 3),
        _cell("markdown", "square-question", "Write a function that squares a number."),
        _cell("code", "square", SQUARE, solution=True),
        _cell("code", "square-visible", 'check(square, [(1, 1), (2, 4)], "square", 1.0)', 1),
        _cell("code", "square-hidden", _hidden("square", "[(-3.5, 12.25), (37, 1369)]", 4.0), 4),
        _cell("markdown", "why-question", "Why is the square of a negative number positive?"),
        _cell("markdown", "why", "Two signs cancel.", 5, solution=True),
        *extra,
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def graded(source: str, points: float) -> NotebookNode:
    """A test cell as it is when it is graded."""
    return _cell("code", "test", source, points)


def write_source(folder: Path, *extra: NotebookNode) -> Path:
    """The source notebook in a folder that is made for it."""
    folder.mkdir(parents=True)
    path = folder / f"{NAME}.ipynb"
    nbformat.write(source(*extra), path)
    return path


def coursework(folder: Path) -> Coursework:
    """The assignment with right and wrong answers, written below a scratch folder."""
    write_source(folder / NAME)
    answers = {
        "double": {
            "right": Answer("def double(x):\n    return 2 * x", 5),
            "right by adding": Answer("double = lambda x: x + x", 5),
            "adds two": Answer("def double(x):\n    return x + 2", 0),
            "whole numbers only": Answer("def double(x):\n    return 2 * int(x)", 4),
        },
        "square": {
            "right": Answer("def square(x):\n    return x * x", 5),
            "twice instead": Answer("def square(x):\n    return 2 * x", 0.5),
        },
    }
    return Coursework(NAME, folder / NAME, answers, {"why": Answer("Because -1 times -1 is 1.", 3.5)})
