"""The lessons on disk: which there are, their parameters, title and the hash that says whether a run is still good."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent
NOTEBOOKS = ROOT / "notebooks"


class LessonError(ValueError):
    """A lesson cannot be run as asked; the message says what to change."""


@dataclass(frozen=True, eq=False)
class LessonFile:
    """A lesson's notebook: its name ("22_red"), path, title, parameters cell (name -> literal) and `devil` metadata
    (`reads_data`: whether it reads a data set), and its code cells' source."""

    name: str
    path: Path
    title: str
    parameters: dict[str, Any]
    metadata: dict[str, Any]
    code: str

    @property
    def reads_data(self) -> bool:
        return bool(self.metadata.get("reads_data", False))


def read_lesson(path: str | Path) -> LessonFile:
    """Read a lesson's notebook.

    Raises:
        FileNotFoundError: no such file.
        LessonError: not a notebook, not exactly one `parameters` cell, or something other than plain literals in it.
    """
    path = Path(path)
    try:
        notebook = nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as error:
        raise LessonError(f"{path.name} is not a notebook: {str(error).splitlines()[0]}") from error
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        raise LessonError(f"{path.name} has {len(cells)} cells tagged `parameters`: a lesson has exactly one")
    heading = re.compile(r"^#\s+(.+)$", re.MULTILINE)
    titles = (heading.search(cell.source) for cell in notebook.cells if cell.cell_type == "markdown")
    title = next((match.group(1).strip() for match in titles if match), path.stem)
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    metadata = dict(notebook.metadata.get("devil", {}))
    return LessonFile(path.stem, path, title, _literals(path, cells[0].source), metadata, code)


def find_lessons(folder: Path = NOTEBOOKS, names: Iterable[str] = ()) -> list[LessonFile]:
    """The lessons NN_*.ipynb of a folder in order, or the named ones.

    Raises:
        LessonError: no lesson there, or a name that none has.
    """
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise LessonError(f"there is no lesson in {folder}: lessons are notebooks named like 22_red.ipynb")
    wanted = [name.removesuffix(".ipynb") for name in names]
    unknown = sorted(set(wanted) - {path.stem for path in paths})
    if unknown:
        raise LessonError(f"no lesson {', '.join(unknown)}: there are {', '.join(path.stem for path in paths)}")
    return [read_lesson(path) for path in paths if not wanted or path.stem in wanted]


def check_parameters(lesson: LessonFile, given: Mapping[str, Any]) -> None:
    """Refuse parameters that the lesson's parameters cell does not have (papermill would only warn).

    Raises:
        LessonError: an unknown name, or a value of another type than the cell's.
    """
    for name, value in given.items():
        if name not in lesson.parameters:
            known = ", ".join(lesson.parameters)
            raise LessonError(f"{lesson.name} has no parameter {name!r}: its parameters cell sets {known}")
        default = lesson.parameters[name]
        if type(value) is not type(default):
            raise LessonError(
                f"{lesson.name}: parameter {name} is {value!r}, but the cell sets a {type(default).__name__}"
            )


def code_hash(leave_out: Iterable[Path] = ()) -> str:
    """SHA-256 over everything in the package (code, weights, stored results) but the files and folders left out."""
    left_out = {path.resolve() for path in leave_out}
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*")):
        hidden = path.name.startswith(".") or "__pycache__" in path.parts
        if path.is_file() and not hidden and left_out.isdisjoint((path, *path.parents)):
            name = path.relative_to(PACKAGE).as_posix().encode()
            digest.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def run_key(source: str, parameters: Mapping[str, Any], code: str) -> str:
    """What a run depends on: notebook, parameters and package; equal keys mean that a run need not be repeated."""
    parts = (source, json.dumps(dict(parameters), sort_keys=True), code)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _literals(path: Path, source: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for statement in ast.parse(source).body:
        plain = isinstance(statement, ast.Assign) and len(statement.targets) == 1
        target = statement.targets[0] if plain else None
        try:
            if not isinstance(target, ast.Name):
                raise ValueError
            found[target.id] = ast.literal_eval(statement.value)
        except ValueError:
            line = ast.unparse(statement)
            raise LessonError(f"{path.name}: parameters are plain `NAME = literal` lines, not `{line}`") from None
    return found
