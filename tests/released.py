"""What must hold of a release, as functions that say what is wrong: each gives sentences, and none where all is well."""

import json
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

KINDS = ("solutions", "exercises")
ANSWER, WRITTEN, TEST = (False, True, False), (True, True, False), (True, False, True)
MARKS = r"(?:BEGIN|END) SOLUTION|HIDDEN TESTS|MARK SCHEME|[Mm]ark scheme|hidden=True|seed=\d{4}"


def read(folder: Path, kind: str, name: str) -> NotebookNode:
    return nbformat.read(folder / kind / name / f"{name}.ipynb", as_version=4)


def role(cell: NotebookNode) -> tuple[bool, bool, bool] | None:
    """grade, solution, locked of a cell; None for one without nbgrader's metadata."""
    found = cell.metadata.get("nbgrader")
    return found and (found["grade"], found["solution"], found["locked"])


def with_holes(cell: NotebookNode) -> str:
    """What is left of a source's cell when answers, hidden tests and mark schemes are taken out."""
    text, kind = cell.source, role(cell)
    if kind == ANSWER:
        pattern = r"^( *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION$"
        text = re.sub(
            pattern, r"\1# YOUR CODE HERE\n\1raise NotImplementedError()", text, flags=re.MULTILINE | re.DOTALL
        )
        assert text != cell.source, f"cell {cell.id} has no solution to take out"
    elif kind == WRITTEN:
        text = "YOUR ANSWER HERE"
    elif kind == TEST:
        text = re.sub(r"\n?### BEGIN HIDDEN TESTS\n.*?### END HIDDEN TESTS$", "", text, flags=re.DOTALL)
    return text


def files_that_differ(made: Path, committed: Path) -> list[str]:
    """Files of the pair of folders that are not what building them anew gives: stale, missing, or too many."""
    found = []
    for folder in (made, committed):
        files = (path for kind in KINDS for path in (folder / kind).rglob("*") if path.is_file())
        found.append(
            {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in files
                if path.name != "README.md" and ".ipynb_checkpoints" not in path.parts
            }
        )
    return sorted(path for path in found[0].keys() | found[1].keys() if found[0].get(path) != found[1].get(path))


def cells_without_holes(source: NotebookNode, released: NotebookNode) -> list[str]:
    """Cells in which the release is not the source with holes."""
    before, after = ({cell.id: cell for cell in notebook.cells} for notebook in (source, released))
    if list(before) != list(after):
        return [f"the cells differ: {', '.join(before.keys() ^ after.keys()) or 'in their order'}"]
    return [
        f"cell {name} is not the source's with holes"
        for name, cell in after.items()
        if cell.source != with_holes(before[name])
        or role(cell) != role(before[name])
        or cell.cell_type != before[name].cell_type
    ]


def leaks(source: NotebookNode, released: NotebookNode) -> list[str]:
    """What a release gives away: marks of what is taken out, lines of answers and of hidden tests, in whatever cell or output."""
    text = nbformat.writes(released)
    found = [f"{mark!r} stands in it" for mark in sorted(set(re.findall(MARKS, text)))]
    shown = {line.strip() for cell in source.cells for line in with_holes(cell).splitlines()}
    for cell in source.cells:
        for line in (line.strip() for line in cell.source.splitlines()):
            # Short lines say nothing by themselves.
            if len(line) > 25 and line not in shown and json.dumps(line)[1:-1] in text:
                found.append(f"a line of cell {cell.id}: {line}")
    return found


def odd_metadata(notebook: NotebookNode) -> list[str]:
    """Metadata that a student has no use for, such as that of a pairing with a script, and results of a run."""
    found = [
        f"{name} in the notebook's metadata" for name in notebook.metadata.keys() - {"kernelspec", "language_info"}
    ]
    for cell in notebook.cells:
        # nbgrader keeps a student from deleting or editing a cell by the last two.
        odd = cell.metadata.keys() - {"nbgrader", "deletable", "editable"}
        found += [f"{name} in the metadata of cell {cell.id}" for name in odd]
        if cell.get("outputs") or cell.get("execution_count") is not None:
            found.append(f"cell {cell.id} was run")
    return sorted(found)
