"""From a template to nbgrader's source notebook: jinja2, then a percent script, then cells with nbgrader's metadata.

A cell begins with `# %% id="name" role="..."`, a cell of text with `# %% [markdown] id="name"`, its lines with `# `. Roles:
answer, visible, hidden (see the page in the package's docstring), setup (read-only code) and written (hand-marked text).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from devil_lib.grading.exercise import Assignment, Exercise, Written, find_assignment
from devil_lib.grading.variants import hidden_seed, variant_for

TEMPLATES = Path(__file__).parent / "sources"
_HEAD = re.compile(r"^# %%( \[markdown\])?((?: \w+=\"[\w-]+\")*)\s*$")
# What nbgrader calls the roles: grade (it carries points), solution (the student writes it), locked (it is put back if edited).
_ROLES = {
    "setup": (False, False, True),
    "answer": (False, True, False),
    "visible": (True, False, True),
    "hidden": (True, False, True),
    "written": (True, True, False),
}


# The end of every assignment: ordinary cells, without which nothing is lost.
_ENDING = """\
# %% [markdown] id="before-you-submit"
# ## Before you submit
#
# 1. *Kernel, Restart Kernel and Run All Cells*, and save.
# 2. The button *Validate*: it runs the notebook once more from the beginning and names the cells that fail.
# 3. Did you delete or copy a test cell, or change one, or does *Validate* complain of a cell that is not yours? The **submission doctor** compares this notebook with the one that you received. Its first button says what there is to put right; only the second one changes anything, after keeping a copy of your file. Your answers stay as they are.

# %% id="doctor"
from devil_lib.grading import doctor

doctor.button()
"""


class SourceError(ValueError):
    """A template that makes no assignment; the message names the cell and what to change."""


def render(name: str, key: str | None = None) -> nbformat.NotebookNode:
    """nbgrader's source notebook of an assignment: with solutions, hidden tests and mark schemes. The same for the same key.

    Raises:
        ValueError: no such assignment, or a key that is too short.
        SourceError: the template does not fit the assignment.
    """
    assignment = find_assignment(name)
    variants = {exercise.short: variant_for(exercise, key) for exercise in assignment.exercises}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    script = environment.get_template(f"{name}.py.j2").render(
        assignment=assignment,
        v=variants,
        table=_table(assignment),
        tests=lambda short: _tests(_find(assignment, short), variants[short], key),
        scheme=lambda short: _scheme(_find(assignment, short)),
        heading=lambda short: _heading(assignment, short),
    )
    notebook = _notebook(f"{script}\n{_ENDING}", assignment)
    nbformat.validate(notebook)
    return notebook


def _find(assignment: Assignment, short: str) -> Any:
    for each in (*assignment.exercises, *assignment.written):
        if short in (each.name, getattr(each, "short", "")):
            return each
    raise SourceError(f"{assignment.name} has no exercise {short!r}")


# --- What the templates call -------------------------------------------------------------------------------------------------


def _difficulty(each: Exercise | Written) -> str:
    return "●" * each.difficulty + "○" * (3 - each.difficulty)


def _table(assignment: Assignment) -> str:
    """The exercises with minutes, difficulty and points, as lines of a text cell."""
    rows = [
        f"| {i} · {each.title} | {each.minutes} | {_difficulty(each)} | {each.points:g}{_split(each)} |"
        for i, each in enumerate((*assignment.exercises, *assignment.written), 1)
    ]
    minutes = sum(each.minutes for each in (*assignment.exercises, *assignment.written))
    head = ["| exercise | minutes | difficulty | points |", "|---|---|---|---|"]
    return "\n".join(
        f"# {row}" for row in [*head, *rows, f"| **all** | **{minutes}** | | **{assignment.points:g}** |"]
    )


def _split(each: Exercise | Written) -> str:
    if isinstance(each, Written):
        return ", marked by a person"
    return f" ({each.visible:g} for the tests you see, {each.hidden:g} for hidden ones)"


def _heading(assignment: Assignment, short: str) -> str:
    """The heading of an exercise, as lines of a text cell."""
    each = _find(assignment, short)
    number = (*assignment.exercises, *assignment.written).index(each) + 1
    return f"# ## {number} · {each.title}\n#\n# *{each.points:g} points · about {each.minutes} minutes · {_difficulty(each)}*"


def _tests(exercise: Exercise, variant: dict[str, Any], key: str | None) -> str:
    """The two test cells of an exercise."""
    given = "" if variant == exercise.public() else f", variant={variant!r}"
    call = f'grading.check("{exercise.name}", globals(){given}'
    load = "from devil_lib import grading\n\n"
    return (
        f'# %% id="{exercise.short}-visible" role="visible"\n{load}{call})\n\n'
        f'# %% id="{exercise.short}-hidden" role="hidden"\n'
        f"# Tests of {exercise.short} with other values. They run when your work is graded; leave this cell as it is.\n"
        f"### BEGIN HIDDEN TESTS\n{load}{call}, seed={hidden_seed(exercise, key)}, hidden=True)\n### END HIDDEN TESTS"
    )


def _scheme(written: Written) -> str:
    """The mark scheme of a written question, as lines of a text cell."""
    rows = [f"| {points:g} | {criterion} |" for points, criterion in written.criteria]
    lines = [f"**Mark scheme** ({written.points:g} points)", "", "| points | for |", "|---|---|", *rows]
    return "\n".join(f"# {line}".rstrip() for line in lines)


# --- The percent script ------------------------------------------------------------------------------------------------------


def _notebook(script: str, assignment: Assignment) -> nbformat.NotebookNode:
    notebook = new_notebook(
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    head, lines = None, []
    for line in [*script.splitlines(), None]:
        if line is None or line.startswith("# %%"):
            if head is not None:
                notebook.cells.append(_cell(head, lines, assignment))
            elif any(each.strip() and not each.startswith("#") for each in lines):
                raise SourceError(f"{assignment.name}: code before the first `# %%`")
            head, lines = line, []
        else:
            lines.append(line)
    _check_order(notebook, assignment)
    return notebook


def _cell(head: str, lines: list[str], assignment: Assignment) -> nbformat.NotebookNode:
    found = _HEAD.match(head)
    attributes = dict(part.split("=") for part in found[2].split()) if found else {}
    attributes = {name: json.loads(value) for name, value in attributes.items()}
    name, role = attributes.get("id"), attributes.get("role")
    if not name or attributes.keys() - {"id", "role"} or role not in (None, *_ROLES):
        raise SourceError(f"{assignment.name}: `{head}` is no head of a cell; roles are {', '.join(_ROLES)}")
    text = bool(found[1])
    if text != (role == "written") and role is not None:
        raise SourceError(f"{assignment.name}: cell {name}: written answers are text, all other roles are code")
    source = "\n".join(_words(line, name) if text else line for line in lines).strip("\n")
    metadata = {} if role is None else {"nbgrader": _metadata(name, role, assignment)}
    make = new_markdown_cell if text else new_code_cell
    # The name is the cell's id, so that building again gives the same bytes.
    return make(source, id=name.replace("_", "-"), metadata=metadata)


def _words(line: str, name: str) -> str:
    if not line.startswith("#") and line.strip():
        raise SourceError(f"cell {name}: every line of a text begins with `# `, not {line!r}")
    return line.removeprefix("#").removeprefix(" ")


def _metadata(name: str, role: str, assignment: Assignment) -> dict[str, Any]:
    grade, solution, locked = _ROLES[role]
    nbgrader = {
        "grade": grade,
        "grade_id": name,
        "locked": locked,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    if grade:
        each = _find(assignment, name.removesuffix(f"-{role}"))
        nbgrader["points"] = each.points if role == "written" else getattr(each, role)
    return nbgrader


def _check_order(notebook: nbformat.NotebookNode, assignment: Assignment) -> None:
    """nbgrader puts a deleted graded cell back after the cell with metadata before it, and fails where that one is neither an answer
    nor graded; so no other cell with metadata stands after the first answer."""
    names = [cell.metadata.nbgrader.grade_id for cell in notebook.cells if "nbgrader" in cell.metadata]
    wanted = [
        name
        for each in assignment.exercises
        for name in (each.short, f"{each.short}-visible", f"{each.short}-hidden")
    ]
    wanted += [each.name for each in assignment.written]
    setup = [cell.metadata.nbgrader.grade_id for cell in notebook.cells if _is_setup(cell)]
    if names != setup + wanted:
        raise SourceError(
            f"{assignment.name}: the cells with roles are {', '.join(names)}; they have to be {', '.join(setup + wanted)}, in this order"
        )


def _is_setup(cell: nbformat.NotebookNode) -> bool:
    role = cell.metadata.get("nbgrader", {})
    return bool(role) and role["locked"] and not role["grade"]
