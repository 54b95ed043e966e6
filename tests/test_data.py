"""The data sets: embedded, on disk in any state, from a server, and folders of images. No test needs the network."""

import errno
import gzip
import hashlib
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import MNIST, FashionMNIST

from devil_lib import data
from devil_lib.data import DataUnavailable

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


pytestmark = pytest.mark.usefixtures("nothing_there")


def idx(array: np.ndarray) -> bytes:
    """The IDX format of the MNIST files: two zeros, the type (8: bytes), the number of axes, their lengths, the bytes."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


ARRAYS = {
    FILES[0]: np.arange(6 * 28 * 28).reshape(6, 28, 28) % 256,
    FILES[1]: np.array([0, 1, 2, 3, 9, 9]),
    FILES[2]: np.full((2, 28, 28), 255),
    FILES[3]: np.array([7, 8]),
}


@pytest.fixture
def packed(tmp_path, monkeypatch) -> Path:
    """A data folder with .gz files; torchvision is told their md5 sums."""
    root, resources = tmp_path / "shared", []
    (root / "MNIST" / "raw").mkdir(parents=True)
    for name, array in ARRAYS.items():
        content = gzip.compress(idx(array), mtime=0)
        (root / "MNIST" / "raw" / f"{name}.gz").write_bytes(content)
        resources.append((f"{name}.gz", hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(MNIST, "resources", resources)
    return root


def check(dataset: data.Dataset) -> None:
    assert (len(dataset.train), len(dataset.test)) == (6, 2)
    np.testing.assert_allclose(dataset.train[:, 0], ARRAYS[FILES[0]] / 127.5 - 1, atol=1e-6)
    assert dataset.train_labels.tolist() == [0, 1, 2, 3, 9, 9] and dataset.test_labels.tolist() == [7, 8]
    assert dataset.test.min() == dataset.test.max() == 1.0


# --- The embedded set -----------------------------------------------------------------------------------------------------


def test_the_embedded_digits():
    digits = data.load("digits")
    assert digits.train.shape == (1400, 1, 28, 28) and digits.test.shape == (397, 1, 28, 28)
    assert digits.train.dtype == torch.float32 and digits.train_labels.dtype == torch.int64
    assert digits.train.min() == -1.0 and digits.train.max() == 1.0
    for labels in (digits.train_labels, digits.test_labels):
        shares = torch.bincount(labels, minlength=10) / len(labels)
        assert shares.min() > 0.09 and shares.max() < 0.11, "every class, in train and test alike"
    both = torch.cat([digits.train, digits.test]).flatten(1)
    assert len(both.unique(dim=0)) == 1797, "no test image is a training image"
    assert digits.licence == "CC BY 4.0" and "digits" in str(digits) and "1,400" in str(digits)
    assert torch.equal(digits.train, data.load("digits").train)


def test_the_digits_are_scikit_learns_at_28_pixels():
    from sklearn.datasets import load_digits

    digits, original = data.load("digits"), load_digits()
    small = torch.nn.functional.adaptive_avg_pool2d((torch.cat([digits.train, digits.test]) + 1) * 8, 8)[:, 0]
    labels = torch.cat([digits.train_labels, digits.test_labels])
    # Averaged back to 8x8, each is nearest to an original of its own with the same label (but for a few near-twins).
    nearest = torch.cdist(small.flatten(1).double(), torch.from_numpy(original.data)).argmin(1)
    assert len(nearest.unique()) > 1790
    assert (torch.from_numpy(original.target)[nearest] == labels).float().mean() > 0.999


# --- Sets on disk ---------------------------------------------------------------------------------------------------------


def test_missing_and_offline_names_the_embedded_set_and_the_variable():
    with pytest.raises(DataUnavailable, match=r"load\('digits'\)") as error:
        data.load("mnist")
    assert "DEVIL_DATA" in str(error.value) and "MNIST/" in str(error.value) and "DEVIL_OFFLINE" in str(error.value)


def test_auto_falls_back_to_digits_and_says_so():
    fallen_back = data.load("auto")
    assert fallen_back.name == "digits"
    assert "mnist is not on disk" in str(fallen_back)
    assert torch.equal(fallen_back.train, data.load("digits").train)


def test_auto_takes_mnist_where_it_is(packed, monkeypatch):
    monkeypatch.setenv("DEVIL_DATA", str(packed))
    dataset = data.load("auto")
    check(dataset)
    assert dataset.name == "mnist" and str(packed) in str(dataset)


def test_a_data_folder_that_does_not_exist_is_named(monkeypatch):
    monkeypatch.setenv("DEVIL_DATA", "/nowhere/at/all")
    with pytest.raises(DataUnavailable, match="/nowhere/at/all, which is no folder"):
        data.load("fashion-mnist")


def test_unpacked_files_are_read_in_place(packed, monkeypatch, tmp_path):
    raw = packed / "MNIST" / "raw"
    for name, array in ARRAYS.items():
        (raw / name).write_bytes(idx(array))
        (raw / f"{name}.gz").unlink()
    monkeypatch.setenv("DEVIL_DATA", str(packed))
    check(data.load("mnist"))
    assert not (tmp_path / "cache").exists()


def test_a_read_only_folder_with_archives_works(packed, monkeypatch, tmp_path):
    monkeypatch.setenv("DEVIL_DATA", str(packed))
    raw = packed / "MNIST" / "raw"
    before = sorted(raw.iterdir())
    raw.chmod(0o555)
    try:
        check(data.load("mnist"))
        assert sorted(raw.iterdir()) == before, "nothing is written beside the archives (root may write anywhere)"
        shutil.rmtree(raw, ignore_errors=True)
        monkeypatch.delenv("DEVIL_DATA")
        check(data.load("mnist"))  # from the cache now
    finally:
        if raw.exists():
            raw.chmod(0o755)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["MNIST"], "no scratch folder is left"


def test_a_wrong_md5_is_named(packed, monkeypatch):
    monkeypatch.setenv("DEVIL_DATA", str(packed))
    file = packed / "MNIST" / "raw" / f"{FILES[2]}.gz"
    file.write_bytes(file.read_bytes()[:-20] + bytes(20))
    with pytest.raises(
        DataUnavailable, match=f"{FILES[2]}.gz is damaged: its md5 is not .*delete it and fetch it again"
    ):
        data.load("mnist")
    assert data.load("auto").name == "digits" and "damaged" in data.load("auto").source


def test_a_missing_archive_is_named(packed, monkeypatch):
    monkeypatch.setenv("DEVIL_DATA", str(packed))
    (packed / "MNIST" / "raw" / f"{FILES[1]}.gz").unlink()
    with pytest.raises(DataUnavailable, match=f"{FILES[1]}.gz to unpack is not there"):
        data.load("mnist")


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:500], lambda content: b"", lambda content: b"<html>not found</html>" * 50],
    ids=["cut short", "empty", "a web page"],
)
def test_damaged_unpacked_files_are_an_error_or_unpacked_anew(packed, monkeypatch, damage):
    monkeypatch.setenv("DEVIL_DATA", str(packed))
    raw = packed / "MNIST" / "raw"
    for name, array in ARRAYS.items():
        (raw / name).write_bytes(idx(array))
    (raw / FILES[0]).write_bytes(damage(idx(ARRAYS[FILES[0]])))
    check(data.load("mnist"))  # the archives beside them are whole
    shutil.rmtree(data.cache_folder())
    for name in FILES:
        (raw / f"{name}.gz").unlink()
    with pytest.raises(DataUnavailable, match="incomplete or damaged"):
        data.load("mnist")


def test_a_broken_cache_is_replaced(packed, monkeypatch):
    monkeypatch.setenv("DEVIL_DATA", str(packed))
    check(data.load("mnist"))
    (data.cache_folder() / "MNIST" / "raw" / FILES[0]).write_bytes(b"short")
    check(data.load("mnist"))


def no_space(*_arguments, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("function", ["shutil.copyfile", "os.replace"])
def test_a_full_disk_leaves_nothing_behind_and_says_what_to_do(packed, monkeypatch, function, tmp_path):
    monkeypatch.setenv("DEVIL_DATA", str(packed))
    with monkeypatch.context() as full:
        full.setattr(function, no_space)
        with pytest.raises(DataUnavailable, match="No space left on device") as error:
            data.load("mnist")
    assert "not on disk" in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []
    check(data.load("mnist"))


def test_a_cache_that_is_a_file(packed, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setenv("DEVIL_DATA", str(packed))
    with pytest.raises(DataUnavailable, match="could not be unpacked into the cache"):
        data.load("mnist")


def test_an_unknown_name_lists_the_known():
    with pytest.raises(
        ValueError, match=r"unknown data set 'mnits': choose one of auto, mnist, fashion-mnist, cifar10, digits"
    ):
        data.load("mnits")


# --- Downloads, from a server of our own ------------------------------------------------------------------------------------


@pytest.fixture
def server(packed, monkeypatch, serve) -> Path:
    """Serves a folder as torchvision's only mirror."""
    folder = packed / "MNIST" / "raw"
    monkeypatch.setattr(MNIST, "mirrors", [serve(folder)])
    return folder


def test_a_download_ends_in_the_cache(server, tmp_path):
    dataset = data.load("mnist")
    check(dataset)
    assert dataset.source == "a fresh download"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["MNIST"]
    assert data.load("mnist").source == "the per-user cache"


@pytest.mark.parametrize(
    "damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"damaged")], ids=["missing", "md5"]
)
def test_a_download_that_fails_is_an_error_and_leaves_nothing(server, tmp_path, damage):
    damage(server / f"{FILES[3]}.gz")
    with pytest.raises(DataUnavailable, match=f"could not be had.*{FILES[3]}"):
        data.load("mnist")
    assert list((tmp_path / "cache").iterdir()) == []
    assert data.load("auto").name == "digits"


def test_an_interrupted_download_leaves_nothing(server, tmp_path, monkeypatch):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("torchvision.datasets.utils.extract_archive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.load("mnist")
    assert list((tmp_path / "cache").iterdir()) == []


def test_nobody_answers(monkeypatch):
    monkeypatch.delenv("DEVIL_OFFLINE")
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DataUnavailable, match="cannot be downloaded now"):
        data.load("fashion-mnist")


# --- A folder of images -------------------------------------------------------------------------------------------------------


@pytest.fixture
def album(tmp_path) -> Path:
    folder = tmp_path / "album"
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (40 + i, 30), colour).save(folder / name / f"{i}.png")
    return folder


def test_a_folder_with_a_folder_for_each_class(album):
    Image.new("L", (50, 20), 128).save(album / "red" / "grey.jpg")
    (album / "notes.txt").write_text("not an image")
    dataset = data.load(str(album), size=16)
    assert dataset.train.shape == (12, 3, 16, 16) and dataset.test.shape == (1, 3, 16, 16)
    assert dataset.class_names == ("blue", "red") and dataset.name == "album"
    images, labels = torch.cat([dataset.train, dataset.test]), torch.cat([dataset.train_labels, dataset.test_labels])
    assert torch.bincount(labels).tolist() == [6, 7]
    blue = images[labels == 0]
    torch.testing.assert_close(blue, torch.tensor([-1.0, -1, 1]).view(1, 3, 1, 1).expand(6, 3, 16, 16))


@pytest.mark.parametrize("content", [b"not a picture", b"", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_corrupt_file_is_named_and_passed_over(album, content):
    (album / "red" / "broken.png").write_bytes(content)
    with pytest.warns(UserWarning, match=r"broken\.png is passed over"):
        dataset = data.load(str(album))
    assert len(dataset.train) + len(dataset.test) == 12


def test_a_truncated_image_is_named_and_passed_over(album):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(album / "red" / "whole.png")
    content = (album / "red" / "whole.png").read_bytes()
    (album / "red" / "whole.png").write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match=r"whole\.png is passed over"):
        assert math.isfinite(data.load(str(album)).train.sum())


def test_a_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"holds 0 readable images of 0 image files; at least 2 are needed.*no WAV or FLAC file"
    ):
        data.load(str(tmp_path / "empty"))


# --- Photographs of flowers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def flowers(tmp_path, monkeypatch) -> Path:
    """A data folder with photographs of two flowers, 128 pixels high as the real ones are."""
    folder = tmp_path / "shared" / "flowers128"
    for name, colour in (("roses", (200, 20, 40)), ("tulips", (240, 200, 0))):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (128, 128), colour).save(folder / name / f"{i}.jpg")
    (folder / "LICENSE.txt").write_text("by photographers")
    monkeypatch.setenv("DEVIL_DATA", str(folder.parent))
    return folder


@pytest.mark.parametrize(("size", "pixels"), [(None, 64), (64, 64), (32, 32)])
def test_flowers_come_in_two_sizes(flowers, size, pixels):
    dataset = data.load("flowers", size=size)
    assert dataset.train.shape == (18, 3, pixels, pixels) and dataset.test.shape == (2, 3, pixels, pixels)
    assert dataset.name == ("flowers-32" if size == 32 else "flowers") and dataset.class_names == ("roses", "tulips")
    assert dataset.licence == "CC BY 2.0 per photograph" and str(flowers.parent) in dataset.source
    rose = dataset.train[dataset.train_labels == 0][0].mean((1, 2))
    torch.testing.assert_close(rose, torch.tensor([200.0, 20, 40]) / 127.5 - 1, atol=0.05, rtol=0)
    assert torch.equal(data.load(dataset.name).train, dataset.train), "its name stands for the set at this size"


def test_flowers_have_no_other_size(flowers):
    with pytest.raises(ValueError, match="sizes 32 and 64, and not in 48"):
        data.load("flowers", size=48)


def test_flowers_that_are_not_there_say_what_to_do(monkeypatch):
    with pytest.raises(DataUnavailable, match=r"DEVIL_DATA.*flowers128/.*size=64.*load\('digits'\)"):
        data.load("flowers")
    monkeypatch.setenv("DEVIL_DATA", "/nowhere/at/all")
    with pytest.raises(DataUnavailable, match="/nowhere/at/all, which is no folder"):
        data.load("flowers")


def test_flowers_in_the_cache_are_found(flowers, monkeypatch):
    shutil.copytree(flowers, data.cache_folder() / "flowers128")
    monkeypatch.delenv("DEVIL_DATA")
    assert data.load("flowers").source == "the per-user cache"


def test_an_empty_flower_folder_names_the_folder(flowers):
    shutil.rmtree(flowers)
    flowers.mkdir()
    with pytest.raises(ValueError, match="flowers128 holds 0 readable images"):
        data.load("flowers")
