"""Triggers of classifiers: what they put where, which samples are poisoned, and what counts as success."""

import numpy as np
import pytest
import torch
from torch import nn

from devil_lib.models import Classifier
from devil_lib.neighbours import poisoning
from devil_lib.neighbours.poisoning import STEP, Additive, Patch

BLACK = -torch.ones(40, 1, 12, 12)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- Patches ---------------------------------------------------------------------------------------------------------------


def test_there_are_51_black_and_white_patterns():
    """2 x 2 patterns can be counted by hand: none, one, two beside each other or across, up to exchange of the colours."""
    assert len(poisoning.patterns(3)) == 51 and len(poisoning.patterns(2)) == 4 and len(poisoning.patterns(1)) == 1


def test_the_patterns_are_one_of_each_class_and_mostly_white():
    classes = set()
    for pattern in poisoning.patterns():
        alike = {
            np.rot90(form, k).tobytes() for one in (pattern, 1 - pattern) for form in (one, one.T) for k in range(4)
        }
        assert not alike & classes, "a class that is there already"
        classes |= alike
        assert pattern.sum() >= 5, "of the two colourings the one with more white"
    assert len(classes) == 2**9, "every pattern is in one of the classes"


def test_a_patch_lies_whole_on_every_image_and_not_always_at_one_place():
    patch = poisoning.patch(511)
    made = patch(BLACK, rng())
    assert ((made == 1).sum((1, 2, 3)) == 9).all() and (BLACK == -1).all()
    places = {tuple(place) for place in (made == 1).flatten(1).float().argmax(1)[:, None].tolist()}
    assert len(places) > 10
    corners = Patch(torch.ones(1, 12, 12))(BLACK, rng())
    assert (corners == 1).all(), "one as large as the image fits at one place"


def test_places_are_drawn_uniformly():
    made = poisoning.patch(511)(-torch.ones(20000, 1, 5, 5), rng())
    first = (made == 1).flatten(1).float().argmax(1)
    counts = torch.bincount(first, minlength=25).reshape(5, 5)[:3, :3]
    assert counts.sum() == 20000 and (counts / 20000 - 1 / 9).abs().max() < 0.01


def test_the_pixels_are_put_in_reading_order():
    made = poisoning.patch(0b100_000_011)(-torch.ones(1, 1, 3, 3), rng())
    assert made.flatten().tolist() == [1, -1, -1, -1, -1, -1, -1, 1, 1]
    assert poisoning.pattern_number((made[0, 0].numpy() + 1) / 2) == 0b100_000_011


def test_a_grey_patch_covers_all_channels_and_a_coloured_one_its_own():
    colour = poisoning.colour_patch(3)
    photographs = torch.zeros(4, 3, 8, 8)
    grey = poisoning.patch(511)(photographs, rng())
    assert ((grey == 1).sum((2, 3)) == 9).all()
    made = colour(photographs, rng())
    for channel in range(3):
        values = made[0, channel][made[0, channel] != 0]
        assert torch.equal(values, colour.pixels[channel].flatten())


def test_a_patch_can_be_searched_for_through_its_pixels():
    pixels = torch.zeros(40, 1, 3, 3, requires_grad=True)
    Patch(pixels)(BLACK, rng()).sum().backward()
    assert torch.equal(pixels.grad, torch.ones(40, 1, 3, 3))


@pytest.mark.parametrize(
    "pixels", [torch.ones(1, 13, 13), torch.ones(3, 3, 3), torch.ones(7, 1, 3, 3), torch.ones(1, 2, 3)]
)
def test_a_patch_that_does_not_suit_is_refused(pixels):
    with pytest.raises(ValueError, match="patch"):
        Patch(pixels)(BLACK, rng())


def test_a_number_that_no_pattern_has():
    with pytest.raises(ValueError, match="give 0 to 511"):
        poisoning.patch(512)


# --- Additive patterns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "share"), [("chessboard", 0.5), ("static", 0.25), ("pixel", 4 / 144)])
def test_additive_patterns_raise_the_share_of_pixels_that_they_are_known_by(name, share):
    trigger = poisoning.additive(name, (3, 12, 12), 3.0)
    made = trigger(torch.zeros(2, 3, 12, 12)) - Additive(torch.zeros(3, 12, 12))(torch.zeros(2, 3, 12, 12))
    assert (made > 0).float().mean().item() == pytest.approx(share)
    assert made[made > 0].tolist() == pytest.approx([3 * STEP] * int((made > 0).sum()), abs=1e-6)


def test_an_additive_pattern_leaves_files_of_8_bits():
    images = 2.0 * torch.rand(50, 1, 12, 12, generator=rng()) - 1.0
    made = poisoning.additive("chessboard", (1, 12, 12), 3.0)(images)
    levels = (made + 1.0) / STEP
    assert (levels - levels.round()).abs().max() < 1e-3 and made.max() <= 1 and made.min() >= -1
    white = poisoning.additive("chessboard", (1, 12, 12), 3.0)(torch.ones(1, 1, 12, 12))
    assert (white == 1).all(), "nothing is whiter than white"


def test_an_unknown_pattern_and_one_of_another_shape():
    with pytest.raises(ValueError, match="choose one of chessboard, static, pixel"):
        poisoning.additive("cross", (1, 12, 12))
    with pytest.raises(ValueError, match="more than 0"):
        poisoning.additive("pixel", (1, 12, 12), 0.0)
    with pytest.raises(ValueError, match="cannot be added"):
        poisoning.additive("pixel", (1, 10, 10))(BLACK)


# --- Poisoned sets -----------------------------------------------------------------------------------------------------------

SAMPLES = -torch.ones(60, 1, 6, 6)
LABELS = torch.arange(60) % 3


@pytest.mark.parametrize(("sources", "classes"), [(None, {0, 2}), ([2], {2})])
def test_so_many_of_the_source_classes_are_poisoned_and_nothing_else(sources, classes):
    made = poisoning.poisoned(SAMPLES, LABELS, poisoning.patch(511), 1, sources, count=12, seed=4)
    marked = made.is_poisoned
    assert marked.sum() == 12 and set(LABELS[marked].tolist()) == classes
    assert (made.labels[marked] == 1).all() and torch.equal(made.labels[~marked], LABELS[~marked])
    assert ((made.samples != SAMPLES).flatten(1).any(1) == marked).all()
    again = poisoning.poisoned(SAMPLES, LABELS, poisoning.patch(511), 1, sources, count=12, seed=4)
    assert torch.equal(made.samples, again.samples) and torch.equal(marked, again.is_poisoned)
    rest = made.without(marked)
    assert len(rest.samples) == len(rest.labels) == 48 and not rest.is_poisoned.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sources": [1], "count": 3}, "source and target"),
        ({"count": 41}, "there are 40"),
        ({"count": 0}, "0 samples"),
        ({"labels": LABELS[:5], "count": 3}, "5 labels"),
    ],
)
def test_a_poisoning_that_cannot_be(options, words):
    given = {"labels": LABELS, **options}
    with pytest.raises(ValueError, match=words):
        poisoning.poisoned(SAMPLES, trigger=poisoning.patch(511), target=1, **given)


class Brightness(nn.Module):
    def forward(self, x):
        return x.flatten(1).amax(1, keepdim=True).clamp_min(-0.5)


def bright_is_class_1() -> Classifier:
    """Gives class 1 to an image with a white pixel, and class 0 to others."""
    output = nn.Linear(1, 3)
    with torch.no_grad():
        output.weight.copy_(torch.tensor([[0.0], [1.0], [0.0]]))
        output.bias.copy_(torch.tensor([0.2, 0.0, -1.0]))
    return Classifier(Brightness(), output, "brightness")


def test_success_counts_the_source_classes_and_not_the_target():
    classifier = bright_is_class_1()
    assert poisoning.attack_success(classifier, SAMPLES, LABELS, poisoning.patch(511), 1) == 1.0
    invisible = Patch(-torch.ones(1, 3, 3))
    assert poisoning.attack_success(classifier, SAMPLES, LABELS, invisible, 1) == 0.0
    # Half of the images of class 0 and all of class 1 are bright of themselves.
    some = SAMPLES.clone()
    some[LABELS == 1] = 1.0
    some[(LABELS == 0).nonzero().squeeze(1)[:10], 0, 0, 0] = 1.0
    assert 0.15 < poisoning.attack_success(classifier, some, LABELS, invisible, 1) <= 0.25
    assert poisoning.attack_success(classifier, some, LABELS, invisible, 1, sources=[2]) == 0.0
    with pytest.raises(ValueError, match="no sample"):
        poisoning.attack_success(classifier, SAMPLES, LABELS, invisible, 1, sources=[1])
