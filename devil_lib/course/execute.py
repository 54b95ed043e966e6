"""Running one notebook through papermill in a process of its own, which can be ended whatever the kernel does.

python -m devil_lib.course.execute JOB.json     (called by `run_notebook`, not by hand)
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from traitlets.config import Config

Outcome = Literal["passed", "error", "timeout", "kernel"]
START_TIMEOUT = 120


@dataclass(frozen=True)
class Execution:
    """How a notebook's run ended: "passed", "error" (a cell raised), "timeout" or "kernel" (no kernel came up, or it
    died); the message for people, and the seconds it took."""

    outcome: Outcome
    message: str
    seconds: float


def run_notebook(
    notebook: Path,
    executed: Path,
    parameters: Mapping[str, Any],
    *,
    timeout: float,
    threads: int = 2,
    environment: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Execution:
    """Run a notebook and leave the executed copy; a kernel that does not start is tried once more.

    Args:
        notebook: the source, run in its own folder as JupyterLab does.
        executed: path of the executed copy (also left, with the error in it, when a cell raises).
        parameters: values for the parameters cell, checked by the caller.
        timeout: seconds, for each cell and (with two kernel starts on top) for the whole notebook.
        threads: threads that the kernel's numerical libraries may use.
        environment: further environment variables of the kernel.
        stop: set from another thread, it ends the run within a second.
    """
    executed.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    for attempt in (1, 2):
        report, started = _run_once(notebook, executed, parameters, timeout, threads, environment or {}, stop)
        if report.outcome != "kernel" or started or attempt == 2:
            break
    return Execution(report.outcome, report.message, time.perf_counter() - start)


def _run_once(
    notebook: Path,
    executed: Path,
    parameters: Mapping[str, Any],
    timeout: float,
    threads: int,
    environment: Mapping[str, str],
    stop: threading.Event | None,
) -> tuple[Execution, bool]:
    """One attempt; also whether a cell was completed, after which a second attempt would only hide a fault."""
    executed.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="devil-run-") as folder:
        job, answer = Path(folder) / "job.json", Path(folder) / "answer.json"
        job.write_text(
            json.dumps(
                {
                    "notebook": str(notebook.resolve()),
                    "executed": str(executed.resolve()),
                    "parameters": dict(parameters),
                    "timeout": timeout,
                    "answer": str(answer),
                }
            )
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "devil_lib.course.execute", str(job)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # Numerical libraries read these once, when they are loaded: only the environment comes early enough.
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **environment},
            start_new_session=True,
        )
        deadline = time.monotonic() + timeout + 2 * START_TIMEOUT
        errors = None
        try:
            while errors is None:
                if stop and stop.is_set():
                    return Execution("kernel", "the run was ended", 0.0), True
                if time.monotonic() > deadline:
                    return Execution("timeout", f"the lesson ran longer than {timeout:g} s", 0.0), True
                with contextlib.suppress(subprocess.TimeoutExpired):
                    errors = process.communicate(timeout=0.5)[1]
        finally:
            end_process_tree(process.pid)
        if not answer.is_file():
            return Execution("kernel", f"the run ended without an answer: {errors.strip()[-500:]}", 0.0), False
        content = json.loads(answer.read_text())
    return Execution(content["outcome"], content["message"], 0.0), content["started"]


def end_process_tree(pid: int) -> None:
    """End a process and all that it started; a kernel has a session of its own, so signals to a group miss it."""
    try:
        parent = psutil.Process(pid)
        processes = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def _main(job: dict[str, Any]) -> dict[str, Any]:
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    from devil_lib.course.kernel import kernel_settings

    executed, timeout = Path(job["executed"]), job["timeout"]

    def answer(outcome: Outcome, message: str = "") -> dict[str, Any]:
        return {"outcome": outcome, "message": message, "started": _any_cell_done(executed)}

    try:
        papermill.execute_notebook(
            job["notebook"],
            executed,
            parameters=job["parameters"],
            kernel_name="python3",
            progress_bar=False,
            cwd=str(Path(job["notebook"]).parent),
            start_timeout=START_TIMEOUT,
            execution_timeout=timeout,
            config=Config({"KernelManager": kernel_settings(Path(job["answer"]).parent)}),
        )
    except papermill.PapermillExecutionError as error:
        return answer("error", f"cell [{error.exec_count}]: {error.ename}: {error.evalue}")
    except CellTimeoutError:
        return answer("timeout", f"a cell ran longer than {timeout:g} s")
    except DeadKernelError:
        return answer("kernel", "the kernel died (often: not enough memory)")
    except RuntimeError as error:
        return answer("kernel", f"the kernel did not start: {error}")
    return answer("passed")


def _any_cell_done(executed: Path) -> bool:
    if not executed.is_file():
        return False
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    # Papermill calls every cell "completed" in the end, also those it never came to; only a run has a duration.
    durations = (
        cell["metadata"].get("papermill", {}).get("duration") for cell in cells if cell["cell_type"] == "code"
    )
    return any(duration is not None for duration in durations)


if __name__ == "__main__":
    _job = json.loads(Path(sys.argv[1]).read_text())
    Path(_job["answer"]).write_text(json.dumps(_main(_job)))
