"""Data sets: real images and sounds in [-1, 1], found on disk, downloaded with a checksum, or embedded.

Looked for in `$DEVIL_DATA` first, then in a per-user cache, then downloaded into that cache (through a temporary
folder that is renamed when it is whole, so that an interrupted download leaves nothing half-written behind).
`DEVIL_OFFLINE=1` forbids downloads; `DEVIL_CACHE` moves the cache.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import platformdirs
import torch
from torch import Tensor

NAMES = ("auto", "mnist", "fashion-mnist", "cifar10", "digits", "flowers", "flowers-32", "spoken-digits", "drums")
_IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


class DataUnavailable(RuntimeError):
    """A data set is neither on disk nor to be downloaded. `why` is the reason; the message also says what to do."""

    def __init__(self, why: str, advice: str = "") -> None:
        super().__init__(f"{why}. {advice}".strip() if advice else why)
        self.why = why


@dataclass(frozen=True)
class Dataset:
    """Images (n, channels, height, width), float32 in [-1, 1], with class labels (n,), int64."""

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    source: str
    licence: str

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.train):,} training and {len(self.test):,} test images of shape "
            f"{tuple(self.train.shape[1:])}, {len(self.class_names)} classes, from {self.source} ({self.licence})"
        )


def cache_folder() -> Path:
    """The per-user cache: `$DEVIL_CACHE`, else the platform's own place for caches."""
    return Path(os.environ.get("DEVIL_CACHE") or platformdirs.user_cache_dir("devil-in-the-generator"))


def load(name: str, size: int | None = None) -> Dataset:
    """A data set by name, or any folder of images or of sounds by its path.

    Args:
        name: "mnist", "fashion-mnist", "cifar10", "digits" (embedded, needs no network), "auto" (MNIST if it
            can be had within seconds, else "digits"; print the result to see which), "flowers" (photographs) and "flowers-32"
            (the same at half the size), the sounds "spoken-digits" and "drums" (embedded), or a folder of images or of WAV
            and FLAC files.
        size: height and width for a folder of images (28 unless given) and for "flowers" (32 or 64, 64 unless given);
            the other sets keep their own.

    Returns:
        A Dataset of images; for sounds a `devil_lib.sounds.SoundDataset`.

    Raises:
        ValueError: an unknown name, a folder without a readable image or sound or with both kinds, or a size that the
            set does not have.
        DataUnavailable: not on disk, and no network; the message names the embedded set and the variable.
    """
    from devil_lib import sounds

    if name == "auto":
        try:
            return _torchvision("mnist", patience=3.0)
        except DataUnavailable as error:
            return replace(_digits(), source=f"scikit-learn's embedded set, since {error.why}")
    if name == "digits":
        return _digits()
    if name == "flowers":
        return _flowers(64 if size is None else size)
    if name == "flowers-32":  # what load("flowers", 32) is called: its samples are measured with another classifier
        return _flowers(32)
    if name in sounds.NAMES:
        return sounds.load(name)
    if name in _SETS:
        return _torchvision(name, patience=60.0)
    folder = Path(name).expanduser()
    if folder.is_dir():
        kinds = {path.suffix.lower() for path in folder.rglob("*")}
        if kinds & sounds.ENDINGS and kinds & _IMAGE_ENDINGS:
            raise ValueError(f"{folder} holds images and sounds: give a folder that holds one kind")
        return sounds.folder(folder) if kinds & sounds.ENDINGS else _folder(folder, 28 if size is None else size)
    raise ValueError(
        f"unknown data set {name!r}: choose one of {', '.join(NAMES)}, or give a folder of images or sounds"
    )


def places(problems: list[str]) -> Iterator[tuple[Path, str]]:
    """Where data sets lie on disk, with the words for it: `$DEVIL_DATA`, then the cache. Something wrong with the former
    is added to `problems`."""
    named = os.environ.get("DEVIL_DATA")
    if named and Path(named).expanduser().is_dir():
        yield Path(named).expanduser(), f"$DEVIL_DATA ({named})"
    elif named:
        problems.append(f"DEVIL_DATA is {named}, which is no folder")
    yield cache_folder(), "the per-user cache"


# --- The embedded set ----------------------------------------------------------------------------------------


def _digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8x8 with 17 grey levels, brought to 28x28."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] / 16.0
    large = torch.nn.functional.interpolate(small, size=(28, 28), mode="bicubic", align_corners=False)
    images = large.clamp(0.0, 1.0) * 2.0 - 1.0
    labels = torch.from_numpy(bunch.target).long()
    train, test = train_test_split(np.arange(len(labels)), test_size=397, random_state=0, stratify=labels)
    return Dataset(
        "digits", images[train], labels[train], images[test], labels[test],
        tuple(str(digit) for digit in range(10)), "scikit-learn's embedded UCI digits", "CC BY 4.0",
    )  # fmt: skip


# --- The sets that torchvision knows -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    folder: str
    class_name: str
    licence: str


_SETS = {
    "mnist": _Known("MNIST", "MNIST", "CC BY-SA 3.0; LeCun, Cortes"),
    "fashion-mnist": _Known("FashionMNIST", "FashionMNIST", "MIT; Zalando SE"),
    "cifar10": _Known("cifar-10-batches-py", "CIFAR10", "Krizhevsky 2009"),
}


def _torchvision(name: str, patience: float) -> Dataset:
    import torchvision.datasets

    known = _SETS[name]
    kind = getattr(torchvision.datasets, known.class_name)
    problems: list[str] = []
    for root, where in places(problems):
        try:
            found = _from_disk(kind, known, root)
        except DataUnavailable as error:
            problems.append(error.why)
            continue
        if found is not None:
            return _as_dataset(name, known, *found, source=where)
    offline = os.environ.get("DEVIL_OFFLINE") == "1"
    if offline or not _reachable(kind, patience):
        state = "DEVIL_OFFLINE=1 forbids the download" if offline else "it cannot be downloaded now"
        raise DataUnavailable(
            f"{name} is not on disk and {state}" + "".join(f" ({problem})" for problem in problems),
            f"Use the embedded set: load('digits'). Or set the variable DEVIL_DATA to a folder that holds {known.folder}/, or connect "
            "to the network once",
        )
    with _reads_limited_to(10.0 * patience):
        return _as_dataset(name, known, *_unpacked(kind, known, lambda scratch: None), source="a fresh download")


def _from_disk(kind: type, known: _Known, root: Path) -> tuple | None:
    """(train, test) torchvision sets, or None if `root` holds no such folder. Archives still packed are verified and
    unpacked into the cache, because a shared folder may be read-only."""
    folder = root / known.folder
    packed = known.class_name == "CIFAR10" and (root / kind.filename).exists()
    if not folder.is_dir() and not packed:
        return None
    return _read(kind, root) or _unpacked(kind, known, lambda scratch: _copy_archives(kind, root, scratch))


def _read(kind: type, root: Path) -> tuple | None:
    """(train, test) as torchvision reads them from unpacked files, or None if these are missing or damaged."""
    try:
        parts = kind(root, train=True), kind(root, train=False)
    except (RuntimeError, AssertionError, LookupError, ValueError, EOFError, OSError):
        return None
    return parts if all(len(part.data) == len(part.targets) > 0 for part in parts) else None


def _copy_archives(kind: type, root: Path, scratch: Path) -> None:
    """Bring the packed files beside each other as the download would."""
    from torchvision.datasets.utils import check_integrity

    if kind.__name__ == "CIFAR10":
        wanted = [(kind.filename, kind.tgz_md5)]
    else:
        wanted = [(f"{kind.__name__}/raw/{file}", md5) for file, md5 in kind.resources]
    for file, md5 in wanted:
        source = root / file
        if not source.exists():
            raise DataUnavailable(f"the files in {root} are incomplete or damaged, and {file} to unpack is not there")
        if not check_integrity(str(source), md5):
            raise DataUnavailable(f"{source} is damaged: its md5 is not {md5}; delete it and fetch it again")
        (scratch / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, scratch / file)


def _unpacked(kind: type, known: _Known, prepare: Callable[[Path], None]) -> tuple:
    """The cache's copy; if there is none, archives are prepared in a scratch folder (or left to torchvision to download),
    torchvision verifies and unpacks them, and the whole is moved into place."""
    cache = cache_folder()
    try:
        if (found := _read(kind, cache)) is not None:
            return found
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".unpack-") as name:
            scratch = Path(name)
            prepare(scratch)
            try:
                kind(scratch, train=True, download=True)
            except DOWNLOAD_ERRORS as error:
                raise DataUnavailable(f"the archives of {known.class_name} could not be had: {error}") from error
            if _read(kind, cache) is None:  # unless another process has been faster
                shutil.rmtree(cache / known.folder, ignore_errors=True)
                os.replace(scratch / known.folder, cache / known.folder)
        found = _read(kind, cache)
    except OSError as error:
        raise DataUnavailable(
            f"{known.class_name} could not be unpacked into the cache {cache}: {error}",
            "Free some space, or set DEVIL_CACHE to another folder",
        ) from error
    if found is None:
        raise DataUnavailable(f"{cache / known.folder} is damaged", "Delete it and try again")
    return found


# Most of these are OSErrors as well, but have nothing to do with the disk.
DOWNLOAD_ERRORS = (
    RuntimeError, EOFError, urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException,
)  # fmt: skip


@contextmanager
def _reads_limited_to(seconds: float) -> Iterator[None]:
    """torchvision sets no time limit: without one, a connection that goes silent would hang the lesson."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reachable(kind: type, patience: float) -> bool:
    """Does any of the places that torchvision downloads from answer?"""
    for url in getattr(kind, "mirrors", None) or [kind.url]:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=patience):
                return True
        except urllib.error.HTTPError:
            return True  # the server answered; that it lists no folder is no matter
        except (OSError, ValueError, http.client.HTTPException):
            continue
    return False


def _as_dataset(name: str, known: _Known, train, test, source: str) -> Dataset:
    def tensors(part) -> tuple[Tensor, Tensor]:
        images = torch.as_tensor(np.asarray(part.data))
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
        return images.float() / 127.5 - 1.0, torch.as_tensor(part.targets).long()

    return Dataset(name, *tensors(train), *tensors(test), tuple(train.classes), source, known.licence)


# --- Any folder of images ------------------------------------------------------------------------------------


def _folder(folder: Path, size: int) -> Dataset:
    """Colour images (n, 3, size, size) from a folder; sub-folders are classes. A file that cannot be read is named
    and passed over."""
    import warnings

    from PIL import Image, ImageOps

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _IMAGE_ENDINGS)
    images, names = [], []
    for path in files:
        try:
            with Image.open(path) as image:
                fitted = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (size, size))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            warnings.warn(f"{path} is passed over: {error}", stacklevel=3)
            continue
        images.append(np.asarray(fitted))
        names.append(path.parent.name if path.parent != folder else folder.name)
    if len(images) < 2:
        neither = "" if files else ", and it holds no WAV or FLAC file either"
        raise ValueError(
            f"{folder} holds {len(images)} readable images of {len(files)} image files; at least 2 are needed{neither}"
        )
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    return Dataset(folder.name, *held_out(pixels, names), str(folder), "your own")


def held_out(x: Tensor, names: list[str]) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[str, ...]]:
    """Samples with the names of their classes as (train, labels, test, labels, class names); a tenth, drawn always alike,
    is the test set."""
    class_names = tuple(sorted(set(names)))
    labels = torch.tensor([class_names.index(name) for name in names])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    test, train = order.split([max(1, len(order) // 10), len(order) - max(1, len(order) // 10)])
    return x[train], labels[train], x[test], labels[test], class_names


# --- Photographs of flowers ----------------------------------------------------------------------------------

_FLOWERS, _FLOWER_SIZES = "flowers128", (32, 64)


def _flowers(size: int) -> Dataset:
    """Colour photographs (n, 3, size, size) of flowers from the class folders in flowers128, which nobody downloads."""
    if size not in _FLOWER_SIZES:
        raise ValueError(f"flowers come in the sizes {' and '.join(map(str, _FLOWER_SIZES))}, and not in {size}")
    problems: list[str] = []
    for root, where in places(problems):
        if (folder := root / _FLOWERS).is_dir():
            name = "flowers" if size == 64 else f"flowers-{size}"
            return replace(_folder(folder, size), name=name, source=where, licence="CC BY 2.0 per photograph")
    raise DataUnavailable(
        "flowers is not on disk, and the course does not download it"
        + "".join(f" ({problem})" for problem in problems),
        f"Set the variable DEVIL_DATA to a folder that holds {_FLOWERS}/ with a folder of photographs for each flower, or "
        "give any such folder by its path: load('path/to/folder', size=64). Or use the embedded set: load('digits')",
    )
