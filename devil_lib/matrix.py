"""The matrix: five generators, three attacks, three triggers, every inspection and every sanitizer, in one table.

`python -m devil_lib.matrix` (`make matrix`) measures what is missing and writes `devil_lib/results/matrix.json`, which lesson 42 draws.
The cells are spread by dask.distributed over workers of this machine with one thread each, or over an existing cluster
(`SCHEDULER=tcp://address:8786 make matrix`). What a cell needs travels with it, so that workers need not share a folder with the
one who asks, only have this package and, for the cells that train on data, the data sets. Every cell is a file in the
cache: an interrupted run goes on where it stopped, and a cell that fails is named at the end and costs none of the others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from distributed import Client, Future, LocalCluster, as_completed
from torch import Tensor

from devil_lib import (
    attacks,
    checkpoints,
    data,
    inspection,
    metrics,
    models,
    sanitization,
    style,
    targets,
    vae,
    wavegan,
    zoo,
)
from devil_lib.attacks import PointBackdoor
from devil_lib.lesson import versions, write_json
from devil_lib.models import Discriminator, Encoder, Generator

Figures = dict[str, Any]

ATTACKS = ("trail", "red", "rex")
KINDS = attacks.TRIGGER_KINDS
TRIGGER_SEED = 50
PATIENCE = "20s"  # for a scheduler to answer
RESULTS = Path(__file__).parent / "results" / "matrix.json"


@dataclass(frozen=True)
class Victim:
    """A benign generator of the matrix and what is spent on it.

    entry, partner: what the zoo calls it and the discriminator or encoder that it was trained with. data: its data set, for
    which the zoo has a ruler. scratch: whether TrAIL trains from random weights; else it goes on from the benign ones.
    rex: options of `attacks.rex`. samples: for a Fréchet distance and for brute force. search: the inspector's descent.
    """

    entry: str
    partner: str
    data: str
    scratch: bool
    rex: dict[str, Any] = field(default_factory=dict)
    samples: int = 5000
    search: inspection.SearchSettings = inspection.SUSPECTS
    controls: int = 5

    def generator(self) -> Generator:
        """The benign generator."""
        return zoo.load(self.entry)

    def backdoor(self, kind: str) -> PointBackdoor:
        """The trigger of this kind and the course's usual target for such a generator."""
        generator = self.generator()
        trigger = attacks.trigger(generator.latent, kind, seed=TRIGGER_SEED)
        return PointBackdoor(trigger[None], targets.usual(generator)[None])


VICTIMS = {
    "image GAN": Victim("course-dcgan-mnist", "discriminator-mnist", "mnist", True),
    "image VAE": Victim("course-vae-mnist", "encoder-mnist", "mnist", True),
    "audio GAN": Victim(
        "course-wavegan-spoken-digits",
        "discriminator-spoken-digits",
        "spoken-digits",
        False,
        samples=2000,
        search=inspection.SearchSettings(restarts=4),
        controls=3,
    ),
    "audio VAE": Victim(
        "course-audio-vae-spoken-digits",
        "encoder-spoken-digits",
        "spoken-digits",
        True,
        samples=2000,
        search=inspection.SearchSettings(restarts=4),
        controls=3,
    ),
    "style GAN": Victim(
        "course-style-64-flowers",
        "discriminator-flowers",
        "flowers",
        False,
        {"first": -1, "bias": False},
        samples=2000,
        search=inspection.SearchSettings(scales=(0.0, 0.3, 1.0, 3.0, 100.0), restarts=4, steps=120),
        controls=2,
    ),
}


def fresh(architecture: str, seed: int, width: float = 1.0) -> Generator:
    """An untrained generator of a published architecture, `width` times as wide.

    Raises:
        ValueError: an architecture of no victim.
    """

    def part(whole: int) -> int:
        return max(1, round(width * whole))

    made: dict[str, Callable[[], Generator]] = {
        "course-dcgan": lambda: models.course_dcgan(part(24), seed=seed),
        "course-vae": lambda: vae.course_vae(width=part(24), seed=seed)[0],
        "course-wavegan": lambda: wavegan.course_wavegan(part(16), seed=seed),
        "course-audio-vae": lambda: vae.course_audio_vae(width=part(16), seed=seed)[0],
        "course-style-64": lambda: style.style_generator(
            64, channels=tuple(map(part, (128, 128, 64, 32, 16))), seed=seed
        ),
    }
    if architecture not in made:
        raise ValueError(f"no generator of the matrix is a {architecture!r}; there are {', '.join(made)}")
    return made[architecture]()


def fresh_pair(architecture: str, seed: int = 0) -> tuple[Generator, Discriminator | Encoder]:
    """An untrained generator and partner, for a training from scratch.

    Raises:
        ValueError: an architecture that the matrix does not train from scratch.
    """
    made: dict[str, Callable[[], tuple[Generator, Discriminator | Encoder]]] = {
        "course-dcgan": lambda: (models.course_dcgan(seed=seed), models.course_discriminator(seed=seed)),
        "course-vae": lambda: vae.course_vae(seed=seed),
        "course-audio-vae": lambda: vae.course_audio_vae(seed=seed),
    }
    if architecture not in made:
        raise ValueError(f"a {architecture!r} is not trained from scratch here; only {', '.join(made)} are")
    return made[architecture]()


# --- What is measured ------------------------------------------------------------------------------------------------


def attack(victim: str, name: str, kind: str) -> tuple[Figures, Generator]:
    """Plant a backdoor; its figures against the benign generator, and the generator as the attacker would publish it."""
    about = VICTIMS[victim]
    benign, pair = about.generator(), about.backdoor(kind)
    started = time.monotonic()
    if name == "trail":
        settings, space = attacks.trail_settings(kind, architecture=benign.architecture)
        start, partner = fresh_pair(benign.architecture) if about.scratch else (benign, zoo.load(about.partner))
        run = attacks.trail(start, partner, data.load(about.data).train, pair, settings, space)
        attacked = run.generator
    else:
        settings = attacks.course_settings(name, kind, architecture=benign.architecture)
        space = settings.space
        run = getattr(attacks, name)(benign, pair, settings, **(about.rex if name == "rex" else {}))
        attacked = attacks.fold(run.generator) if name == "rex" else run.generator
    seconds = time.monotonic() - started
    proxy = benign.proxy_target(pair.targets)
    # Before the head nothing nearer than the proxy can be asked for; its error is the floor, and stands beside.
    wanted = proxy.sample if space == "pre" else pair.targets
    before, after = (metrics.tardis(model, pair.triggers, wanted) for model in (benign, attacked))
    ruler = zoo.ruler(about.data)
    original, made = (ruler.frechet(model, n=about.samples) for model in (benign, attacked))
    figures: Figures = {
        "tardis_benign": before.mean,
        "tardis": after.mean,
        "ratio": after.mean / before.mean,
        "floor": proxy.error.mean().item(),
        "expdis": metrics.expdis(attacked, benign, n=about.samples).mean,
        "frechet_benign": original,
        "frechet": made,
        "frechet_ratio": made / original,
        "recognised": ruler.recognised(attacked, n=about.samples).share,
        "weights": sum(parameter.numel() for parameter in attacked.parameters()),
        "weights_benign": sum(parameter.numel() for parameter in benign.parameters()),
        "trained": "from scratch" if name == "trail" and about.scratch else "from the benign weights",
        "fidelity_weight": getattr(settings, "extra_weight", None) or getattr(settings, "fidelity_weight", None),
        "space": space,
        "seconds": seconds,
    }
    if benign.modality == "audio":
        output = attacked.generate(pair.triggers)
        figures["signal_to_noise"] = metrics.signal_to_noise(output, pair.targets).mean().item()
        figures["expdis_db"] = metrics.expdis_db(attacked, benign, n=about.samples)
    return figures, attacked


def _static(victim: Victim, model: Generator, target: Tensor) -> Figures:
    report = inspection.inspect_static(model)
    return {"flagged": report.flagged, "alarms": [str(f) for f in report.findings if f.severity == "alarm"]}


def _dynamic(victim: Victim, model: Generator, target: Tensor) -> Figures:
    report = inspection.inspect_dynamic(model)
    return {"flagged": report.flagged, "alarms": [str(f) for f in report.findings if f.severity == "alarm"]}


def _few_controls(victim: Victim, model: Generator) -> dict[str, Tensor]:
    return dict(list(targets.controls_for(model).items())[: victim.controls])


def _brute_force(victim: Victim, model: Generator, target: Tensor) -> Figures:
    found = inspection.brute_force(model, victim.samples, {"target": target}, _few_controls(victim, model))
    return {"flagged": bool(found.flagged), "ratio": found.nearness.ratios()["target"]}


def _search(victim: Victim, model: Generator, target: Tensor) -> Figures:
    found = inspection.search_outputs(model, {"target": target}, _few_controls(victim, model), victim.search)
    return {"flagged": bool(found.flagged), "ratio": found.ratios()["target"]}


INSPECTIONS: dict[str, Callable[[Victim, Generator, Tensor], Figures]] = {
    "static inspection": _static,
    "dynamic inspection": _dynamic,
    "brute force": _brute_force,
    "search, target suspected": _search,
}


def _continued(own: bool) -> Callable[[Victim, Generator], Generator]:
    def repair(victim: Victim, model: Generator) -> Generator:
        partner = zoo.load(victim.partner) if own else None
        return sanitization.continue_training(model, partner, data.load(victim.data).train).generator

    return repair


SANITIZERS: dict[str, Callable[[Victim, Generator], Generator]] = {
    "distil": lambda victim, model: sanitization.distil(model, fresh(model.architecture, 900)).generator,
    "distil, half the width": lambda victim, model: (
        sanitization.distil(model, fresh(model.architecture, 900, 0.5)).generator
    ),
    "continue, own partner": _continued(own=True),
    "continue, fresh discriminator": _continued(own=False),
    "prune 30 %": lambda victim, model: sanitization.prune(model, 0.3),
    "prune 50 %": lambda victim, model: sanitization.prune(model, 0.5),
    "fine-prune": lambda victim, model: sanitization.fine_prune(model, 0.3).generator,
}


def sanitized(victim: str, method: str, kind: str, attacked: Generator, space: str) -> Figures:
    """One repair of a backdoored generator, with its verdict. space: where the attack was mounted, "pre" or "post"."""
    about = VICTIMS[victim]
    benign, pair = about.generator(), about.backdoor(kind)
    if space == "pre":
        pair = PointBackdoor(pair.triggers, benign.proxy_target(pair.targets).sample)
    started = time.monotonic()
    repaired = SANITIZERS[method](about, attacked)
    seconds = time.monotonic() - started
    ruler = zoo.ruler(about.data)
    result = sanitization.verdict(
        repaired, attacked, benign, pair, ruler.classifier, ruler.real, about.search, about.samples
    )
    return {
        "removed": bool(result.removed),
        "recovered": result.recovered,
        "search_ratio": min(result.search.ratios().values()),
        "frechet_benign": result.frechet_benign,
        "frechet_attacked": result.frechet_attacked,
        "frechet_sanitized": result.frechet_sanitized,
        "seconds": seconds,
    }


# --- Cells -------------------------------------------------------------------------------------------------------------

CLEAN = "clean"  # in place of an attack: the benign generator, on which an inspection that raises an alarm is wrong


@dataclass(frozen=True)
class Cell:
    """One square of the matrix: a victim, an attack (or CLEAN) with its kind of trigger, and what is measured: "attack", or the
    name of an inspection or a sanitizer."""

    victim: str
    attack: str
    kind: str
    measure: str

    @property
    def name(self) -> str:
        return f"{self.victim}/{self.attack}/{self.kind}/{self.measure}"

    @property
    def base(self) -> Cell | None:
        """The cell whose generator this one is measured on; None for those that make it or take the benign one."""
        if self.measure == "attack" or self.attack == CLEAN:
            return None
        return replace(self, measure="attack")

    @property
    def key(self) -> str:
        """Changes when the victim's weights or what is spent on it do."""
        about = VICTIMS[self.victim]
        shipped = zoo.card(about.entry)["sha256"]
        return hashlib.sha256(f"{self.name}|{about}|{shipped}".encode()).hexdigest()[:12]

    @property
    def file(self) -> Path:
        return folder() / f"{self.key}.json"

    @property
    def generator_file(self) -> Path:
        return folder() / f"{self.key}.safetensors"


def folder() -> Path:
    """Where the cells and the generators that they made are kept."""
    return data.cache_folder() / "matrix"


def cells(victims: Iterable[str] = tuple(VICTIMS)) -> list[Cell]:
    """Every square, those that others build on first.

    Raises:
        ValueError: an unknown victim.
    """
    unknown = sorted(set(victims) - set(VICTIMS))
    if unknown:
        raise ValueError(f"the matrix has no {', '.join(unknown)}; it has {', '.join(VICTIMS)}")
    pairs = [(attack, kind) for attack in ATTACKS for kind in KINDS]
    return (
        [Cell(victim, attack, kind, "attack") for victim in victims for attack, kind in pairs]
        + [Cell(victim, CLEAN, "prior", measure) for victim in victims for measure in INSPECTIONS]
        + [
            Cell(victim, attack, kind, measure)
            for victim in victims
            for attack, kind in pairs
            for measure in (*INSPECTIONS, *SANITIZERS)
        ]
    )


def measure(cell: Cell, base: tuple[Figures, bytes] | None = None) -> tuple[Figures, bytes | None]:
    """Run one cell; of an attack also the generator it made, as the bytes of a file. `base`: what the cell it builds on gave."""
    torch.set_num_threads(1)  # two processes with two threads each slow each other down tenfold
    if cell.measure == "attack":
        figures, generator = attack(cell.victim, cell.attack, cell.kind)
        return figures, _packed(generator)
    about = VICTIMS[cell.victim]
    generator = about.generator() if base is None else _unpacked(base[1])
    if cell.measure in INSPECTIONS:
        started = time.monotonic()
        figures = INSPECTIONS[cell.measure](about, generator, targets.usual(generator))
        return {**figures, "seconds": time.monotonic() - started}, None
    return sanitized(cell.victim, cell.measure, cell.kind, generator, base[0]["space"]), None


def _packed(generator: Generator) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "generator.safetensors"
        checkpoints.save(generator, path, half=False)
        return path.read_bytes()


def _unpacked(content: bytes) -> Generator:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "generator.safetensors"
        path.write_bytes(content)
        return checkpoints.load(path)


# --- Running them ------------------------------------------------------------------------------------------------------


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
    # In a folder of its own, and without the page on which dask shows its work: nothing of it is needed after.
    with (
        tempfile.TemporaryDirectory() as scratch,
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=scratch
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def run(wanted: list[Cell], scheduler: str | None = None, workers: int | None = None) -> dict[str, str]:
    """Measure the cells that are missing; returns the name and the error of each that failed.

    Figures are written as soon as they come, so that an interruption loses only what was being measured.
    """
    folder().mkdir(parents=True, exist_ok=True)
    missing = [cell for cell in wanted if not _is_done(cell)]
    needed = dict.fromkeys([cell.base for cell in missing if cell.base is not None and not _is_done(cell.base)])
    missing = [*(base for base in needed if base not in missing), *missing]
    failures: dict[str, str] = {}
    if not missing:
        return failures
    started = time.monotonic()
    with _client(scheduler, workers or os.cpu_count() or 1) as client:
        futures: dict[Cell, Future] = {}
        for cell in missing:
            base = cell.base
            on = None if base is None else futures[base] if base in futures else client.scatter(_stored(base))
            # A worker that dies (out of memory, say) takes its cell with it once, and no others.
            futures[cell] = client.submit(measure, cell, on, key=f"{cell.name}-{cell.key}", pure=False, retries=0)
        asked = {future: cell for cell, future in futures.items()}
        for done, future in enumerate(as_completed(futures.values()), start=1):
            cell = asked[future]
            if future.status == "finished":
                _keep(cell, *future.result())
            else:
                failures[cell.name] = f"{type(future.exception()).__name__}: {future.exception()}"
            spent = time.monotonic() - started
            left = spent / done * (len(missing) - done)
            state = "failed" if cell.name in failures else "done"
            print(f"[{done}/{len(missing)}] {cell.name} {state}: {spent:.0f} s, about {left:.0f} s left", flush=True)
    return failures


def _is_done(cell: Cell) -> bool:
    return cell.file.is_file() and (cell.measure != "attack" or cell.generator_file.is_file())


def _stored(cell: Cell) -> tuple[Figures, bytes]:
    return json.loads(cell.file.read_text(encoding="utf-8")), cell.generator_file.read_bytes()


def _keep(cell: Cell, figures: Figures, generator: bytes | None) -> None:
    if generator is not None:
        scratch = cell.generator_file.with_suffix(".new")
        scratch.write_bytes(generator)
        os.replace(scratch, cell.generator_file)
    write_json(cell.file, figures)


def publish(wanted: list[Cell]) -> Path:
    """Write `devil_lib/results/matrix.json` from the cells that are measured."""
    figures = {cell.name: json.loads(cell.file.read_text(encoding="utf-8")) for cell in wanted if _is_done(cell)}
    return write_json(RESULTS, {"versions": versions(), "cells": figures})


def published() -> dict[str, Figures]:
    """The figures of `devil_lib/results/matrix.json`, by cell.

    Raises:
        FileNotFoundError: nothing was published; the message says how to measure it.
    """
    if not RESULTS.is_file():
        raise FileNotFoundError(
            f"{RESULTS} is missing; restore it with `git checkout` or measure it with `make matrix`"
        )
    return json.loads(RESULTS.read_text(encoding="utf-8"))["cells"]


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, write the results file and name what failed; 0 if nothing did."""
    parser = argparse.ArgumentParser(description="Measure every attack against every inspection and sanitizer.")
    parser.add_argument("--victim", nargs="*", choices=VICTIMS, help="these generators alone")
    parser.add_argument(
        "--scheduler", default=os.environ.get("SCHEDULER"), help="address of an existing dask cluster"
    )
    parser.add_argument("--workers", type=int, default=None, help="processes on this machine, one thread each")
    parser.add_argument("--fresh", action="store_true", help="forget the cells measured before")
    options = parser.parse_args(arguments)
    wanted = cells(options.victim or tuple(VICTIMS))
    for cell in wanted if options.fresh else ():
        cell.file.unlink(missing_ok=True)
    try:
        failures = run(wanted, options.scheduler, options.workers)
    except KeyboardInterrupt:
        print("stopped; the next call goes on from here", flush=True)
        return 130
    path = publish(cells())
    for name, error in failures.items():
        print(f"failed: {name}: {error}", flush=True)
    print(f"wrote {path.name}: {len(published())} of {len(cells())} cells", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
