"""Classifiers: what they read, how they are trained, how they are stored, and whether the shipped ones are rulers worth the name."""

from __future__ import annotations

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from devil_lib import checkpoints, classifiers, data, metrics, models, training, zoo
from devil_lib.checkpoints import UnsafeCheckpoint
from devil_lib.spectra import LogMagnitudes, LogSpectrogram, mel_filters
from devil_lib.synthesis import RATE


def sines(frequencies: list[float], level: float = 1.0, samples: int = 4096) -> Tensor:
    """(n, 1, samples) sines at 8 kHz."""
    time = torch.arange(samples) / RATE
    return torch.stack([level * torch.sin(2 * math.pi * f * time)[None] for f in frequencies])


# --- The log-mel spectrogram ---------------------------------------------------------------------------------------------


def test_a_sine_is_seen_in_the_band_that_its_pitch_lies_in():
    frequencies = [250.0, 700.0, 1800.0, 3500.0]
    seen = LogSpectrogram()(sines(frequencies))
    assert seen.shape == (4, 1, 40, 65)
    highest = 2595 * math.log10(1 + 4000 / 700)
    for frequency, picture in zip(frequencies, seen, strict=True):
        band = 2595 * math.log10(1 + frequency / 700) / highest * 41 - 1
        assert abs(picture[0, :, 10:-10].mean(1).argmax().item() - band) <= 1.0, frequency


def test_ten_times_the_level_is_the_same_step_everywhere_and_silence_is_dark():
    loud, soft = (LogSpectrogram()(sines([700.0], level)) for level in (1.0, 0.1))
    band = loud[0, 0].mean(1).argmax()
    assert (loud - soft)[0, 0, band, 10:-10].mean().item() == pytest.approx(math.log(10) / 3, rel=0.02)
    silence = LogSpectrogram()(torch.zeros(1, 1, 4096))
    assert silence.max() == silence.min() and -1.1 < silence.min().item() < -1.0
    assert loud.min() > silence.min() - 1e-4 and loud.max() < 2.0


def test_the_bands_are_triangles_that_share_every_frequency():
    filters = mel_filters(256, 40)
    assert filters.shape == (40, 129) and (filters >= 0.0).all()
    torch.testing.assert_close(filters.sum(1), torch.ones(40))
    centres = (filters * torch.arange(129)).sum(1) / filters.sum(1)
    assert (centres.diff() > 0.0).all() and (centres.diff()[20:] > 1.0).all(), "higher bands are further apart"


def test_gradients_reach_the_sound_and_silence_gives_none_that_are_not_finite():
    for sound in (sines([500.0]), torch.zeros(1, 1, 4096)):
        sound.requires_grad_(True)
        LogSpectrogram()(sound).sum().backward()
        assert torch.isfinite(sound.grad).all()


def test_the_spectrum_is_not_computed_in_reduced_precision():
    x = torch.randn(2, 1, 1024)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = LogSpectrogram()(x)
    assert reduced.dtype == torch.float32 and torch.equal(reduced, LogSpectrogram()(x))


@pytest.mark.parametrize(
    "sizes",
    [(16, 8), (10**12, 64), (256, 0), (256, 1), (256, 257), (256.0, 64), (256, True)],
)
def test_sizes_that_no_spectrogram_has_are_refused(sizes):
    for kind in (LogMagnitudes, LogSpectrogram):
        with pytest.raises(ValueError, match="no spectrogram"):
            kind(*sizes)


@pytest.mark.parametrize(
    ("bands", "words"), [(0, "no 0 bands"), (200, "no 200"), (40.5, "no 40.5"), (120, "too many")]
)
def test_bands_that_a_spectrum_does_not_have_are_refused(bands, words):
    with pytest.raises(ValueError, match=words):
        LogSpectrogram(256, 64, bands)


# --- Which classifier reads what -----------------------------------------------------------------------------------------


def dataset(shape: tuple[int, ...], classes: int = 3) -> data.Dataset:
    x, y = torch.zeros(6, *shape), torch.arange(6) % classes
    return data.Dataset("made up", x, y, x, y, tuple("abcdefghij"[:classes]), "here", "none")


@pytest.mark.parametrize(
    ("shape", "architecture"),
    [
        ((1, 28, 28), "course-classifier"),
        ((3, 28, 28), "course-classifier"),
        ((3, 32, 32), "photo-classifier"),
        ((3, 64, 64), "photo-classifier"),
        ((1, 4096), "sound-classifier"),
        ((1, 1000), "sound-classifier"),
    ],
)
def test_a_data_set_gets_the_classifier_of_its_samples(shape, architecture):
    classifier = classifiers.classifier_for(dataset(shape)).eval()
    assert classifier.architecture == architecture
    x = 2.0 * torch.rand(5, *shape) - 1.0
    assert classifier.features(x).shape == (5, 64)
    assert classifier(x).shape == (5, 3)
    again = classifiers.classifier_for(dataset(shape)).eval()
    assert torch.equal(again(x), classifier(x)), "the seed settles the weights"
    assert not torch.equal(classifiers.classifier_for(dataset(shape), seed=1).eval()(x), classifier(x))


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 64), (2, 4096), (4, 64, 64)])
def test_samples_that_no_classifier_reads_are_refused(shape):
    with pytest.raises(ValueError, match="no classifier reads"):
        classifiers.classifier_for(dataset(shape))


def test_sizes_that_the_networks_cannot_take_are_refused():
    with pytest.raises(ValueError, match="16, 32, 64"):
        classifiers.photo_classifier(size=48)
    with pytest.raises(ValueError, match="16, 32, 64"):
        classifiers.photo_classifier(size=8)
    with pytest.raises(ValueError, match="at least 448 samples"):
        classifiers.sound_classifier(samples=400)


# --- Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [classifiers.sound_classifier, classifiers.photo_classifier], ids=["sound", "photo"])
def test_a_classifier_comes_back_as_it_was_and_its_file_is_small(make, tmp_path):
    model = make().eval()
    checkpoints.save(model, tmp_path / "whole.safetensors", half=False)
    again = checkpoints.load(tmp_path / "whole.safetensors")
    x = 2.0 * torch.rand(3, *((1, 4096) if make is classifiers.sound_classifier else (3, 64, 64))) - 1.0
    assert torch.equal(again(x), model(x)) and again.architecture == model.architecture
    checkpoints.save(model, tmp_path / "half.safetensors")
    assert (tmp_path / "half.safetensors").stat().st_size <= 2**20


TAMPERED = {
    "huge window": {"window": 10**12},
    "no step": {"hop": 0},
    "steps of one sample": {"hop": 1},
    "bands between the frequencies": {"bands": 120},
    "a fraction": {"bands": 40.5},
    "a list": {"window": [256]},
    "a text": {"window": "256"},
    "a truth": {"hop": True},
    "another setting": {"device": "cuda"},
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_a_description_of_a_spectrogram_that_lies_is_refused(change, tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoints.save(classifiers.sound_classifier(), path, half=False)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["model"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert about["layers"]["layers"][0] == {"kind": "LogSpectrogram", "window": 256, "hop": 64, "bands": 40}
    about["layers"]["layers"][0].update(change)
    save_file(tensors, path, {"model": json.dumps(about)})
    with pytest.raises(UnsafeCheckpoint):
        checkpoints.load(path)


# --- Variations ----------------------------------------------------------------------------------------------------------


def test_each_kind_of_sample_has_its_variation():
    assert classifiers.variation((1, 28, 28)) == (classifiers.rolled, 2)
    assert classifiers.variation((3, 64, 64)) == (classifiers.flipped_and_moved, 8)
    assert classifiers.variation((1, 4096)) == (classifiers.delayed_and_quieter, 400)


@pytest.mark.parametrize(("shape", "axis"), [((3, 1, 50), 2), ((3, 2, 20, 10), 2), ((3, 2, 20, 10), 3)])
def test_moved_samples_are_those_of_numpy(shape, axis):
    x = torch.randn(shape)
    found = classifiers.moved(x, 4, axis, torch.Generator().manual_seed(1))
    by = torch.randint(-4, 5, (3, 1), generator=torch.Generator().manual_seed(1)).flatten().tolist()
    padded = np.pad(x.numpy(), [(4, 4) if place == axis else (0, 0) for place in range(len(shape))])
    for sample, start, before in zip(found.numpy(), by, padded, strict=True):
        np.testing.assert_array_equal(sample, np.take(before, range(4 + start, 4 + start + shape[axis]), axis - 1))
    assert torch.equal(classifiers.moved(x, 0, axis, torch.Generator()), x)


def test_a_varied_sound_is_the_same_one_later_and_softer():
    clicks = torch.zeros(400, 1, 300)
    clicks[:, 0, 150] = 1.0
    varied = classifiers.delayed_and_quieter(clicks, 20, torch.Generator().manual_seed(0))
    places, levels = varied[:, 0].argmax(1), 20.0 * varied[:, 0].max(1).values.log10()
    assert (places.min(), places.max()) == (130, 170)
    assert -12.0 <= levels.min() < -11.0 and -1.0 < levels.max() <= 0.0


def test_half_of_the_photographs_are_mirrored_each_by_itself():
    x = torch.rand(400, 3, 8, 8)
    varied = classifiers.flipped_and_moved(x, 0, torch.Generator().manual_seed(0))
    same, mirrored = ((varied == other).flatten(1).all(1) for other in (x, x.flip(-1)))
    assert (same | mirrored).all() and 150 < mirrored.sum() < 250


# --- Training ------------------------------------------------------------------------------------------------------------


def as_before(
    classifier: models.Classifier, images: Tensor, labels: Tensor, epochs: int, batch_size: int, shift: int
) -> models.Classifier:
    """The training of grey images as it was before there were other kinds: its results must stay the same to the bit."""
    classifier = copy.deepcopy(classifier).train()
    optimiser = torch.optim.Adam(classifier.parameters(), 1e-3)
    rng = torch.Generator().manual_seed(0)
    batches = max(1, len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * batches)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=rng)
        for batch in order[: batches * batch_size].split(batch_size):
            down, right = torch.randint(-shift, shift + 1, (2,), generator=rng).tolist()
            loss = functional.cross_entropy(
                classifier(images[batch].roll((down, right), dims=(-2, -1))), labels[batch]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return classifier.eval()


@pytest.mark.parametrize("batch_size", [32, 500], ids=["batches", "one batch of all"])
def test_grey_images_are_trained_on_as_before(batch_size):
    digits = data.load("digits")
    part = digits.train[:200], digits.train_labels[:200]
    old = as_before(models.course_classifier(width=4), *part, epochs=3, batch_size=batch_size, shift=2)
    new = training.train_classifier(models.course_classifier(width=4), *part, epochs=3, batch_size=batch_size)
    assert all(torch.equal(a, b) for a, b in zip(old.state_dict().values(), new.state_dict().values(), strict=True))


def pitches(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(n, 1, 1024) low and high tones in some noise, with labels."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    low, high = sines([400.0, 1100.0], 0.5, 1024)
    noise = 0.05 * torch.randn(n, 1, 1024, generator=rng)
    return torch.where(labels[:, None, None] == 0, low, high) + noise, labels


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_sound_classifier_learns_and_the_same_again(precision):
    sounds, labels = pitches(96)
    start = classifiers.sound_classifier(2, width=4, samples=1024)
    state = torch.get_rng_state()

    def train() -> models.Classifier:
        return training.train_classifier(
            start, sounds, labels, epochs=6, batch_size=16, averaging=0.8, learning_rate=3e-3, precision=precision
        )

    trained = train()
    assert not trained.training and {p.dtype for p in trained.parameters()} == {torch.float32}
    assert metrics.accuracy(trained, *pitches(40, seed=1)) == 1.0
    assert torch.equal(train().output.weight, trained.output.weight), "dropout masks are drawn from the seed"
    assert torch.equal(torch.get_rng_state(), state), "the caller's random state stays"


def test_the_average_lies_behind_the_last_step():
    sounds, labels = pitches(32)
    start = classifiers.sound_classifier(2, width=2, samples=1024)
    last, average = (
        training.train_classifier(start, sounds, labels, epochs=2, batch_size=16, averaging=decay).output.weight
        for decay in (0.0, 0.99)
    )
    assert 0.0 < (average - start.output.weight).norm() < (last - start.output.weight).norm()


def test_training_refuses_what_it_cannot_use():
    sounds, labels = pitches(4)
    start = classifiers.sound_classifier(2, width=2, samples=1024)
    with pytest.raises(ValueError, match="4 samples with 3 labels"):
        training.train_classifier(start, sounds, labels[:3])
    with pytest.raises(ValueError, match="bfloat16"):
        training.train_classifier(start, sounds, labels, precision="float8")


# --- The shipped rulers --------------------------------------------------------------------------------------------------

# Accuracy and share of test samples recognised with 0.9 confidence that each must reach.
BARS = {
    "spoken-digits": (0.96, 0.9),
    "drums": (0.99, 0.95),
    "flowers": (0.7, 0.3),
    "flowers-32": (0.7, 0.25),
}


@pytest.fixture(scope="module")
def real() -> dict[str, data.Dataset]:
    return {}


def loaded(name: str, real: dict[str, data.Dataset]) -> data.Dataset:
    if name not in real:
        try:
            real[name] = data.load(name)
        except data.DataUnavailable as error:
            pytest.skip(error.why)
    return real[name]


@pytest.mark.parametrize("name", BARS)
def test_a_ruler_recognises_real_samples_and_sees_what_is_wrong_with_others(name, real):
    """The Fréchet distance of test samples to training samples is small against that of the same test samples with noise."""
    made, ruler = loaded(name, real), zoo.ruler(name)
    assert metrics.accuracy(ruler.classifier, made.test, made.test_labels) >= BARS[name][0]
    assert ruler.real_recognised.share >= BARS[name][1]
    assert metrics.recognised(ruler.classifier, made.test).share == pytest.approx(
        ruler.real_recognised.share, abs=0.02
    )
    assert ruler.real.n == len(made.train) > 10 * classifiers.FEATURES and len(made.test) > classifiers.FEATURES
    clean = metrics.feature_statistics(ruler.classifier, made.test)
    assert metrics.frechet_distance(clean, ruler.real) == pytest.approx(ruler.floor, rel=0.02)
    noise = 0.2 * torch.randn(made.test.shape, generator=torch.Generator().manual_seed(0))
    noisy = metrics.feature_statistics(ruler.classifier, (made.test + noise).clamp(-1.0, 1.0))
    assert metrics.frechet_distance(noisy, ruler.real) > 5.0 * ruler.floor


def test_a_ruler_of_ones_own_is_made_of_a_data_set_of_sounds():
    sounds, labels = pitches(160)
    own = dataclasses.replace(dataset((1, 1024), 2), train=sounds, train_labels=labels)
    trained = training.train_classifier(classifiers.classifier_for(own), sounds, labels, epochs=2, batch_size=32)
    ruler = zoo.ruler_from(trained, sounds[:80], sounds[80:])
    generator = tiny.dense_generator(size=1024)
    assert ruler.frechet(generator, n=80) > ruler.floor > 0.0
    assert 0.0 <= ruler.recognised(generator, n=80).share <= 1.0


def test_a_classifier_that_was_trained_elsewhere_needs_no_known_layer_to_be_measured():
    """The metrics ask a classifier for its features alone."""
    classifier = models.Classifier(nn.Sequential(nn.Flatten(), nn.Softplus()), nn.Linear(12, 2), "own")
    assert metrics.feature_statistics(classifier, torch.randn(40, 3, 2, 2)).mean.shape == (12,)
