"""The shipped weights: load them, read their cards, and (as a program) train them anew.

Every entry is a safetensors file in half precision with a JSON card beside it that says what it was trained on, under which
licence, with which seed and how well it came out. `python -m devil_lib.zoo` (`make weights`) retrains what is missing or whose recipe changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from devil_lib import checkpoints
from devil_lib.metrics import FeatureStatistics, Recognised, feature_statistics, frechet_distance, recognised
from devil_lib.models import Classifier, Discriminator, Encoder, Generator


def folder() -> Path:
    """Where the shipped weights lie."""
    return Path(str(resources.files("devil_lib"))) / "weights"


def names() -> list[str]:
    """The names of all shipped entries."""
    return sorted(path.stem for path in folder().glob("*.json"))


def card(name: str) -> dict[str, Any]:
    """The card of an entry: what it is, its data and licence, seed, steps, training time and measured quality.

    Raises:
        ValueError: no such entry; the message lists those there are.
    """
    path = folder() / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"the zoo has no {name!r}; it has {', '.join(names()) or 'nothing (run make weights)'}")
    return json.loads(path.read_text(encoding="utf-8"))


def load(name: str) -> Generator | Discriminator | Encoder | Classifier:
    """A shipped model, float32, in evaluation mode.

    Raises:
        ValueError: no such entry.
        UnsafeCheckpoint: the file is not the one that the card describes (its SHA-256 differs), or damaged.
    """
    return checkpoints.load(_checked(name))


def _checked(name: str) -> Path:
    about, path = card(name), folder() / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; restore it with `git checkout` or retrain it with `make weights`"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != about["sha256"]:
        raise checkpoints.UnsafeCheckpoint(
            f"{path.name} is not the file that its card describes; restore it or run `make weights`"
        )
    return path


@dataclass(frozen=True)
class Ruler:
    """What samples of a data set are measured with, needing no data on disk.

    classifier: trained on the set. real: feature statistics of its training samples. floor: Fréchet distance between its test
    and training samples, which no generator can be expected to beat. real_recognised: what the classifier makes of the test samples.
    """

    classifier: Classifier
    real: FeatureStatistics
    floor: float
    real_recognised: Recognised

    def frechet(self, generator: Generator, n: int = 5000, seed: int = 0) -> float:
        """Fréchet distance of `n` samples to the real data (not Inception FID; see `metrics.frechet_distance`)."""
        samples = generator.generate(generator.latent.sample(n, torch.Generator().manual_seed(seed)))
        return frechet_distance(feature_statistics(self.classifier, samples), self.real)

    def recognised(self, generator: Generator, n: int = 5000, seed: int = 0) -> Recognised:
        """The share of `n` samples that the classifier recognises with at least 0.9 confidence, and the classes' shares."""
        return recognised(
            self.classifier, generator.generate(generator.latent.sample(n, torch.Generator().manual_seed(seed)))
        )


def ruler(data: str) -> Ruler:
    """The ruler of a data set by the name that the set has, such as "mnist", "spoken-digits", "flowers" or "flowers-32".

    Raises:
        ValueError: no ruler was shipped for this data set.
    """
    name = f"classifier-{data}"
    if name not in names():
        known = ", ".join(entry.removeprefix("classifier-") for entry in names() if entry.startswith("classifier-"))
        raise ValueError(
            f"no classifier is shipped for {data!r}; there is one for {known}. Train one of your own: "
            "training.train_classifier(classifiers.classifier_for(dataset), dataset.train, dataset.train_labels), then ruler_from"
        )
    about = card(name)
    tensors, _ = checkpoints.load_tensors(folder() / f"statistics-{data}.safetensors")
    statistics = FeatureStatistics(
        tensors["mean"].double().numpy(), tensors["covariance"].double().numpy(), about["train_samples"]
    )
    real = Recognised(about["real_recognised"], tuple(about["real_by_class"]))
    return Ruler(load(name), statistics, about["floor"], real)


def ruler_from(classifier: Classifier, train: torch.Tensor, test: torch.Tensor) -> Ruler:
    """A ruler for data of your own: images or sounds (n, *sample_shape) in [-1, 1] and a classifier trained on them."""
    real = feature_statistics(classifier, train)
    floor = frechet_distance(feature_statistics(classifier, test), real)
    return Ruler(classifier, real, floor, recognised(classifier, test))


if __name__ == "__main__":
    from devil_lib.recipes import main

    main()
