"""Long tables that are measured cell by cell: resumable, with the time left, on the workers of this machine or on a dask cluster.

A cell says what it measures (`name`), with what (`key`) and on what other cell's product (`base`). It is done when the table's results
file or the cache has its figures under its key. So an interrupted run goes on where it stopped, on another machine too: the
results file travels with the repository, and only a product that a missing cell needs is made anew. A cell that fails is named at
the end and costs none of the others. What a cell needs travels with it, so that workers need not share a folder with the one who
asks, only have this package and, for the cells that train on data, the data sets.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dask
import torch
from distributed import Client, Future, LocalCluster, as_completed

from devil_lib import data
from devil_lib.lesson import versions, write_json

Figures = dict[str, Any]
Product = bytes | None

PATIENCE = "20s"  # for a scheduler to answer
EVERY = 60.0  # seconds between two writings of the results file
RESULTS = Path(__file__).parent / "results"
# Dask has its workers hand memory back to the system as soon as 64 KiB are free. Training takes and frees megabytes in every step: ReD
# on the WaveGAN took 100 s of processor time so, and takes 46 s with the sizes that the allocator comes to by itself, which these are.
_KEPT_MEMORY = {"MALLOC_TRIM_THRESHOLD_": 64 * 2**20, "MALLOC_MMAP_THRESHOLD_": 32 * 2**20}


class Cell(Protocol):
    """One measurement of a table; a frozen dataclass that can be pickled.

    name: in the table, such as "image GAN/red/prior/attack". key: changes with what the figures depend on, and with nothing else;
    a ValueError says that it cannot be measured here. base: the cell on whose product this one is measured, or None.
    """

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def base(self) -> Cell | None: ...


@dataclass(frozen=True)
class Table:
    """A results file and the cells that it is made of.

    Args:
        name: of the results file, of the cache's folder and in what is printed.
        cells: every cell, in the order in which they are measured; a base before those that need it.
        measure: a module's function that takes a cell and what its base gave (figures and product, or None), and returns figures,
            plain JSON values, and a product, bytes that other cells need, or None. It is run with one thread.
        seconds: about how many seconds a cell takes, for the time left; only their ratios count.
        command: what measures the table, for messages.
    """

    name: str
    cells: Callable[[], list[Any]]
    measure: Callable[[Any, tuple[Figures, bytes] | None], tuple[Figures, Product]]
    seconds: Callable[[Any], float]
    command: str

    @property
    def results(self) -> Path:
        """The file that is published."""
        return RESULTS / f"{self.name}.json"

    @property
    def folder(self) -> Path:
        """Where the cells and their products are kept."""
        return data.cache_folder() / self.name

    def file(self, cell: Cell) -> Path:
        """A measured cell's figures."""
        return self.folder / f"{cell.key}.json"

    def product_file(self, cell: Cell) -> Path:
        """What a measured cell made for others."""
        return self.folder / f"{cell.key}.product"

    # --- Measuring ---------------------------------------------------------------------------------------------------

    def run(self, wanted: list[Any], scheduler: str | None = None, workers: int | None = None) -> dict[str, str]:
        """Measure the cells that are missing; returns the name and the error of each that failed.

        Figures are kept as soon as they come, and the results file is written every minute and at the end, also when the run is
        interrupted, so that nothing is lost but what was being measured.

        Args:
            scheduler: address of an existing dask cluster. workers: processes on this machine otherwise; one for each processor.

        Raises:
            ConnectionError: no scheduler answers at the address.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        keys, failures = self.keys(wanted)
        stored = {name: cell["key"] for name, cell in self._stored().items()}
        missing = [cell for cell in keys if not self.file(cell).is_file() and stored.get(cell.name) != keys[cell]]
        needed = dict.fromkeys(cell.base for cell in missing if cell.base is not None)
        missing = [*(base for base in needed if base not in missing and not self._is_whole(base)), *missing]
        if not missing:
            return failures
        started = written = time.monotonic()
        remaining = total = sum(map(self.seconds, missing))
        with _client(scheduler, workers or os.cpu_count() or 1) as client:
            futures: dict[Cell, Future] = {}
            held: dict[Cell, Future] = {}
            for place, cell in enumerate(missing):
                base = cell.base
                if base is not None and base not in futures and base not in held:
                    held[base] = client.scatter(self._read(base))
                on = None if base is None else futures.get(base) or held[base]
                # A worker that dies (out of memory, say) takes its cell with it once, and no others.
                futures[cell] = client.submit(
                    _measured, self.measure, cell, on, key=f"{cell.name}-{cell.key}", pure=False, retries=0, priority=-place
                )  # fmt: skip
            asked = {future: cell for cell, future in futures.items()}
            try:
                for done, future in enumerate(as_completed(futures.values()), start=1):
                    cell = asked[future]
                    try:
                        self._keep(cell, *future.result())
                        state = "done"
                    except Exception as error:
                        failures[cell.name] = f"{type(error).__name__}: {error}"
                        state = "failed"
                    remaining -= self.seconds(cell)
                    spent = time.monotonic() - started
                    left = spent * remaining / (total - remaining)
                    print(
                        f"[{done}/{len(missing)}] {cell.name} {state}: {spent:.0f} s, about {left:.0f} s left",
                        flush=True,
                    )
                    if time.monotonic() - written > EVERY:
                        self.publish()
                        written = time.monotonic()
            finally:
                self.publish()
        return failures

    def keys(self, wanted: Iterable[Any]) -> tuple[dict[Any, str], dict[str, str]]:
        """The keys of those cells that can be measured here, and of the others the name with the reason why not."""
        keys: dict[Any, str] = {}
        failures: dict[str, str] = {}
        for cell in wanted:
            try:
                keys[cell] = cell.key
            except ValueError as error:
                failures[cell.name] = str(error)
        return keys, failures

    def _is_whole(self, cell: Cell) -> bool:
        """Whether the cache has the figures of a cell and what it made."""
        return self.file(cell).is_file() and self.product_file(cell).is_file()

    def _read(self, cell: Cell) -> tuple[Figures, bytes]:
        return json.loads(self.file(cell).read_text(encoding="utf-8")), self.product_file(cell).read_bytes()

    def _keep(self, cell: Cell, figures: Figures, product: Product) -> None:
        if product is not None:
            scratch = self.product_file(cell).with_suffix(".new")
            scratch.write_bytes(product)
            os.replace(scratch, self.product_file(cell))
        write_json(self.file(cell), figures)

    # --- The results file --------------------------------------------------------------------------------------------

    def publish(self) -> Path:
        """Write the results file: what the cache has of every cell, or else what the file had under the same key."""
        before = self._stored()
        after: dict[str, Figures] = {}
        for cell, key in self.keys(self.cells())[0].items():
            if self.file(cell).is_file():
                after[cell.name] = {
                    "key": key,
                    **rounded(json.loads(self.file(cell).read_text(encoding="utf-8"))),
                }
            elif before.get(cell.name, {}).get("key") == key:
                after[cell.name] = before[cell.name]
        return write_json(self.results, {"versions": versions(), "cells": after})

    def _stored(self) -> dict[str, Figures]:
        if not self.results.is_file():
            return {}
        return json.loads(self.results.read_text(encoding="utf-8"))["cells"]

    def forget(self, wanted: Iterable[Any]) -> None:
        """Take cells out of the cache and out of the results file, so that they are measured anew."""
        wanted = list(wanted)
        for cell in self.keys(wanted)[0]:
            self.file(cell).unlink(missing_ok=True)
        if self.results.is_file():
            content = json.loads(self.results.read_text(encoding="utf-8"))
            for cell in wanted:
                content["cells"].pop(cell.name, None)
            write_json(self.results, content)

    def published(self) -> dict[Any, Figures]:
        """The figures of the results file by cell, in the order of `cells`; what is not measured yet is left out.

        Raises:
            FileNotFoundError: nothing was published; the message says how to measure it.
        """
        if not self.results.is_file():
            raise FileNotFoundError(
                f"{self.results} is missing; restore it with `git checkout` or measure it with `{self.command}`"
            )
        stored = self._stored()
        return {cell: stored[cell.name] for cell in self.cells() if cell.name in stored}

    # --- As a program ------------------------------------------------------------------------------------------------

    def serve(self, wanted: list[Any], options: argparse.Namespace) -> int:
        """Measure what is missing of these cells, as the options of `add_options` say; write the results file and name what
        failed. 0 if nothing did, 130 if it was interrupted."""
        if options.fresh:
            self.forget(wanted)
        try:
            failures = self.run(wanted, options.scheduler, options.workers)
        except KeyboardInterrupt:
            print("stopped; the next call goes on from here", flush=True)
            return 130
        path = self.publish()
        by_error: dict[str, list[str]] = defaultdict(list)
        for name, error in failures.items():
            by_error[error].append(name)
        for error, names in by_error.items():
            print(f"failed: {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {error}", flush=True)
        print(f"wrote {path.name}: {len(self.published())} of {len(self.cells())} cells", flush=True)
        return 1 if failures else 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that measuring takes, whatever the table."""
    parser.add_argument(
        "--scheduler", default=os.environ.get("SCHEDULER"), help="address of an existing dask cluster"
    )
    parser.add_argument("--workers", type=int, default=None, help="processes on this machine, one thread each")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured of these before")


def digest(parts: list[Any]) -> str:
    """12 hex digits that change with any of these plain JSON values: what a cell's key is made with."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def rounded(figures: Figures) -> Figures:
    """To four digits, as many as mean anything."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in figures.items()}


def _measured(
    measure: Callable[..., tuple[Figures, Product]], cell: Cell, base: tuple[Figures, bytes] | None
) -> tuple[Figures, Product]:
    torch.set_num_threads(1)  # two processes with two threads each slow each other down tenfold
    return measure(cell, base)


@contextmanager
def _client(scheduler: str | None, workers: int) -> Iterator[Client]:
    """A connection to the cluster at `scheduler`, or to one of this machine that is ended afterwards."""
    if scheduler:
        try:
            client = Client(scheduler, timeout=PATIENCE)
        except (OSError, TimeoutError, ValueError) as error:
            raise ConnectionError(
                f"no scheduler answers at {scheduler} ({error}); start one with `dask scheduler` and workers with "
                "`dask worker`, or leave SCHEDULER unset to use this machine"
            ) from error
        with client:
            yield client
        return
    # In a folder of its own, since nothing of it is needed after; the page on which dask shows its work goes to any free port, for
    # the usual one may be taken by another run.
    # On a machine that others use as well, a worker may be silent for minutes and be none the worse for it.
    with (
        dask.config.set(
            {
                "distributed.comm.timeouts.connect": "120s",
                "distributed.comm.timeouts.tcp": "600s",
                **{f"distributed.nanny.pre-spawn-environ.{name}": size for name, size in _KEPT_MEMORY.items()},
            }
        ),
        tempfile.TemporaryDirectory() as scratch,
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0", local_directory=scratch
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
