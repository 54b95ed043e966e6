"""Sounds: what is done to every one of them, the drums, spoken digits in any state, and folders of recordings. All
recordings here are synthesised; no test needs the network."""

import os
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from devil_lib import data, sounds
from devil_lib.data import DataUnavailable
from devil_lib.synthesis import DRUMS, LENGTH, RATE, drum, fit, normalise, resample

REAL = Path(os.environ.get("DEVIL_DATA") or "nowhere") / "free-spoken-digit-dataset" / "recordings"
pytestmark = pytest.mark.usefixtures("nothing_there")


def tone(hertz: float, seconds: float = 0.3, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    """(samples,) of a sine."""
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def power(x: Tensor) -> tuple[Tensor, Tensor]:
    """The spectral power (n, 2049) of sounds (n, 1, 4096) and its frequencies in hertz."""
    return torch.fft.rfft(x[:, 0].double()).abs() ** 2, torch.fft.rfftfreq(x.shape[-1], 1 / RATE)


def strongest(x: Tensor) -> float:
    """The frequency in hertz at which a sound (1, 4096) is strongest."""
    spectrum, hertz = power(x[None])
    return hertz[spectrum.argmax()].item()


def largest_jump(x: Tensor) -> float:
    """Between one sample and the next, silence before and after included."""
    return torch.nn.functional.pad(x, (1, 1)).diff().abs().max().item()


# --- Cutting, padding, resampling, normalising ------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [400, 1000, LENGTH - 1, LENGTH + 1, 3 * LENGTH])
def test_a_sound_is_cut_or_padded_without_clicks(samples):
    slow = torch.cos(torch.arange(samples) * 0.02)[
        None
    ]  # neighbours differ by 0.02; it begins at 1 and ends anywhere
    fitted = fit(slow)
    assert fitted.shape == (1, LENGTH) and fitted.dtype == torch.float32
    assert largest_jump(slow) == 1.0 and largest_jump(fitted) < 0.25
    assert fitted[0, -1].abs() < 0.01 and largest_jump(fitted[:, 100:]) < 0.05 + fitted[0, 100].abs()
    inside = slice(8, min(samples, LENGTH) - 128)
    torch.testing.assert_close(fitted[:, inside], slow[:, inside])
    assert (fitted[:, samples:] == 0).all()


@pytest.mark.parametrize("samples", [1, 2, 3, 10])
def test_even_a_few_samples_are_padded(samples):
    fitted = fit(torch.ones(1, samples))
    assert fitted.shape == (1, LENGTH) and 0 < fitted.sum() <= samples


def test_a_sound_of_the_wanted_length_is_left_as_it_is():
    exact = torch.ones(2, 1, LENGTH)
    assert torch.equal(fit(exact), exact)
    assert fit(exact, 10).shape == (2, 1, 10)


@pytest.mark.parametrize(("samples", "length"), [(0, 10), (10, 0)])
def test_nothing_cannot_be_fitted(samples, length):
    with pytest.raises(ValueError, match="must be at least 1"):
        fit(torch.zeros(1, samples), length)


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 16000, 44100, 48000, 96000])
def test_resampling_keeps_the_pitch_and_the_level(rate):
    sound = torch.from_numpy(tone(500, 0.6, rate)).float()[None]
    done = resample(sound, rate)
    assert done.dtype == torch.float32 and abs(done.shape[-1] - 4800) <= 1
    assert strongest(done[:, :LENGTH]) == pytest.approx(500, abs=2)
    assert done[0, 500:-500].abs().max() == pytest.approx(0.5, abs=0.01)


def test_resampling_folds_nothing_down():
    high = torch.from_numpy(tone(9000, 0.6, 44100)).float()[None]
    assert resample(high, 44100)[0, 100:-100].abs().max() < 0.005


@pytest.mark.parametrize(("rate", "wanted"), [(0, 8000), (8000, 0), (-1, 8000)])
def test_a_rate_is_positive(rate, wanted):
    with pytest.raises(ValueError, match="a rate is at least 1"):
        resample(torch.zeros(1, 5), rate, wanted)


def test_normalising_gives_each_sound_a_peak_of_one():
    x = torch.stack([torch.sin(torch.arange(50.0)) * level for level in (0.01, 0.5, 3.0)])[:, None]
    torch.testing.assert_close(normalise(x).abs().amax(-1), torch.ones(3, 1))


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        (torch.zeros(1, 9), "silent"),
        (torch.full((1, 9), 0.4), "silent"),
        (torch.tensor([[0.1, float("nan"), -0.1]]), "not finite"),
        (torch.tensor([[0.1, float("inf"), -0.1]]), "not finite"),
    ],
)
def test_silence_and_nan_are_not_normalised(samples, why):
    with pytest.raises(ValueError, match=why):
        normalise(samples)


# --- Drums ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strokes() -> dict[str, Tensor]:
    """40 strokes (40, 1, 4096) of every drum."""
    return {name: torch.stack([drum(name, seed) for seed in range(40)]) for name in DRUMS}


def features(x: Tensor) -> Tensor:
    """(n, 3) of sounds (n, 1, 4096): logarithms of the spectrum's centroid and spread, and of the energy's mean time."""
    spectrum, hertz = power(x)
    centroid = (spectrum * hertz).sum(1) / spectrum.sum(1)
    spread = ((spectrum * (hertz - centroid[:, None]) ** 2).sum(1) / spectrum.sum(1)).sqrt()
    energy = x[:, 0].double() ** 2
    return torch.stack([centroid, spread, (energy * torch.arange(LENGTH)).sum(1) / energy.sum(1)], 1).log()


def test_there_are_five_drums():
    assert DRUMS == ("kick", "snare", "hi-hat", "tom", "clap")


@pytest.mark.parametrize("name", DRUMS)
def test_a_drum_is_a_stroke_that_fades(strokes, name):
    x = strokes[name]
    assert x.shape == (40, 1, LENGTH) and x.dtype == torch.float32 and x.isfinite().all()
    assert torch.equal(drum(name, 3), x[3]), "the same seed gives the same stroke"
    peaks = x.abs().amax((1, 2))
    assert (peaks <= 0.95 + 1e-6).all() and (peaks >= 0.5 - 1e-6).all() and peaks.std() > 0.05, "the level varies"
    energy = x[:, 0].square().unflatten(1, (8, LENGTH // 8)).sum(2)
    assert (energy.argmax(1) <= 1).all(), "it is struck at its beginning"
    assert (energy[:, -1] < 0.15 * energy.amax(1)).all(), "and dies away"
    assert (x[:, 0, -1].abs() < 1e-3).all() and (x[:, 0, 0].abs() < 0.05).all(), "without a click at either end"


@pytest.mark.parametrize("name", DRUMS)
def test_seeds_differ_in_pitch_decay_and_waveform(strokes, name):
    x = strokes[name][:, 0]
    unit = x / x.norm(dim=1, keepdim=True)
    likeness = (unit @ unit.T - torch.eye(len(x))).abs()
    assert likeness.max() < 0.999, "no stroke is another one at another level"
    assert (features(strokes[name]).std(0) > 0.02).all(), "in pitch, in noise and in decay"


def test_the_drums_lie_where_drums_lie(strokes):
    hertz = {name: features(x)[:, 0].exp() for name, x in strokes.items()}
    assert hertz["kick"].max() < 200
    assert all(40 < strongest(x) < 90 for x in strokes["kick"]), "the fundamental of a bass drum"
    assert hertz["tom"].max() < 350 and all(100 < strongest(x) < 260 for x in strokes["tom"])
    assert hertz["snare"].min() > 500 and hertz["snare"].max() < 2000
    assert hertz["clap"].min() > 800 and hertz["clap"].max() < 2000
    assert hertz["hi-hat"].min() > 2500


def test_a_snare_has_a_skin_and_a_clap_has_none(strokes):
    below = {}
    for name in ("snare", "clap"):
        spectrum, hertz = power(strokes[name])
        below[name] = spectrum[:, hertz < 450].sum(1) / spectrum.sum(1)
    assert below["snare"].min() > 2 * below["clap"].max()


def test_a_clap_is_several_hands(strokes):
    """The energy within the first 45 ms rises again after having fallen."""
    rises = []
    for x in strokes["clap"][:, 0]:
        envelope = x[:360].square().unflatten(0, (-1, 12)).mean(1)  # of 1.5 ms each
        rises.append(int((envelope[1:] > 2 * envelope[:-1]).sum()))
    assert np.median(rises) >= 2


def test_the_drums_as_a_data_set():
    dataset = data.load("drums")
    assert isinstance(dataset, sounds.SoundDataset) and isinstance(dataset, data.Dataset)
    assert dataset.train.shape == (2000, 1, LENGTH) and dataset.test.shape == (400, 1, LENGTH)
    assert dataset.train.dtype == torch.float32 and dataset.train_labels.dtype == torch.int64
    assert torch.bincount(dataset.train_labels).tolist() == [400] * 5
    assert torch.bincount(dataset.test_labels).tolist() == [80] * 5
    assert dataset.class_names == DRUMS and dataset.rate == 8000 and dataset.speakers == ()
    torch.testing.assert_close(dataset.train.abs().amax((1, 2)), torch.ones(2000))
    different = {x.numpy().tobytes() for x in torch.cat([dataset.train, dataset.test])}
    assert len(different) == 2400, "no test sound is a training sound"
    label = dataset.train_labels[7].item()
    torch.testing.assert_close(dataset.train[7], normalise(drum(DRUMS[label], 1)))
    for part in ("2,000 training", "400 test sounds", "4,096 samples at 8,000 Hz", "5 classes", "MIT"):
        assert part in str(dataset)


def test_what_is_written_into_one_copy_is_not_in_the_next():
    first = data.load("drums")
    first.train.zero_()
    assert data.load("drums").train.abs().max() == 1.0


def test_simple_features_tell_the_drums_apart():
    dataset = data.load("drums")
    known, asked = features(dataset.train), features(dataset.test)
    scale = known.std(0)
    neighbours = KNeighborsClassifier(5).fit(known / scale, dataset.train_labels)
    assert neighbours.score(asked / scale, dataset.test_labels) > 0.97


@pytest.mark.parametrize(("name", "seed", "why"), [("cowbell", 0, "choose one of kick, snare"), ("kick", -1, "seed")])
def test_a_drum_that_there_is_not(name, seed, why):
    with pytest.raises(ValueError, match=why):
        drum(name, seed)


# --- A single file ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["wav", "flac"])
@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_number_of_channels(tmp_path, ending, rate, channels):
    path = tmp_path / f"tone.{ending}"
    soundfile.write(path, np.tile(tone(600, 0.3, rate)[:, None], channels), rate)
    x = sounds.read(path)
    assert x.shape == (1, LENGTH) and x.dtype == torch.float32
    assert strongest(x) == pytest.approx(600, abs=4)
    assert x.abs().max() == 1.0 and (x[0, 2405:] == 0).all()


@pytest.mark.parametrize("kind", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_any_kind_of_samples(tmp_path, kind):
    soundfile.write(tmp_path / "tone.wav", tone(600), RATE, subtype=kind)
    assert strongest(sounds.read(tmp_path / "tone.wav")) == pytest.approx(600, abs=4)


def test_channels_are_mixed_with_equal_shares(tmp_path):
    soundfile.write(tmp_path / "two.wav", np.stack([tone(500), tone(1500)], 1), RATE, subtype="FLOAT")
    x = sounds.read(tmp_path / "two.wav")
    expected = normalise(fit(torch.from_numpy(tone(500) + tone(1500)).float()[None]))
    torch.testing.assert_close(x, expected)


def test_of_a_long_file_the_beginning_is_taken(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.concatenate([tone(600, 1.0, 44100), tone(2000, 5.0, 44100)]), 44100)
    x = sounds.read(tmp_path / "long.wav")
    assert strongest(x) == pytest.approx(600, abs=4)
    assert x[0, -1].abs() < 0.01 and x[0, -200:-128].abs().max() > 0.9, "faded out where it is cut"
    assert sounds.read(tmp_path / "long.wav", 16000).shape == (1, 16000)


def write_text(path: Path) -> None:
    path.write_text("this is no sound")


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


def write_no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0), RATE)


def write_silence(path: Path) -> None:
    soundfile.write(path, np.zeros(4000), RATE)


def write_opposite_channels(path: Path) -> None:
    soundfile.write(path, np.stack([tone(500), -tone(500)], 1), RATE)


def write_nan(path: Path) -> None:
    soundfile.write(path, np.where(np.arange(4000) == 99, np.nan, tone(500, 0.5)), RATE, subtype="FLOAT")


def write_infinite(path: Path) -> None:
    soundfile.write(path, np.where(np.arange(4000) == 99, np.inf, tone(500, 0.5)), RATE, subtype="FLOAT")


def write_header(path: Path, offset: int, value: int, size: int) -> None:
    """A WAV file with another number in its header."""
    soundfile.write(path, tone(500), RATE, format="WAV")
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = value.to_bytes(size, "little")
    path.write_bytes(bytes(content))


def write_no_channels(path: Path) -> None:
    write_header(path, 22, 0, 2)


def write_no_rate(path: Path) -> None:
    write_header(path, 24, 0, 4)


def write_wild_rate(path: Path) -> None:
    write_header(path, 24, 2_000_000_000, 4)


def write_unknown_format(path: Path) -> None:
    write_header(path, 20, 0x7777, 2)


def write_another_kind(path: Path) -> None:
    Image.new("RGB", (9, 9)).save(path, format="png")


BAD = [
    (write_text, "no readable WAV or FLAC file"),
    (write_nothing, "no readable WAV or FLAC file"),
    (write_another_kind, "no readable WAV or FLAC file"),
    (write_unknown_format, "no readable WAV or FLAC file"),
    (write_no_channels, "no readable WAV or FLAC file"),
    (write_no_rate, "no readable WAV or FLAC file|its header names 0 samples"),
    (write_wild_rate, "its header names 2,000,000,000 samples per second"),
    (write_no_samples, "holds no samples"),
    (write_silence, "silent"),
    (write_opposite_channels, "silent"),
    (write_nan, "not finite"),
    (write_infinite, "not finite"),
]


@pytest.mark.parametrize(("write", "why"), BAD, ids=lambda case: getattr(case, "__name__", ""))
def test_what_is_no_sound_is_an_error(tmp_path, write, why):
    write(tmp_path / "bad.wav")
    with pytest.raises(ValueError, match=why):
        sounds.read(tmp_path / "bad.wav")


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(FileNotFoundError, match="is no file"):
            sounds.read(path)


# --- A folder of sounds -------------------------------------------------------------------------------------------------------


@pytest.fixture
def record(tmp_path) -> Path:
    """Tones in two classes, of several rates, lengths and channel counts."""
    folder = tmp_path / "record"
    for name, hertz in (("low", 300), ("high", 2500)):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            rate, ending = (8000, 16000, 44100)[i % 3], ("wav", "flac", "WAV")[i % 3]
            samples = np.tile(tone(hertz, 0.1 + 0.2 * i, rate)[:, None], 1 + i % 2)
            soundfile.write(folder / name / f"{i}.{ending}", samples, rate, format=ending)
    return folder


def test_a_folder_with_a_folder_for_each_class(record):
    (record / "notes.txt").write_text("not a sound")
    dataset = data.load(str(record), size=16)
    assert isinstance(dataset, sounds.SoundDataset)
    assert dataset.train.shape == (11, 1, LENGTH) and dataset.test.shape == (1, 1, LENGTH)
    assert dataset.name == "record" and dataset.class_names == ("high", "low") and dataset.licence == "your own"
    for x, label in zip(dataset.train, dataset.train_labels, strict=True):
        assert strongest(x) == pytest.approx((2500, 300)[label], abs=10)
        assert x.abs().max() == 1.0


@pytest.mark.parametrize(("write", "why"), BAD, ids=lambda case: getattr(case, "__name__", ""))
def test_a_bad_file_is_named_and_the_rest_goes_on(record, write, why):
    write(record / "low" / "bad.wav")
    with pytest.warns(UserWarning, match=rf"bad\.wav is passed over: .*({why})"):
        dataset = data.load(str(record))
    assert len(dataset.train) + len(dataset.test) == 12


def test_a_folder_without_a_readable_sound_is_an_error(tmp_path):
    (tmp_path / "bad").mkdir()
    write_silence(tmp_path / "bad" / "silent.wav")
    with (
        pytest.warns(UserWarning, match="silent"),
        pytest.raises(ValueError, match="holds 0 readable sounds of 1 sound files; at least 2 are needed"),
    ):
        data.load(str(tmp_path / "bad"))


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no WAV or FLAC file"):
        data.load(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="holds 0 readable sounds of 0 sound files"):
        sounds.folder(tmp_path / "empty")


def test_a_folder_with_images_and_sounds_is_an_error(record):
    Image.new("RGB", (9, 9)).save(record / "high" / "cover.png")
    with pytest.raises(ValueError, match="holds images and sounds: give a folder that holds one kind"):
        data.load(str(record))


def test_an_unknown_set_lists_the_known():
    with pytest.raises(ValueError, match="choose one of auto, spoken-digits, drums"):
        sounds.load("whales")
    with pytest.raises(ValueError, match="spoken-digits, drums, or give a folder of images or sounds"):
        data.load("whales")


# --- Spoken digits ------------------------------------------------------------------------------------------------------------

SPEAKERS = ("anna", "berta")


@pytest.fixture
def spoken(tmp_path, monkeypatch) -> Path:
    """A data folder with 7 recordings of each of two speakers and ten digits: tones of 300 + 100 * digit hertz."""
    folder = tmp_path / "shared" / "free-spoken-digit-dataset" / "recordings"
    folder.mkdir(parents=True)
    for digit in range(10):
        for speaker in SPEAKERS:
            for number in (0, 4, 5, 6, 10, 11, 49):
                sound = tone(300 + 100 * digit, 0.15 + 0.01 * number, level=0.2 + 0.01 * number)
                soundfile.write(folder / f"{digit}_{speaker}_{number}.wav", sound, RATE)
    monkeypatch.setattr(sounds, "_RECORDINGS", 140)
    monkeypatch.setattr(sounds, "_DIGEST", sounds.digest(folder))
    return folder


@pytest.fixture
def named(spoken, monkeypatch) -> Path:
    """The same, with DEVIL_DATA set to it."""
    monkeypatch.setenv("DEVIL_DATA", str(spoken.parents[1]))
    return spoken


def check(dataset: sounds.SoundDataset) -> None:
    """It is what `spoken` has recorded, split at number 5."""
    assert dataset.train.shape == (100, 1, LENGTH) and dataset.test.shape == (40, 1, LENGTH)
    assert dataset.class_names == tuple("0123456789") and dataset.rate == 8000
    assert torch.bincount(dataset.test_labels).tolist() == [4] * 10
    assert dataset.train_speakers.count("anna") == 50 and set(dataset.test_speakers) == set(SPEAKERS)
    assert dataset.speakers == dataset.train_speakers + dataset.test_speakers and len(dataset.speakers) == 140
    assert dataset.licence.startswith("CC BY-SA 4.0") and "2 speakers" in str(dataset)
    for x, label in zip(dataset.test, dataset.test_labels.tolist(), strict=True):
        assert strongest(x) == pytest.approx(300 + 100 * label, abs=5)
        assert x.abs().max() == 1.0


def test_recordings_on_disk_are_read_in_place(named, tmp_path):
    (named / "README.wav").write_text("not a recording's name")
    dataset = data.load("spoken-digits")
    check(dataset)
    assert dataset.name == "spoken-digits" and dataset.source == f"$DEVIL_DATA ({named.parents[1]})"
    assert not (tmp_path / "cache").exists()


def test_auto_takes_the_recordings_where_they_are(named):
    check(sounds.load("auto"))


def test_auto_falls_back_to_drums_and_says_so():
    fallen_back = sounds.load("auto")
    assert fallen_back.name == "drums" and "spoken-digits is not on disk" in str(fallen_back)
    assert torch.equal(fallen_back.train, sounds.load("drums").train)


def test_a_copy_with_fewer_recordings_says_so(named):
    (named / "3_anna_10.wav").unlink()
    assert "with 139 recordings instead of 140" in str(data.load("spoken-digits"))


def test_missing_and_offline_names_the_embedded_set_and_the_variable(monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_arguments, **_options: pytest.fail("it went online"))
    with pytest.raises(DataUnavailable, match=r"DEVIL_OFFLINE=1 forbids the download\. .*load\('drums'\)") as error:
        data.load("spoken-digits")
    assert "DEVIL_DATA" in str(error.value) and "free-spoken-digit-dataset/recordings" in str(error.value)
    monkeypatch.setenv("DEVIL_DATA", "/nowhere/at/all")
    with pytest.raises(DataUnavailable, match="/nowhere/at/all, which is no folder"):
        data.load("spoken-digits")


def test_a_damaged_recording_is_named(named):
    (named / "4_berta_6.wav").write_bytes(b"RIFF")
    with pytest.raises(DataUnavailable, match=r"is damaged: 4_berta_6\.wav: it is no readable WAV"):
        data.load("spoken-digits")


def test_a_folder_without_recordings_is_an_error(named):
    for path in named.iterdir():
        path.unlink()
    with pytest.raises(DataUnavailable, match="holds 0 training and 0 test recordings"):
        data.load("spoken-digits")


@pytest.fixture
def archive(spoken, tmp_path, monkeypatch, serve) -> Path:
    """The recordings as an archive on a server of our own, with other files beside them, as the published one has."""
    folder = tmp_path / "served"
    folder.mkdir()
    path = folder / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("set-1.0.10/README.md", "about")
        packed.writestr("set-1.0.10/../../escaped/recordings/evil.wav", b"no recording's name")
        packed.writestr("set-1.0.10/recordings/", b"")
        for recording in sorted(spoken.iterdir()):
            packed.write(recording, f"set-1.0.10/recordings/{recording.name}")
    monkeypatch.setattr(sounds, "_ARCHIVE", serve(folder) + path.name)
    return path


def test_a_download_ends_in_the_cache(archive, tmp_path, monkeypatch):
    dataset = data.load("spoken-digits")
    check(dataset)
    assert dataset.source == "a fresh download"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["free-spoken-digit-dataset"]
    assert len(list((tmp_path / "cache").rglob("*.wav"))) == 140 and not list(tmp_path.rglob("evil.wav"))
    monkeypatch.setenv("DEVIL_OFFLINE", "1")
    again = data.load("spoken-digits")
    check(again)
    assert again.source == "the per-user cache"


def replace_a_recording(path: Path) -> None:
    with zipfile.ZipFile(path) as packed:
        content = {name: packed.read(name) for name in packed.namelist()}
    name = "set-1.0.10/recordings/0_anna_0.wav"
    content[name] = content[name][:-2] + b"\x07\x00"
    with zipfile.ZipFile(path, "w") as packed:
        for name, part in content.items():
            packed.writestr(name, part)


def flip_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(2000, len(content) // 2, 97):
        content[place] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda path: path.unlink(), "cannot be downloaded now.*404"),
        (lambda path: path.write_bytes(b"<html>no archive</html>"), "archive of spoken-digits is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:30000]), "archive of spoken-digits is damaged"),
        (flip_bytes, "archive of spoken-digits is damaged"),
        (replace_a_recording, "holds other recordings: .* instead of"),
    ],
    ids=["missing", "a web page", "cut short", "flipped bytes", "another recording"],
)
def test_a_download_that_fails_is_an_error_and_leaves_nothing(archive, tmp_path, damage, why):
    damage(archive)
    with pytest.raises(DataUnavailable, match=rf"{why}.*load\('drums'\)"):
        data.load("spoken-digits")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_archive_that_does_not_end_is_left(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(sounds, "_LARGEST_ARCHIVE", 1000)
    with archive.open("ab") as file:
        file.write(bytes(5_000_000))
    with pytest.raises(DataUnavailable, match="damaged"):
        data.load("spoken-digits")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("moment", ["_unpack", "digest"])
def test_an_interrupted_download_leaves_nothing(archive, tmp_path, monkeypatch, moment):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sounds, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.load("spoken-digits")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_full_disk_leaves_nothing_behind_and_says_what_to_do(archive, tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(DataUnavailable, match=r"No space left on device.*load\('drums'\)"):
            data.load("spoken-digits")
    assert list((tmp_path / "cache").iterdir()) == []
    check(data.load("spoken-digits"))


def test_a_damaged_cache_is_replaced_by_a_download(archive):
    check(data.load("spoken-digits"))
    broken = data.cache_folder() / "free-spoken-digit-dataset" / "recordings" / "0_anna_0.wav"
    broken.write_bytes(b"short")
    dataset = data.load("spoken-digits")
    check(dataset)
    assert dataset.source == "a fresh download"


def test_nobody_answers(spoken, monkeypatch):
    monkeypatch.delenv("DEVIL_OFFLINE")
    monkeypatch.setattr(sounds, "_ARCHIVE", "http://127.0.0.1:9/set.zip")
    with pytest.raises(DataUnavailable, match=r"cannot be downloaded now.*load\('drums'\)"):
        data.load("spoken-digits")


@pytest.mark.skipif(not REAL.is_dir(), reason="the recordings are not there")
def test_the_published_recordings(monkeypatch):
    monkeypatch.setenv("DEVIL_DATA", str(REAL.parents[1]))
    dataset = data.load("spoken-digits")
    assert dataset.train.shape == (2700, 1, LENGTH) and dataset.test.shape == (300, 1, LENGTH)
    assert torch.bincount(dataset.train_labels).tolist() == [270] * 10
    assert torch.bincount(dataset.test_labels).tolist() == [30] * 10
    assert {speaker: dataset.test_speakers.count(speaker) for speaker in dataset.test_speakers} == dict.fromkeys(
        ("george", "jackson", "lucas", "nicolas", "theo", "yweweler"), 50
    )
    x = torch.cat([dataset.train, dataset.test])
    assert x.isfinite().all()
    torch.testing.assert_close(x.abs().amax((1, 2)), torch.ones(3000))
    assert (x[..., -1].abs() < 0.02).all() and (x[..., 0].abs() < 0.3).all(), "no click at either end"
    assert "instead of" not in str(dataset) and sounds.digest(REAL) == sounds._DIGEST
