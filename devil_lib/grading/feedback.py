"""Feedback pages without hidden tests: not in cells, nor in a traceback, nor where a student's code printed them."""

from __future__ import annotations

import glob
import html
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nbconvert.filters import strip_ansi
from nbformat import NotebookNode
from nbgrader import utils
from nbgrader.exchange.default import ExchangeReleaseFeedback
from nbgrader.preprocessors import ClearHiddenTests
from traitlets import Integer

from devil_lib.grading.doctor import RECORD
from devil_lib.grading.execute import LOST

# Errors whose words are the student's own or the grader's, and cannot carry a hidden value.
_HARMLESS = {"NameError", "CellTimeoutError", "NotImplementedError", LOST}
INSTEAD = "(a line of a hidden test was here)"


class HideTests(ClearHiddenTests):
    """Takes the hidden tests out of an autograded notebook: out of their cells, and of every output that quotes one.

    An error in a hidden test keeps its name alone: a traceback quotes the test, and "7 is not 12" its values.
    """

    shortest = Integer(
        6, help="A hidden line with fewer characters, such as `)`, says nothing and may stand anywhere."
    ).tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        hidden = {id(cell): self._hidden_lines(cell.source) if _is_test(cell) else [] for cell in nb.cells}
        secrets = {line for lines in hidden.values() for line in lines if len(line) >= self.shortest}
        nb, resources = super().preprocess(nb, resources)
        for cell in nb.cells:
            for output in cell.get("outputs", ()):
                if output.output_type == "error" and hidden[id(cell)]:
                    _name_alone(output)
                _drop_lines(output, secrets)
        return nb, resources

    def preprocess_cell(self, cell: NotebookNode, resources: Any, cell_index: int) -> tuple[NotebookNode, Any]:
        # The marks of hidden tests in a student's own cell hide nothing, and must not end the feedback.
        return super().preprocess_cell(cell, resources, cell_index) if _is_test(cell) else (cell, resources)

    def _hidden_lines(self, source: str) -> list[str]:
        inside, found = False, []
        for line in source.split("\n"):
            if self.begin_test_delimeter in line:
                inside = True
            elif self.end_test_delimeter in line:
                inside = False
            elif inside and line.strip():
                found.append(_plain(line))
        return found


def _is_test(cell: NotebookNode) -> bool:
    return utils.is_grade(cell) and not utils.is_solution(cell)


def _name_alone(output: NotebookNode) -> None:
    if output.ename not in _HARMLESS:
        output.evalue = "in a hidden test"
    output.traceback = [f"{output.ename}: {output.evalue}"]


def _drop_lines(output: NotebookNode, secrets: Iterable[str]) -> None:
    """Replace each line of an output's text that quotes a secret."""

    def clean(text: Any) -> Any:
        if isinstance(text, list):
            return [clean(part) for part in text]
        if not isinstance(text, str) or not any(secret in _plain(text) for secret in secrets):
            return text
        lines = [INSTEAD if any(secret in _plain(line) for secret in secrets) else line for line in text.split("\n")]
        # A representation has its line ends written out, so that the whole text is one line.
        return "\n".join(lines)

    for key in ("text", "evalue", "traceback"):
        if key in output:
            output[key] = clean(output[key])
    for kind, text in output.get("data", {}).items():
        if kind.startswith("text/") or kind.endswith(("+xml", "javascript")):
            output.data[kind] = clean(text)


class ReleaseFeedback(ExchangeReleaseFeedback):
    """nbgrader's release of feedback, which also reaches a student whose notebook has a name of its own.

    A student's nbgrader asks for the feedback of the file that it submitted, and finds none if the doctor renamed it.
    """

    def copy_files(self) -> None:
        for record in map(Path, glob.glob(str(Path(self.src_path) / RECORD))):
            for name, own in json.loads(record.read_text(encoding="utf-8"))["renamed"].items():
                page = record.with_name(f"{name}.html")
                if page.is_file():
                    shutil.copyfile(page, page.with_name(f"{own}.html"))
        super().copy_files()


def _plain(text: str) -> str:
    """The text without colours, entities and white space, in which an editor or a page may differ from the source."""
    without_tags = re.sub(r"</?(?:span|b|i|em|strong|code|pre)\b[^>]*>", "", strip_ansi(text))
    return re.sub(r"\s+", "", html.unescape(without_tags))
