"""The checker: a lesson passes if it runs, leaves figures, and every claim is finite and inside its own bounds."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from devil_lib.course.execute import run_notebook
from devil_lib.course.lessons import LessonError, check_parameters, read_lesson
from devil_lib.lesson import bar_text, holds

Kind = Literal[
    "parameters", "error", "timeout", "kernel", "no results", "no claims", "not finite", "out of bounds", "page"
]
TIMEOUTS = {"quick": 600.0, "lab": 3600.0, "full": 7 * 24 * 3600.0}


@dataclass(frozen=True)
class Problem:
    """Why a lesson did not pass: the kind of reason, and a sentence."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class Report:
    """The outcome of one lesson: its problems (none if it passed), seconds, results file's content (None if there is
    none) and the path of the executed notebook."""

    lesson: str
    problems: tuple[Problem, ...]
    seconds: float
    results: dict[str, Any] | None
    executed: Path

    @property
    def passed(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        return f"{self.lesson}: {'passed' if self.passed else '; '.join(map(str, self.problems))}"


def check_notebook(
    path: str | Path,
    profile: str = "quick",
    parameters: Mapping[str, Any] | None = None,
    out_dir: str | Path = "build/check",
    timeout: float | None = None,
    *,
    threads: int = 2,
    environment: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Run a lesson and check what it leaves.

    Args:
        path: the notebook.
        profile: "quick", "lab" or "full".
        parameters: further values for the parameters cell (SEED, DATA); unknown names are a problem, not a warning.
        out_dir: receives <lesson>.ipynb (executed) and <lesson>.json (results).
        timeout: seconds for each cell and the whole lesson; None takes the profile's own.
        threads: threads of the kernel's numerical libraries.
        environment: further environment variables of the kernel.
        stop: set from another thread, it ends the run.

    Raises:
        ValueError: an unknown profile. FileNotFoundError: no such notebook.
    """
    if profile not in TIMEOUTS:
        raise ValueError(f"unknown profile {profile!r}: choose one of {', '.join(TIMEOUTS)}")
    path, out_dir = Path(path), Path(out_dir).resolve()
    out_dir.mkdir(parents=True, exist_ok=True)
    executed, results_path = out_dir / path.name, out_dir / f"{path.stem}.json"
    # An earlier run's file must not stand in for one that this run does not write.
    results_path.unlink(missing_ok=True)
    executed.unlink(missing_ok=True)

    # Relative, so that the executed notebook shows no path of this machine.
    relative = Path(os.path.relpath(results_path, path.resolve().parent)).as_posix()
    given = {"PROFILE": profile, "RESULTS": relative, **(parameters or {})}
    try:
        check_parameters(read_lesson(path), given)
    except LessonError as error:
        return Report(path.stem, (Problem("parameters", str(error)),), 0.0, None, executed)

    limit = TIMEOUTS[profile] if timeout is None else timeout
    execution = run_notebook(
        path, executed, given, timeout=limit, threads=threads, environment=environment, stop=stop
    )
    problems: list[Problem] = []
    if execution.outcome != "passed":
        problems.append(Problem(execution.outcome, execution.message))
    results, found = check_results(results_path)
    # A lesson that stopped half-way has no complete file; that is a consequence, not a second reason.
    problems += [problem for problem in found if execution.outcome == "passed" or problem.kind == "out of bounds"]
    return Report(path.stem, tuple(problems), execution.seconds, results, executed)


def check_results(path: Path) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Read a results file and hold every claim against its own bounds, without trusting the notebook that wrote it."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        claims, figures = results["claims"], results["figures"]
    except FileNotFoundError:
        return None, [Problem("no results", "the lesson wrote no results file: it must end with lesson.finish()")]
    except (ValueError, KeyError, TypeError) as error:
        return None, [Problem("no results", f"the results file cannot be read: {error!r}")]
    problems = [] if claims else [Problem("no claims", "the lesson states no figure with a bar")]
    for name, figure in figures.items():
        if not _finite(figure):
            problems.append(Problem("not finite", f"{name} is {figure}"))
    for name, claim in claims.items():
        value, below, above = claim.get("value"), claim.get("below"), claim.get("above")
        if not _finite(value):
            problems.append(Problem("not finite", f"{name} is {value}"))
        elif below is None and above is None:
            problems.append(Problem("no claims", f"{name} has no bar"))
        elif not holds(value, below, above):
            text = f"{name} is {value:.6g}, and the bar is {bar_text(below, above)}"
            problems.append(Problem("out of bounds", text))
    return results, problems


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and holds(value, None, None)
