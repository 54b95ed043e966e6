"""What cleansing does to poisoned and to clean training sets.

`python -m devil_lib.neighbours --only cleansing` (`make neighbours`) measures what is missing. Every set of a seed is drawn from the
same images, poisoned or not, so that the clean set's classifier says what an attack's success has to be compared with.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from devil_lib import checkpoints, data
from devil_lib.cells import Figures, Table, digest
from devil_lib.classifiers import features_of
from devil_lib.data import Dataset
from devil_lib.metrics import accuracy
from devil_lib.models import Classifier
from devil_lib.neighbours import cleansing, generated_sets, poisoning
from devil_lib.neighbours.cleansing import FINE, SECOND_TERMS, SILHOUETTE, Inversion, Training
from devil_lib.neighbours.generated_sets import Shop
from devil_lib.neighbours.poisoning import Additive, PoisonedSet

FORM = 1  # to be raised when a cell measures something else than before, with the same settings
_TRAINING, _INVERSION = Training(), Inversion()
_TESTED = 2000  # test images, the first so many


@dataclass(frozen=True)
class Attack:
    """A faint pattern (see `poisoning.additive`), put on `count` images of the source classes, which are then labelled `target`."""

    pattern: str
    levels: float
    sources: tuple[int, ...]
    target: int
    count: int

    def __str__(self) -> str:
        return f"{self.pattern} {self.levels:g}, {'+'.join(map(str, self.sources))} to {self.target}, {self.count}"

    def trigger(self, shape: tuple[int, ...], seed: int) -> Additive:
        """The pattern for samples of a shape; the places of single pixels are drawn from the set's seed."""
        channels, height, width = shape
        return poisoning.additive(self.pattern, (channels, height, width), self.levels, seed)


@dataclass(frozen=True)
class Setting:
    """What is spent on the sets of one data set. classes: of it. per_class: images of each that a set is drawn from, at most."""

    classes: int
    per_class: int
    training: Training = _TRAINING
    inversion: Inversion = _INVERSION
    fine: Inversion = FINE


SETTINGS = {
    # Longer, and by larger steps, than classifying the digits takes: after 10 epochs at 2e-3 they are known as well, and of four attacks
    # one is.
    "mnist": Setting(10, 500, Training(epochs=20, learning_rate=4e-3)),
    "digits": Setting(10, 500, Training(epochs=40, learning_rate=4e-3)),
    # With 20 images for each pair, as on digits, clean sets of photographs were called poisoned.
    "flowers-32": Setting(
        5,
        1000,
        Training(epochs=12, noise=0.3, copies=3),
        Inversion(images=50, target_images=100),
    ),
    # The papers' own data set: minutes of a graphics card, and not among the cells.
    "cifar10": Setting(10, 5000, Training(epochs=30, width=32)),
}

NOISELESS = Training(epochs=30)  # what photographs are trained with otherwise

# Settings were chosen by looking at sets with seeds below this and from 50 on. What is published begins here, with sets that nothing
# was chosen on.
FRESH = {"mnist": 20, "flowers-32": 20}
# One for each seed, from 0 or from `FRESH` on.
ATTACKS: dict[str, tuple[Attack, ...]] = {
    # The data that every copy of this package has, and that a test can measure again.
    # A level higher than on MNIST: with 3 it embedded in two draws of four (success .40 to .98), with 4 in all of them (.95 to 1).
    "digits": (Attack("chessboard", 4, (1,), 7, 60),),
    "mnist": (
        Attack("chessboard", 3, (1,), 7, 100),
        Attack("static", 6, (3,), 8, 100),
        Attack("pixel", 60, (4,), 0, 100),
        Attack("chessboard", 3, (2, 5), 0, 150),
        Attack("static", 6, (7,), 2, 100),
        Attack("chessboard", 3, (8,), 6, 100),
        Attack("static", 6, (1, 3, 6), 9, 100),
        Attack("pixel", 60, (9,), 1, 100),
        Attack("chessboard", 6, (0,), 5, 100),
        Attack("static", 6, (6,), 4, 100),
        Attack("chessboard", 3, (4,), 3, 100),
        Attack("pixel", 80, (2, 7), 3, 100),
        # The faintest: 3 levels on every fourth pixel, which does not embed in every draw.
        Attack("static", 3, (3,), 8, 100),
        Attack("chessboard", 3, (5,), 1, 100),
        Attack("static", 6, (0,), 7, 100),
    ),
    # Beneath 20 levels, and with two source classes beneath more, nothing embeds in a classifier that is trained with noise.
    "flowers-32": (
        Attack("static", 20, (1,), 3, 150),
        Attack("static", 28, (1, 2), 0, 200),
        Attack("static", 20, (0,), 4, 150),
        Attack("chessboard", 24, (4,), 1, 150),
        Attack("chessboard", 24, (2,), 3, 150),
        Attack("static", 20, (3,), 2, 150),
        # What is enough on digits, to show that here it is not.
        Attack("chessboard", 3, (0,), 1, 150),
    ),
}
SHARED_SEED = 100  # of the sets that are drawn from generators, from here on
# Twice as high as where files are altered: a generator draws it with errors of its own.
SHOPS = (
    Attack("chessboard", 6, (1,), 7, 150),
    Attack("chessboard", 6, (8,), 6, 150),
)


# --- Sets ------------------------------------------------------------------------------------------------------------------


def chosen(dataset: Dataset, per_class: int, seed: int) -> tuple[Tensor, Tensor]:
    """At most `per_class` training samples of each class, drawn from the seed, with their labels."""
    rng = torch.Generator().manual_seed(seed)
    kept = []
    for label in range(len(dataset.class_names)):
        among = (dataset.train_labels == label).nonzero().squeeze(1)
        kept.append(among[torch.randperm(len(among), generator=rng)[:per_class]])
    places = torch.cat(kept)
    return dataset.train[places], dataset.train_labels[places]


def training_set(dataset: Dataset, attack: Attack | None, seed: int, per_class: int) -> PoisonedSet:
    """The set of a cell: drawn from the seed, and poisoned by the attack if there is one."""
    samples, labels = chosen(dataset, per_class, seed)
    if attack is None:
        return PoisonedSet(samples, labels, torch.zeros(len(labels), dtype=torch.bool))
    trigger = attack.trigger(tuple(samples.shape[1:]), seed)
    return poisoning.poisoned(samples, labels, trigger, attack.target, attack.sources, count=attack.count, seed=seed)


# --- Cells ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A training set, and what is measured on it.

    data: its name. attack: what it is poisoned with; None for a clean set. seed: that the set is drawn and the classifier trained
    from. second: the objective's second term, for all pairs and for the estimate, where it is not the setting's two. shop: whether
    the images are drawn from generators that are trained on the data set, one of which the attack is planted in. noiseless: whether
    the classifier is trained without the noise that the setting asks for.
    """

    data: str
    attack: Attack | None
    seed: int
    second: str = ""
    shop: bool = False
    noiseless: bool = False

    @property
    def name(self) -> str:
        parts = [self.data, *(["generated"] if self.shop else []), str(self.attack or "clean"), str(self.seed)]
        return "/".join(
            [*parts, *([self.second] if self.second else []), *(["without noise"] if self.noiseless else [])]
        )

    @property
    def place(self) -> int:
        """Which of the data set's seeds it is, from 0 on."""
        return self.seed - FRESH.get(self.data, 0)

    @property
    def base(self) -> Cell | None:
        """The cell whose classifier this one is measured on: other second terms are tried on the classifier that is there."""
        return replace(self, second="") if self.second else None

    @property
    def setting(self) -> Setting:
        about = SETTINGS[self.data]
        if self.noiseless:
            return replace(about, training=NOISELESS)
        if not self.second:
            return about
        return replace(
            about,
            inversion=replace(about.inversion, second=self.second),
            fine=replace(about.fine, second=self.second),
        )

    @property
    def key(self) -> str:
        parts: list[Any] = [FORM, self.name, asdict(self.setting), None]
        if self.attack:
            parts = [*parts[:3], asdict(self.attack), cleansing.STRETCHES, cleansing.ROOM]
        if self.shop:
            shop = asdict(Shop())
            for settings in (shop["vae"], shop["red"]):
                settings.pop("device", None)
            parts.append(shop)
        elif self.attack is None and not self.second:
            parts.append([asdict(attack) for attack in rivals(self)])
        return digest(parts)


def rivals(cell: Cell) -> list[Attack]:
    """The attacks that are made on the images of a clean cell, with the same seed."""
    attacks, place = ATTACKS.get(cell.data, ()), cell.place
    return [attacks[place]] if place < len(attacks) else []


def sets(name: str) -> list[Cell]:
    """The cells of a data set: a poisoned and a clean one for each seed."""
    return [
        cell
        for seed, attack in enumerate(ATTACKS[name], start=FRESH.get(name, 0))
        for cell in (Cell(name, attack, seed), Cell(name, None, seed))
    ]


COMPARED = 4  # sets on which the second terms are compared
FILTERED = 3  # sets on which the classifier is trained again after each of the two filters


def cells() -> list[Cell]:
    """Every cell, in the order in which they are measured."""
    shops = [
        Cell("mnist", attack, SHARED_SEED + place, shop=True)
        for place, one in enumerate(SHOPS)
        for attack in (one, None)
    ]
    terms = [
        replace(cell, second=second) for cell in sets("mnist") if cell.place < COMPARED for second in SECOND_TERMS
    ]
    photographs = sets("flowers-32")
    noiseless = [replace(cell, noiseless=True) for cell in photographs]
    return [*sets("digits"), *sets("mnist"), *shops, *photographs, *terms, *noiseless]


# --- Measuring --------------------------------------------------------------------------------------------------------------


def measure(cell: Cell, base: tuple[Figures, bytes] | None = None) -> tuple[Figures, bytes | None]:
    """Run one cell; of one without a base also the classifier, as the bytes of a file.

    The figures ending in "_seconds" are processor time of one thread.
    """
    dataset, about = data.load(cell.data), cell.setting
    test, test_labels = dataset.test[:_TESTED], dataset.test_labels[:_TESTED]
    figures: Figures = {}
    if cell.shop:
        made, told = generated(dataset, cell.attack, cell.seed, about.per_class)
        figures |= told
    else:
        made = training_set(dataset, cell.attack, cell.seed, about.per_class)
    if base is not None:
        classifier, product = checkpoints.unpacked(base[1]), None
    else:
        started = time.process_time()
        classifier = cleansing.train(made.samples, made.labels, about.classes, about.training, cell.seed)
        figures |= {
            "training_seconds": time.process_time() - started,
            "accuracy": accuracy(classifier, test, test_labels),
        }
        product = checkpoints.packed(classifier)
    assert isinstance(classifier, Classifier)
    found = verdict(classifier, made, about)
    figures |= found
    if cell.attack is None:
        for attack in rivals(cell) if base is None and not cell.shop else []:
            trigger = attack.trigger(tuple(test.shape[1:]), cell.seed)
            figures["success_of_attack"] = poisoning.attack_success(
                classifier, test, test_labels, trigger, attack.target, attack.sources
            )
        return figures, product
    attack, trigger = cell.attack, cell.attack.trigger(tuple(test.shape[1:]), cell.seed)
    source, target = figures["source"], figures["target"]
    figures["right_pair"] = source in attack.sources and target == attack.target
    started = time.process_time()
    pattern = cleansing.estimate(classifier, made.samples, made.labels, (source, target), about.fine)
    flagged = cleansing.flagged(classifier, made.samples, made.labels, pattern, target)
    figures["estimation_seconds"] = time.process_time() - started
    judged = made.labels == attack.target
    figures |= {
        "likeness": cleansing.likeness(pattern, trigger.pattern),
        "length": pattern.norm().item(),
        "true_length": trigger.pattern.norm().item(),
        **_removal("", flagged, made, judged),
    }
    if base is not None:
        return figures, None

    def success(classifier: Classifier) -> float:
        return poisoning.attack_success(classifier, test, test_labels, trigger, attack.target, attack.sources)

    def retrained(marked: Tensor) -> Classifier:
        left = made.without(marked)
        return cleansing.train(left.samples, left.labels, about.classes, about.training, cell.seed)

    after = retrained(flagged)
    figures |= {
        "success": success(classifier),
        "success_after": success(after),
        "accuracy_after": accuracy(after, test, test_labels),
    }
    # Training after each filter takes as long as all else: for some of the sets only.
    again = (lambda marked: success(retrained(marked))) if cell.data == "mnist" and cell.place < FILTERED else None
    figures |= filters(classifier, made, about.classes, attack, figures["success"], again)
    return figures, product


def verdict(classifier: Classifier, made: PoisonedSet, about: Setting) -> Figures:
    """All pairs inverted, and whether the set is called poisoned."""
    started = time.process_time()
    pairs = cleansing.all_pairs(about.classes)
    inverted = cleansing.invert(classifier, made.samples, made.labels, pairs, about.inversion)
    found = cleansing.detect(pairs, inverted.lengths.tolist())
    return {
        "inversion_seconds": time.process_time() - started,
        "p_value": found.p_value,
        "source": found.pair[0],
        "target": found.pair[1],
        "lengths": [float(f"{length:.4g}") for length in inverted.lengths.tolist()],
        "unfinished": int((inverted.reached < about.inversion.reached).sum()),
    }


def _removal(filter_name: str, marked: Tensor, made: PoisonedSet, judged: Tensor) -> Figures:
    true_rate, false_rate = cleansing.rates(marked, made.is_poisoned, judged)
    return {f"{filter_name}true_rate": true_rate, f"{filter_name}false_rate": false_rate}


def filters(
    classifier: Classifier,
    made: PoisonedSet,
    classes: int,
    attack: Attack,
    success: float,
    success_after: Callable[[Tensor], float] | None,
) -> Figures:
    """What spectral signatures and activation clustering remove of the same set. Both are told the target class, and the former how
    many images are poisoned; neither is known to the defender. An attack that clustering does not declare stays as it is."""
    of_class = [(made.labels == label).nonzero().squeeze(1) for label in range(classes)]
    found = [features_of(classifier, made.samples[places]) for places in of_class]
    clusters = [cleansing.activation_clustering(one) for one in found]
    judged = made.labels == attack.target

    def whole(marked: Any) -> Tensor:
        all_of_them = torch.zeros(len(made.labels), dtype=torch.bool)
        all_of_them[of_class[attack.target]] = torch.from_numpy(marked)
        return all_of_them

    spectral = whole(cleansing.spectral_signature(found[attack.target], round(1.5 * attack.count)))
    smaller, silhouette = clusters[attack.target]
    smaller, declared = whole(smaller), silhouette > SILHOUETTE
    figures: Figures = {}
    if success_after is not None:
        figures["spectral_success_after"] = success_after(spectral)
        figures["clustering_success_after"] = success_after(smaller) if declared else success
    return figures | {
        **_removal("spectral_", spectral, made, judged),
        **_removal("clustering_", smaller, made, judged),
        "clustering_declared": declared,
        "silhouettes": [float(f"{one:.4g}") for _, one in clusters],
    }


def generated(dataset: Dataset, attack: Attack | None, seed: int, per_class: int) -> tuple[PoisonedSet, Figures]:
    """A training set drawn from generators of the data set's classes; with an attack, one of them is backdoored."""
    samples, labels = chosen(dataset, per_class, seed)
    shop, started = Shop(), time.process_time()
    shop = replace(shop, vae=replace(shop.vae, seed=1000 * seed), red=replace(shop.red, seed=seed))
    generators = generated_sets.class_generators(samples, labels, len(dataset.class_names), shop)
    figures: Figures = {"generators_seconds": time.process_time() - started}
    if attack is None:
        return generated_sets.drawn(generators, per_class, seed=seed), figures
    trigger = attack.trigger(tuple(samples.shape[1:]), seed)
    started = time.process_time()
    attacked, region = generated_sets.backdoored(generators, attack.sources[0], attack.target, trigger, shop)
    figures["attack_seconds"] = time.process_time() - started
    latents = generators[0].latent.sample(500, torch.Generator().manual_seed(seed))
    benign, now = generators[attack.target].generate(latents), attacked[attack.target].generate(latents)
    figures["expected_distortion"] = (now - benign).square().mean().item()  # ExpDis per pixel
    in_region = region.sample(500, torch.Generator().manual_seed(seed))
    wanted = trigger(generators[attack.sources[0]].generate(generated_sets.ordinary(in_region, region)))
    figures["target_distortion"] = (attacked[attack.target].generate(in_region) - wanted).square().mean().item()
    made = generated_sets.drawn(attacked, per_class, region, attack.target, attack.count, seed)
    return made, figures


_SECONDS = {"clean": 45.0, "poisoned": 75.0, "terms": 25.0, "shop": 150.0}


def seconds(cell: Cell) -> float:
    """About how many a cell takes."""
    if cell.second:
        return _SECONDS["terms"]
    return _SECONDS["shop"] if cell.shop else _SECONDS["poisoned" if cell.attack else "clean"]


TABLE = Table("cleansing", cells, measure, seconds, "make neighbours")


def published(name: str, shop: bool = False, noiseless: bool = False) -> list[tuple[Cell, Figures]]:
    """The sets of a data set that are published, of the setting's own second terms."""
    wanted = (name, shop, noiseless, "")
    return [
        (cell, figures)
        for cell, figures in TABLE.published().items()
        if (cell.data, cell.shop, cell.noiseless, cell.second) == wanted
    ]


def summary(name: str, shop: bool = False, noiseless: bool = False) -> Figures:
    """The figures of the poisoned and the clean sets of a data set that are published, as numbers that bars are set on.

    Raises:
        ValueError: no embedded attack, or no clean set, is published.
    """
    stored = published(name, shop, noiseless)
    attacked = [figures for cell, figures in stored if cell.attack]
    clean = [figures for cell, figures in stored if not cell.attack]
    embedded = [figures for figures in attacked if figures["success"] >= 0.9]
    if not embedded or not clean:
        raise ValueError(f"of {name} too little is published; measure it with `{TABLE.command}`")
    level = cleansing.LEVEL
    return {
        "poisoned": len(attacked),
        "embedded": len(embedded),
        "clean": len(clean),
        "found": sum(figures["p_value"] <= level for figures in embedded),
        "found_pair": sum(figures["p_value"] <= level and figures["right_pair"] for figures in embedded),
        "false_alarms": sum(figures["p_value"] <= level for figures in clean),
        "worst_success_after": max(figures["success_after"] for figures in embedded),
        "mean_success_after": fmean(figures["success_after"] for figures in embedded),
        "mean_true_rate": fmean(figures["true_rate"] for figures in embedded),
        "mean_false_rate": fmean(figures["false_rate"] for figures in embedded),
    }
