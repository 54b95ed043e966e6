"""The table of thieves of one target, each over nine seeds, with floors, controls and defences.

The target is the course's shipped DCGAN of handwritten digits. Each seed draws other queries, other real samples and another
untrained thief; what is stated in a lesson is the median over seeds with its interval, which one failed training cannot move. All Fréchet distances are between `SAMPLES` samples
and the feature statistics of twice as many of the target, or of the whole training set, on the shipped classifier of digits.
"""

from __future__ import annotations

import functools
import statistics
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from devil_lib import cells, checkpoints, data, zoo
from devil_lib.metrics import FeatureStatistics, feature_statistics, frechet_distance
from devil_lib.models import Discriminator, Encoder, Generator
from devil_lib.neighbours import extraction, serving, subsampling
from devil_lib.neighbours.extraction import SAMPLES, ImitateSettings, Pair
from devil_lib.neighbours.serving import Defence, Server
from devil_lib.training import TrainSettings

TARGET, PARTNER, DATA = "course-dcgan-mnist", "discriminator-mnist", "mnist"
OTHER = "fashion-mnist"  # the domain that a stolen generator is taken to
SEEDS = tuple(range(9))
# Seeds that a claim takes, and that are measured of everything before the others. With fewer than nine, one failed training is an end of
# the interval.
FEWEST = 6
STEPS = 500  # of every thief
MOVED = 300  # of training in the other domain
FORM = 1  # to be raised when a cell measures something else than before, with the same settings


# --- What is defended how --------------------------------------------------------------------------------------------------------


@functools.cache
def _directions() -> Tensor:
    return serving.semantic_directions(target())


# By name, the least, the middle and the greatest strength. A thief is set on the middle one, at which what is served is about as far
# from the real data for each of them (a Fréchet distance of 15 to 40, where the target's is below 8), so that they can be compared.
STRENGTHS: dict[str, tuple[float, float, float]] = {
    "linear interpolation": (2, 10, 50),
    "semantic interpolation": (2, 10, 50),
    "Gaussian noise": (0.1, 0.2, 0.4),
    "adversarial noise": (0.1, 0.25, 0.4),
    "filtering": (0.4, 0.45, 0.6),
    "compression": (40, 15, 5),
}
_MADE: dict[str, Callable[[float], Defence]] = {
    "linear interpolation": lambda points: serving.LinearInterpolation(int(points)),
    "semantic interpolation": lambda points: serving.SemanticInterpolation(_directions(), int(points)),
    "Gaussian noise": serving.GaussianNoise,
    "adversarial noise": lambda strength: serving.AdversarialNoise(zoo.load(PARTNER), strength),
    "filtering": serving.Filtering,
    "compression": lambda quality: serving.Compression(int(quality)),
}


def defence(name: str, strength: float | None = None) -> Defence:
    """A defence of `STRENGTHS` by its name, at its middle strength unless another is given; "nothing" does nothing.

    Raises:
        ValueError: an unknown name.
    """
    if name == "nothing":
        return serving.NOTHING
    if name not in _MADE:
        raise ValueError(f"unknown defence {name!r}: choose nothing, {', '.join(_MADE)}")
    return _MADE[name](STRENGTHS[name][1] if strength is None else strength)


# --- Thieves -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thief:
    """What a thief has and does.

    scenario: "black box", "latents" (he sends latents of his own), "partial black box" (a share of the real data beside), "white
    box" (the target's discriminator as well), "control" (real data alone) or "transfer". queries: samples that he is served. real: real
    samples that he has. architecture: of his generator. defence: of the server. choice: which of the served he trains on, "all",
    or those that "chain" (Metropolis-Hastings) or "rejection" keeps. stolen: for a transfer, whether he starts from a stolen pair.
    """

    scenario: str
    queries: int = 0
    real: int = 0
    architecture: str = "course-dcgan"
    defence: str = "nothing"
    choice: str = "all"
    stolen: bool = False


BLACK_BOX = "black box, 5,000 queries"
THIEVES: dict[str, Thief] = {
    BLACK_BOX: Thief("black box", 5000),
    "black box, 200 queries": Thief("black box", 200),
    "control, 5,000 real": Thief("control", real=5000),
    "latents, 1,000 queries": Thief("latents", 1000),
    "white box, rejection": Thief("white box", 20_000, real=10_000, choice="rejection"),
    "transfer, stolen": Thief("transfer", 5000, real=200, stolen=True),
    "transfer, from nothing": Thief("transfer", real=200),
    **{f"defended by {name}": Thief("black box", 5000, defence=name) for name in STRENGTHS},
    "white box, chain": Thief("white box", 20_000, real=10_000, choice="chain"),
    "partial black box, all": Thief("partial black box", 5000, real=500),
    "control, 500 real": Thief("control", real=500),
    "black box, art-dcgan": Thief("black box", 5000, architecture="art-dcgan"),
    "black box, 1,000 queries": Thief("black box", 1000),
    "partial black box, rejection": Thief("partial black box", 20_000, real=500, choice="rejection"),
    "latents, 20,000 queries": Thief("latents", 20_000),
    "black box, course-vae": Thief("black box", 5000, architecture="course-vae"),
}
# Checks of what a sampler keeps, before any thief: how many real samples he has, and the freedom of the discriminator's refitted last
# layer; None leaves the discriminator as the target's training ended with it.
CHECKS: dict[str, tuple[int, float | None]] = {
    "final discriminator": (10_000, None),
    "refitted, 10,000 real": (10_000, 1e-5),
    "refitted, 3,000 real": (3000, 1e-5),
    "refitted, 10,000 real, freer": (10_000, 1e-3),
}
JUDGE = "refitted, 10,000 real"  # the one that the thieves take
FREEDOM = CHECKS[JUDGE][1]
FITTED = 0.7  # share of a thief's real samples that the layer is fitted to; the rest calibrate it
CHAIN = 4  # proposals of a chain: a quarter of the served samples is kept
PERCENTILE = 80.0


@dataclass(frozen=True)
class Cell:
    """One measurement: part is "floor", "served" (what a defence leaves of the samples), "check" or "thief"; kind says which, and
    strength, where a defence has several."""

    part: str
    kind: str
    seed: int
    strength: float | None = None

    @property
    def name(self) -> str:
        at = "" if self.strength is None else f" at {self.strength:g}"
        return f"{self.part}/{self.kind}{at}/{self.seed}"

    @property
    def base(self) -> Cell | None:
        """The thief whose stolen pair this one goes on with."""
        if self.part != "thief":
            return None
        about = THIEVES[self.kind]
        goes_on = about.stolen or (about.scenario == "partial black box" and about.choice != "all")
        return replace(self, kind=BLACK_BOX) if goes_on else None

    @property
    def key(self) -> str:
        """Changes with the shipped weights, the settings that this cell takes, and nothing else."""
        parts: list[Any] = [
            FORM,
            self.name,
            SAMPLES,
            *(zoo.card(name)["sha256"] for name in (TARGET, f"classifier-{DATA}")),
        ]
        if self.part == "check":
            parts += ["held out", CHECKS[self.kind], FITTED, CHAIN, PERCENTILE, zoo.card(PARTNER)["sha256"]]
        if self.part == "thief":
            about = THIEVES[self.kind]
            parts += [asdict(about), _spelt(extraction.settings_for(_partner(about.architecture), STEPS))]
            if about.defence != "nothing":
                parts += [STRENGTHS[about.defence][1]]
            if about.defence == "adversarial noise" or about.scenario == "white box":
                parts += [zoo.card(PARTNER)["sha256"]]
            if about.scenario == "white box":
                parts += ["held out"]
            if about.choice != "all":
                parts += [FREEDOM, FITTED, CHAIN, PERCENTILE]
            if about.scenario == "latents":
                parts += [asdict(ImitateSettings(STEPS))]
            if about.scenario == "transfer":
                parts += [MOVED, zoo.card(f"classifier-{OTHER}")["sha256"]]
        if self.base is not None:
            parts.append(self.base.key)
        return cells.digest(parts)


@functools.cache
def _partner(architecture: str) -> Discriminator | Encoder:
    return extraction.thief(architecture)[1]


def _spelt(settings: TrainSettings) -> dict[str, Any]:
    """Settings as plain values, without the device, which changes no figure."""
    return {name: value for name, value in asdict(settings).items() if name != "device"}


def all_cells() -> list[Cell]:
    """Every cell in the order in which they are measured: floors, what takes seconds, and the thieves, with those first that all
    others are compared with; then the same over the seeds that are left."""

    def over(seeds: tuple[int, ...]) -> list[Cell]:
        return [
            *(Cell("floor", kind, seed) for kind in FLOORS for seed in seeds),
            *(Cell("served", "nothing", seed, 0.0) for seed in seeds),
            *(Cell("check", kind, seed) for kind in CHECKS for seed in seeds),
            *(Cell("thief", kind, seed) for kind in THIEVES for seed in seeds),
        ]

    strengths = [Cell("served", name, 0, strength) for name, all_of in STRENGTHS.items() for strength in all_of]
    return [*strengths, *over(SEEDS[:FEWEST]), *over(SEEDS[FEWEST:])]


# --- What all of them need -------------------------------------------------------------------------------------------------------


@functools.cache
def target() -> Generator:
    return zoo.load(TARGET)


@functools.cache
def _seen() -> FeatureStatistics:
    """The target's statistics that every thief is compared with: of samples that no thief is served."""
    samples = target().generate(target().latent.sample(2 * SAMPLES, torch.Generator().manual_seed(10_000)))
    return feature_statistics(_ruler().classifier, samples)


@functools.cache
def _ruler() -> zoo.Ruler:
    return zoo.ruler(DATA)


@functools.cache
def _data(name: str, held_out: bool) -> Tensor:
    return data.load(name).test if held_out else data.load(name).train


def real_samples(n: int, seed: int, name: str = DATA, held_out: bool = False) -> Tensor:
    """n samples of a training set, or of the test set, which no target was trained on; drawn at random without replacement."""
    every = _data(name, held_out)
    return every[torch.randperm(len(every), generator=torch.Generator().manual_seed(20_000 + seed))[:n]]


def _frechet(samples: Tensor, statistics: FeatureStatistics | None = None) -> float:
    return frechet_distance(feature_statistics(_ruler().classifier, samples), statistics or _ruler().real)


def _server(seed: int, kind: str = "nothing", strength: float | None = None, latents: bool = False) -> Server:
    return Server(target(), defence(kind, strength), latents, seed=30_000 + seed)


def _real_against_real(seed: int) -> float:
    half = real_samples(2 * SAMPLES, seed)
    return _frechet(half[:SAMPLES], feature_statistics(_ruler().classifier, half[SAMPLES:]))


FLOORS: dict[str, Callable[[int], float]] = {
    "target against itself": lambda seed: _frechet(_server(seed).serve(SAMPLES), _seen()),
    "target against real": lambda seed: _frechet(_server(seed).serve(SAMPLES)),
    "real against real": _real_against_real,
    "real against target": lambda seed: _frechet(real_samples(SAMPLES, seed), _seen()),
}


# --- Measuring ------------------------------------------------------------------------------------------------------------------------


def chosen(
    discriminator: Discriminator, served: Tensor, real: Tensor, choice: str, freedom: float | None, seed: int
) -> Tensor:
    """Places of the served samples that a sampler keeps.

    A thief's real samples are parted: with the first `FITTED` of them, and as many served, the last layer is refitted (freedom; None
    leaves the discriminator as it is), with the rest it is calibrated, and chains start from there too. Of the served, those that it was
    fitted and calibrated with may be kept like any other.
    """
    fit, rest = real.tensor_split([round(FITTED * len(real))])
    judge = (
        discriminator if freedom is None else subsampling.refitted(discriminator, fit, served[: len(fit)], freedom)
    )
    probability = subsampling.calibrated(judge, rest, served[len(fit) : len(fit) + len(rest)])
    found = probability(served)
    if choice == "rejection":
        return subsampling.rejection(found, PERCENTILE, seed=seed)
    starts = probability(rest)
    chains = len(served) // CHAIN
    which = torch.randint(len(starts), (chains,), generator=torch.Generator().manual_seed(seed))
    return subsampling.metropolis_hastings(found, starts[which], CHAIN, seed)


def check(kind: str, seed: int) -> cells.Figures:
    """What two samplers keep of 20,000 served samples, against as many at random: Fréchet distances to the real data."""
    (real, freedom), served = CHECKS[kind], _server(seed).serve(20_000)
    figures: cells.Figures = {}
    for choice in ("chain", "rejection"):
        kept = chosen(zoo.load(PARTNER), served, real_samples(real, seed, held_out=True), choice, freedom, seed)
        figures |= {
            f"{choice}_kept": len(kept),
            f"{choice}_fd_to_real": _frechet(served[kept]),
            f"{choice}_fd_at_random": _frechet(served[: len(kept)]),
        }
    return figures


def loot(about: Thief, seed: int, base: Pair | None = None) -> Tensor:
    """(n, 1, 28, 28) what a thief trains his GAN on. base: his earlier theft, whose discriminator a partial black box goes on with."""
    # The seller's discriminator was trained on the training set, and is too sure of it to be calibrated there.
    held_out = about.scenario == "white box"
    real = real_samples(about.real, seed, held_out=held_out) if about.real else torch.empty(0, 1, 28, 28)
    if not about.queries:
        return real
    served = _server(seed, about.defence).serve(about.queries)
    if about.choice == "all":
        return torch.cat([served, real])
    judge = zoo.load(PARTNER) if about.scenario == "white box" else base[1]
    # As many as a black-box thief has, so that the two differ in which samples they train on and in nothing else.
    return served[chosen(judge, served, real, about.choice, FREEDOM, seed)][:SAMPLES]


def thief(kind: str, seed: int, base: Pair | None = None) -> tuple[cells.Figures, Pair | None]:
    """Train and judge one thief; also the pair that he trained, where others go on with it."""
    about, fresh = THIEVES[kind], extraction.thief(THIEVES[kind].architecture, 40_000 + seed)
    started = time.process_time()
    if about.scenario == "latents":
        z = target().latent.sample(about.queries, torch.Generator().manual_seed(50_000 + seed))
        answers = _server(seed, latents=True).serve(latents=z)
        got = extraction.imitate(z, answers, fresh[0], ImitateSettings(STEPS, seed=seed))
        figures = _judged(got, about, seed, time.process_time() - started)
        return {**figures, "apart": extraction.answers_apart(got, target(), seed=60_000 + seed)}, None
    if about.scenario == "transfer":
        garments = real_samples(about.real, seed, OTHER)
        settings = extraction.settings_for(fresh[1], MOVED, seed)
        run = extraction.steal(garments, base if about.stolen else fresh, settings)
        seconds, ruler = time.process_time() - started, zoo.ruler(OTHER)
        return {"fd_to_real": ruler.frechet(run.generator, SAMPLES, 60_000 + seed), "seconds": seconds}, None
    samples = loot(about, seed, base)
    run = extraction.steal(samples, fresh, extraction.settings_for(fresh[1], STEPS, seed))
    figures = _judged(run.generator, about, seed, time.process_time() - started)
    figures["trained_on"] = len(samples)
    if about.queries:
        figures["loot_fd_to_real"] = _frechet(samples) if len(samples) >= SAMPLES else None
    return figures, (run.generator, run.partner) if kind == BLACK_BOX else None


def _judged(generator: Generator, about: Thief, seed: int, seconds: float) -> cells.Figures:
    found = extraction.judged(generator, _seen(), _ruler().real, _ruler().classifier, seed=60_000 + seed)
    return {**asdict(found), "queries": about.queries, "real": about.real, "seconds": seconds}


def measure(cell: Cell, base: tuple[cells.Figures, bytes] | None = None) -> tuple[cells.Figures, cells.Product]:
    """Run one cell; of the black-box thief that others build on also the pair he trained."""
    if cell.part == "floor":
        return {"frechet": FLOORS[cell.kind](cell.seed)}, None
    if cell.part == "served":
        served = _server(cell.seed, cell.kind, cell.strength).serve(SAMPLES)
        return {"fd_to_real": _frechet(served), "fd_to_target": _frechet(served, _seen())}, None
    if cell.part == "check":
        return check(cell.kind, cell.seed), None
    figures, pair = thief(cell.kind, cell.seed, None if base is None else unpacked_pair(base[1]))
    return figures, None if pair is None else packed_pair(pair)


def packed_pair(pair: Pair) -> bytes:
    """Both networks as bytes: how long the first is, the first, the second."""
    first, second = map(checkpoints.packed, pair)
    return struct.pack("<Q", len(first)) + first + second


def unpacked_pair(content: bytes) -> Pair:
    """What `packed_pair` gave the bytes of."""
    (length,) = struct.unpack_from("<Q", content)
    return checkpoints.unpacked(content[8 : 8 + length]), checkpoints.unpacked(content[8 + length :])


_SECONDS = {"floor": 6.0, "served": 6.0, "check": 20.0}


def seconds(cell: Cell) -> float:
    """About how long a cell takes on one core."""
    if cell.part != "thief":
        return _SECONDS[cell.part]
    return {"latents": 20.0, "transfer": 22.0}.get(THIEVES[cell.kind].scenario, 35.0)


TABLE = cells.Table("extraction", all_cells, measure, seconds, "make neighbours")


# --- Reading it -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds that are measured: its values, and its interval where there are `FEWEST` of them or more."""

    values: tuple[float, ...]

    @property
    def interval(self) -> extraction.Interval | None:
        return extraction.interval(self.values) if len(self.values) >= FEWEST else None

    @property
    def median(self) -> float:
        """NaN where nothing is measured."""
        return statistics.median(self.values) if self.values else float("nan")

    @property
    def side(self) -> int | None:
        """Of differences: 1 if their interval lies above 0, -1 if below, 0 if it holds 0; None with too few seeds."""
        if self.interval is None:
            return None
        return int(self.interval.low > 0.0) - int(self.interval.high < 0.0)

    def __str__(self) -> str:
        if self.interval is not None:
            return str(self.interval)
        return f"{self.median:.3g} ({len(self.values)} seeds: no claim)" if self.values else "not measured"


def by_seed(
    kind: str, figure: str = "fd_to_target", part: str = "thief", strength: float | None = None
) -> dict[int, float]:
    """One figure of the published table by the seed that it was measured with, such as "fd_to_real" of a thief.

    Raises:
        ValueError: a kind that the table does not have, or several strengths of it and none chosen.
        FileNotFoundError: nothing was published.
    """
    mine = [
        cell for cell in all_cells() if (cell.part, cell.kind) == (part, kind) and strength in (None, cell.strength)
    ]
    if not mine:
        raise ValueError(f"the table has no {part} {kind!r}" + ("" if strength is None else f" at {strength:g}"))
    if len({cell.strength for cell in mine}) > 1:
        raise ValueError(f"{kind!r} has several strengths: choose one of {STRENGTHS[kind]}")
    stored = TABLE.published()
    return {cell.seed: stored[cell][figure] for cell in mine if cell in stored}


def spread(kind: str, figure: str = "fd_to_target", part: str = "thief", strength: float | None = None) -> Spread:
    """One figure of the published table over its seeds; arguments and errors as those of `by_seed`."""
    return Spread(tuple(by_seed(kind, figure, part, strength).values()))


def rise(first: str, second: str, figure: str = "fd_to_target") -> Spread:
    """By how much the second thief's figure exceeds the first's, seed by seed, over the seeds that both are measured with.

    Two thieves of one seed and one architecture start from the same untrained pair and visit the same server. What is hard about a
    seed is so for both of them, and falls out of the difference.
    """
    low, high = by_seed(first, figure), by_seed(second, figure)
    return Spread(tuple(high[seed] - low[seed] for seed in sorted(low.keys() & high.keys())))


def balance(name: str) -> Spread:
    """What a defence costs the thief more than the customer, seed by seed: the rise of the thief's fd_to_real less the rise of that of
    the samples which he is served, both against no defence. Above 0 it counts."""
    thieves, served = (rise(BLACK_BOX, f"defended by {name}", figure) for figure in ("fd_to_real", "loot_fd_to_real"))
    return Spread(tuple(his - theirs for his, theirs in zip(thieves.values, served.values, strict=True)))


def gap(lower: Spread, higher: Spread) -> float | None:
    """How far the interval of `higher` lies above that of `lower`: what is above 0 may be claimed. None with too few seeds."""
    if lower.interval is None or higher.interval is None:
        return None
    return higher.interval.low - lower.interval.high
