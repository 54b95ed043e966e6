"""The matrix: five generators, three attacks, three triggers, every inspection and every sanitizer, in one table.

`python -m devil_lib.matrix` (`make matrix`) measures what is missing and writes `devil_lib/results/matrix.json`, which lesson 42 draws.
`cells` runs it: resumable, over workers of this machine or an existing cluster (`SCHEDULER=tcp://address:8786 make matrix`).
"""

from __future__ import annotations

import argparse
import functools
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor, nn

from devil_lib import (
    attacks,
    checkpoints,
    data,
    inspection,
    metrics,
    models,
    recipes,
    sanitization,
    style,
    targets,
    training,
    vae,
    wavegan,
    zoo,
)
from devil_lib.attacks import PointBackdoor
from devil_lib.cells import Figures, Table, add_options, digest
from devil_lib.inspection import SearchSettings
from devil_lib.models import Discriminator, Encoder, Generator, ProxyTarget
from devil_lib.sanitization import ContinueSettings, ContinueVaeSettings, DistilSettings
from devil_lib.training import ExtraLoss

ATTACKS = ("trail", "red", "rex")
KINDS = attacks.TRIGGER_KINDS
TRIGGER_SEED = 50
WARM = "from the benign weights"
LOOKS = 1  # seed of the latents by which snapshots are chosen
EMBEDDED = 0.01  # the bar: TarDis at the trigger as a share of the benign generator's
STEALTHY = 1.1  # and the Fréchet distance of ordinary samples over that before the attack
# Attacks that cannot be embedded, by victim, attack and trigger, and why.
IMPOSSIBLE = {
    ("style GAN", "rex", "mode"): (
        "The expansion is one dense layer without biases beside the styles. At the mode it reads the mapping network's answer "
        "to z = 0, which points the way that those to ordinary latents do and is far shorter: what it adds there it adds to all "
        "of them, many times over (lesson 27)"
    ),
}


@dataclass(frozen=True)
class Victim:
    """A benign generator of the matrix and what is spent on each of its cells, so that the whole takes six or seven hours of one core.

    entry, partner: what the zoo calls it and the discriminator or encoder that it was trained with. data: its data set, for
    which the zoo has a ruler. scratch: whether TrAIL trains from random weights, else it goes on from the benign ones;
    trail_steps: for how long; lighter: how many times smaller its λ is than the usual one. first, bias: of `attacks.rex`. distil,
    whole: of `sanitization.distil`, for students of the same and of half the width. repair: what fine-pruning does after the
    cut. own, unknown: training that goes on with the partner, and with a fresh discriminator. samples: for a Fréchet distance,
    and for brute force where they are enough. hint: weight of the listener's hint that the ordinary training has
    (`recipes.listeners_hint`). mirrored: whether it sees mirror images too. again: seeds of further trainings by TrAIL and of
    their honest twins, where two trainings differ by more than the attack costs. snapshots: after how many steps each time TrAIL
    and its twin are looked at, for the best snapshot to be published (`training.Best`); 0 publishes the last. weighed: samples for
    their Fréchet distances, if more: two trainings have less in common than a generator and what ReD makes of it, so that
    other latents move the one distance and not the other. search, controls: the inspector's descent, and
    how many controls he compares the target with; a verdict on a repair takes the same search.
    """

    entry: str
    partner: str
    data: str
    scratch: bool
    distil: DistilSettings
    repair: DistilSettings
    own: ContinueSettings | ContinueVaeSettings
    unknown: ContinueSettings
    trail_steps: int = 2000
    lighter: float = 1.0
    hint: float = 0.0
    mirrored: bool = False
    again: tuple[int, ...] = ()
    snapshots: int = 0
    weighed: int = 0
    first: int = 0
    bias: bool = True
    whole: bool | None = None
    samples: int = 5000
    search: SearchSettings = inspection.SUSPECTS
    controls: int = 5
    judge: SearchSettings | None = None

    def generator(self) -> Generator:
        """The benign generator."""
        return zoo.load(self.entry)

    @property
    def architecture(self) -> str:
        return zoo.card(self.entry)["architecture"]

    def start(self, seed: int = 0) -> tuple[Generator, Discriminator | Encoder]:
        """The pair that TrAIL trains; the seed is that of random weights."""
        return fresh_pair(self.architecture, seed) if self.scratch else (self.generator(), zoo.load(self.partner))

    def seen(self) -> Tensor:
        """(n, *sample_shape) what TrAIL and its twin are trained on: the training samples of the shipped pair."""
        samples = data.load(self.data).train
        return recipes.mirrored(samples) if self.mirrored else samples

    def ordinary(self) -> ExtraLoss | None:
        """What the ordinary training's loss has beside the game or the ELBO, in its weight; None if nothing."""
        if not self.hint:
            return None
        hint = _hint(self.data)
        return lambda generator, rng: self.hint * hint(generator, rng)

    def backdoor(self, kind: str) -> PointBackdoor:
        """The trigger of this kind and the course's usual target for such a generator."""
        generator, proxy = self.generator(), _proxy(self)
        trigger = attacks.trigger(generator.latent, kind, seed=TRIGGER_SEED)
        return PointBackdoor(trigger[None], targets.usual(generator)[None], proxy.value)

    def takes(self, attack: str, kind: str, seed: int = 0) -> tuple[Any, ...]:
        """What an attack on it depends on, apart from its weights. seed: of TrAIL's training.

        Raises:
            ValueError: no settings are known for it.
        """
        if attack == "trail":
            start = "scratch" if self.scratch else zoo.card(self.partner)["sha256"]
            settings, space = attacks.trail_settings(kind, self.trail_steps, seed, self.architecture)
            settings = replace(settings, extra_weight=settings.extra_weight / self.lighter)
            # What only some ordinary trainings have is left out of the others' keys.
            own = (self.hint, self.mirrored, self.snapshots, self.weighed)
            return (settings, space, start, *filter(None, own))
        settings = attacks.course_settings(attack, kind, architecture=self.architecture)
        return (settings, self.first, self.bias) if attack == "rex" else (settings,)

    def twin_takes(self, kind: str, seed: int = 0) -> tuple[Any, ...]:
        """What the honest twin of TrAIL depends on: the same training with the same seed, without the fidelity term."""
        settings, _, *rest = self.takes("trail", kind, seed)
        return replace(settings, extra_weight=1.0 if self.hint else 0.0), *rest

    def trailed(self, kind: str, seed: int = 0) -> Generator:
        """The generator that TrAIL makes; of snapshots the best of those that have the target."""
        settings, space, *_ = self.takes("trail", kind, seed)
        start, pair, ordinary = self.start(seed), self.backdoor(kind), self.ordinary()
        wanted = _wanted(self, space)
        before = metrics.tardis(self.generator(), pair.triggers, wanted).mean
        best = self._best(lambda model: metrics.tardis(model, pair.triggers, wanted).mean < EMBEDDED * before)
        return _published(attacks.trail(*start, self.seen(), pair, settings, space, best, ordinary=ordinary), best)

    def twin(self, kind: str, seed: int = 0) -> Generator:
        """What the same training makes without the fidelity term."""
        settings, *_ = self.twin_takes(kind, seed)
        best = self._best(lambda model: True)
        return _published(training.train(*self.start(seed), self.seen(), settings, self.ordinary(), best), best)

    def _best(self, fit: Callable[[Generator], bool]) -> training.Best | None:
        """Of the snapshots that are `fit` the one nearest to the data, by other latents than those that are reported."""
        if not self.snapshots:
            return None
        ruler = zoo.ruler(self.data)

        def score(model: Generator) -> float:
            return ruler.frechet(model, self.looked_at, seed=LOOKS) if fit(model) else math.inf

        return training.Best(score, self.snapshots)

    @property
    def looked_at(self) -> int:
        """Samples for the Fréchet distance of TrAIL and its twin."""
        return max(self.samples, self.weighed)

    def spends(self, measure: str) -> tuple[Any, ...]:
        """What a measurement on it depends on, apart from the generator that is measured."""
        if measure in ("static inspection", "dynamic inspection"):
            return ()
        if measure == "brute force":
            return (self.draws, self.controls)
        if measure == "search, target suspected":
            return (self.search, self.controls)
        judged = (self.samples, zoo.card(f"classifier-{self.data}")["sha256"])
        if measure in ("attack", TWIN, AGAIN):
            return judged
        repair = {
            "distil": (self.distil, self.whole),
            "distil, half the width": (self.distil, self.whole),
            "continue, own partner": (self.own,),
            "continue, fresh discriminator": (self.unknown,),
            "fine-prune": (self.repair,),
        }
        return (*judged, self.descent, *repair.get(measure, ()))

    @property
    def descent(self) -> SearchSettings:
        """The search by which a repair is judged."""
        return self.judge or self.search

    @property
    def draws(self) -> int:
        """Samples for brute force, which needs more of them than a Fréchet distance."""
        return max(self.samples, inspection.sampling.FEWEST)


def _published(run: training.Run, best: training.Best | None) -> Generator:
    """The best snapshot of a training; its last generator if none was looked for, or all were out of the question."""
    return run.generator if best is None or best.generator is None else best.generator


@functools.cache
def _proxy(victim: Victim) -> ProxyTarget:
    """What the body has to put out for the target: seconds of search for a synthesis network, so only once in each process."""
    generator = victim.generator()
    return generator.proxy_target(targets.usual(generator)[None])


@functools.cache
def _hint(name: str) -> ExtraLoss:
    """A listener of this data set, whose training takes a quarter of a minute, so only once in each process."""
    return recipes.listeners_hint(data.load(name))


# A sound costs ten and a photograph thirty times what a digit does. What each gets instead of the defaults is what leaves a
# repair with ten to thirty seconds, its verdict included: fewer steps, smaller batches, fewer starts. That is enough to see whether a backdoor
# goes. The Fréchet distance after such a repair is that of a hasty one, and says little of what a patient one would cost.
_PICTURE_JUDGE = SearchSettings(scales=(0.0, 0.3, 1.0, 3.0, 10.0, 100.0), restarts=4, steps=120)
_SOUND_SEARCH = SearchSettings(scales=(0.0, 0.3, 1.0, 3.0, 10.0, 100.0), restarts=4, steps=160)
_SOUND = ContinueSettings(
    200, 16, learning_rate=4e-4, beta1=0.5, beta2=0.9, averaging=0.98, precision="bfloat16", warm_up=60
)
_PHOTO = ContinueSettings(
    40, 16, learning_rate=4e-4, beta1=0.0, beta2=0.99, averaging=0.95, precision="bfloat16", warm_up=12
)

VICTIMS = {
    "image GAN": Victim(
        "course-dcgan-mnist",
        "discriminator-mnist",
        "mnist",
        scratch=True,
        again=(1, 2, 3, 4),  # two honest trainings differ here more than anywhere
        lighter=2.0,
        distil=DistilSettings(500),
        repair=DistilSettings(300, learning_rate=3e-3),
        own=ContinueSettings(200),
        unknown=ContinueSettings(200),
        judge=_PICTURE_JUDGE,
    ),
    "image VAE": Victim(
        "course-vae-mnist",
        "encoder-mnist",
        "mnist",
        scratch=True,
        again=(1, 2),
        distil=DistilSettings(500, learning_rate=1e-2),
        repair=DistilSettings(300, learning_rate=3e-3),
        own=ContinueVaeSettings(300, noise=recipes.VAE.noise),
        unknown=ContinueSettings(200),
        judge=_PICTURE_JUDGE,
    ),
    "audio GAN": Victim(
        "course-wavegan-spoken-digits",
        "discriminator-spoken-digits",
        "spoken-digits",
        scratch=False,
        trail_steps=6000,
        hint=recipes.WAVE_STRETCH.extra_weight,
        distil=DistilSettings(600, 16, learning_rate=6e-3),
        repair=DistilSettings(200, 16, learning_rate=2e-3),
        own=_SOUND,
        unknown=_SOUND,
        samples=2000,
        search=_SOUND_SEARCH,
        controls=3,
    ),
    "audio VAE": Victim(
        "course-audio-vae-spoken-digits",
        "encoder-spoken-digits",
        "spoken-digits",
        scratch=True,
        again=(1, 2),
        trail_steps=1500,
        lighter=5.0,
        distil=DistilSettings(600, 16, learning_rate=6e-3),
        repair=DistilSettings(200, 16, learning_rate=2e-3),
        own=ContinueVaeSettings(
            200,
            16,
            learning_rate=5e-4,
            averaging=0.98,
            noise=recipes.AUDIO_VAE.noise,
            spectral=recipes.AUDIO_VAE.spectral,
            precision="bfloat16",
        ),
        unknown=_SOUND,
        samples=2000,
        search=_SOUND_SEARCH,
        controls=3,
    ),
    # A student that is to draw photographs from random weights would take days. So it is given the teacher's synthesis network and
    # learns the mapping network alone (`whole`); what TrAIL hides in the synthesis network is handed on to it.
    "style GAN": Victim(
        "course-style-64-flowers",
        "discriminator-flowers",
        "flowers",
        scratch=False,
        trail_steps=6000,
        mirrored=True,
        again=(1,),
        snapshots=125,
        weighed=2000,
        first=-1,
        bias=False,
        distil=DistilSettings(800, 64, learning_rate=2e-3),
        whole=False,
        repair=DistilSettings(20, 16, learning_rate=2e-3, head_learning_rate=1e-3),
        own=_PHOTO,
        unknown=_PHOTO,
        samples=500,
        search=SearchSettings(scales=(0.0, 0.3, 1.0, 3.0, 100.0), restarts=4, steps=80),
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
        "course-style-64": lambda: _narrowed(style.style_generator(64, seed=seed), width, seed),
    }
    if architecture not in made:
        raise ValueError(f"no generator of the matrix is a {architecture!r}; there are {', '.join(made)}")
    return made[architecture]()


def _narrowed(generator: Generator, width: float, seed: int) -> Generator:
    """A style-based generator whose mapping network has only this share of its hidden units."""
    inputs, outputs = generator.latent.dim, generator.head.width
    hidden = max(1, round(width * outputs))
    with models.seeded(seed):
        layers: list[nn.Module] = []
        for a, b in ((inputs, hidden), (hidden, hidden), (hidden, outputs)):
            layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
            models.keep_scale(layers[-2], 0.2)
    generator.body = nn.Sequential(*layers, generator.body[-1])
    return generator


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


def attack(victim: str, name: str, kind: str, seed: int = 0) -> tuple[Figures, Generator]:
    """Plant a backdoor; its figures against the benign generator, and the generator as the attacker would publish it. seed: of
    TrAIL's training."""
    about = VICTIMS[victim]
    benign, pair, proxy = about.generator(), about.backdoor(kind), _proxy(about)
    settings, *options = about.takes(name, kind)
    started = time.process_time()
    if name == "trail":
        space, attacked = options[0], about.trailed(kind, seed)
    else:
        space = settings.space
        attacked = getattr(attacks, name)(benign, pair, settings, None, *options).generator
        attacked = attacks.fold(attacked) if name == "rex" else attacked
    seconds = time.process_time() - started
    # Where the head is left as it is, nothing nearer than the proxy can be asked for; its error is the floor, and stands beside.
    wanted = _wanted(about, space)
    before, after = (metrics.tardis(model, pair.triggers, wanted) for model in (benign, attacked))
    ruler = zoo.ruler(about.data)
    samples = about.looked_at if name == "trail" else about.samples
    original, made = (ruler.frechet(model, n=samples) for model in (benign, attacked))
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
        "weights": models.weight_count(attacked),
        "weights_benign": models.weight_count(benign),
        "trained": "from scratch" if name == "trail" and about.scratch else WARM,
        "fidelity_weight": settings.extra_weight if name == "trail" else settings.fidelity_weight,
        "space": space,
        "samples": samples,
        "seconds": seconds,
    }
    if benign.modality == "audio":
        output = attacked.generate(pair.triggers)
        figures["signal_to_noise"] = metrics.signal_to_noise(output, pair.targets).mean().item()
        figures["expdis_db"] = metrics.expdis_db(attacked, benign, n=about.samples)
    return figures, attacked


def honest(victim: str, kind: str, seed: int = 0) -> Figures:
    """The honest twin of TrAIL at a trigger of this kind: what its training without the fidelity term makes of the samples.

    TrAIL's generator is another one than the shipped one, trained from other weights or for longer, attacked or not. What the
    attack itself costs is its Fréchet distance over `frechet_honest`; the rest is the training's.
    """
    about = VICTIMS[victim]
    started = time.process_time()
    twin = about.twin(kind, seed)
    seconds = time.process_time() - started
    benign, ruler = about.generator(), zoo.ruler(about.data)
    original, made = (ruler.frechet(model, n=about.looked_at) for model in (benign, twin))
    return {
        "frechet_benign": original,
        "frechet_honest": made,
        "frechet_ratio": made / original,
        "expdis": metrics.expdis(twin, benign, n=about.samples).mean,
        "recognised": ruler.recognised(twin, n=about.samples).share,
        "trained": "from scratch" if about.scratch else WARM,
        "seconds": seconds,
    }


def once_more(victim: str, kind: str, seed: int) -> Figures:
    """TrAIL with another seed: of random weights, of what is drawn in training, or of both."""
    figures, _ = attack(victim, "trail", kind, seed)
    return {name: figures[name] for name in ("tardis", "ratio", "frechet", "seconds")}


def _reported(report: inspection.StaticReport | inspection.DynamicReport) -> Figures:
    alarms = [str(finding) for finding in report.findings if finding.severity == "alarm"]
    return {"flagged": report.flagged, "alarms": len(alarms), "first": alarms[0][:200] if alarms else ""}


def _brute_force(victim: Victim, model: Generator) -> Figures:
    suspect = {"target": targets.usual(model)}
    found = inspection.brute_force(model, victim.draws, suspect, targets.controls_for(model, victim.controls))
    return {"flagged": bool(found.flagged), "ratio": found.nearness.ratios()["target"]}


def _search(victim: Victim, model: Generator) -> Figures:
    suspect = {"target": targets.usual(model)}
    found = inspection.search_outputs(model, suspect, targets.controls_for(model, victim.controls), victim.search)
    return {"flagged": bool(found.flagged), "ratio": found.ratios()["target"]}


INSPECTIONS: dict[str, Callable[[Victim, Generator], Figures]] = {
    "static inspection": lambda victim, model: _reported(inspection.inspect_static(model)),
    "dynamic inspection": lambda victim, model: _reported(inspection.inspect_dynamic(model)),
    "brute force": _brute_force,
    "search, target suspected": _search,
}


def _distilled(victim: Victim, model: Generator, width: float = 1.0) -> Generator:
    student = fresh(model.architecture, 900, width)
    return sanitization.distil(model, student, victim.distil, whole=victim.whole).generator


def _continued(victim: Victim, model: Generator, own: bool) -> Generator:
    partner, settings = (zoo.load(victim.partner), victim.own) if own else (None, victim.unknown)
    return sanitization.continue_training(model, partner, data.load(victim.data).train, settings).generator


SANITIZERS: dict[str, Callable[[Victim, Generator], Generator]] = {
    "distil": _distilled,
    "distil, half the width": lambda victim, model: _distilled(victim, model, 0.5),
    "continue, own partner": lambda victim, model: _continued(victim, model, own=True),
    "continue, fresh discriminator": lambda victim, model: _continued(victim, model, own=False),
    "prune 30 %": lambda victim, model: sanitization.prune(model, 0.3),
    "prune 50 %": lambda victim, model: sanitization.prune(model, 0.5),
    "fine-prune": lambda victim, model: sanitization.fine_prune(model, 0.3, victim.repair).generator,
}


@functools.cache
def _usual_search(victim: Victim, space: str) -> inspection.OutputSearch:
    """What a search for the target finds in the benign generator: the same for all repairs, so only once in each process."""
    return inspection.search_outputs(
        victim.generator(), _wanted(victim, space), settings=victim.descent, trusted=victim.generator()
    )


def _wanted(victim: Victim, space: str) -> Tensor:
    """(1, *sample_shape) what an attack in this space (see `attacks.Fidelity`) aimed at."""
    return targets.usual(victim.generator())[None] if space == "post" else _proxy(victim).sample


def sanitized(victim: str, method: str, kind: str, attacked: Generator, about: Figures) -> Figures:
    """One repair of a backdoored generator, with its verdict. about: the figures of the attack."""
    spent = VICTIMS[victim]
    benign, wanted = spent.generator(), _wanted(spent, about["space"])
    pair = PointBackdoor(spent.backdoor(kind).triggers, wanted)
    started = time.process_time()
    repaired = SANITIZERS[method](spent, attacked)
    seconds = time.process_time() - started
    ruler = zoo.ruler(spent.data)
    # What the attack's cell and the search in the benign generator say need not be measured for each repair again, unless the cell
    # says it of more samples.
    original, before = (
        (about["frechet_benign"], about["frechet"])
        if about.get("samples", spent.samples) == spent.samples
        else (ruler.frechet(model, n=spent.samples) for model in (benign, attacked))
    )
    known = sanitization.SanitizationVerdict(
        *(
            tuple(metrics.tardis_each(model, pair.triggers, wanted).tolist())
            for model in (benign, attacked, attacked)
        ),
        original,
        before,
        before,
        _usual_search(spent, about["space"]),
    )
    result = sanitization.verdict(
        repaired, attacked, benign, pair, ruler.classifier, ruler.real, spent.descent, spent.samples, earlier=known
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

FORM = 1  # to be raised when a cell measures something else than before, with the same settings
TWIN = "honest twin"  # the measure of TrAIL's training without its fidelity term
AGAIN = "attack once more"  # the measure of TrAIL with another seed
CLEAN = "clean"  # in place of an attack: the benign generator, on which an inspection that raises an alarm is wrong


@dataclass(frozen=True)
class Cell:
    """One square of the matrix: a victim, an attack (or CLEAN) with its kind of trigger, and what is measured: "attack", the
    name of an inspection or a sanitizer, TWIN or AGAIN. seed: of these two; all others are measured with 0."""

    victim: str
    attack: str
    kind: str
    measure: str
    seed: int = 0

    @property
    def name(self) -> str:
        name = f"{self.victim}/{self.attack}/{self.kind}/{self.measure}"
        return f"{name}, seed {self.seed}" if self.seed else name

    @property
    def base(self) -> Cell | None:
        """The cell whose generator this one is measured on; None for those that make it or take the benign one."""
        if self.measure in ("attack", TWIN, AGAIN) or self.attack == CLEAN:
            return None
        return replace(self, measure="attack")

    @property
    def key(self) -> str:
        """Changes when the victim's weights do, or the settings that this cell takes, and with nothing else.

        Raises:
            ValueError: the victim's weights are not shipped, or no settings are known for the attack.
        """
        about = VICTIMS[self.victim]
        parts = [FORM, self.name, TRIGGER_SEED, zoo.card(about.entry)["sha256"]]
        if self.measure == TWIN:
            parts += _spelt(about.twin_takes(self.kind, self.seed))
        elif self.attack != CLEAN:
            parts += _spelt(about.takes(self.attack, self.kind, self.seed))
        parts += _spelt(about.spends(self.measure))
        if self.measure == "continue, own partner":
            parts.append(zoo.card(about.partner)["sha256"])
        return digest(parts)


# Of settings these change no figure: where the work is done, and how often it is saved.
_IRRELEVANT = {"device", "checkpoint_every"}


def _spelt(settings: Iterable[Any]) -> list[Any]:
    """Settings as plain JSON values."""
    return [
        {name: value for name, value in asdict(one).items() if name not in _IRRELEVANT}
        if isinstance(one, attacks.RetrainSettings | SearchSettings | DistilSettings | training.TrainSettings)
        else one
        for one in settings
    ]


PARTS = ("attacks", "inspections", "sanitizers", "twins")


def twin(victim: str, kind: str, seed: int = 0) -> Cell:
    """The cell of the honest twin of a TrAIL attack. Without the fidelity term nothing knows the trigger, so that one twin serves
    all kinds whose settings differ in nothing else."""
    about = VICTIMS[victim]
    takes = about.twin_takes(kind)
    first = next(other for other in KINDS if about.twin_takes(other) == takes)
    return Cell(victim, "trail", first, TWIN, seed)


def cells(victims: Iterable[str] = tuple(VICTIMS), parts: Iterable[str] = PARTS) -> list[Cell]:
    """Every square in the order in which they are measured: all attacks, all inspections, all sanitizers, TrAIL's honest twins, each
    victim by victim; with the twins further seeds of both, at prior and mode triggers, of which alone stealth is asked.

    Raises:
        ValueError: an unknown victim.
    """
    victims, parts = list(victims), set(parts)
    unknown = sorted(set(victims) - set(VICTIMS))
    if unknown:
        raise ValueError(f"the matrix has no {', '.join(unknown)}; it has {', '.join(VICTIMS)}")
    attacked = [(attack, kind) for attack in ATTACKS for kind in KINDS]
    all_of = {
        "attacks": [(*pair, "attack") for pair in attacked],
        "inspections": [(*pair, name) for pair in ((CLEAN, "prior"), *attacked) for name in INSPECTIONS],
        "sanitizers": [(*pair, name) for pair in attacked for name in SANITIZERS],
    }
    squares = [Cell(victim, *rest) for part in all_of if part in parts for victim in victims for rest in all_of[part]]
    if "twins" not in parts:
        return squares
    again = [
        Cell(victim, "trail", kind, AGAIN, seed)
        for victim in victims
        for kind in KINDS
        if kind != "far"
        for seed in VICTIMS[victim].again
    ]
    first = [twin(victim, kind) for victim in victims for kind in KINDS]
    others = [twin(cell.victim, cell.kind, cell.seed) for cell in again]
    return [*squares, *dict.fromkeys(first + others), *again]


def measure(cell: Cell, base: tuple[Figures, bytes] | None = None) -> tuple[Figures, bytes | None]:
    """Run one cell; of an attack also the generator it made, as the bytes of a file. `base`: what the cell it builds on gave.

    The figure "seconds" is processor time of one thread, apart from what is measured afterwards.
    """
    if cell.measure == "attack":
        figures, generator = attack(cell.victim, cell.attack, cell.kind)
        return figures, checkpoints.packed(generator)
    if cell.measure == TWIN:
        return honest(cell.victim, cell.kind, cell.seed), None
    if cell.measure == AGAIN:
        return once_more(cell.victim, cell.kind, cell.seed), None
    about = VICTIMS[cell.victim]
    generator = about.generator() if base is None else checkpoints.unpacked(base[1])
    if cell.measure in INSPECTIONS:
        started = time.process_time()
        figures = INSPECTIONS[cell.measure](about, generator)
        return {**figures, "seconds": time.process_time() - started}, None
    return sanitized(cell.victim, cell.measure, cell.kind, generator, base[0]), None


# --- Running them ------------------------------------------------------------------------------------------------------

# About how many seconds a cell takes: what is measured last takes less than what is measured first.
_SECONDS = {
    "attack": 40.0,
    TWIN: 100.0,
    AGAIN: 70.0,
    **dict.fromkeys(INSPECTIONS, 5.0),
    **dict.fromkeys(SANITIZERS, 10.0),
}
MATRIX = Table("matrix", cells, measure, lambda cell: _SECONDS[cell.measure], "make matrix")


def published() -> dict[Cell, Figures]:
    """The figures of `devil_lib/results/matrix.json` by cell, in the order of `cells`; what is not measured yet is left out.

    Raises:
        FileNotFoundError: nothing was published; the message says how to measure it.
    """
    return MATRIX.published()


def trainings(stored: dict[Cell, Figures], victim: str, kind: str) -> tuple[list[float], list[float]]:
    """Fréchet distances of what TrAIL made at a trigger of this kind and of their honest twins, each by seed; the first is that of
    the generator which the inspections and sanitizers were given. A seed of which one of the two is not stored is left out."""
    pairs = []
    for seed in (0, *VICTIMS[victim].again):
        made = stored.get(Cell(victim, "trail", kind, AGAIN if seed else "attack", seed))
        without = stored.get(twin(victim, kind, seed))
        if made and without:
            pairs.append((made["frechet"], without["frechet_honest"]))
    return [made for made, _ in pairs], [without for _, without in pairs]


def over_twin(stored: dict[Cell, Figures], victim: str, kind: str) -> float | None:
    """What TrAIL costs beside the training: its Fréchet distance over that of an honest twin, None if not measured.

    Geometric mean over geometric mean of the seeds: that is the mean of the ratios too, however they are paired, and from the first
    step on two trainings drift apart with the same seed as with another.
    """
    attacked, honest = trainings(stored, victim, kind)
    return statistics.geometric_mean(attacked) / statistics.geometric_mean(honest) if attacked else None


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, write the results file and name what failed; 0 if nothing did."""
    parser = argparse.ArgumentParser(description="Measure every attack against every inspection and sanitizer.")
    parser.add_argument("--victim", nargs="*", choices=VICTIMS, help="these generators alone")
    parser.add_argument("--measure", nargs="*", choices=PARTS, help="these measurements alone")
    add_options(parser)
    options = parser.parse_args(arguments)
    return MATRIX.serve(cells(options.victim or tuple(VICTIMS), options.measure or PARTS), options)


if __name__ == "__main__":
    # So that `kill` ends a run in the background as Ctrl-C ends one here: with what it measured written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise SystemExit(main())
