"""Processes that grade, several submissions at a time; one that does not survive its submission costs no other one."""

from __future__ import annotations

import functools
import multiprocessing
import os
import queue
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class GraderEnded(RuntimeError):
    """The process that did a task ended in the middle of it, twice."""


def usual_jobs() -> int:
    """How many submissions to grade at a time: one for each processor, and four at most, because each takes some memory."""
    return min(os.cpu_count() or 1, 4)


class Graders:
    """Processes that do tasks and stay, so that the course each has open and the kernels it has warm serve the next task.

    ZeroMQ, through which a kernel is talked to, ends a whole process with `abort` when a socket surprises it, and memory may run
    out. So each process does one task at a time: when it ends, a new one takes the same task up, once.

    Args:
        jobs: tasks at a time.

    Raises:
        ValueError: `jobs` is below 1.
    """

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise ValueError(f"{jobs} submissions at a time cannot be graded: it has to be at least 1")
        self._threads_each = max(1, (os.cpu_count() or 1) // jobs)
        self._idle: queue.SimpleQueue[ProcessPoolExecutor] = queue.SimpleQueue()
        for _ in range(jobs):
            self._idle.put(self._process())
        self._callers = ThreadPoolExecutor(jobs)

    def run(self, tasks: Mapping[K, Callable[[], T]]) -> Iterator[tuple[K, T | GraderEnded]]:
        """Each task's key and result, as they come; a task's exceptions are raised here.

        Args:
            tasks: what can be pickled, without arguments.
        """
        running = {self._callers.submit(self._do, task): key for key, task in tasks.items()}
        try:
            for finished in as_completed(running):
                yield running[finished], finished.result()
        finally:
            for each in running:
                each.cancel()

    def close(self) -> None:
        """End the processes, after the tasks that they are at."""
        self._callers.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().shutdown()

    def _do(self, task: Callable[[], T]) -> T | GraderEnded:
        process = self._idle.get()
        try:
            for _attempt in (1, 2):
                try:
                    return process.submit(task).result()
                except BrokenProcessPool:
                    process = self._process()
            return GraderEnded("the process that graded this ended in the middle of it, twice")
        finally:
            self._idle.put(process)

    def _process(self) -> ProcessPoolExecutor:
        # New processes instead of forks: nbgrader's event loops and database connections do not survive a fork.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(1, mp_context=context, initializer=_share, initargs=(self._threads_each,))


def _share(threads: int) -> None:
    """In a new process, for the kernels that it starts: their numerical libraries would each use all processors."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


@functools.cache
def graders(jobs: int) -> Graders:
    """The processes that this process shares among all that it grades."""
    return Graders(jobs)
