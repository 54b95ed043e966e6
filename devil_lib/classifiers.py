"""Small classifiers of images, photographs and sounds, whose 64 features every Fréchet distance is measured on.

`classifier_for` takes the one that suits a data set. Each reads samples in [-1, 1]; `Classifier.features` gives (n, 64).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from devil_lib.data import Dataset
from devil_lib.models import Classifier, course_classifier, seeded
from devil_lib.spectra import LogSpectrogram
from devil_lib.synthesis import RATE

FEATURES = 64


class MeanOverPlaces(nn.Module):
    """(n, channels, height, width) to the channels' means (n, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


# --- Classifiers ---------------------------------------------------------------------------------------------------------


def sound_classifier(classes: int = 10, width: int = 16, samples: int = 4096, seed: int = 0) -> Classifier:
    """A small convolutional network on the log-mel spectrogram of sounds (n, 1, samples) at 8 kHz, with 64 features.

    Raises:
        ValueError: sounds too short for the network's poolings.
    """
    spectrogram = LogSpectrogram()
    frames = samples // spectrogram.hop + 1
    if frames < 8:
        raise ValueError(f"sounds must have at least {7 * spectrogram.hop} samples, got {samples}")
    with seeded(seed):
        layers: list[nn.Module] = [spectrogram]
        for inputs, outputs in pairwise((1, width, 2 * width, 4 * width)):
            layers += [*_convolution(inputs, outputs), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), nn.Dropout(0.3)]
        layers += [nn.Linear(4 * width * (spectrogram.bands // 8) * (frames // 8), FEATURES), nn.ReLU()]
        output = nn.Linear(FEATURES, classes)
    return Classifier(nn.Sequential(*layers), output, "sound-classifier")


def photo_classifier(classes: int = 5, size: int = 64, width: int = 24, seed: int = 0) -> Classifier:
    """A small convolutional network for colour photographs (n, 3, size, size), with 64 features.

    As many convolutions as bring a photograph down to 8x8; their means over the places are what the features read, so that
    what a flower is does not depend on where it is.

    Raises:
        ValueError: a size that cannot be halved down to 8.
    """
    halvings = round(math.log2(size / 8)) if size >= 16 else 0
    if size != 8 * 2**halvings or not halvings:
        raise ValueError(f"photographs must have 16, 32, 64, ... pixels, got {size}")
    with seeded(seed):
        layers: list[nn.Module] = []
        channels = (3, *(width * 2**place for place in range(halvings + 1)))
        for inputs, outputs in pairwise(channels):
            layers += [*_convolution(inputs, outputs), nn.MaxPool2d(2)]
        layers[-1] = MeanOverPlaces()  # instead of the last pooling
        layers += [nn.Dropout(0.2), nn.Linear(channels[-1], FEATURES), nn.ReLU()]
        output = nn.Linear(FEATURES, classes)
    return Classifier(nn.Sequential(*layers), output, "photo-classifier")


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def classifier_for(dataset: Dataset, seed: int = 0) -> Classifier:
    """An untrained classifier for the samples and classes of a data set.

    Raises:
        ValueError: samples of a shape that none is made for.
    """
    shape, classes = tuple(dataset.train.shape[1:]), len(dataset.class_names)
    if len(shape) == 2 and shape[0] == 1:
        return sound_classifier(classes, samples=shape[1], seed=seed)
    if shape[1:] == (28, 28):
        return course_classifier(shape[0], classes, seed=seed)
    if len(shape) == 3 and shape[0] == 3 and shape[1] == shape[2]:
        return photo_classifier(classes, shape[1], seed=seed)
    raise ValueError(
        f"no classifier reads samples of shape {shape}: there are those for sounds, for images of 28x28 pixels and for square "
        "photographs in colour"
    )


# --- Running one on many samples ------------------------------------------------------------------------------------------


@torch.no_grad()
def in_parts(network: Callable[[Tensor], Tensor], samples: Tensor, batch_size: int | None = None) -> Tensor:
    """(n, ...) what a network, or a method of one, makes of samples (n, *sample_shape), `batch_size` at a time; by default 1,000 of
    28x28 pixels, and fewer of larger ones, so that memory stays small."""
    usual = max(16, min(1000, 1000 * 1024 // max(1, samples[0].numel())))
    return torch.cat([network(part) for part in samples.split(batch_size or usual)])


def features_of(classifier: Classifier, samples: Tensor, batch_size: int | None = None) -> np.ndarray:
    """(n, 64) features of samples (n, *sample_shape), float64."""
    return in_parts(classifier.features, samples, batch_size).double().numpy()


def classes_given(classifier: Classifier, samples: Tensor) -> Tensor:
    """(n,) the class that the classifier gives each of samples (n, *sample_shape)."""
    return in_parts(classifier, samples).argmax(1)


# --- What is varied while they are trained -------------------------------------------------------------------------------

# Samples (n, *sample_shape), how far they may be moved, and random numbers, to samples of the same shape.
Variation = Callable[[Tensor, int, torch.Generator], Tensor]
_QUIETER = 12.0  # dB that a sound may be turned down


def variation(sample_shape: tuple[int, ...]) -> tuple[Variation, int]:
    """How samples of a shape may change without becoming another class, and how far they are moved unless one says so:
    sounds by 50 ms, photographs by an eighth of their size, other images by 2 pixels."""
    if len(sample_shape) == 2:
        return delayed_and_quieter, RATE // 20
    return (flipped_and_moved, sample_shape[1] // 8) if sample_shape[0] == 3 else (rolled, 2)


def rolled(x: Tensor, shift: int, rng: torch.Generator) -> Tensor:
    """Images (n, channels, height, width), all rolled alike by up to `shift` pixels down and right."""
    down, right = torch.randint(-shift, shift + 1, (2,), generator=rng).tolist()
    return x.roll((down, right), dims=(-2, -1))


def flipped_and_moved(x: Tensor, shift: int, rng: torch.Generator) -> Tensor:
    """Photographs (n, 3, height, width), each mirrored or not and moved by up to `shift` pixels in both directions."""
    mirrored = torch.rand(len(x), 1, 1, 1, generator=rng) < 0.5
    x = torch.where(mirrored, x.flip(-1), x)
    # In the layout in which convolutions of several channels were measured to take a fifth less time.
    return moved(moved(x, shift, 2, rng), shift, 3, rng).contiguous(memory_format=torch.channels_last)


def delayed_and_quieter(x: Tensor, shift: int, rng: torch.Generator) -> Tensor:
    """Sounds (n, 1, samples), each moved by up to `shift` samples and turned down by up to 12 dB."""
    level = 10.0 ** (-_QUIETER / 20.0 * torch.rand(len(x), 1, 1, generator=rng))
    return level * moved(x, shift, 2, rng)


def moved(x: Tensor, reach: int, axis: int, rng: torch.Generator) -> Tensor:
    """Samples, each moved along an axis by its own random distance of up to `reach`; zeros come in from outside."""
    size = x.shape[axis]
    from_where = torch.arange(size) + torch.randint(-reach, reach + 1, (len(x), 1), generator=rng)
    shape = [len(x), *(size if place == axis else 1 for place in range(1, x.ndim))]
    inside = ((from_where >= 0) & (from_where < size)).reshape(shape)
    return torch.take_along_dim(x, from_where.clamp(0, size - 1).reshape(shape), axis) * inside
