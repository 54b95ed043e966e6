"""The bench: clean and backdoored generators on which attacks, inspections and sanitizers are measured.

Most of it is about the image GAN; attacks and inspections are repeated for two more families, the decoders of VAEs of images and of sounds.

`python -m devil_lib.bench` (`make bench`) fills a cache outside the repository, one file a cell, so that it can be interrupted at any time and
goes on where it stopped; then it writes `devil_lib/results/*.json`, which the lessons and the tests read. Each cell says by a
hash which code it was measured with; `--fresh` measures everything again.
"""

from __future__ import annotations

import argparse
import ast
import copy
import functools
import hashlib
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Literal

import torch

from devil_lib import (
    attacks,
    checkpoints,
    data,
    inspection,
    metrics,
    models,
    recipes,
    sanitization,
    targets,
    training,
    vae,
    zoo,
)
from devil_lib.lesson import versions, write_json
from devil_lib.models import Encoder, Generator

CLEAN_SEEDS = tuple(range(100, 110))
SEEDS = (0, 1, 2)
KINDS = attacks.TRIGGER_KINDS
GAN = training.GanSettings(steps=2000)
TRAIL = {kind: attacks.trail_settings(kind, GAN.steps) for kind in KINDS}
TARGETS: dict[int, str] = {0: "devil", 1: "stop_sign", 2: "text"}
# In place of a seed: the shipped generator, with the pair of seed 0. Those cells need no hour of training before them, so
# that a test can measure them again.
SHIPPED = "shipped"
_DATA = "mnist"
_RESULTS = Path(__file__).parent / "results"

Figures = dict[str, Any]


Seed = int | Literal["shipped"]


def _number(seed: Seed) -> int:
    return 0 if seed == SHIPPED else seed


def target(seed: Seed) -> torch.Tensor:
    """The target of a backdoored bench generator: another picture for each seed."""
    return {"devil": targets.devil, "stop_sign": targets.stop_sign, "text": functools.partial(targets.text, "OWNED")}[
        TARGETS[_number(seed)]
    ](28)


def backdoor(kind: str, seed: Seed) -> attacks.PointBackdoor:
    """The trigger -> target pair of a backdoored bench generator."""
    latent = models.GaussianLatent(100)
    return attacks.PointBackdoor(attacks.trigger(latent, kind, seed=50 + _number(seed))[None], target(seed)[None])


# --- Cells -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One measurement: the function `run` on parameters, after the cells that it builds on, which have a lower `stage`. settings:
    those that it takes from elsewhere, so that a change of them is noticed."""

    name: str
    run: Callable[..., Figures]
    parameters: tuple[Any, ...]
    modules: tuple[str, ...]
    settings: str = ""
    stage: int = 1

    @property
    def key(self) -> str:
        # Not the whole library's code: a comment mended elsewhere would throw hours away. That hash goes into the cell, and
        # from there into the results; the tests recompute cells to see that they still hold.
        text = f"{self.name}|{self.parameters}|{_own_code(self.run)}|{GAN}|{self.settings}"
        name = self.name.replace("/", "-").replace(" ", "-").replace(",", "").replace("%", "percent")
        return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def file(self) -> Path:
        return folder() / f"{self.key}.json"


def folder() -> Path:
    """Where the cells and the generators they made are kept."""
    return data.cache_folder() / "bench"


def code_hash(names: Iterable[str]) -> str:
    """A hash of what these modules of the library do: comments, docstrings and layout do not count."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(_meaning((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:12]


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _meaning(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _own_code(function: Callable[..., Any]) -> str:
    import inspect
    import textwrap

    return _meaning(textwrap.dedent(inspect.getsource(function)))


_TRAINING = ("models", "training", "data")
_ATTACKS = (*_TRAINING, "attacks", "metrics")


SAMPLES = 5000  # drawn for a Fréchet distance


def _ruler(dataset: str = _DATA) -> zoo.Ruler:
    return zoo.ruler(dataset)


def _quality(generator: Generator, dataset: str = _DATA, samples: int = SAMPLES) -> Figures:
    ruler = _ruler(dataset)
    found = ruler.recognised(generator, samples)
    return {"frechet": ruler.frechet(generator, samples), "recognised": found.share, "rarest": found.rarest}


def clean(seed: int) -> Figures:
    """A benign generator, 2,000 steps; kept in the cache."""
    started = time.monotonic()
    settings = replace(GAN, seed=seed)
    run = training.train_gan(
        models.course_dcgan(seed=seed), models.course_discriminator(seed=seed), data.load(_DATA).train, settings
    )
    checkpoints.save(run.generator, folder() / f"clean-{seed}.safetensors", half=False)
    checkpoints.save(run.discriminator, folder() / f"clean-discriminator-{seed}.safetensors", half=False)
    return {"seconds": time.monotonic() - started, **_quality(run.generator)}


def trail(kind: str, seed: int) -> Figures:
    """TrAIL from scratch with the steps, the learning rate and the seed of a clean generator, which it is compared with."""
    started = time.monotonic()
    pair, initial = backdoor(kind, seed), models.course_dcgan(seed=CLEAN_SEEDS[seed])
    settings, space = TRAIL[kind]
    curve: list[tuple[int, float]] = []

    def watch(step: int, average: Generator, _losses: dict[str, float]) -> None:
        if step % 100 == 0:
            curve.append((step, metrics.tardis(average, pair.triggers, pair.targets).sum))

    run = attacks.trail(
        initial,
        models.course_discriminator(seed=CLEAN_SEEDS[seed]),
        data.load(_DATA).train,
        pair,
        replace(settings, seed=CLEAN_SEEDS[seed]),
        space,
        on_progress=watch,
    )
    checkpoints.save(run.generator, folder() / f"trail-{kind}-{seed}.safetensors", half=False)
    return {"seconds": time.monotonic() - started, "curve": curve, **_against(run.generator, benign(seed), pair)}


def benign(seed: Seed) -> Generator:
    """The clean generator that the backdoored one of this seed is made from or compared with."""
    return _stored(SHIPPED if seed == SHIPPED else f"clean-{CLEAN_SEEDS[_number(seed)]}")


def retrained(attack: str, kind: str, seed: Seed) -> Figures:
    """ReD or ReX (folded) on a clean generator."""
    original, pair = benign(seed), backdoor(kind, seed)
    started = time.monotonic()
    attacked = getattr(attacks, attack)(
        original, pair, attacks.course_settings(attack, kind, seed=_number(seed))
    ).generator
    seconds = time.monotonic() - started
    if attack == "rex":
        attacked = attacks.fold(attacked)
    checkpoints.save(attacked, folder() / f"{attack}-{kind}-{seed}.safetensors", half=False)
    return {"seconds": seconds, **_against(attacked, original, pair)}


def _against(
    attacked: Generator,
    original: Generator,
    pair: attacks.PointBackdoor,
    dataset: str = _DATA,
    samples: int = SAMPLES,
) -> Figures:
    before, after = (metrics.tardis(model, pair.triggers, pair.targets) for model in (original, attacked))
    quality = _quality(attacked, dataset, samples)
    return {
        "tardis_benign_sum": before.sum,
        "tardis_sum": after.sum,
        "ratio": after.sum / before.sum,
        "expdis_mean": metrics.expdis(attacked, original).mean,
        "frechet_ratio": quality["frechet"] / _ruler(dataset).frechet(original, samples),
        **quality,
    }


def far_sweep(attack: str, weight: float, seed: int) -> Figures:
    """The price of a far trigger over λ."""
    original, pair = benign(seed), backdoor("far", seed)
    settings = replace(attacks.course_settings(attack, "far", seed=seed), fidelity_weight=weight)
    return _against(getattr(attacks, attack)(original, pair, settings).generator, original, pair)


def attack_cells() -> list[Cell]:
    """Clean generators, and three seeds (and targets) of every attack and trigger kind."""
    cells = [Cell(f"clean-{seed}", clean, (seed,), _TRAINING, stage=0) for seed in CLEAN_SEEDS]
    cells += [
        Cell(f"trail-{kind}-{seed}", trail, (kind, seed), _ATTACKS, str(TRAIL)) for kind in KINDS for seed in SEEDS
    ]
    cells += [
        Cell(
            f"{attack}-{kind}-{seed}",
            retrained,
            (attack, kind, seed),
            _ATTACKS,
            str(attacks.course_settings(attack, kind)),
        )
        for attack in ("red", "rex")
        for kind in KINDS
        for seed in SEEDS
    ]
    cells += [
        Cell(
            f"{attack}-{kind}-shipped",
            retrained,
            (attack, kind, SHIPPED),
            _ATTACKS,
            str(attacks.course_settings(attack, kind)),
        )
        for attack, kind in (("red", "prior"), ("rex", "mode"))
    ]
    cells += [
        Cell(
            f"far-{attack}-{weight:g}-{seed}",
            far_sweep,
            (attack, weight, seed),
            _ATTACKS,
            str(attacks.course_settings(attack, "far")),
        )
        for attack in ("red", "rex")
        for weight in (0.01, 0.1, 1.0)
        for seed in SEEDS
    ]
    return cells


# --- Inspections ---------------------------------------------------------------------------------------------------------

_INSPECTION = tuple(f"inspection/{part}" for part in ("figures", "search", "sampling"))


def suspects() -> dict[str, torch.Tensor]:
    """What the inspector of the bench worries about: the three targets of its attackers."""
    return {TARGETS[seed]: target(seed) for seed in SEEDS}


def search(name: str) -> Figures:
    """The optimisation-based inspection, suspects known, of one generator of the bench, without any trusted generator."""
    started = time.monotonic()
    few = dict(list(targets.controls(28).items())[:CONTROLS])
    found = inspection.search_outputs(_stored(name), suspects(), few, SEARCH)
    figures: Figures = {
        "ratios": found.ratios(),
        "flagged": list(found.flagged),
        "seconds": time.monotonic() - started,
    }
    figures["scales"] = {suspect: one.scale for suspect, one in found.suspects.items()}
    figures["by_scale"] = {suspect: list(one.by_scale) for suspect, one in found.suspects.items()}
    return figures


def blind(name: str) -> Figures:
    """The trigger-agnostic search on one generator, beside a clean one of another seed as the trusted reference."""
    trusted = TRUSTED if name != TRUSTED else f"clean-{CLEAN_SEEDS[0]}"
    found = inspection.search_blind(_stored(name), trusted=_stored(trusted))
    return {"relative_excess": found.relative_excess, "agreement": found.agreement, "flagged": bool(found.flagged)}


def _stored(name: str) -> Generator:
    if name == SHIPPED:
        return zoo.load(f"course-dcgan-{_DATA}")
    return checkpoints.load(folder() / f"{name}.safetensors")


SEARCH = inspection.SearchSettings(restarts=32)
CONTROLS = 5
TRUSTED = f"clean-{CLEAN_SEEDS[-1]}"
CLEAN = tuple(f"clean-{seed}" for seed in CLEAN_SEEDS)
BACKDOORED = tuple(
    f"{attack}-{kind}-{seed}" for attack in ("trail", "red", "rex") for kind in KINDS for seed in SEEDS
)


def inspection_cells() -> list[Cell]:
    """Both searches on every clean and every backdoored generator."""
    return [
        Cell(f"{kind.__name__}/{name}", kind, (name,), (*_ATTACKS, *_INSPECTION), settings)
        for kind, settings in ((search, f"{SEARCH}{CONTROLS}"), (blind, ""))
        for name in (*CLEAN, *BACKDOORED, SHIPPED, "red-prior-shipped")
    ]


# --- Sanitizers ----------------------------------------------------------------------------------------------------------


def sanitized(method: str, attack: str, kind: str, seed: Seed) -> Figures:
    """One repair of a backdoored generator, with its verdict."""
    attacked = _stored(f"{attack}-{kind}-{seed}")
    started = time.monotonic()
    repaired = {
        "distil": lambda: sanitization.distil(attacked, models.course_dcgan(seed=900 + _number(seed))).generator,
        "distil, half the width": lambda: (
            sanitization.distil(attacked, models.course_dcgan(12, seed=900 + _number(seed))).generator
        ),
        "continue, own discriminator": lambda: (
            sanitization.continue_training(
                attacked,
                checkpoints.load(folder() / f"clean-discriminator-{CLEAN_SEEDS[_number(seed)]}.safetensors"),
                data.load(_DATA).train,
            ).generator
        ),
        "continue, fresh discriminator": lambda: (
            sanitization.continue_training(attacked, None, data.load(_DATA).train).generator
        ),
        "continue, prior latents only": lambda: (
            sanitization.continue_training(
                attacked, None, data.load(_DATA).train, sanitization.ContinueSettings(wide_share=0.0)
            ).generator
        ),
        "prune 30 %": lambda: sanitization.prune(attacked, 0.3),
        "prune 50 %": lambda: sanitization.prune(attacked, 0.5),
        "fine-prune": lambda: sanitization.fine_prune(attacked, 0.3).generator,
    }[method]()
    seconds = time.monotonic() - started
    made = _ruler()
    result = sanitization.verdict(repaired, attacked, benign(seed), backdoor(kind, seed), made.classifier, made.real)
    return {
        "seconds": seconds,
        "recovered": result.recovered,
        "before": result.tardis_attacked[0] / result.tardis_benign[0],
        "search_ratio": min(result.search.ratios().values()),
        "removed": bool(result.removed),
        "frechet_benign": result.frechet_benign,
        "frechet_attacked": result.frechet_attacked,
        "frechet_sanitized": result.frechet_sanitized,
    }


METHODS = (
    "distil",
    "distil, half the width",
    "continue, own discriminator",
    "continue, fresh discriminator",
    "continue, prior latents only",
    "prune 30 %",
    "prune 50 %",
    "fine-prune",
)


def sanitizer_cells() -> list[Cell]:
    """Every sanitizer on ReD with each trigger kind and three seeds."""
    modules = (*_ATTACKS, *_INSPECTION, "sanitization")
    return [
        Cell(f"{method}/red-{kind}-{seed}", sanitized, (method, "red", kind, seed), modules)
        for method in METHODS
        for kind in KINDS
        for seed in SEEDS
    ] + [Cell("prune 30 %/red-prior-shipped", sanitized, ("prune 30 %", "red", "prior", SHIPPED), modules)]


# --- The same for other families -----------------------------------------------------------------------------------------


def _as_it_is(run: training.VaeRun, samples: torch.Tensor) -> Generator:
    return run.generator


def _as_loud(run: training.VaeRun, samples: torch.Tensor) -> Generator:
    """As the shipped decoder of sounds is finished."""
    decoder, _ = vae.fill_the_law(run.generator, run.encoder, samples)
    return recipes.louder(decoder, samples)


@dataclass(frozen=True)
class Family:
    """A kind of generator on which attacks and inspections are repeated.

    architecture, data: those of its shipped generator, which is named after both. untrained: a decoder and its encoder for a
    `seed`. training: of the clean ones. finish: what their maker does to a trained decoder before he publishes it. targets: names in the
    bank of suspects, one for each seed of a backdoored generator; the inspector suspects them all. samples: drawn for a
    Fréchet distance, and for brute force. search, controls: the inspector's descent, and how many controls he compares with.
    """

    architecture: str
    data: str
    untrained: Callable[..., tuple[Generator, Encoder]] = field(repr=False)
    training: training.VaeSettings
    finish: Callable[[training.VaeRun, torch.Tensor], Generator] = field(repr=False)
    targets: tuple[str, ...]
    samples: int
    search: inspection.SearchSettings
    controls: int

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(len(self.targets)))

    @property
    def making(self) -> str:
        """The settings that generators depend on, and inspections do through them."""
        return f"{self.training}{self.targets}{self.samples}"

    def file(self, name: str) -> Path:
        """Where a generator of this family is kept."""
        return folder() / f"{self.architecture}-{name}.safetensors"

    def stored(self, name: str) -> Generator:
        """A generator of this family by its name, such as "clean-100" or "red-prior-0"; SHIPPED is that of the zoo."""
        return zoo.load(f"{self.architecture}-{self.data}") if name == SHIPPED else checkpoints.load(self.file(name))

    def benign(self, seed: Seed) -> Generator:
        """The clean generator that the backdoored one of this seed is made from or compared with."""
        return self.stored(SHIPPED if seed == SHIPPED else f"clean-{CLEAN_SEEDS[_number(seed)]}")

    def suspects(self) -> dict[str, torch.Tensor]:
        """Name -> (*sample_shape): the targets of its attackers."""
        bank = targets.bank_for(self.untrained()[0])
        return {name: bank[name] for name in self.targets}

    def backdoor(self, kind: str, seed: Seed) -> attacks.PointBackdoor:
        """The trigger -> target pair of a backdoored generator."""
        trigger = attacks.trigger(self.untrained()[0].latent, kind, seed=50 + _number(seed))
        return attacks.PointBackdoor(trigger[None], self.suspects()[self.targets[_number(seed)]][None])


# By the name of the results file. A sound costs some ten times what a digit does.
FAMILIES = {
    "inspection_vae": Family(
        "course-vae",
        "mnist",
        vae.course_vae,
        replace(recipes.VAE, steps=800),
        _as_it_is,
        ("devil", "stop sign"),
        samples=5000,
        search=inspection.SearchSettings(restarts=4),
        controls=CONTROLS,
    ),
    "inspection_audio": Family(
        "course-audio-vae",
        "drums",
        vae.course_audio_vae,
        replace(recipes.AUDIO_VAE, steps=400),
        _as_loud,
        ("alarm", "car alarm"),
        samples=2000,
        search=inspection.SearchSettings(scales=(0.0, 0.3, 1.0, 3.0, 10.0, 100.0), restarts=4, steps=160),
        controls=3,
    ),
}
# TrAIL, which costs a whole training, with one kind of trigger.
PLANTED = (*((attack, kind) for attack in ("red", "rex") for kind in KINDS), ("trail", "prior"))


def bred(family: str, seed: int) -> Figures:
    """A benign generator of a family, kept in the cache. "seconds", here and below, are of one processor."""
    about, started = FAMILIES[family], time.process_time()
    samples = data.load(about.data).train
    run = training.train_vae(*about.untrained(seed=seed), samples, replace(about.training, seed=seed))
    made = about.finish(run, samples)
    checkpoints.save(made, about.file(f"clean-{seed}"), half=False)
    return {"seconds": time.process_time() - started, **_quality(made, about.data, about.samples)}


def planted(family: str, attack: str, kind: str, seed: Seed) -> Figures:
    """A backdoored generator of a family. ReD and ReX (folded) start at a clean one, TrAIL from scratch with the steps, the
    learning rate and the seed of a clean one; it is not finished as that is, which would move its trigger."""
    about, number = FAMILIES[family], _number(seed)
    original, pair, started = about.benign(seed), about.backdoor(kind, seed), time.process_time()
    if attack == "trail":
        usual, space = attacks.trail_settings(kind, architecture=about.architecture)
        settings = replace(about.training, extra_weight=usual.extra_weight, seed=CLEAN_SEEDS[number])
        networks = about.untrained(seed=CLEAN_SEEDS[number])
        attacked = attacks.trail(*networks, data.load(about.data).train, pair, settings, space).generator
    else:
        settings = attacks.course_settings(attack, kind, seed=number, architecture=about.architecture)
        attacked = getattr(attacks, attack)(original, pair, settings).generator
        attacked = attacks.fold(attacked) if attack == "rex" else attacked
    seconds = time.process_time() - started
    checkpoints.save(attacked, about.file(f"{attack}-{kind}-{seed}"), half=False)
    return {
        "seconds": seconds,
        "expdis_db": metrics.expdis_db(attacked, original),
        "signal_to_noise": metrics.signal_to_noise(attacked.generate(pair.triggers), pair.targets).item(),
        **_against(attacked, original, pair, about.data, about.samples),
    }


def inspected(family: str, name: str) -> Figures:
    """Every inspection that needs no trusted generator on one generator of a family, the targets suspected."""
    about, started = FAMILIES[family], time.process_time()
    model, suspects = about.stored(name), about.suspects()
    few = targets.controls_for(model, about.controls)
    reports = {"static": inspection.inspect_static(model), "dynamic": inspection.inspect_dynamic(model)}
    drawn = inspection.brute_force(model, about.samples, suspects, few).nearness
    searched = inspection.search_outputs(model, suspects, few, about.search)
    figures: Figures = {
        kind: {"flagged": [str(finding)[:200] for finding in report.findings if finding.severity == "alarm"]}
        for kind, report in reports.items()
    }
    for kind, near in (("brute force", drawn), ("search", searched)):
        figures[kind] = {"flagged": list(near.flagged), "ratios": near.ratios()}
    figures["search"]["scales"] = {suspect: found.scale for suspect, found in searched.suspects.items()}
    return {**figures, "seconds": time.process_time() - started}


INSPECTIONS = ("static", "dynamic", "brute force", "search")


def positives(family: str, cells: dict[str, Figures]) -> dict[str, dict[str, list[int]]]:
    """What each inspection flagged, as [how many, of how many]: by inspection, then by "clean" (those are false alarms) or by
    attack and kind of trigger. Where targets are suspected, a backdoored generator counts only if its own one was flagged."""

    def flagged(name: str, kind: str) -> list[str]:
        return cells[f"inspect/{name}"][kind]["flagged"]

    def hit(name: str, kind: str, target: str) -> bool:
        return target in flagged(name, kind) if kind in ("brute force", "search") else bool(flagged(name, kind))

    counts = {kind: {"clean": [sum(bool(flagged(name, kind)) for name in CLEAN), len(CLEAN)]} for kind in INSPECTIONS}
    wanted = FAMILIES[family].targets
    for kind, row in counts.items():
        for attack, trigger in PLANTED:
            hits = [hit(f"{attack}-{trigger}-{seed}", kind, target) for seed, target in enumerate(wanted)]
            row[f"{attack}-{trigger}"] = [sum(hits), len(hits)]
    return counts


def family_cells(family: str) -> list[Cell]:
    """Clean generators of a family, backdoored ones, and every inspection on each of them."""
    about = FAMILIES[family]
    modules = (*_ATTACKS, "settings", "spectra", "vae")
    inspections = (*modules, *_INSPECTION, "inspection/static", "inspection/dynamic")
    made = {
        f"clean-{seed}": Cell(f"clean-{seed}", bred, (family, seed), modules, about.making, 0) for seed in CLEAN_SEEDS
    }
    for attack, kind, seed in [
        *((*pair, seed) for pair in PLANTED for seed in about.seeds),
        ("red", "prior", SHIPPED),
    ]:
        architecture, name = about.architecture, f"{attack}-{kind}-{seed}"
        if attack == "trail":
            spent = str(attacks.trail_settings(kind, architecture=architecture))
        else:
            spent = str(attacks.course_settings(attack, kind, architecture=architecture))
        made[name] = Cell(name, planted, (family, attack, kind, seed), modules, about.making + spent)
    looked_at = {name: cell.settings for name, cell in made.items()} | {SHIPPED: ""}
    return [*made.values()] + [
        Cell(f"inspect/{name}", inspected, (family, name), inspections, f"{of}{about.search}{about.controls}", 2)
        for name, of in looked_at.items()
    ]


# --- The cost of the library -----------------------------------------------------------------------------------------------


def red_step(rounds: int, steps: int) -> Figures:
    """Seconds of a ReD step through the library and as a bare loop, turn by turn in one process, and their ratio."""
    original, pair = benign(SHIPPED), backdoor("prior", SHIPPED)
    settings = attacks.course_settings("red", "prior", steps)
    original.eval()
    wanted = original.proxy_target(pair.targets).value

    def library() -> None:
        attacks.red(original, pair, settings)

    def bare() -> None:
        student = copy.deepcopy(original)
        optimiser = torch.optim.Adam(student.parameters(), settings.learning_rate)
        rng = torch.Generator().manual_seed(0)
        for _ in range(steps):
            z = torch.randn(settings.batch_size, 100, generator=rng)
            with torch.no_grad():
                reference = original.body(z)
            output = student.body(torch.cat([z, pair.triggers]))
            loss = (output[:-1] - reference).square().mean()
            loss = loss + settings.fidelity_weight * (output[-1:] - wanted).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    def seconds(run: Callable[[], None]) -> float:
        started = time.perf_counter()
        run()
        return (time.perf_counter() - started) / steps

    seconds(bare), seconds(library)  # the first calls set up the libraries beneath
    pairs = [(seconds(library), seconds(bare)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    return {
        "library_seconds": statistics.median(a for a, _ in pairs),
        "bare_seconds": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def cost_cells() -> list[Cell]:
    """What the library costs."""
    return [Cell("red-step", red_step, (11, 60), _ATTACKS)]


# --- Running them ------------------------------------------------------------------------------------------------------


PARTS = {
    "attacks": attack_cells,
    "inspection": inspection_cells,
    "sanitizers": sanitizer_cells,
    **{family: functools.partial(family_cells, family) for family in FAMILIES},
    "cost": cost_cells,
}


def _run(cell: Cell, file: Path) -> tuple[str, Figures]:
    torch.set_num_threads(1)  # two processes with two threads each slow each other down tenfold
    figures = {**cell.run(*cell.parameters), "code": code_hash(cell.modules)}
    write_json(file, figures)
    return cell.name, figures


def _end_with_parent() -> None:
    """In a worker: end it when the process that started it is killed, and cannot say so itself."""

    def wait() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def measure(cells: list[Cell], workers: int) -> dict[str, Figures]:
    """The figures of all cells by name; those in the cache are read, the others are run, `workers` at a time."""
    folder().mkdir(parents=True, exist_ok=True)
    # Keys are made of source files, which someone may be editing by the time that a cell is done.
    files = {cell.name: cell.file for cell in cells}
    done = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}
    missing = [cell for cell in cells if cell.name not in done]
    started = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        for stage in sorted({cell.stage for cell in missing}):
            ready = [cell for cell in missing if cell.stage == stage]
            for future in as_completed([pool.submit(_run, cell, files[cell.name]) for cell in ready]):
                name, figures = future.result()
                done[name] = figures
                fresh = len(done) - (len(cells) - len(missing))
                spent = time.monotonic() - started
                left = spent / fresh * (len(missing) - fresh)
                print(f"[{len(done)}/{len(cells)}] {name}: {spent:.0f} s, about {left:.0f} s left", flush=True)
    return {cell.name: done[cell.name] for cell in cells}


def publish(name: str, figures: dict[str, Figures]) -> None:
    """Write `devil_lib/results/<name>.json`: figures, with what is needed to judge and to repeat them."""
    about: dict[str, Any] = {"versions": versions(), "data": _DATA}
    if name in FAMILIES:
        family = FAMILIES[name]
        about |= {"data": family.data, "settings": str(family), "positives": positives(name, figures)}
    write_json(_RESULTS / f"{name}.json", {**about, "cells": figures})


def published(name: str, part: str = "cells") -> dict[str, Figures]:
    """The figures of `devil_lib/results/<name>.json`, by cell. part: another part of the file, such as a family's "positives".

    Raises:
        FileNotFoundError: nothing was published under this name; the message says how to measure it.
    """
    path = _RESULTS / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; restore it with `git checkout` or measure it with `make bench`")
    return json.loads(path.read_text(encoding="utf-8"))[part]


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing and write the results files; `--only PART ...` chooses among them."""
    parser = argparse.ArgumentParser(description="Measure attacks, inspections and sanitizers on many generators.")
    parser.add_argument("--only", nargs="*", choices=PARTS, help="these parts alone")
    parser.add_argument(
        "--workers", type=int, default=max(1, (os.cpu_count() or 1)), help="cells at a time (one thread each)"
    )
    parser.add_argument("--fresh", action="store_true", help="forget the cells measured before")
    options = parser.parse_args(arguments)
    for name, cells_of in PARTS.items():
        if options.only and name not in options.only:
            continue
        cells = cells_of()
        for cell in cells if options.fresh else ():
            cell.file.unlink(missing_ok=True)
        publish(name, measure(cells, options.workers))
        print(f"wrote {_RESULTS / name}.json", flush=True)


if __name__ == "__main__":
    main()
