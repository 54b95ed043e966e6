"""Autograding in which an accident costs its own question only, where nbgrader 0.9.6 rejects the whole notebook.

`nbgrader_config.py` at the top puts the two preprocessors in the place of nbgrader's own.

- A loop that ignores interrupts, or a kernel that is gone (`os._exit`, no memory left), ends nbgrader's run: no marks
  at all. :class:`SturdyExecute` starts a new kernel, runs the earlier cells again without the culprit, and goes on; a
  cell whose kernel is gone is tried once more. Its kernels start warm, and end at once with all that they started.
- nbgrader takes `np.float64(1.0)`, `False`, -1 and NaN at the end of a test cell for full marks, any word on stderr for
  none, and throws the submission away where a score is above its maximum. :class:`SaveScores` reads the score as it was
  meant.
"""

from __future__ import annotations

import ast
import copy
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbgrader import utils
from nbgrader.preprocessors import Execute, SaveAutoGrades
from traitlets import Integer

from devil_lib.course.execute import end_process_tree
from devil_lib.course.kernel import kernel_settings
from devil_lib.grading.warm import WarmKernelManager

LOST = "CellLost"  # the name of the error that stands in a cell which took its kernel with it


class SturdyExecute(Execute):
    """nbgrader's execution of a notebook, which no cell can end: a cell that takes its kernel with it fails alone."""

    max_characters = Integer(
        1_000_000, help="Characters of text that one cell may print; what comes after is dropped, to spare memory."
    ).tag(config=True)

    def __init__(self, **options: Any) -> None:
        options.setdefault("kernel_manager_class", WarmKernelManager)
        super().__init__(**options)

    def preprocess(self, nb: NotebookNode, resources: Any = None, km: Any = None) -> tuple[NotebookNode, Any]:
        self._ran: list[int] = []  # the cells that a new kernel has to run again
        self._printed = 0
        with tempfile.TemporaryDirectory(prefix="devil-kernel-") as self._sockets:
            return super().preprocess(nb, resources, km)

    def create_kernel_manager(self) -> Any:
        manager = super().create_kernel_manager()
        for name, value in kernel_settings(Path(self._sockets)).items():
            setattr(manager, name, value)
        return manager

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> tuple[NotebookNode, Any]:
        try:
            self._run(cell, resources, index)
        except (CellTimeoutError, DeadKernelError) as error:
            self._give_up(cell, error)
            self._restart(resources)
        else:
            # A cell that was interrupted would only be interrupted again.
            if cell.cell_type == "code" and not _interrupted(cell):
                self._ran.append(index)
        return cell, resources

    def _run(self, cell: NotebookNode, resources: Any, index: int) -> None:
        self._printed = 0
        try:
            super().preprocess_cell(cell, resources, index)
        except DeadKernelError:
            # Perhaps not through the cell: the machine may have been out of memory.
            self.log.warning("A kernel ended in a cell, which is tried once more")
            self._restart(resources)
            self._printed = 0
            super().preprocess_cell(cell, resources, index)

    def output(self, outs: list, msg: dict, display_id: Any, cell_index: int) -> NotebookNode | None:
        text = msg["content"].get("text", "") if msg["msg_type"] == "stream" else ""
        if text:
            room = self.max_characters - self._printed
            self._printed += len(text)
            if room <= 0:
                return None
            msg["content"]["text"] = text[:room]
        return super().output(outs, msg, display_id, cell_index)

    def _give_up(self, cell: NotebookNode, error: Exception) -> None:
        if isinstance(error, DeadKernelError):
            why = "It ended Python itself, as os._exit() or running out of memory does."
        else:
            why = "It was still at work when its time was over, and did not let itself be interrupted."
        words = f"{why} The cells after it ran in a new Python, without what this cell would have defined."
        cell.outputs.append(nbformat.v4.new_output("error", ename=LOST, evalue=words, traceback=[f"{LOST}: {words}"]))
        self.log.warning("A cell was lost: %s", words)

    def _restart(self, resources: Any) -> None:
        """A new kernel in which the cells so far have run again, their first outputs kept."""
        while True:
            self._cleanup_kernel()
            self.km = self.create_kernel_manager()
            self.start_new_kernel()
            self.start_new_kernel_client()
            for index in list(self._ran):
                first = self.nb.cells[index]
                again = copy.deepcopy(first)
                self._printed = 0
                try:
                    self.execute_cell(again, index, store_history=True)
                except (CellTimeoutError, DeadKernelError) as error:
                    # It went well once and is the culprit now; what it gave the first time stands.
                    self.log.warning("A cell that had run well was lost in a new kernel: %s", error)
                    self._ran.remove(index)
                    break
                finally:
                    self.nb.cells[index] = first
            else:
                return

    def _cleanup_kernel(self) -> None:
        # At once, with all that it started: its work is done, and a kernel that ignores interrupts also ignores a request to
        # shut down, for as long as nbclient would wait.
        process = getattr(getattr(self.km, "provisioner", None), "process", None)
        if process is not None and process.poll() is None:
            end_process_tree(process.pid)
        super()._cleanup_kernel()


def _interrupted(cell: NotebookNode) -> bool:
    return any(output.output_type == "error" and output.ename == "CellTimeoutError" for output in cell.outputs)


# --- The score of a test cell -----------------------------------------------------------------------------------------

_WRAPPED = re.compile(
    r"(?:np|numpy)\.(?:float|int|uint|longdouble|bool)\w*\((?P<scalar>.+)\)"
    r"|(?:np|numpy)\.(?P<truth>True|False)_"
    r"|(?:array|tensor)\((?P<array>[^,\[\]()]+)(?:,[^()]*)?\)"
)
_NOTHING = {"''", '""', "[]", "()", "{}", "set()", "None"}


def read_score(text: str, maximum: float) -> float | None:
    """The score that the last expression of a test cell states, from its printed form.

    A number (Python's, NumPy's, or an array or tensor without dimensions) counts as itself, at least 0 and at most the
    maximum; NaN, infinities, `False` and empty values are 0; `True` is the maximum; anything else nobody knows: None.
    """
    text = text.strip()
    if match := _WRAPPED.fullmatch(text):
        text = next(part for part in match.groups() if part is not None).strip()
    if text in ("True", "False"):
        return maximum if text == "True" else 0.0
    if text in _NOTHING:
        return 0.0
    try:
        number = float(text)
    except ValueError:
        return None
    return min(max(number, 0.0), maximum) if math.isfinite(number) else 0.0


def score_of(cell: NotebookNode) -> float | None:
    """The points of an executed graded cell, or None where a person has to look.

    As nbgrader's, apart from the accidents: text on stderr costs nothing, the score is read by `read_score`, and a test
    cell that ends in an expression without a value is left to a person, because there full marks would be a guess.
    """
    if utils.is_solution(cell) or cell.cell_type != "code":
        return utils.determine_grade(cell)[0]
    if any(output.output_type == "error" for output in cell.outputs):
        return 0.0
    maximum = float(cell.metadata.nbgrader["points"])
    results = [output for output in cell.outputs if output.output_type == "execute_result"]
    if results:
        # A student can make the kernel show every expression of a cell; the score is the last.
        text = results[-1].data.get("text/plain", "")
        return read_score("".join(text), maximum)
    return None if _ends_in_an_expression(cell.source) else maximum


def _ends_in_an_expression(source: str) -> bool:
    try:
        body = ast.parse(source).body
    except SyntaxError:  # IPython's own commands
        return False
    return bool(body) and isinstance(body[-1], ast.Expr)


class SaveScores(SaveAutoGrades):
    """nbgrader's saving of grades to its gradebook, with the scores that `score_of` reads."""

    def _add_score(self, cell: NotebookNode, resources: Any) -> None:
        grade = self.gradebook.find_grade(
            cell.metadata.nbgrader["grade_id"], self.notebook_id, self.assignment_id, self.student_id
        )
        grade.auto_score = score_of(cell)
        if grade.auto_score is None and not utils.is_solution(cell):
            self.log.warning(
                "The test cell %s ended in no number: a person has to mark it", cell.metadata.nbgrader["grade_id"]
            )
        # A mark given by hand before stays, and is to be looked at again.
        grade.needs_manual_grade = grade.manual_score is not None or grade.auto_score is None
        self.gradebook.db.commit()
