"""Is everything in place? What `00_start_here` shows before anything else."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from dataclasses import dataclass

import torch

from devil_lib import data, training, zoo

DISTRIBUTION = "devil-in-the-generator"
_ROOM = 1.0  # gigabytes that data sets, checkpoints and executed lessons take at most


@dataclass(frozen=True)
class Check:
    """One thing that the lessons rely on: what was found, whether that is good, and what to do if it is not."""

    what: str
    found: str
    good: bool
    advice: str = ""

    def row(self) -> list[str]:
        """As a row of a table."""
        return [self.what, f"{'✓' if self.good else '✗'} {self.found}", "" if self.good else self.advice]


def check_environment() -> list[Check]:
    """Python, packages, threads, accelerator, shipped weights and disk, without changing or downloading anything."""
    return [*_software(), _threads(), _accelerator(), _weights(), _disk()]


def _software() -> list[Check]:
    python = Check("Python", platform.python_version(), True)
    try:
        wanted = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return [
            python,
            Check("packages", "devil_lib is not installed", False, "run `make lab` in the course's folder"),
        ]
    pins = dict(line.split("==") for line in wanted if "==" in line and ";" not in line)
    other = []
    for package, version in pins.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        # Builds of one version differ in what follows the plus sign: 2.15.0+cpu is 2.15.0.
        if found.split("+")[0] != version:
            other.append(f"{package} {found} instead of {version}")
    text = f"torch {torch.__version__}, and all {len(pins)} packages as pinned" if not other else "; ".join(other)
    return [python, Check("packages", text, not other, "run `make env`: figures may differ, or lessons fail")]


def _threads() -> Check:
    used, there = torch.get_num_threads(), os.cpu_count() or 1
    return Check("threads", f"torch uses {used} of {there} cores", used <= there, f"set OMP_NUM_THREADS={there}")


def _accelerator() -> Check:
    device = training.pick_device().type
    words = {"cpu": "none, and none is needed", "cuda": "CUDA, used to train GANs", "mps": "MPS, used to train GANs"}
    return Check("accelerator", words[device], True)


def _weights() -> Check:
    names, broken = zoo.names(), []
    for name in names:
        try:
            zoo.load(name)
        except (OSError, ValueError):
            broken.append(name)
    if broken or not names:
        return Check(
            "shipped weights", f"damaged or missing: {', '.join(broken) or 'all'}", False, "run `make weights`"
        )
    return Check("shipped weights", f"{len(names)} models, each the file that its card describes", True)


def _disk() -> Check:
    folder = data.cache_folder()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    return Check("free disk", f"{free:.1f} GB", free > _ROOM, f"free {_ROOM:.0f} GB for data sets and results")
