"""Data sets of sounds: recordings found on disk, downloaded and checked, drums synthesised by code, or any folder.

They are looked for and downloaded as the images are (see devil_lib.data, whose `load` hands out both).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import urllib.request
import warnings
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from devil_lib.data import DOWNLOAD_ERRORS, Dataset, DataUnavailable, cache_folder, held_out, places
from devil_lib.synthesis import DRUMS, LENGTH, RATE, drum, fit, normalise, resample

NAMES = ("spoken-digits", "drums")
ENDINGS = {".wav", ".flac"}
_SLOWEST, _FASTEST = 1000, 400_000  # samples per second that a header may name


@dataclass(frozen=True)
class SoundDataset(Dataset):
    """Sounds (n, 1, 4096), float32 in [-1, 1] with a peak of 1, with class labels (n,), int64.

    `train_speakers` and `test_speakers` hold the speaker's name of each recording, and are empty where it is not known.
    """

    rate: int = RATE
    train_speakers: tuple[str, ...] = ()
    test_speakers: tuple[str, ...] = ()

    def __str__(self) -> str:
        speakers = set(self.speakers)
        voices = f"{len(speakers)} speakers, " if speakers else ""
        return (
            f"{self.name}: {len(self.train):,} training and {len(self.test):,} test sounds of {self.train.shape[-1]:,} "
            f"samples at {self.rate:,} Hz, {len(self.class_names)} classes, {voices}from {self.source} ({self.licence})"
        )

    @property
    def speakers(self) -> tuple[str, ...]:
        """The speaker of each recording, those of the training set first; empty where not known."""
        return self.train_speakers + self.test_speakers


def load(name: str) -> SoundDataset:
    """A data set of sounds by its name; "auto" is the spoken digits where they can be had, else the drums, which says why.

    Raises:
        ValueError: no such set. DataUnavailable: not on disk, and no network; the message names the embedded set.
    """
    if name == "auto":
        try:
            return _spoken_digits()
        except DataUnavailable as error:
            return replace(load("drums"), source=f"the course's own synthesis, since {error.why}")
    if name == "drums":
        made = _drums()
        # Tensors of its own for everybody, since what is written into one would be heard in all.
        return replace(made, train=made.train.clone(), test=made.test.clone())
    if name == "spoken-digits":
        return _spoken_digits()
    raise ValueError(f"unknown set of sounds {name!r}: choose one of auto, {', '.join(NAMES)}")


# --- The embedded set ----------------------------------------------------------------------------------------------

_TRAIN_OF_EACH, _TEST_OF_EACH = 400, 80


@cache
def _drums() -> SoundDataset:
    """2,000 and 400 strokes of five drums; the seeds of the test set are no seeds of the training set."""

    def strokes(seeds: range) -> tuple[Tensor, Tensor]:
        made = [drum(name, seed) for seed in seeds for name in DRUMS]
        return normalise(torch.stack(made)), torch.arange(len(DRUMS)).repeat(len(seeds))

    return SoundDataset(
        "drums",
        *strokes(range(_TRAIN_OF_EACH)),
        *strokes(range(_TRAIN_OF_EACH, _TRAIN_OF_EACH + _TEST_OF_EACH)),
        DRUMS,
        "the course's own synthesis",
        "MIT, as the course",
    )


# --- Reading ---------------------------------------------------------------------------------------------------------


def read(path: str | Path, length: int = LENGTH) -> Tensor:
    """The beginning of a WAV or FLAC file of any rate and number of channels as (1, length), with a peak of 1.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no sound file (or a damaged one), no samples, NaN or infinite samples, silence, or a rate that no
            recording has. The message says which, without the path.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    return normalise(fit(_mono(path, length), length))


def _mono(path: Path, length: int) -> Tensor:
    """The channels' mean at RATE, (1, samples), as recorded; of long files little more than `length` is read."""
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            if not _SLOWEST <= rate <= _FASTEST:
                raise ValueError(f"its header names {rate:,} samples per second")
            # A tenth of a second more than needed, so that the resampling filter meets no end where there is none.
            frames = file.read(int((length / RATE + 0.1) * rate), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise ValueError(f"it is no readable WAV or FLAC file: {error}") from error
    if not len(frames):
        raise ValueError("it holds no samples")
    if not np.isfinite(frames).all():
        raise ValueError("it has samples that are not finite (NaN or infinite)")
    return resample(torch.from_numpy(frames.mean(1))[None], rate)


# --- Spoken digits ---------------------------------------------------------------------------------------------------

_FOLDER = "free-spoken-digit-dataset"
_ARCHIVE = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip"
_LICENCE = "CC BY-SA 4.0; Z. Jackson and contributors"
# GitHub makes its archives when they are asked for and does not promise that their bytes stay the same. Checked is
# therefore what is in the recordings: SHA-256 over the names and 16-bit samples of all of them, in the names' order.
_RECORDINGS, _DIGEST = 3000, "47d0ef1644416ec283369cb2b6d393f1b8fc69e0977b6fd4d8a409acb2eec7ab"
_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")
_LARGEST_ARCHIVE = 200_000_000  # bytes; the published one has 16 million
_PATIENCE = 15.0  # seconds without an answer


def _spoken_digits() -> SoundDataset:
    problems = []
    for root, where in places(problems):
        if (recordings := root / _FOLDER / "recordings").is_dir():
            try:
                return _as_dataset(recordings, where)
            except ValueError as error:
                problems.append(f"{recordings} is damaged: {error}")
    because = "".join(f" ({problem})" for problem in problems)
    advice = (
        "Use the embedded set: load('drums'). Or set the variable DEVIL_DATA to a folder that holds "
        f"{_FOLDER}/recordings, or connect to the network once"
    )
    if os.environ.get("DEVIL_OFFLINE") == "1":
        raise DataUnavailable(
            f"spoken-digits is not on disk and DEVIL_OFFLINE=1 forbids the download{because}", advice
        )
    try:
        return _as_dataset(_downloaded(), "a fresh download")
    except DataUnavailable as error:
        raise DataUnavailable(f"{error.why}{because}", advice) from error


def _as_dataset(folder: Path, source: str) -> SoundDataset:
    """The recordings of a folder, split as the set's authors do: numbers 0 to 4 of every speaker and digit are the test set.

    Raises:
        ValueError: a recording that cannot be read (named), or none.
    """
    parts: dict[bool, list[tuple[Tensor, int, str]]] = {True: [], False: []}
    for path in sorted(folder.glob("*.wav")):
        if not (name := _NAME.fullmatch(path.name)):
            continue
        try:
            sound = read(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path.name}: {error}") from error
        parts[int(name[3]) < 5].append((sound, int(name[1]), name[2]))
    test, train = parts[True], parts[False]
    if not test or not train:
        raise ValueError(f"it holds {len(train)} training and {len(test)} test recordings")
    if (found := len(train) + len(test)) != _RECORDINGS:
        source += f", with {found:,} recordings instead of {_RECORDINGS:,}"

    def columns(part: list[tuple[Tensor, int, str]]) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        sounds, digits, speakers = zip(*part, strict=True)
        return torch.stack(sounds), torch.tensor(digits), speakers

    (x, y, speakers), (x_test, y_test, test_speakers) = columns(train), columns(test)
    digits = tuple(str(digit) for digit in range(10))
    return SoundDataset(
        "spoken-digits", x, y, x_test, y_test, digits, source, _LICENCE, RATE, speakers, test_speakers
    )


def _downloaded() -> Path:
    """The recordings in the cache after a download that was checked and moved into place as a whole."""
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".unpack-") as scratch:
            fresh = Path(scratch) / _FOLDER
            _fetch(Path(scratch) / "archive.zip")
            _unpack(Path(scratch) / "archive.zip", fresh / "recordings")
            if (found := digest(fresh / "recordings")) != _DIGEST:
                raise DataUnavailable(
                    f"the archive of spoken-digits holds other recordings: {found} instead of {_DIGEST}"
                )
            shutil.rmtree(cache / _FOLDER, ignore_errors=True)
            os.replace(fresh, cache / _FOLDER)
    except OSError as error:
        raise DataUnavailable(
            f"spoken-digits could not be unpacked into the cache {cache}: {error}",
            "Free some space, or set DEVIL_CACHE to another folder",
        ) from error
    return cache / _FOLDER / "recordings"


def _fetch(path: Path) -> None:
    """Download the archive to `path`, but no more than an archive of recordings may hold."""
    try:
        with urllib.request.urlopen(_ARCHIVE, timeout=_PATIENCE) as answer, path.open("wb") as file:
            while file.tell() <= _LARGEST_ARCHIVE and (block := answer.read(1 << 20)):
                file.write(block)
    except DOWNLOAD_ERRORS as error:
        raise DataUnavailable(f"spoken-digits is not on disk and cannot be downloaded now: {error}") from error


def _unpack(archive: Path, folder: Path) -> None:
    """Write the recordings of the archive, and nothing else of it, into a new folder."""
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                *_, above, name = ("", *member.filename.split("/"))
                if above == "recordings" and _NAME.fullmatch(name):
                    (folder / name).write_bytes(packed.read(member))
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, NotImplementedError) as error:
        raise DataUnavailable(f"the archive of spoken-digits is damaged: {error}") from error


def digest(folder: Path) -> str:
    """SHA-256 over the names and 16-bit samples of a folder's recordings, in the order of their names.

    Raises:
        DataUnavailable: a file that is no recording.
    """
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.wav")):
        try:
            samples, rate = soundfile.read(path, dtype="int16")
        except soundfile.SoundFileError as error:
            raise DataUnavailable(f"{path.name} in the archive of spoken-digits is damaged: {error}") from error
        total.update(f"{path.name} {rate} {samples.shape}".encode())
        total.update(samples.astype("<i2").tobytes())
    return total.hexdigest()


# --- Any folder of sounds --------------------------------------------------------------------------------------------


def folder(path: Path) -> SoundDataset:
    """The sounds of a folder; sub-folders are classes. A file that cannot be used is named in a warning and passed over.

    Raises:
        ValueError: fewer than two readable sounds.
    """
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS)
    sounds, names = [], []
    for file in files:
        try:
            sounds.append(read(file))
        except (OSError, ValueError) as error:
            warnings.warn(f"{file} is passed over: {error}", stacklevel=3)
            continue
        names.append(file.parent.name if file.parent != path else path.name)
    if len(sounds) < 2:
        raise ValueError(
            f"{path} holds {len(sounds)} readable sounds of {len(files)} sound files; at least 2 are needed"
        )
    return SoundDataset(path.name, *held_out(torch.stack(sounds), names), str(path), "your own")
