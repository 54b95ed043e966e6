"""Tasks for the processes that grade, in a file that is quickly imported by each of them."""

import os
import time
from pathlib import Path


class Task:
    """Notes in a folder that it was taken up, and aborts its process as often as told."""

    def __init__(self, folder: Path, name: str, deaths: int = 0) -> None:
        self.folder, self.name, self.deaths = folder, name, deaths

    def __call__(self) -> tuple[str, int, str | None]:
        (self.folder / f"{self.name} {time.monotonic_ns()}").touch()
        if len(list(self.folder.glob(f"{self.name} *"))) <= self.deaths:
            os.abort()
        return self.name, os.getpid(), os.environ.get("OMP_NUM_THREADS")


def raise_key_error() -> None:
    raise KeyError("a task's own")
