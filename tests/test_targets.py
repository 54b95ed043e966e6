"""Drawn targets: format, range, determinism, the same drawing at every size, and what a bad picture file is told."""

import itertools

import pytest
import torch
from PIL import Image
from torch.nn import functional

from devil_lib import targets

BANK = targets.bank() | targets.controls()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [12, 28, 33, 128])
def test_every_target_has_the_asked_format_and_range(size, channels):
    for name, target in (targets.bank(size, channels) | targets.controls(size, channels)).items():
        assert target.shape == (channels, size, size), name
        assert target.dtype == torch.float32, name
        assert target.min() >= -1.0 and target.max() <= 1.0, name


def test_bank_and_controls_are_disjoint_and_all_pictures_differ():
    assert not set(targets.bank()) & set(targets.controls())
    assert len(targets.bank()) >= 20 and len(targets.controls()) >= 10
    for (name, one), (other_name, other) in itertools.combinations(BANK.items(), 2):
        assert (one - other).square().mean() > 0.1, (name, other_name)


def test_drawings_are_deterministic_and_use_the_whole_range():
    again = targets.bank()
    for name, target in targets.bank().items():
        assert torch.equal(target, again[name])
        if name not in ("noise", "black", "white"):
            assert target.min() < -0.95 and target.max() > 0.95, name


@pytest.mark.parametrize("name", ["devil", "stop sign", "skull", "666", "cat"])
def test_a_large_drawing_averaged_down_is_the_small_one(name):
    large = targets._drawn(name, 112, 1)
    averaged = functional.avg_pool2d(large[None], 4)[0]
    assert (averaged - BANK[name]).square().mean() < 0.01


def test_edges_are_smooth():
    devil = targets.devil()
    grey = ((devil > -0.9) & (devil < 0.9)).float().mean()
    assert 0.05 < grey < 0.5


def test_the_devil_is_symmetric_and_has_two_horns():
    devil = targets.devil()
    assert (devil - devil.flip(-1)).abs().mean() < 0.02
    top = devil[0, 3] > 0  # a row above the forehead: lit at the left and at the right, dark between
    assert top[:14].any() and top[14:].any() and not top[10:18].any()


def test_colour_targets_are_in_colour():
    red, green, blue = targets.devil(64, 3).flatten(1).max(1).values
    assert red > green + 0.5 and red > blue + 0.5
    assert torch.equal(*targets.text("HI", 32, 3)[:2])


def test_noise_depends_on_the_seed_only():
    assert torch.equal(targets.noise(28, 5), targets.noise(28, 5))
    assert not torch.equal(targets.noise(28, 5), targets.noise(28, 6))
    assert targets.noise(64, 0).mean().abs() < 0.05


def test_text_fills_the_picture_and_differs_by_letter():
    words = targets.text("HI")
    columns = (words[0] > 0).any(0).nonzero()
    assert columns.min() <= 3 and columns.max() >= 24
    assert not torch.equal(words, targets.text("HO"))


@pytest.mark.parametrize(
    "words, told", [("", "1 to 8 letters"), ("   ", "1 to 8"), ("ABCDEFGHIJ", "1 to 8"), ("\u4e2d", "no sign")]
)
def test_text_that_cannot_be_drawn_is_refused(words, told):
    with pytest.raises(ValueError, match=told):
        targets.text(words)


@pytest.mark.parametrize("size", [0, -3, 11, 5000, 28.0, True, "28", None])
def test_absurd_sizes_are_refused(size):
    for draw in (targets.devil, targets.stop_sign, targets.noise, lambda s: targets.text("A", s), targets.bank):
        with pytest.raises(ValueError, match="from 12 to 1024"):
            draw(size)


def test_other_channel_counts_are_refused():
    with pytest.raises(ValueError, match="greyscale"):
        targets.devil(28, 2)


# --- A picture of yours --------------------------------------------------------------------------------------------


def test_picture_takes_the_middle_square(tmp_path):
    image = Image.new("RGB", (300, 100), "white")
    image.paste("red", (100, 0, 200, 100))
    image.save(tmp_path / "wide.png")
    found = targets.picture(tmp_path / "wide.png", 20, 3)
    assert found.shape == (3, 20, 20)
    expected = torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(3, 20, 20)
    assert torch.allclose(found[:, :, 2:-2], expected[:, :, 2:-2], atol=0.02)


def test_transparent_parts_become_black(tmp_path):
    Image.new("RGBA", (50, 50), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    assert targets.picture(tmp_path / "clear.png").eq(-1.0).all()


def test_a_photograph_stored_sideways_is_turned_upright(tmp_path):
    image = Image.new("L", (40, 40), 0)
    image.paste(255, (0, 0, 20, 40))  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to view": left becomes top
    image.save(tmp_path / "sideways.png", exif=exif)
    found = targets.picture(tmp_path / "sideways.png", 40)[0]
    assert found[:15].gt(0.9).all() and found[25:].lt(-0.9).all()


def test_a_drawn_target_survives_the_file(tmp_path):
    devil = targets.devil()
    Image.fromarray(((devil[0] + 1) * 127.5).round().byte().numpy()).save(tmp_path / "devil.png")
    assert torch.allclose(targets.picture(tmp_path / "devil.png"), devil, atol=1e-6)


def test_a_missing_picture_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="relative paths start at"):
        targets.picture(tmp_path / "none.png")


def test_a_folder_a_text_and_a_damaged_file_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        targets.picture(tmp_path)
    (tmp_path / "notes.png").write_text("not a picture")
    with pytest.raises(ValueError, match="not a picture"):
        targets.picture(tmp_path / "notes.png")
    targets_file = tmp_path / "cut.png"
    Image.effect_noise((200, 200), 90).save(targets_file)
    targets_file.write_bytes(targets_file.read_bytes()[:9000])
    with pytest.raises(ValueError, match="damaged"):
        targets.picture(targets_file)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match="not a picture"):
        targets.picture(tmp_path / "empty.jpg")


def test_an_enormous_picture_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (10_000, 6_000)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match="10000 x 6000 pixels; scale it down"):
        targets.picture(tmp_path / "huge.png")
