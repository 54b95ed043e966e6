"""The submission doctor: puts right what happens to notebooks by accident, and says in plain words what it changed.

`devil-lib doctor FILE`, and `button()` or `visit()` in a notebook's cell, treat a student's own file before it is
submitted; `collect.CollectWithDoctor` (set in `nbgrader_config.py`) treats every submission when it is collected. The
released notebook is the measure: its cells are recognised by nbgrader's metadata, by their ids, by what they hold and by
where they stand. An answer's text is never changed, and no file is written before the original has been copied.
"""

from __future__ import annotations

import ast
import copy
import difflib
import html
import json
import os
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from devil_lib.course.lessons import ROOT

RELEASES = ROOT / "exercises"
NOTE = "submission-doctor"  # the id of the cell that tells a student what was changed at collection
RECORD = "submission-doctor.json"  # the same for programs, beside the notebook


class DoctorError(ValueError):
    """The doctor cannot work as asked; the message says what to change."""


@dataclass
class Report:
    """What the doctor found: the file, what it changed, what a person should look at, where the original is, and under
    which name the work was handed in where that was another. planned: nothing has been changed yet."""

    path: Path
    changes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    original: Path | None = None
    was: str = ""
    planned: bool = False

    def __str__(self) -> str:
        if not self.changes and not self.doubts:
            return f"{self.path.name}: nothing to repair."
        lines = [f"{self.path.name}:"]
        lines += [f"  {'to be put right' if self.planned else 'changed'}: {words}" for words in self.changes]
        lines += [f"  please look: {words}" for words in self.doubts]
        if self.original:
            lines.append(f"  Your file as it was is kept as {self.original.name}. No answer of yours was changed.")
        return "\n".join(lines)


# --- Reading ----------------------------------------------------------------------------------------------------------


def read(path: Path) -> NotebookNode:
    """A notebook in the present format.

    Raises:
        DoctorError: there is no such file, or it is no notebook; the message says why.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DoctorError(f"{path.name} is not there.") from None
    except (UnicodeDecodeError, OSError) as error:
        raise DoctorError(f"{path.name} cannot be read: {error}.") from error
    if not text.strip("\0 \r\n\t"):
        raise DoctorError(f"{path.name} is empty.")
    if re.search(r"^<{7} .*^>{7} ", text, re.MULTILINE | re.DOTALL):
        raise DoctorError(f"{path.name} holds the conflict marks of a merge (<<<<<<<): settle the conflict first.")
    try:
        notebook = nbformat.reads(text, as_version=4)
        cells = notebook.cells
        if not all(isinstance(cell.source, str) and isinstance(cell.metadata, dict) for cell in cells):
            raise ValueError("a cell without text or metadata")
    except Exception as error:  # nbformat raises whatever its reading of odd JSON stumbles over
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DoctorError(f"{path.name} is damaged and no notebook any more ({reason}).") from error
    return notebook


def releases() -> list[Path]:
    """Where this machine has released notebooks: what nbgrader's exchange hands out, as this user's nbgrader is set up,
    and the repository's own."""
    # Imported here, because nbgrader takes seconds to load, and a notebook that is graded needs none of it.
    from jupyter_core.paths import jupyter_config_path
    from nbgrader.apps import NbGrader
    from nbgrader.exchange.default import Exchange

    app = NbGrader()
    app.config_file_paths.extend([os.getcwd(), *jupyter_config_path()])
    app.load_config_file()
    return [*sorted(Path(Exchange(config=app.config).root).glob("*/outbound")), RELEASES]


def find_release(notebook: NotebookNode, name: str, where: Path | Iterable[Path] = RELEASES) -> Path:
    """The released notebook that a notebook was made from: of a file, in a folder and its subfolders, or in several, the
    one that shares most.

    Raises:
        DoctorError: there is none that shares anything.
    """
    folders = [where] if isinstance(where, Path) else list(where)
    if len(folders) == 1 and folders[0].is_file():
        return folders[0]
    own, marks = _fingerprint(notebook), _checksums(notebook)
    shared: dict[Path, tuple[int, int, int, bool]] = {}
    for path in (path for folder in folders for path in _notebooks(folder)):
        try:
            released = read(path)
        except DoctorError:  # somebody else's, in an exchange
            continue
        if own & (theirs := _fingerprint(released)):
            # Two releases of one assignment differ in their tests alone, and so in nbgrader's checksums. One that is a
            # part of another shares as much with its copies as the whole does, which has more besides.
            alike = len(marks & _checksums(released)), len(own & theirs)
            shared[path] = *alike, -len(theirs - own), path.stem == name
    if not shared:
        there = [folder for folder in folders if folder.is_dir()]
        looked = f"in {' or '.join(map(str, there))}" if there else f"({folders[-1]} does not exist)"
        raise DoctorError(f"no released notebook {looked} resembles {name}: name it with --release")
    return max(shared, key=shared.__getitem__)


def notebooks_at(path: Path) -> list[Path]:
    """The notebooks in a folder and its subfolders, apart from hidden ones; of a file, the file."""
    return _notebooks(path) if path.is_dir() else [path]


def _notebooks(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.ipynb"))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _fingerprint(notebook: NotebookNode) -> set[str]:
    ids = {_grade_id(cell) for cell in notebook.cells} - {None}
    return ids | {_plain(cell.source) for cell in notebook.cells if len(cell.source) > 40}


def _checksums(notebook: NotebookNode) -> set[str]:
    return {cell.metadata.nbgrader.get("checksum") for cell in notebook.cells if _grade_id(cell)} - {None}


# --- What a cell is ---------------------------------------------------------------------------------------------------


def _grade_id(cell: NotebookNode) -> str | None:
    """nbgrader's name of a cell with a role; None for an ordinary cell."""
    data = cell.metadata.get("nbgrader") or {}
    role = any(data.get(key) for key in ("grade", "solution", "locked", "task"))
    return data.get("grade_id") or None if role else None


def _is_answer(master: NotebookNode) -> bool:
    return bool(master.metadata.nbgrader.get("solution"))


def _kind(master: NotebookNode) -> str:
    if _is_answer(master):
        return "answer cell"
    return "test cell" if master.metadata.nbgrader.get("grade") else "cell"


def _plain(source: str) -> str:
    """Text without what an editor changes by itself: trailing white space and line ends."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def _defined(source: str) -> set[str]:
    """The functions and classes that code defines at its top."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return set(re.findall(r"^(?:async\s+)?(?:def|class)\s+(\w+)", source, re.MULTILINE))
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}


# --- The treatment of a notebook --------------------------------------------------------------------------------------


def repair(notebook: NotebookNode, release: NotebookNode) -> tuple[NotebookNode, list[str], list[str]]:
    """A repaired copy of a notebook, what was changed, and what a person should look at.

    Raises:
        DoctorError: the notebook comes from another release of the assignment, whose tests are others.
    """
    return _Treatment(notebook, release).run()


class _Treatment:
    def __init__(self, notebook: NotebookNode, release: NotebookNode) -> None:
        self.notebook = copy.deepcopy(notebook)
        self.release = release
        self.masters = {name: cell for cell in release.cells if (name := _grade_id(cell))}
        self.cell_of: dict[str, NotebookNode] = {}
        self.changes: list[str] = []
        self.doubts: list[str] = []

    def run(self) -> tuple[NotebookNode, list[str], list[str]]:
        self._refuse_another_release()
        self._settle_copies()
        self._recognise()
        self._release_strangers()
        self._restore()
        self._put_back()
        self._order_tests()
        self._name_cells()
        return self.notebook, self.changes, self.doubts

    @property
    def cells(self) -> list[NotebookNode]:
        return self.notebook.cells

    def _place(self, cell: NotebookNode) -> int:
        return next(i for i, other in enumerate(self.cells) if other is cell)

    def _refuse_another_release(self) -> None:
        # nbgrader writes a cell's checksum when it is released and never again, whatever a student changes.
        same = [
            cell.metadata.nbgrader.get("checksum") == self.masters[name].metadata.nbgrader.get("checksum")
            for cell in self.cells
            if (name := _grade_id(cell)) in self.masters and cell.metadata.nbgrader.get("checksum")
        ]
        if same and sum(same) < len(same) / 2:
            raise DoctorError(
                "this notebook comes from another release of the assignment, with other tests: name the folder that "
                "you received it in with --release"
            )

    def _settle_copies(self) -> None:
        """Of several cells with one grade id, the last that was edited keeps it."""
        for name, master in self.masters.items():
            copies = [cell for cell in self.cells if _grade_id(cell) == name]
            if not copies:
                continue
            edited = [cell for cell in copies if _plain(cell.source) != _plain(master.source)]
            kept = edited[-1] if edited and _is_answer(master) else copies[-1]
            self.cell_of[name] = kept
            for extra in copies:
                if extra is kept:
                    continue
                if any(extra is cell for cell in edited):
                    # What someone typed is not thrown away: without metadata it is an ordinary cell.
                    _make_ordinary(extra)
                    self.changes.append(
                        f"the {_kind(master)} “{name}” was there more than once: the last version counts, "
                        "an earlier one stays as an ordinary cell"
                    )
                else:
                    self.cells.pop(self._place(extra))
                    self.changes.append(f"an unchanged copy of the {_kind(master)} “{name}” was taken out")

    def _recognise(self) -> None:
        """Give cells that lost their metadata their role again: by id and content, then answers by where they stand."""
        lost = [name for name in self.masters if name not in self.cell_of]
        if not lost:
            return
        matched = self._align()
        for mine, theirs in matched.items():
            name = _grade_id(self.release.cells[theirs])
            if name in lost:
                self._adopt(name, self.cells[mine])
        for name in [name for name in lost if name not in self.cell_of and _is_answer(self.masters[name])]:
            nearby = [i for i in self._gap(name, matched) if self._may_answer(self.cells[i], self.masters[name])]
            if nearby:
                chosen = max(nearby, key=lambda i: len(self.cells[i].source))
                matched[chosen] = self.release.cells.index(self.masters[name])
                self._adopt(name, self.cells[chosen])
                self.doubts.append(
                    f"“{name}” was recognised by its place alone: is the cell that begins with "
                    f"“{self.cells[chosen].source.strip()[:40]}” your answer?"
                )

    def _adopt(self, name: str, cell: NotebookNode) -> None:
        self.cell_of[name] = cell
        self.changes.append(
            f"the {_kind(self.masters[name])} “{name}” had lost nbgrader's metadata, and has it again"
        )

    def _align(self) -> dict[int, int]:
        """Pairs of cells, of the notebook and of the release, in the same order in both and as alike as possible."""
        mine, theirs = self.cells, self.release.cells
        place_of = {id(self.cell_of[name]): theirs.index(self.masters[name]) for name in self.cell_of}
        best = [[0.0] * (len(theirs) + 1) for _ in range(len(mine) + 1)]
        alike = [[0.0] * len(theirs) for _ in mine]
        for i in reversed(range(len(mine))):
            for j in reversed(range(len(theirs))):
                claimed = place_of.get(id(mine[i]))
                if claimed is not None:
                    alike[i][j] = 100.0 if claimed == j else 0.0
                elif j not in place_of.values():
                    alike[i][j] = _likeness(mine[i], theirs[j])
                pair = alike[i][j] + best[i + 1][j + 1] if alike[i][j] else 0.0
                best[i][j] = max(pair, best[i + 1][j], best[i][j + 1])
        pairs, i, j = {}, 0, 0
        while i < len(mine) and j < len(theirs):
            if alike[i][j] and best[i][j] == alike[i][j] + best[i + 1][j + 1]:
                pairs[i] = j
                i, j = i + 1, j + 1
            elif best[i][j] == best[i + 1][j]:
                i += 1
            else:
                j += 1
        return pairs

    def _gap(self, name: str, matched: dict[int, int]) -> range:
        """The places between the recognised neighbours of a cell of the release."""
        place = self.release.cells.index(self.masters[name])
        before = [mine for mine, theirs in matched.items() if theirs < place]
        after = [mine for mine, theirs in matched.items() if theirs > place]
        return range(max(before, default=-1) + 1, min(after, default=len(self.cells)))

    def _may_answer(self, cell: NotebookNode, master: NotebookNode) -> bool:
        taken = any(cell is other for other in self.cell_of.values())
        same_sort = (cell.cell_type == "code") == (master.cell_type == "code")
        return not taken and same_sort and bool(cell.source.strip()) and cell.get("id") != NOTE

    def _release_strangers(self) -> None:
        """Cells whose metadata name nothing in the release are ordinary; nbgrader would reject the notebook."""
        mine = {id(cell) for cell in self.cell_of.values()}
        for cell in self.cells:
            if "nbgrader" in cell.metadata and id(cell) not in mine:
                if _grade_id(cell):
                    name = _grade_id(cell)
                    self.changes.append(f"a cell called “{name}” is not of this assignment: it stays, ungraded")
                _make_ordinary(cell)

    def _restore(self) -> None:
        for name, cell in self.cell_of.items():
            master = self.masters[name]
            what = f"the {_kind(master)} “{name}”"
            if cell.cell_type != master.cell_type:
                self.changes.append(f"{what} had become {cell.cell_type}: it is {master.cell_type} again")
                _set_type(cell, master.cell_type)
            if not _is_answer(master) and _plain(cell.source) != _plain(master.source):
                if cell.cell_type == "code" and _defined(cell.source) - _defined(master.source):
                    # Someone answered in the wrong cell.
                    moved = nbformat.v4.new_code_cell(cell.source)
                    self.cells.insert(self._place(cell), moved)
                    self.doubts.append(f"what you defined in {what} stands in a cell of its own before it")
                self.changes.append(f"the text of {what} was not the released one: it is again")
                cell.source = master.source
            _make_ordinary(cell)
            cell.metadata.update(_role(master))

    def _put_back(self) -> None:
        """Missing cells come back behind the cell that precedes them in the release."""
        order = list(self.masters)
        for number, name in enumerate(order):
            if name in self.cell_of:
                continue
            master = self.masters[name]
            cell = copy.deepcopy(master)
            before = [self._place(self.cell_of[earlier]) for earlier in order[:number]]
            after = [self._place(self.cell_of[later]) for later in order[number + 1 :] if later in self.cell_of]
            place = before[-1] + 1 if before else min(after, default=0)
            self.cells.insert(place, cell)
            self.cell_of[name] = cell
            empty = ", empty as in the release" if _is_answer(master) else ""
            self.changes.append(f"the {_kind(master)} “{name}” was missing: it is back{empty}")

    def _order_tests(self) -> None:
        """A test stands behind the answer that it tests; an answer is never moved."""
        answer = None
        for name, master in self.masters.items():
            if _is_answer(master):
                answer = self.cell_of[name]
            elif master.metadata.nbgrader.get("grade") and answer is not None:
                cell = self.cell_of[name]
                if self._place(cell) < self._place(answer):
                    self.cells.pop(self._place(cell))
                    self.cells.insert(self._place(answer) + 1, cell)
                    self.changes.append(
                        f"the test cell “{name}” stood before the answer it tests: it stands behind it"
                    )

    def _name_cells(self) -> None:
        """Every cell has an id of its own, as the format asks for."""
        seen: set[str] = set()
        for number, cell in enumerate(self.cells):
            if cell.get("id") in seen or not cell.get("id"):
                cell.id = f"cell-{number}"
                while cell.id in seen:
                    cell.id += "-again"
            seen.add(cell.id)
        if (self.notebook.nbformat, self.notebook.nbformat_minor) < (4, 5):
            self.notebook.nbformat, self.notebook.nbformat_minor = 4, 5


_ROLE = ("nbgrader", "deletable", "editable")  # the metadata by which nbgrader knows a cell


def _role(master: NotebookNode) -> dict[str, Any]:
    return {key: copy.deepcopy(master.metadata[key]) for key in _ROLE if key in master.metadata}


def _make_ordinary(cell: NotebookNode) -> None:
    for key in _ROLE:
        cell.metadata.pop(key, None)


def _set_type(cell: NotebookNode, wanted: str) -> None:
    cell.cell_type = wanted
    if wanted == "code":
        cell.setdefault("outputs", [])
        cell.setdefault("execution_count", None)
        cell.pop("attachments", None)
    else:
        cell.pop("outputs", None)
        cell.pop("execution_count", None)


def _likeness(cell: NotebookNode, master: NotebookNode) -> float:
    """How surely a cell is one of the release's: 0 is not at all."""
    mine, theirs = _plain(cell.source), _plain(master.source)
    if mine == theirs:
        return 8.0 if mine else 0.0
    named = cell.get("id") is not None and cell.get("id") == master.get("id")
    if _grade_id(master) and _is_answer(master) and _defined(mine) & _defined(theirs):
        return 6.0 + named
    if named:
        return 4.0
    matcher = difflib.SequenceMatcher(None, mine, theirs, autojunk=False)
    if matcher.real_quick_ratio() < 0.6 or matcher.quick_ratio() < 0.6:
        return 0.0
    ratio = matcher.ratio()
    return ratio if ratio >= 0.6 else 0.0


# --- Files ------------------------------------------------------------------------------------------------------------


def treat(path: str | Path, release: Path | str | Iterable[Path] = RELEASES, only_look: bool = False) -> Report:
    """Repair a student's notebook in its place, after copying it to a neighbour called `<name>.before-doctor-1`.

    Args:
        path: the notebook.
        release: the released notebook, or a folder or several in which it is found by what it shares.
        only_look: say what there is to put right, and write nothing.

    Returns:
        what was changed. A file that is missing or damaged is reported as a doubt, and left as it is.

    Raises:
        DoctorError: no released notebook fits.
    """
    path, release = Path(path), Path(release) if isinstance(release, str) else release
    try:
        notebook = read(path)
    except DoctorError as error:
        return Report(path, doubts=[f"{error} {_elsewhere(path)}".strip()])
    repaired, changes, doubts = repair(notebook, read(find_release(notebook, path.stem, release)))
    report = Report(path, changes, doubts, planned=only_look)
    if changes and not only_look:
        report.original = _copy_beside(path)
        _write(repaired, path)
    return report


_RELOAD = (
    "Now choose File > Reload Notebook from Disk. JupyterLab still shows the notebook as it was: reloading drops what you "
    "typed after it was last saved, and saving instead would bring the old state back."
)


def visit(path: str | Path | None = None, release: Path | str | Iterable[Path] | None = None) -> None:
    """Treat a notebook from one of its own cells, and print what was changed.

    Args:
        path: the notebook; without it, the one in which this is called, where the front end tells it (JupyterLab does).
        release: as for `treat`; without it, the one among `releases()`.

    Raises:
        DoctorError: it is not known which notebook this is, or no released notebook fits.
    """
    name = path or _this_notebook()
    if not name:
        raise DoctorError('it is not known which notebook this is: call visit("NAME.ipynb")')
    report = treat(name, releases() if release is None else release)
    print(report)
    print(_RELOAD if report.changes else "The doctor sees what was saved last: save first, then ask again.")


def _this_notebook() -> str | None:
    # Kernels that a notebook starts, for grading say, inherit its name.
    return None if os.environ.get("NBGRADER_EXECUTION") else os.environ.get("JPY_SESSION_NAME")


class DoctorButton:
    """Two buttons under a notebook: the first looks and says what there is to put right, the second does it.

    Args:
        path, release: as for `visit`.
    """

    def __init__(self, path: str | Path, release: Path | str | Iterable[Path] | None = None) -> None:
        import ipywidgets

        self.path, self.release = Path(path), release
        wide = ipywidgets.Layout(width="auto")
        self.look = ipywidgets.Button(description="Ask the doctor", icon="stethoscope", layout=wide)
        self.repair = ipywidgets.Button(description="Put it right", icon="wrench", layout=wide, disabled=True)
        self.says = ipywidgets.HTML()
        self.box = ipywidgets.VBox([ipywidgets.HBox([self.look, self.repair]), self.says])
        self.look.on_click(lambda _: self._treat(only_look=True))
        self.repair.on_click(lambda _: self._treat(only_look=False))

    def _treat(self, only_look: bool) -> None:
        self.look.disabled = self.repair.disabled = True
        self._say("The doctor is looking ...")
        try:
            saved = self.path.stat().st_mtime if self.path.is_file() else None
            report = treat(self.path, releases() if self.release is None else self.release, only_look)
            self._say(str(report), _what_next(report, saved))
            self.repair.disabled = not (only_look and report.changes)
        except (DoctorError, OSError) as error:
            self._say(f"The doctor cannot help: {error}")
        finally:
            self.look.disabled = False

    def _say(self, *words: str) -> None:
        lines = "".join(f"<div style='white-space:pre-wrap'>{html.escape(each)}</div>" for each in words if each)
        # Read aloud by a screen reader when it changes.
        self.says.value = f"<div role='status' style='line-height:1.4'>{lines}</div>"


def _what_next(report: Report, saved: float | None) -> str:
    """What a student should do after the doctor's words. saved: when the notebook was last written, in seconds."""
    if report.changes and not report.planned:
        return _RELOAD
    if saved is None:
        return ""
    ago, clock = max(0.0, time.time() - saved), time.strftime("%H:%M:%S", time.localtime(saved))
    since = f"{ago:.0f} seconds" if ago < 120 else f"{ago / 60:.0f} minutes"
    words = f"This is the notebook as it was saved at {clock}, {since} ago; if you changed it since then, save it and ask again."
    return f"{words} Nothing has been changed yet: “Put it right” does it." if report.changes else words


def button(path: str | Path | None = None, release: Path | str | Iterable[Path] | None = None) -> None:
    """Show the doctor's buttons in the notebook in which this is called. Nothing happens until one is pressed.

    Where no person looks, in grading say, or the front end does not tell which notebook this is, one sentence stands there.

    Args:
        path, release: as for `visit`.
    """
    name = path or _this_notebook()
    if not name:
        print(
            "In JupyterLab the submission doctor's buttons stand here; in a terminal it is `devil-lib doctor FILE`."
        )
        return
    from IPython.display import display

    words = "The submission doctor's buttons stand here while the notebook runs."
    bundle = DoctorButton(name, release).box._repr_mimebundle_()
    display({**bundle, "text/plain": words, "text/html": f"<p><em>{words}</em></p>"}, raw=True)


def _elsewhere(path: Path) -> str:
    """Where a copy of a missing or damaged notebook may be."""
    checkpoint = path.parent / ".ipynb_checkpoints" / f"{path.stem}-checkpoint.ipynb"
    others = [other for other in sorted(path.parent.glob("*.ipynb")) if other != path] if path.parent.is_dir() else []
    for copy_of in [checkpoint, *others]:
        try:
            read(copy_of)
        except DoctorError:
            continue
        return f"There is {copy_of.relative_to(path.parent)}, which can be read: is it a copy?"
    return "Fetch the assignment again, or take an older copy of yours."


def _copy_beside(path: Path) -> Path:
    number = 1
    while (target := path.with_name(f"{path.stem}.before-doctor-{number}")).exists():
        number += 1
    return Path(shutil.copy2(path, target))


def _write(notebook: NotebookNode, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.part")
    nbformat.write(notebook, temporary)
    os.replace(temporary, path)


# --- Submissions ------------------------------------------------------------------------------------------------------


def treat_submission(folder: Path, release: Path, originals: Path) -> list[Report]:
    """Repair a collected submission, so that nbgrader finds each notebook of the release under its name.

    A note at the top of a changed notebook tells the student; it stays in the feedback. A notebook that is missing or
    damaged is replaced by a blank one, so that the submission can be graded and returned.

    Args:
        folder: the submission, changed in place.
        release: the folder of the released assignment.
        originals: the submission is copied there before the first change, if it is not there yet.

    Raises:
        DoctorError: the release holds no notebook, or the submission comes from another one.
    """
    released = _notebooks(release)
    if not released:
        raise DoctorError(f"there is no released notebook in {release}")
    names = {path.name for path in released}
    reports = [_treat_one(folder, path, names, originals) for path in released]
    renamed = {report.path.stem: report.was for report in reports if report.was}
    changes = {each.path.name: each.changes + each.doubts for each in reports if each.changes or each.doubts}
    if changes:
        record = folder / RECORD
        earlier = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {"renamed": {}}
        content = {"renamed": earlier["renamed"] | renamed, "changes": changes}
        record.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return reports


def _treat_one(folder: Path, released: Path, names: set[str], originals: Path) -> Report:
    master = read(released)
    report = Report(folder / released.name)
    chosen = _choose(folder, report, master, names)
    if chosen is None:
        notebook = copy.deepcopy(master)
        report.changes.append("a blank notebook stands in its place, so that the submission can be returned")
    else:
        notebook, changes, doubts = repair(read(chosen), master)
        report.changes += changes
        report.doubts += doubts
        if chosen != report.path:
            report.was = chosen.stem
    if report.changes:
        if not originals.exists():
            shutil.copytree(folder, originals)
        report.original = originals
        _leave_note(notebook, report)
        _write(notebook, report.path)
    return report


def _choose(folder: Path, report: Report, master: NotebookNode, names: set[str]) -> Path | None:
    """The file with the student's work: the expected one, unless it is unusable, or untouched and another is not."""
    worked: dict[Path, tuple[int, int]] = {}
    for path in _notebooks(folder):
        if path.name in names and path != report.path:
            continue
        try:
            notebook = read(path)
        except DoctorError as error:
            if path == report.path:
                report.doubts.append(str(error))
            continue
        likeness = len(_fingerprint(notebook) & _fingerprint(master))
        if likeness >= len(_fingerprint(master)) / 4 or path == report.path:
            worked[path] = (_answers(notebook, master), likeness)
    if report.path in worked and (worked[report.path][0] or not any(edited for edited, _ in worked.values())):
        return report.path
    if not worked:
        if not report.path.exists():
            report.doubts.append(f"{report.path.name} is missing.")
        return None
    best = max(worked, key=worked.__getitem__)
    if best != report.path:
        report.changes.append(f"your work was in “{best.name}”: it was taken as {report.path.name}")
    return best


def _answers(notebook: NotebookNode, master: NotebookNode) -> int:
    """How many answers were begun."""
    stubs = {_plain(cell.source) for cell in master.cells}
    own = [cell.source for cell in notebook.cells if cell.source.strip() and cell.get("id") != NOTE]
    return sum(_plain(source) not in stubs for source in own)


def _leave_note(notebook: NotebookNode, report: Report) -> None:
    lines = [f"- {words}" for words in report.changes + report.doubts]
    text = "**When this notebook was collected, something had to be put right; no answer was changed.**\n\n"
    notes = [cell for cell in notebook.cells if cell.get("id") == NOTE]
    if notes:
        notes[0].source += "\n" + "\n".join(lines)
    else:
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(text + "\n".join(lines), id=NOTE))
