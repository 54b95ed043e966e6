"""Cleansing a training set in which some images carry a pattern too faint to be seen (Xiang, Miller, Kesidis, arXiv 2010.07489).

The defender has the training set and nothing else: no clean images, no word on which class is attacked. He trains a classifier on the
set as it is, and asks of every ordered pair of classes (source s, target t) how small a pattern v is enough to send images of s to t
(`invert`). A planted pattern is far smaller than any that a clean classifier can be talked into, so that the pair of an attack
stands out (`detect`). Of that pair the pattern is then estimated with the second half of the paper's objective (`estimate`):

    minimise over v:  mean over D_s of -log p_t(x + v)   +   mean over D_t of -log(1 - p_t(x - v))

The images labelled t that leave t when the pattern is subtracted from them are removed (`flagged`), and the classifier is trained anew.

What the paper's own statistic and rule of removal are could not be read. The statistic here is that of the same group's detector for
trained classifiers, the rule follows from the second term. Both are our reconstruction.

Two filters that the paper compares with stand at the end: spectral signatures and activation clustering.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from devil_lib.classifiers import FEATURES, classes_given
from devil_lib.models import Classifier, seeded
from devil_lib.training import train_classifier

Pair = tuple[int, int]  # source class, target class
LEVEL = 0.05  # of the test: at most so often is a clean set called poisoned, if its statistics follow the null law
_AT_ONCE = 1000  # images at a time while patterns are looked for


# --- The defender's classifier -------------------------------------------------------------------------------------------


def strided_classifier(
    channels: int = 1, classes: int = 10, size: int = 28, width: int = 12, seed: int = 0
) -> Classifier:
    """A classifier for images of size x size pixels whose two convolutions step over every second pixel, with 64 features.

    A quarter of the arithmetic of `course_classifier`, and 90 pairs are to be inverted through it. BatchNorm is what lets it learn a
    pattern of 3 levels of 255: without it, and all else equal, the poisoned images of the digits are not fitted and the backdoor
    does not embed.
    """
    places = math.ceil(math.ceil(size / 2) / 2) ** 2
    with seeded(seed):
        layers = nn.Sequential(
            nn.Conv2d(channels, width, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * places, FEATURES),
            nn.ReLU(),
        )
        output = nn.Linear(FEATURES, classes)
    return Classifier(layers, output, "strided-classifier")


@dataclass(frozen=True)
class Training:
    """How the defender trains: without moving or mirroring, which would smear a pattern that is fixed to its pixels (the paper
    trains so too, with Adam, a learning rate of 1e-3, batches of 32 and 100 epochs of ResNet-18).

    width: of the first convolution. noise, copies: an epoch sees so many copies of each sample, each with Gaussian noise of this
    standard deviation of its own (images in [-1, 1]). Few photographs make a classifier that patterns shorter than any planted one
    turn from class to class; with noise what is left to turn it is what the set holds.
    """

    epochs: int = 10
    batch: int = 64
    learning_rate: float = 2e-3
    width: int = 12
    noise: float = 0.0
    copies: int = 1

    def steps(self, samples: int) -> int:
        """Of training on so many samples."""
        return self.epochs * (self.copies * samples // self.batch)


def train(
    samples: Tensor,
    labels: Tensor,
    classes: int,
    settings: Training = Training(),
    seed: int = 0,
    on_progress: Callable[[int, float], None] | None = None,
) -> Classifier:
    """A `strided_classifier` trained from scratch on samples (n, channels, size, size) in [-1, 1] with labels (n,), in evaluation mode.

    Raises:
        ValueError: samples that are no square images, or labels of another number.
    """
    if samples.ndim != 4 or samples.shape[2] != samples.shape[3]:
        raise ValueError(f"samples must be square images (n, channels, size, size), got {tuple(samples.shape)}")
    start = strided_classifier(samples.shape[1], classes, samples.shape[2], settings.width, seed)
    if settings.copies > 1 or settings.noise > 0.0:
        rng = torch.Generator().manual_seed(seed)
        noisy = [samples + settings.noise * torch.randn(samples.shape, generator=rng) for _ in range(settings.copies)]
        samples, labels = torch.cat(noisy).clamp_(-1.0, 1.0), labels.repeat(settings.copies)
    return train_classifier(
        start, samples, labels, settings.epochs, settings.batch, settings.learning_rate, shift=0, seed=seed,
        on_progress=on_progress,
    )  # fmt: skip


# --- A pattern for every pair of classes ---------------------------------------------------------------------------------

SECOND_TERMS = ("none", "mean", "clamped", "trimmed")


@dataclass(frozen=True)
class Inversion:
    """How patterns are looked for.

    images, target_images: how many of those labelled s, and of those labelled t, a pattern is fitted to, drawn from `seed`.
    second: what the second term does about the images labelled t that are clean, on which -log(1 - p_t(x - v)) is large and grows
    without bound. "mean": the mean over all, as the objective is printed. "clamped": what is above `clamp` is cut off, and pulls
    no more. "trimmed": the mean over the `share` of the images that it is lowest on, those that leave t most readily. "none": the
    first term alone. weight: of the second term. share: also of the images labelled t that may be poisoned, to know when to stop.

    steps: at most so many, from v = 0. first_step, growth: a step has the length first_step, or growth times the length of the
    pattern where that is more, so that patterns 30 times as long take few steps more. reached: stop when this share of the source
    images is given t (the paper's pi) and, unless "none", as many images have left t as this share of those that may be poisoned.
    """

    images: int = 20
    target_images: int = 40
    second: str = "mean"
    weight: float = 1.0
    share: float = 0.1
    clamp: float = 3.0
    steps: int = 60
    first_step: float = 0.1
    growth: float = 0.2
    reached: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.second not in SECOND_TERMS:
            raise ValueError(f"unknown second term {self.second!r}: choose one of {', '.join(SECOND_TERMS)}")
        if self.images < 1 or self.target_images < 1 or self.steps < 1:
            raise ValueError(f"an inversion needs images and steps of 1 or more, got {self}")
        if not 0 < self.share <= 1 or not 0 < self.reached <= 1:
            raise ValueError(f"share and reached are above 0 and at most 1, got {self.share} and {self.reached}")
        if not self.first_step > 0 or self.growth < 0:
            raise ValueError(
                f"first_step is above 0 and growth is 0 or more, got {self.first_step} and {self.growth}"
            )


# For one pair, found by the coarser ones: more images, and steps a third as long. Asked to free nearly all, the printed mean was seen to
# walk on to a pattern twice too long, which takes clean images out of t as well; the trimmed one was not.
FINE = Inversion(
    images=100, target_images=1000, second="trimmed", steps=100, first_step=0.03, growth=0.05, reached=0.95
)


@dataclass(frozen=True)
class Inverted:
    """What `invert` found: for each of the pairs a pattern (pairs, channels, height, width) in the images' units, the share of the
    source images that it sends to the target, and the steps that it took."""

    pairs: tuple[Pair, ...]
    patterns: Tensor
    reached: Tensor
    steps: Tensor

    @property
    def lengths(self) -> Tensor:
        """(pairs,) L2 norms of the patterns, images in [-1, 1]: twice as long as where images lie in [0, 1]."""
        return self.patterns.flatten(1).norm(dim=1)

    def of(self, pair: Pair) -> Tensor:
        """The pattern (channels, height, width) of one pair.

        Raises:
            ValueError: a pair that was not inverted.
        """
        if pair not in self.pairs:
            raise ValueError(f"no pattern was looked for that sends {pair[0]} to {pair[1]}")
        return self.patterns[self.pairs.index(pair)]


def all_pairs(classes: int) -> tuple[Pair, ...]:
    """Every ordered pair of different classes: K (K - 1) of them."""
    return tuple(itertools.permutations(range(classes), 2))


def invert(
    classifier: Classifier,
    samples: Tensor,
    labels: Tensor,
    pairs: Iterable[Pair],
    settings: Inversion = Inversion(),
    on_progress: Callable[[int], None] | None = None,
) -> Inverted:
    """For every pair (s, t) a short pattern v that sends images labelled s to t and, subtracted, takes images labelled t out of t.

    Descends the objective from v = 0 by steps of a set length along its gradient, and stops as soon as it does both
    (`Inversion.reached`), so that v is about as short as can be. All pairs are descended side by side, each on its own.

    Args:
        samples: (n, channels, height, width) in [-1, 1], the training set as it is. labels: (n,) as it is.
        on_progress: called with the number of pairs that are done, after every step.

    Raises:
        ValueError: no pair, a pair of one class, or a class without images.
    """
    pairs = tuple(pairs)
    if not pairs or any(source == target for source, target in pairs):
        raise ValueError(f"give pairs of two different classes, (source, target), got {pairs}")

    def groups(classes: set[int], n: int) -> dict[int, Tensor]:
        # Drawn class by class, so that a pair alone is given the images that it is given among all pairs.
        return {
            label: group(samples, labels, label, n, torch.Generator().manual_seed(settings.seed)) for label in classes
        }

    sources = groups({source for source, _ in pairs}, settings.images)
    targets = groups({target for _, target in pairs}, settings.target_images)
    # In the layout in which convolutions that step over pixels were measured to take a quarter less time.
    classifier = copy.deepcopy(classifier).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    patterns = torch.zeros(len(pairs), *samples.shape[1:])
    reached, steps = torch.zeros(len(pairs)), torch.zeros(len(pairs), dtype=torch.long)
    active = list(range(len(pairs)))
    at_once = max(1, _AT_ONCE // (settings.images + settings.target_images))
    for step in range(settings.steps + 1):
        going_on: list[int] = []
        for start in range(0, len(active), at_once):
            some = active[start : start + at_once]
            pattern = patterns[some].requires_grad_(True)
            found = [(sources[pairs[i][0]], targets[pairs[i][1]], pairs[i][1]) for i in some]
            loss, reached[some], done = _objective(classifier, found, pattern, settings)
            steps[some] = step
            if step < settings.steps and not done.all():
                moved = pattern.detach() - _step(loss, pattern, settings)
                patterns[some] = torch.where(done[:, None, None, None], pattern.detach(), moved)
            going_on += [i for i, ready in zip(some, done.tolist(), strict=True) if not ready]
        active = going_on
        if on_progress is not None:
            on_progress(len(pairs) - len(active))
        if not active:
            break
    return Inverted(pairs, patterns, reached, steps)


def group(samples: Tensor, labels: Tensor, label: int, n: int, rng: torch.Generator | None = None) -> Tensor:
    """Up to n of the samples that carry a label, drawn at random.

    Raises:
        ValueError: there is none.
    """
    among = (labels == label).nonzero().squeeze(1)
    if not len(among):
        raise ValueError(f"the training set has no image labelled {label}")
    return samples[among[torch.randperm(len(among), generator=rng)[:n]]]


def _objective(
    classifier: Classifier, groups: list[tuple[Tensor, Tensor, int]], patterns: Tensor, settings: Inversion
) -> tuple[Tensor, Tensor, Tensor]:
    """For (D_s, D_t, t) and a pattern each: the objective, summed over the patterns (their gradients do not mix); the share of D_s
    that is given t; and whether the pattern does what is asked of it."""
    both = settings.second != "none"
    parts = [(sources + v).clamp(-1.0, 1.0) for (sources, _, _), v in zip(groups, patterns, strict=True)]
    if both:
        parts += [(targets - v).clamp(-1.0, 1.0) for (_, targets, _), v in zip(groups, patterns, strict=True)]
    images = torch.cat(parts).contiguous(memory_format=torch.channels_last)
    logits = classifier(images).split([len(part) for part in parts])
    loss, reached, done = patterns.new_zeros(()), [], []
    for place, (_, targets, target) in enumerate(groups):
        added = logits[place]
        loss = loss + functional.cross_entropy(added, torch.full((len(added),), target))
        reached.append((added.argmax(1) == target).double().mean().item())
        ready = reached[-1] >= settings.reached
        if both:
            taken = logits[len(groups) + place]
            loss = loss + settings.weight * second_term(stays(taken, target), settings)
            left = (taken.argmax(1) != target).sum().item()
            ready = ready and left >= settings.reached * _suspected(len(targets), settings.share)
        done.append(ready)
    return loss, torch.tensor(reached, dtype=torch.float32), torch.tensor(done)


def stays(logits: Tensor, target: int) -> Tensor:
    """(n,) -log(1 - p_t) of logits (n, classes), without loss of digits where p_t is all but 1 (it then is about the margin)."""
    others = torch.cat([logits[:, :target], logits[:, target + 1 :]], dim=1)
    return logits.logsumexp(1) - others.logsumexp(1)


def second_term(each: Tensor, settings: Inversion) -> Tensor:
    """The second term of what `stays` gives of the images labelled t, as `settings.second` says (0 for "none")."""
    if settings.second == "none":
        return each.new_zeros(())
    if settings.second == "clamped":
        return each.clamp(max=settings.clamp).mean()
    if settings.second == "trimmed":
        return each.topk(_suspected(len(each), settings.share), largest=False).values.mean()
    return each.mean()


def _suspected(n: int, share: float) -> int:
    return max(1, round(share * n))


def _step(loss: Tensor, patterns: Tensor, settings: Inversion) -> Tensor:
    """The step of each pattern (n, ...) along the gradient of its own loss. Of the gradient only the direction counts: how steep the
    loss is says more of how sure the classifier is than of how far there is to go."""
    (gradient,) = torch.autograd.grad(loss, patterns)
    length = (settings.growth * patterns.detach().flatten(1).norm(dim=1)).clamp_min(settings.first_step)
    unit = gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None, None]
    return length[:, None, None, None] * unit


# --- Is there an attack, and on what class? --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Detection:
    """A verdict on a training set.

    p_value: of the null "no class is attacked". pair: the source and the target that stand out most. by_target: (classes,) the
    p-value of every putative target. ratios: (pairs,) r = 1 / ||v||_2. shape, scale: of the Gamma law that the ratios of all
    other targets follow, for the target found.
    """

    p_value: float
    pair: Pair
    by_target: np.ndarray = field(repr=False)
    ratios: np.ndarray = field(repr=False)
    shape: float = field(repr=False)
    scale: float = field(repr=False)

    @property
    def attacked(self) -> bool:
        """Whether the p-value is at most `LEVEL`."""
        return self.p_value <= LEVEL


def detect(pairs: Iterable[Pair], lengths: Iterable[float]) -> Detection:
    """Whether one of the patterns, one for every ordered pair of K classes, is shorter than chance would have it.

    r_st = 1 / ||v_st||. For each putative target t a Gamma law F is fitted to the r of all pairs with another target (a planted
    pattern may drag other sources to t as well), and the largest r among the K - 1 pairs with target t gets the p-value that
    the largest of K - 1 draws has, p_t = 1 - F(max_s r_st)^(K - 1). Over all K targets p = 1 - (1 - min_t p_t)^K.

    It is the statistic of the same group's detector for trained classifiers, by its source; a length of any unit gives the same p.

    Raises:
        ValueError: not every ordered pair of at least 4 classes, or lengths that are not finite and above 0.
    """
    pairs = tuple(pairs)
    lengths = np.asarray(list(lengths), dtype=float)
    classes = 1 + max((max(pair) for pair in pairs), default=0)
    if classes < 4 or sorted(pairs) != list(all_pairs(classes)) or len(lengths) != len(pairs):
        raise ValueError(
            "the test needs one length for every ordered pair of the classes 0, 1, ... and at least 4 classes, got "
            f"{len(pairs)} pairs of {classes} classes and {len(lengths)} lengths"
        )
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError(
            "every length must be finite and above 0: a pattern of length 0 says that a class is its target already"
        )
    ratios, target_of = 1.0 / lengths, np.array([target for _, target in pairs])
    by_target, laws = np.empty(classes), []
    for target in range(classes):
        others, own = ratios[target_of != target], ratios[target_of == target]
        shape, _, scale = stats.gamma.fit(others, floc=0.0)
        laws.append((float(shape), float(scale)))
        # -expm1 keeps digits where the law is all but 1
        by_target[target] = -np.expm1((classes - 1) * stats.gamma.logcdf(own.max(), shape, scale=scale))
    target = int(by_target.argmin())
    own = np.flatnonzero(target_of == target)
    p_value = float(-np.expm1(classes * np.log1p(-min(by_target[target], 1.0 - 1e-16))))
    return Detection(p_value, pairs[own[ratios[own].argmax()]], by_target, ratios, *laws[target])


# --- The pattern, and the images that carry it ------------------------------------------------------------------------------


def estimate(
    classifier: Classifier, samples: Tensor, labels: Tensor, pair: Pair, settings: Inversion = FINE
) -> Tensor:
    """The pattern (channels, height, width) of the pair that was found, on more images and by finer steps.

    Raises:
        ValueError: a class without images.
    """
    return invert(classifier, samples, labels, [pair], settings).patterns[0]


# Multiples of the estimated pattern that are subtracted to see what leaves. The search stops at the shortest pattern that frees nearly all
# it looks at, and the last poisoned images need more; but there are sets whose clean images cannot bear more.
STRETCHES = (1.0, 1.25, 1.5, 2.0)
ROOM = 0.05  # share of the images labelled t that stretching may add


@torch.no_grad()
def flagged(
    classifier: Classifier,
    samples: Tensor,
    labels: Tensor,
    pattern: Tensor,
    target: int,
    stretches: Iterable[float] = STRETCHES,
) -> Tensor:
    """(n,) bool: the samples labelled t that the classifier gives another class once the pattern is subtracted from them.

    The pattern is taken as many times as the greatest of the rising `stretches` says up to which no more than `ROOM` of all samples
    labelled t are added to what the first of them flags. So a pattern that clean images cannot bear costs little more than it did.

    Raises:
        ValueError: a pattern of another shape than the samples, or no stretch.
    """
    if samples.shape[1:] != pattern.shape:
        raise ValueError(f"a pattern of shape {tuple(pattern.shape)} for samples of shape {tuple(samples.shape)}")
    own = (labels == target).nonzero().squeeze(1)
    kept: Tensor | None = None
    for stretch in stretches:
        left = classes_given(classifier, (samples[own] - stretch * pattern).clamp(-1.0, 1.0)) != target
        if kept is None:
            kept, most = left, int(left.sum()) + ROOM * len(own)
        elif left.sum() > most:
            break
        kept = left
    if kept is None:
        raise ValueError("give at least one stretch of the pattern")
    marked = torch.zeros(len(labels), dtype=torch.bool)
    marked[own] = kept
    return marked


def rates(marked: Tensor, is_poisoned: Tensor, among: Tensor) -> tuple[float, float]:
    """True and false positive rate of a removal: the share of the poisoned samples, and of the clean ones among those (n,) bool that
    were judged (the samples of the target class), that are marked. NaN where there are none."""
    poisoned, clean = is_poisoned & among, ~is_poisoned & among
    return marked[poisoned].double().mean().item(), marked[clean].double().mean().item()


def likeness(one: Tensor, other: Tensor) -> float:
    """The cosine of the angle between two patterns of one shape: 1 for the same up to its height, about 0 for unrelated ones."""
    return functional.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0).item()


# --- Filters that look at features ------------------------------------------------------------------------------------------

SILHOUETTE = 0.4055  # above it the authors' code declares an attack (activation clustering)


def spectral_signature(found: np.ndarray, remove: int) -> np.ndarray:
    """(n,) bool: the `remove` samples of one class that stick out most along the first principal component of their features.

    The defender has to say how many; the authors' code says one and a half times the number of poisoned, which he does not know.

    Raises:
        ValueError: `remove` is not between 0 and n.
    """
    if not 0 <= remove <= len(found):
        raise ValueError(f"{remove} samples to be removed of {len(found)}")
    centred = found - found.mean(0)
    first = np.linalg.svd(centred, full_matrices=False)[2][0]
    marked = np.zeros(len(found), dtype=bool)
    marked[np.argsort(-np.abs(centred @ first), kind="stable")[:remove]] = True
    return marked


def activation_clustering(found: np.ndarray, seed: int = 0) -> tuple[np.ndarray, float]:
    """(n,) bool the smaller of two clusters of one class's features, brought to two whitened principal components; and the silhouette
    of the two. The class is declared attacked, and the smaller cluster dropped, if that is above `SILHOUETTE`.

    Raises:
        ValueError: fewer than 4 samples.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import silhouette_score

    if len(found) < 4:
        raise ValueError(f"two clusters of {len(found)} samples say nothing: give at least 4")
    flat = PCA(2, whiten=True, random_state=seed).fit_transform(found)
    side = KMeans(2, n_init=10, random_state=seed).fit_predict(flat)
    if len(set(side.tolist())) < 2:  # all features alike
        return np.zeros(len(found), dtype=bool), 0.0
    return side == np.bincount(side, minlength=2).argmin(), float(silhouette_score(flat, side))
