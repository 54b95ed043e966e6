"""What MESA does to classifiers with many different triggers.

`python -m devil_lib.neighbours --only trigger_distribution` (`make neighbours`) measures what is missing. Of each trigger: a victim,
trained from scratch; then the defence, with all that it is compared with; of some the search for the target class. The paper fine-tunes
a trained classifier, with which these small ones do not take the trigger: success .24 to .39 after 15 epochs. A victim in which the trigger did not embed is measured and listed, and left out of the averages.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean

import torch
from torch import Tensor

from devil_lib import checkpoints, data
from devil_lib.cells import Figures, Table, digest
from devil_lib.data import Dataset
from devil_lib.metrics import accuracy
from devil_lib.models import Classifier, course_classifier
from devil_lib.neighbours import poisoning
from devil_lib.neighbours import trigger_distribution as mesa
from devil_lib.neighbours.poisoning import Patch
from devil_lib.neighbours.trigger_distribution import (
    BETAS,
    STRONG,
    WEAK,
    Approximation,
    Implant,
    Retraining,
    Staircase,
)

FORM = 2  # to be raised when a cell measures something else than before, with the same settings

# --- What embeds, asserted before any defence -------------------------------------------------------------------------------

SUCCESS = 0.9  # of the attack, at least
NULL = 0.05  # success of the same trigger on the clean classifier, at most
POINT = 0.01  # of accuracy that the backdoor may cost


def embedded(figures: Figures) -> bool:
    """Whether a victim's figures say that its backdoor works, that the trigger does nothing to the clean classifier and that the
    accuracy is within a point of the clean one's."""
    lost = figures["clean_accuracy"] - figures["accuracy"]
    return figures["success"] >= SUCCESS and figures["clean_success"] <= NULL and lost <= POINT + 1e-6


# --- Data and settings -----------------------------------------------------------------------------------------------------


def coloured(dataset: Dataset, seed: int = 0) -> Dataset:
    """Grey images with their black and their white replaced by two colours, drawn anew for every image: (n, 3, height, width). What
    a colour patch is put on when no colour photographs are to be had on which a small classifier is accurate."""
    rng = torch.Generator().manual_seed(seed)

    def tinted(images: Tensor) -> Tensor:
        paper, ink = (2.0 * torch.rand(len(images), 3, 1, 1, generator=rng) - 1.0 for _ in range(2))
        grey = (images + 1.0) / 2.0
        return (1.0 - grey) * (0.5 * paper - 0.5) + grey * (0.5 * ink + 0.5)

    return replace(dataset, name=f"coloured-{dataset.name}", train=tinted(dataset.train), test=tinted(dataset.test))


def load(name: str) -> Dataset:
    """A data set by name; "coloured-NAME" is the grey set of that name, coloured."""
    grey = name.removeprefix("coloured-")
    return data.load(grey) if grey == name else coloured(data.load(grey))


_TRAINING = Implant(epochs=30, learning_rate=3e-3)
_APPROXIMATION, _SEARCH = Approximation(steps=300), Approximation(steps=150)


@dataclass(frozen=True)
class Setting:
    """What is spent on a data set.

    trained: training images. held: of the test images so many are the defender's, and as many as `tested` of the rest measure (the
    paper splits 8,000 to 2,000). training: of the clean classifier and of the victim alike. reversals: reversed triggers of
    different seeds.
    """

    trained: int = 1400
    held: int = 200
    tested: int = 197
    width: int = 12
    training: Implant = _TRAINING
    approximation: Approximation = _APPROXIMATION
    search: Approximation = _SEARCH
    reversals: int = 3
    reversal_steps: int = 100
    samples: int = 40


SETTINGS = {
    "digits": Setting(),
    # On ground of any colour a patch takes longer to be told from it: after 30 epochs at 3e-3 two of four embedded, at two to ten points of
    # accuracy.
    "coloured-digits": Setting(training=Implant(epochs=50, learning_rate=5e-3)),
    "mnist": Setting(4000, 1000, 1000, training=Implant(epochs=40, learning_rate=3e-3)),
}
# The paper's weak one puts a trigger on 80 of 8,000 images in an epoch; of 200 these are 2, so that one between is tried as well.
RETRAININGS = {"strong": STRONG, "middle": Retraining(share=0.1, learning_rate=3e-3), "weak": WEAK}
CLASSES = 10
CONTRAST = "random patches, full contrast"  # a way of retraining with a stage of its own


@dataclass(frozen=True)
class Split:
    """Who has what of a data set: attacker, defender, and who measures; samples and labels of each."""

    train: tuple[Tensor, Tensor]
    defender: tuple[Tensor, Tensor]
    tested: tuple[Tensor, Tensor]


def split(dataset: Dataset, setting: Setting) -> Split:
    """The three parts, which have no image in common."""
    end = setting.held + setting.tested
    return Split(
        (dataset.train[: setting.trained], dataset.train_labels[: setting.trained]),
        (dataset.test[: setting.held], dataset.test_labels[: setting.held]),
        (dataset.test[setting.held : end], dataset.test_labels[setting.held : end]),
    )


# --- Cells ------------------------------------------------------------------------------------------------------------------

GREY = tuple(poisoning.pattern_number(pattern) for pattern in poisoning.patterns())
FIRST = GREY[::5]  # measured first: eleven from all over the 51
COLOURS = (0, 1, 2, 3)  # seeds of colour patches
SEARCHED = FIRST[2:8:2]  # whose target class is searched for


@dataclass(frozen=True)
class Cell:
    """One measurement. stage: "clean", "victim", "defence", "contrast" (one more control of the defence) or "search" (for the target
    class). number: of a black-and-white pattern, or the seed of a colour patch where the data set is coloured; -1 for none."""

    data: str
    stage: str
    number: int = -1

    @property
    def name(self) -> str:
        return "/".join([self.data, *([str(self.number)] if self.number >= 0 else []), self.stage])

    @property
    def base(self) -> Cell | None:
        if self.stage == "clean":
            return None
        if self.stage == "victim":
            return Cell(self.data, "clean")
        # The search on a clean classifier is the control.
        return Cell(self.data, "victim", self.number) if self.number >= 0 else Cell(self.data, "clean")

    @property
    def setting(self) -> Setting:
        return SETTINGS[self.data]

    @property
    def patch(self) -> Patch:
        """The trigger."""
        if self.data.startswith("coloured"):
            return poisoning.colour_patch(self.number)
        return poisoning.patch(self.number)

    @property
    def target(self) -> int:
        """The attacker's class: another one for each trigger."""
        return (self.number if self.data.startswith("coloured") else GREY.index(self.number)) % CLASSES

    @property
    def key(self) -> str:
        about = asdict(self.setting)
        later = {"clean": ("approximation", "search", "reversals", "reversal_steps", "samples")}
        later["victim"] = later["clean"]
        later["defence"], later["search"] = ("search",), ("approximation", "reversals", "reversal_steps", "samples")
        later["contrast"] = later["clean"]
        for unused in later[self.stage]:
            about.pop(unused)
        parts = [FORM, self.name, about, self.target if self.number >= 0 else None]
        if self.stage == "defence":
            parts += [BETAS, {name: asdict(one) for name, one in RETRAININGS.items()}]
        if self.stage == "contrast":
            parts += [{name: asdict(one) for name, one in RETRAININGS.items()}]
        return digest(parts)


def cells() -> list[Cell]:
    """Every cell, in the order in which they are measured: what the lesson needs first, then the rest of the 51 patterns."""

    def both(name: str, number: int) -> list[Cell]:
        return [Cell(name, stage, number) for stage in ("victim", "defence", "contrast")]

    ordered = [*FIRST, *(number for number in GREY if number not in FIRST)]
    return [
        Cell("digits", "clean"),
        *(cell for number in FIRST for cell in both("digits", number)),
        *(Cell("digits", "search", number) for number in SEARCHED[:1]),
        Cell("digits", "search"),
        Cell("coloured-digits", "clean"),
        *(cell for number in COLOURS for cell in both("coloured-digits", number)),
        *(Cell("digits", "search", number) for number in SEARCHED[1:]),
        Cell("mnist", "clean"),
        *(cell for number in FIRST[2:8:2] for cell in both("mnist", number)),
        *(cell for number in ordered[len(FIRST) :] for cell in both("digits", number)),
    ]


# --- Measuring --------------------------------------------------------------------------------------------------------------


def measure(cell: Cell, base: tuple[Figures, bytes] | None = None) -> tuple[Figures, bytes | None]:
    """Run one cell; of a "clean" and a "victim" also the classifier, as the bytes of a file.

    Attack success is the mean over three drawings of the patch's places. The figures ending in "_seconds" are processor time of
    one thread.
    """
    setting, parts = cell.setting, split(load(cell.data), cell.setting)
    started = time.process_time()
    if cell.stage == "clean":
        channels = parts.train[0].shape[1]
        start = course_classifier(channels, CLASSES, setting.width)
        clean = mesa.implant(start, *parts.train, None, 0, setting.training)
        seconds = time.process_time() - started
        return {"accuracy": accuracy(clean, *parts.tested), "training_seconds": seconds}, checkpoints.packed(clean)
    assert base is not None
    model = checkpoints.unpacked(base[1])
    assert isinstance(model, Classifier)
    if cell.stage == "search":
        found = mesa.detect_target(model, *parts.defender, CLASSES, settings=setting.search)
        figures = {"found": [float(f"{one:.3g}") for one in found], "search_seconds": time.process_time() - started}
        return figures | ({"target": cell.target} if cell.number >= 0 else {}), None
    if cell.stage == "victim":
        start = course_classifier(parts.train[0].shape[1], CLASSES, setting.width)
        victim = mesa.implant(start, *parts.train, cell.patch, cell.target, setting.training)
        figures = {
            "training_seconds": time.process_time() - started,
            "success": success(victim, parts, cell.patch, cell.target),
            "accuracy": accuracy(victim, *parts.tested),
            "clean_success": success(model, parts, cell.patch, cell.target),
            "clean_accuracy": accuracy(model, *parts.tested),
            "target": cell.target,
        }
        return figures, checkpoints.packed(victim)
    return (defence if cell.stage == "defence" else contrast)(cell, model, parts), None


def success(classifier: Classifier, parts: Split, patch: Patch, target: int) -> float:
    """Attack success on the images that measure, over three drawings of the places."""
    return fmean(poisoning.attack_success(classifier, *parts.tested, patch, target, seed=seed) for seed in range(3))


@dataclass(frozen=True)
class Ways:
    """What a victim is retrained with: name -> triggers (None: without). `reversed_` are the single triggers that were reversed."""

    sub_models: list[mesa.SubModel]
    reversed_: list[Tensor]
    triggers: dict[str, mesa.Triggers | None] = field(default_factory=dict)


def ways(victim: Classifier, images: Tensor, patch: Patch, target: int, setting: Setting, seed: int = 0) -> Ways:
    """Sub-models, reversed triggers, and all that a victim is retrained with."""
    sub_models = [
        mesa.approximate(victim, images, target, beta, setting.approximation, seed=seed + place)
        for place, beta in enumerate(BETAS)
    ]
    single = [
        mesa.reversed_trigger(victim, images, target, setting.reversal_steps, seed=seed + one)
        for one in range(setting.reversals)
    ]
    shape = tuple(patch.pixels.shape)
    triggers: dict[str, mesa.Triggers | None] = {
        "true trigger": mesa.always(patch.pixels),
        **{f"beta {beta}": model for beta, model in zip(BETAS, sub_models, strict=True)},
        "ensemble": Staircase(sub_models),
        **{f"reversed {place}": mesa.always(one) for place, one in enumerate(single)},
        "random patches": mesa.random_patches((shape[0], shape[1], shape[2])),
        "no trigger": None,
    }
    return Ways(sub_models, single, triggers)


def defence(cell: Cell, victim: Classifier, parts: Split) -> Figures:
    """Everything that is measured of a victim: how the distributions look, and what each retraining leaves of the attack."""
    setting, patch, target, started = cell.setting, cell.patch, cell.target, time.process_time()
    found = ways(victim, parts.defender[0], patch, target, setting)
    figures: Figures = {"approximation_seconds": time.process_time() - started}
    for model in found.sub_models:
        each = mesa.success_of(victim, *parts.tested, model, target, setting.samples)
        drawn = model(500, torch.Generator().manual_seed(1))
        figures |= {
            f"beta {model.beta}: successes": [float(f"{one:.3g}") for one in each.tolist()],
            f"beta {model.beta}: variety": mesa.variety(drawn),
            f"beta {model.beta}: spread": mesa.spread(drawn, patch.pixels).mean().item(),
            f"beta {model.beta}: information": fmean(model.history["information"][-20:]),
        }
    for place, one in enumerate(found.reversed_):
        figures |= {
            f"reversed {place}: success": success(victim, parts, Patch(one), target),
            f"reversed {place}: spread": mesa.spread(one[None], patch.pixels).item(),
        }
    for way, triggers in found.triggers.items():
        figures |= retrained(cell, victim, parts, way, triggers)
    figures["seconds"] = time.process_time() - started
    return figures


def contrast(cell: Cell, victim: Classifier, parts: Split) -> Figures:
    """What a retraining leaves that knows nothing of the victim but how hard the edges of its trigger may be."""
    shape = tuple(cell.patch.pixels.shape)
    triggers = mesa.full_contrast_patches((shape[0], shape[1], shape[2]))
    return retrained(cell, victim, parts, CONTRAST, triggers)


def retrained(cell: Cell, victim: Classifier, parts: Split, way: str, triggers: mesa.Triggers | None) -> Figures:
    """Attack success and accuracy after retraining a victim in one way, with every strength of `RETRAININGS`."""
    figures: Figures = {}
    for name, retraining in RETRAININGS.items():
        after = mesa.retrain(victim, *parts.defender, triggers, retraining)
        figures[f"{name}: {way}"] = success(after, parts, cell.patch, cell.target)
        figures[f"{name}: {way}: accuracy"] = accuracy(after, *parts.tested)
    return figures


_SECONDS = {"clean": 20.0, "victim": 20.0, "defence": 80.0, "contrast": 8.0, "search": 80.0}


def seconds(cell: Cell) -> float:
    """About how many a cell takes."""
    return _SECONDS[cell.stage]


TABLE = Table("trigger_distribution", cells, measure, seconds, "make neighbours")


# --- Reading it -------------------------------------------------------------------------------------------------------------

WAYS = (
    *("true trigger", *(f"beta {beta}" for beta in BETAS), "ensemble", "single reversed trigger"),
    *("random patches", CONTRAST, "no trigger"),
)


def defended(name: str) -> dict[int, tuple[Figures, Figures]]:
    """Of each published trigger that embedded in a data set's victim: the figures of victim and of all its retrainings, by number.
    One of which a part is not measured yet is left out."""
    published = TABLE.published()
    whole: dict[int, tuple[Figures, Figures]] = {}
    for cell, figures in published.items():
        if cell.data == name and cell.stage == "victim" and embedded(figures):
            defence, contrast = (published.get(replace(cell, stage=stage)) for stage in ("defence", "contrast"))
            if defence is not None and contrast is not None:
                whole[cell.number] = (figures, defence | contrast)
    return whole


def not_embedded(name: str) -> dict[int, Figures]:
    """The published victims of a data set in which the trigger did not embed, by its number."""
    return {
        cell.number: figures
        for cell, figures in TABLE.published().items()
        if cell.data == name and cell.stage == "victim" and not embedded(figures)
    }


def after(figures: Figures, retraining: str, way: str) -> list[float]:
    """Attack success after a retraining by one of `WAYS`; of the single reversed trigger one figure for each seed."""
    if way == "single reversed trigger":
        return [
            value
            for name, value in figures.items()
            if name.startswith(f"{retraining}: reversed ") and not name.endswith("accuracy")
        ]
    return [figures[f"{retraining}: {way}"]]
