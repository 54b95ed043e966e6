"""What a lesson uses to state its figures: a value for the profile, a figure, a figure with a bar, a results file."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TypeVar

PROFILES = ("quick", "lab", "full")
SWEEP_FILE = Path(__file__).parent / "results" / "sweep.json"
ANY_DATA = "any"  # what the sweep calls the data set of a lesson that reads none
_VERSIONS_OF = ("torch", "torchvision", "numpy", "scipy", "scikit-learn")

T = TypeVar("T")


def default_results_path(lesson: str) -> Path:
    """build/results/<lesson>.json at the repository's root, or in the current folder if the package is installed
    without its repository."""
    root = Path(__file__).resolve().parents[1]
    return (root if (root / "pyproject.toml").is_file() else Path.cwd()) / "build" / "results" / f"{lesson}.json"


def versions() -> dict[str, str]:
    """The versions that a figure depends on, by package name."""
    found = {"python": platform.python_version()}
    for package in _VERSIONS_OF:
        found[package] = importlib.metadata.version(package)
    return found


def write_json(path: str | Path, content: Any) -> Path:
    """Write JSON to a neighbouring file and rename it, so that no reader ever sees half of it.

    Raises:
        ValueError: a NaN or an infinity among the values.
        OSError: the folder cannot be made or written to, or the disk is full; nothing is left behind.
    """
    path = Path(path)
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"could not write {path} ({error.strerror}): free some disk space or name a folder you may write to",
        ) from error
    return path


def holds(value: float, below: float | None, above: float | None) -> bool:
    """Whether a figure is finite and strictly inside its bounds; this is the only place where a bar is compared."""
    return math.isfinite(value) and (below is None or value < below) and (above is None or value > above)


def bar_text(below: float | None, above: float | None) -> str:
    """The bar in words: "above 0.4", "below 1", "above 0.4 and below 1"."""
    return " and ".join(f"{word} {at:g}" for word, at in (("above", above), ("below", below)) if at is not None)


class Lesson:
    """The figures of one run of a lesson.

    Args:
        name: the notebook's name without its ending, "22_red".
        profile: "quick" (tests), "lab" (JupyterLab) or "full" (the papers' setting).
        seed: the lesson's seed, an integer >= 0.
        data: the data set asked for, as in the parameters cell; `uses` notes which one "auto" became.
        results: path of the JSON results file; "" is build/results/<name>.json at the repository's root.

    Raises:
        ValueError: an unknown profile, a seed below 0, an empty name or data set, a folder for the results file.
    """

    def __init__(self, name: str, profile: str = "lab", seed: int = 0, data: str = "auto", results: str = "") -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"lesson name {name!r}: give the notebook's name without its ending, such as '22_red'")
        if profile not in PROFILES:
            raise ValueError(f"unknown PROFILE {profile!r}: choose one of {', '.join(PROFILES)}")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"SEED is {seed!r}: give an integer of 0 or more")
        if not isinstance(data, str) or not data:
            raise ValueError(f"DATA is {data!r}: give a data set's name, such as 'auto'")
        self.name, self.profile, self.seed, self.data = name, profile, seed, data
        self.path = Path(results).expanduser() if results else default_results_path(name)
        if self.path.is_dir():  # else the run would be over before it is noticed
            raise ValueError(
                f"RESULTS is {results!r}, a folder: give a file in it, such as '{self.path / name}.json'"
            )
        self.claims: dict[str, dict[str, float | None]] = {}
        self.figures: dict[str, float] = {}
        self._written_in: dict[str, str | None] = {}
        self._finished = False
        self._start = time.perf_counter()

    def choose(self, *, quick: T, lab: T, full: T) -> T:
        """The value for this run's profile."""
        return {"quick": quick, "lab": lab, "full": full}[self.profile]

    def uses(self, dataset: Any) -> Any:
        """Note which data set the lesson took (an object with a `name`, or the name) and hand it back."""
        self.data = dataset if isinstance(dataset, str) else dataset.name
        return dataset

    def record(self, name: str, value: Any) -> None:
        """State a figure without a bar: it is printed and stands in the results file.

        Raises:
            TypeError: not a single number. ValueError: not finite, or a name used before.
        """
        number = self._accept(name, value)
        self.figures[name] = number
        print(f"{name}: {number:.4g}")

    def claim(self, name: str, value: Any, *, below: float | None = None, above: float | None = None) -> None:
        """State a figure with a bar: prints the figure, the bar and the stored seed sweep; strictly below/above.

        The figure stands in the results file even if the bar is missed. With DEVIL_CLAIMS=measure in the
        environment (the seed sweep sets it) a missed bar is only printed, so that one bad seed does not hide the
        figures after it.

        Raises:
            AssertionError: the bar is missed. TypeError: not a single number, or a bound that is none.
            ValueError: not finite, no bound, a bound that is not finite, bounds that exclude every value, or a name used before.
        """
        if below is None and above is None:
            raise ValueError(f"claim {name!r} has no bar: give below=, above= or both, or use record()")
        low, high = (None if bound is None else _number(f"the bar of {name}", bound) for bound in (above, below))
        if not all(math.isfinite(bound) for bound in (low, high) if bound is not None):
            raise ValueError(f"claim {name!r}: a bar is a finite number")
        if low is not None and high is not None and low >= high:
            raise ValueError(f"claim {name!r}: no figure is above {low:g} and below {high:g}")
        number = self._accept(name, value)
        self.claims[name] = {"value": number, "below": high, "above": low}
        bar = bar_text(high, low)
        held = holds(number, high, low)
        print(f"{'✓' if held else '✗'} {name}: {number:.4g}  [bar: {bar}{self._stored(name)}]")
        if not held and os.environ.get("DEVIL_CLAIMS") != "measure":
            self._write()
            raise AssertionError(f"{self.name}: {name} is {number:.6g}, and the lesson claims {bar}")

    def finish(self) -> Path:
        """Write the results file and say where it is.

        Raises:
            OSError: the file cannot be written (full disk, no permission).
        """
        path = self._write()
        self._finished = True
        print(f"{len(self.claims)} claims and {len(self.figures)} further figures written to {path.name}")
        return path

    # --- Internals ---------------------------------------------------------------------------------------------

    def _accept(self, name: str, value: Any) -> float:
        if not isinstance(name, str) or not name.strip() or "\n" in name:
            raise ValueError(f"a figure needs a name of one line, not {name!r}")
        cell = _current_cell()
        # A learner may run a cell twice; the second run replaces the first. Two cells may not share a name.
        rerun = cell is not None and self._written_in.get(name) == cell
        if name in self._written_in and not rerun:
            raise ValueError(f"the figure {name!r} was stated before: every figure needs its own name")
        if self._finished and cell is None:
            raise ValueError(f"the figure {name!r} comes after finish(), so no results file would hold it")
        number = _number(name, value)
        if not math.isfinite(number):
            raise ValueError(f"the figure {name!r} is {number}: only finite numbers can be stated")
        self._written_in[name] = cell
        self.claims.pop(name, None)
        self.figures.pop(name, None)
        return number

    def _stored(self, name: str) -> str:
        try:
            stored = json.loads(SWEEP_FILE.read_text(encoding="utf-8"))["lessons"][self.name]
        except (FileNotFoundError, KeyError):
            return ""
        # The sweep of the same data set where there is one; its name is printed, so nothing is mistaken for it.
        for data in dict.fromkeys((self.data, *stored)):
            entry = stored.get(data, {}).get("claims", {}).get(name)
            if entry:
                on = "" if data == ANY_DATA else f" on {data}"
                seeds = f"{len(entry['values'])} seeds"
                return f"; stored sweep{on}: mean {entry['mean']:.3g}, worst {entry['worst']:.3g} of {seeds}"
        return ""

    def _write(self) -> Path:
        return write_json(
            self.path,
            {
                "lesson": self.name,
                "profile": self.profile,
                "seed": self.seed,
                "data": self.data,
                "claims": self.claims,
                "figures": self.figures,
                "seconds": round(time.perf_counter() - self._start, 2),
                "versions": versions(),
            },
        )


def _number(name: str, value: Any) -> float:
    """A single real number as a float: Python's, NumPy's, or an array or tensor with one element."""
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "size", None) is not None:
        try:
            value = item()
        except (ValueError, RuntimeError) as error:
            raise TypeError(f"the figure {name!r} is an array: take its mean, or state each number") from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"the figure {name!r} is {value!r}: give a single number (for a yes or no, state a count)")
    return float(value)


def _current_cell() -> str | None:
    """The id of the notebook cell that is being run, where the front end tells it (JupyterLab does)."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    parent = getattr(shell, "get_parent", dict)()
    return parent.get("metadata", {}).get("cellId")
