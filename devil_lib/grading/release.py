"""`make release`: nbgrader's sources from the templates, and from these, with nbgrader itself, what students receive."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbgrader.apps.api import NbGraderAPI
from traitlets.config import Config, PyFileConfigLoader

from devil_lib.course.lessons import ROOT
from devil_lib.grading.exercise import assignment_names
from devil_lib.grading.source import render
from devil_lib.grading.variants import check_key

SETTINGS = "nbgrader_config.py"


class ReleaseError(RuntimeError):
    """A release could not be made; the message says why and what to do."""


def programs_on_path() -> None:
    """Let nbgrader find the programs of this environment: it starts `alembic` by name whenever it makes a gradebook, which fails
    where the environment was not activated."""
    here = str(Path(sys.executable).parent)
    if here not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])


def course_config(folder: Path) -> Config:
    """nbgrader's settings for a course folder: those of the repository, or of a copy in the folder, with the folder as root."""
    home = folder if (folder / SETTINGS).is_file() else ROOT
    config = PyFileConfigLoader(SETTINGS, path=str(home)).load_config()
    config.CourseDirectory.root = str(folder)
    return config


def release(folder: Path = ROOT, key: str | None = None, names: Iterable[str] = ()) -> list[Path]:
    """Write `solutions/` and `exercises/` of a course folder and note the assignments in its `gradebook.db`.

    Without a key this is the open practice, as the repository holds it. With one, the folder lies outside the repository and
    receives a copy of nbgrader's settings, so that nbgrader's commands work in it.

    Args:
        names: the assignments; by default all.

    Returns:
        The released notebooks.

    Raises:
        ValueError: a key that is too short, a folder inside the repository together with a key, a folder in which other things
            lie, or no such assignment.
        ReleaseError: nbgrader refused.
    """
    folder = Path(folder).resolve()
    if key is not None:
        check_key(key)
        if folder.is_relative_to(ROOT.resolve()):
            raise ValueError(f"{folder} lies in the repository, which is public: name a folder outside it with OUT=")
    if folder != ROOT.resolve():
        if folder.is_dir() and any(folder.iterdir()) and not (folder / SETTINGS).is_file():
            raise ValueError(f"{folder} is not empty and holds no coursework: name a new folder with OUT=")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / SETTINGS, folder / SETTINGS)
    programs_on_path()
    config = course_config(folder)
    api = NbGraderAPI(config=config)
    released = []
    for name in list(names) or assignment_names():
        source = folder / config.CourseDirectory.source_directory / name / f"{name}.ipynb"
        notebook = render(name, key)
        source.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, source)
        done = api.generate_assignment(name)
        if not done["success"]:
            raise ReleaseError(
                f"nbgrader could not make the release of {name}:\n{done.get('error', '')}{done.get('log', '')}"
            )
        released.append(folder / config.CourseDirectory.release_directory / name / f"{name}.ipynb")
    return released
