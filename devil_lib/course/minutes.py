"""How long a lesson takes, measured: its running time from the sweep, its reading time from its words, its exercises.

python -m devil_lib.course.minutes [--check]

Writes the time into each lesson's `Time` row, the map in 00_start_here and README's curriculum; with --check it only says what is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

from devil_lib.course.lessons import NOTEBOOKS, ROOT
from devil_lib.lesson import SWEEP_FILE

WORDS_A_MINUTE = 200  # quiet reading of technical prose, code included
MINUTES_AN_EXERCISE = 8  # a Try it: to think, write five lines, run them and compare with the answer
_ROW = re.compile(r"^\| \*\*Time\*\* \|.*\|$", re.MULTILINE)
# A row of the map in 00_start_here, whose last column holds a lesson's minutes.
_MAP = re.compile(r'(\| \[(\w+)\]\(\2\.ipynb\) \| [^|"]* \|) [^|"]* \|')
_BEGIN, _END = "<!-- curriculum: written by `python -m devil_lib.course.minutes` -->", "<!-- end of curriculum -->"


@dataclass(frozen=True)
class Minutes:
    """Minutes for reading a lesson and for its exercises, and the seconds that its quick profile ran in the sweep."""

    read: int
    exercises: int
    seconds: float

    @property
    def total(self) -> int:
        return self.read + self.exercises + round(self.seconds / 60.0)

    @property
    def row(self) -> str:
        parts = [f"{self.read} to read"]
        parts += [f"{self.exercises} for the exercises"] if self.exercises else []
        return f"| **Time** | about {self.total} minutes: {', '.join(parts)}; the quick profile runs in {self.seconds:.0f} s (measured) |"


def measure(notebook: nbformat.NotebookNode, seconds: float) -> Minutes:
    """The times of a lesson: words of its text and code without the folded answers, exercises by their headings **A.**, **B.**"""
    text = "\n".join(cell.source for cell in notebook.cells)
    exercises = len(re.findall(r"^\*\*[A-Z]\.\*\*", text, re.MULTILINE))
    words = len(re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL).split())
    return Minutes(max(1, round(words / WORDS_A_MINUTE)), MINUTES_AN_EXERCISE * exercises, seconds)


def stated(path: Path, sweep: dict) -> tuple[str, Minutes]:
    """The lesson's notebook as it should be, and its times.

    Raises:
        ValueError: no `Time` row, or no run of this lesson in the sweep.
    """
    notebook = nbformat.read(path, as_version=4)
    runs = sweep["lessons"].get(path.stem)
    if not runs:
        raise ValueError(f"{path.stem} is not in {SWEEP_FILE.name}: run `make sweep LESSON={path.stem}` first")
    times = measure(notebook, max(run["seconds"] for run in runs.values()))
    found = [cell for cell in notebook.cells if cell.cell_type == "markdown" and _ROW.search(cell.source)]
    if not found:
        raise ValueError(f"{path.name} has no row `| **Time** | ... |` in its first cell")
    found[0].source = _ROW.sub(times.row.replace("\\", r"\\"), found[0].source, count=1)
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n", times


def curriculum(times: dict[str, Minutes], titles: dict[str, str]) -> str:
    """README's table of lessons."""
    rows = [
        f"| [{name}](notebooks/{name}.ipynb) | {titles[name]} | {one.total} | {one.seconds:.0f} s |"
        for name, one in times.items()
    ]
    total = sum(one.total for one in times.values())
    head = ["| lesson | what it shows | minutes | runs in (quick) |", "|---|---|---|---|"]
    foot = f"| | together | {total} | {sum(one.seconds for one in times.values()) / 60:.0f} min |"
    return "\n".join([_BEGIN, *head, *rows, foot, "", _END])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m devil_lib.course.minutes", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something is out of date")
    parser.add_argument("--sweep", type=Path, default=SWEEP_FILE, help="the sweep to take the running times from")
    given = parser.parse_args(arguments)
    sweep = json.loads(given.sweep.read_text(encoding="utf-8"))
    wanted: dict[Path, str] = {}
    times: dict[str, Minutes] = {}
    titles: dict[str, str] = {}
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        wanted[path], times[path.stem] = stated(path, sweep)
        heading = re.search(r"^# (?:\d+ · )?(.+)$", nbformat.read(path, as_version=4).cells[0].source, re.MULTILINE)
        titles[path.stem] = heading.group(1) if heading else path.stem
    for path, content in wanted.items():
        wanted[path] = _MAP.sub(lambda row: f"{row[1]} {times[row[2]].total} |", content)
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(_BEGIN) + ".*?" + re.escape(_END), re.DOTALL)
    wanted[readme] = pattern.sub(lambda _: curriculum(times, titles), text)
    stale = [path for path, content in wanted.items() if path.read_text(encoding="utf-8") != content]
    if not given.check:
        for path in stale:
            path.write_text(wanted[path], encoding="utf-8")
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is out of date' if given.check else 'brought up to date'}")
    return 1 if stale and given.check else 0


if __name__ == "__main__":
    sys.exit(main())
