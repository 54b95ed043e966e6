"""Sounds on the page: what is played is the sound itself, what is drawn is measured, and words are demanded."""

import base64
import io
import math
import re

import numpy as np
import pytest
import soundfile
import torch
from bs4 import BeautifulSoup

from devil_lib import show, targets
from devil_lib.show import hearing
from devil_lib.synthesis import DRUMS, RATE

WORDS = {
    "alt": "A steady waveform above a spectrogram with one bright line",
    "caption": "A tone of one pitch",
}
HEARD = "A steady whistle of middle pitch."


def tone(pitch: float = 1000.0, level: float = 0.25, samples: int = 4096, rate: int = RATE) -> torch.Tensor:
    return level * torch.sin(2.0 * math.pi * pitch * torch.arange(samples) / rate)[None]


@pytest.fixture
def shown(monkeypatch):
    """The pages that were displayed."""
    found = []
    monkeypatch.setattr(hearing, "put_on_page", found.append)
    return found


def played(page: str) -> list[tuple[np.ndarray, int]]:
    """The sounds of a page's players, with their rates."""
    sources = [player["src"] for player in BeautifulSoup(page, "html.parser").find_all("audio", controls=True)]
    assert all(source.startswith("data:audio/wav;base64,") for source in sources)
    return [soundfile.read(io.BytesIO(base64.b64decode(source.split(",")[1]))) for source in sources]


# --- What is played ----------------------------------------------------------------------------------------------------


def test_a_player_holds_the_sound_as_loud_as_it_is(shown):
    quiet = tone(level=0.01)
    show.sound(quiet, heard=HEARD, **WORDS)
    ((sound, rate),) = played(shown[0])
    assert rate == 8000 and sound.shape == (4096,)
    assert np.abs(sound - quiet[0].numpy()).max() < 1 / 32767


def test_a_clip_is_scaled_only_where_asked(shown):
    show.sound(tone(level=0.01), heard=HEARD, normalise=True, **WORDS)
    show.sounds({"a": tone(level=0.01), "b": tone(level=0.4)}, heard=HEARD, normalise=True, **WORDS)
    show.sounds({"a": tone(level=0.01), "b": tone(level=0.4)}, heard=HEARD, **WORDS)
    peaks = [[np.abs(sound).max() for sound, _ in played(page)] for page in shown]
    assert peaks[0] == pytest.approx([0.95], abs=0.01) and peaks[1] == pytest.approx([0.95, 0.95], abs=0.01)
    assert peaks[2] == pytest.approx([0.01, 0.4], abs=0.01)
    assert ["loudness cannot be compared" in page for page in shown] == [True, True, False]


def test_silence_stays_silence(shown):
    show.sound(torch.zeros(1, 4096), heard="Nothing at all, silence.", normalise=True, **WORDS)
    assert not played(shown[0])[0][0].any()
    page = show.sounds_html({"mute": torch.zeros(4096)}, heard="Nothing at all, silence.", **WORDS)
    assert "0.51 s of silence" in page


@pytest.mark.parametrize("samples", [16, 24, 1000, 16_000])
def test_any_length_up_to_two_seconds_is_shown(samples, shown):
    show.sound(tone(samples=samples)[0], heard=HEARD, **WORDS)
    assert len(played(shown[0])[0][0]) == samples


def test_other_rates_are_named_in_the_file(shown):
    show.sound(tone(rate=44_100, samples=88_200), rate=44_100, heard=HEARD, **WORDS)
    assert played(shown[0])[0][1] == 44_100


def test_full_scale_does_not_wrap():
    assert soundfile.read(io.BytesIO(show.wav(torch.tensor([1.0, -1.0]))))[0] == pytest.approx([1.0, -1.0], abs=1e-4)


# --- What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (torch.full((1, 4096), float("nan")), "NaN"),
        (torch.full((1, 4096), 1.5), r"\[-1, 1\]"),
        (torch.zeros(2, 4096), "show.sounds"),
        (torch.zeros(3, 1, 4096), "show.sounds"),
        (torch.zeros(1, 8), "at least 16 samples"),
        (torch.zeros(0), "at least 16 samples"),
        (torch.zeros(1, 16_001), "2.0 s is too long.*at most 2 s of it, x.* :16000"),
    ],
)
def test_bad_clips_are_refused(x, told, shown):
    for call in (
        lambda: show.sound(x, heard=HEARD, **WORDS),
        lambda: show.sounds({"a": x}, heard=HEARD, **WORDS),
        lambda: show.sound.draw(x),
        lambda: show.players_html({"a": x}),
    ):
        with pytest.raises(ValueError, match=told):
            call()
    assert not shown


@pytest.mark.parametrize("rate", [0, 100, 8000.0, True, 500_000])
def test_rates_that_no_browser_plays_are_refused(rate):
    with pytest.raises(ValueError, match="3,000 to 96,000"):
        show.sound(tone(), heard=HEARD, rate=rate, **WORDS)


def test_words_are_demanded(shown):
    for heard in ("", "beep", "a a a a", None):
        with pytest.raises(ValueError, match="heard"):
            show.sound(tone(), heard=heard, **WORDS)
        with pytest.raises(ValueError, match="heard"):
            show.sounds({"a": tone()}, heard={"a": heard}, **WORDS)
    with pytest.raises(ValueError, match="alt"):
        show.sound(tone(), heard=HEARD, alt="figure", caption=WORDS["caption"])
    with pytest.raises(TypeError):
        show.sound(tone(), **WORDS)
    with pytest.raises(ValueError, match="each of a, b"):
        show.sounds({"a": tone(), "b": tone()}, heard={"a": HEARD}, **WORDS)
    assert not shown


def test_cards_stay_small():
    with pytest.raises(ValueError, match="1 to 8 sounds, got 9"):
        show.players_html({str(i): tone() for i in range(9)})
    with pytest.raises(ValueError, match="1 to 8 sounds, got 0"):
        show.sounds({}, heard=HEARD, **WORDS)
    with pytest.raises(ValueError, match=r"352,888 bytes together.*Show fewer"):
        show.players_html({name: tone(samples=88_200, rate=44_100) for name in "ab"}, rate=44_100)
    eight = {str(i): tone(samples=16_000) for i in range(8)}
    assert len(show.players_html(eight)) < 400_000
    assert len(show.sound_html(targets.alarm(), heard=HEARD, **WORDS)) < 100_000


# --- What is drawn and said ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pitch", [250.0, 1000.0, 3500.0])
def test_a_sine_of_full_scale_is_at_0_db_and_at_its_frequency(pitch):
    levels = show.spectrogram(tone(pitch, 1.0))
    middle = levels[:, levels.shape[1] // 2]
    assert middle.argmax() / (len(levels) - 1) * RATE / 2 == pytest.approx(pitch, abs=RATE / 2 / (len(levels) - 1))
    assert middle.max() == pytest.approx(0.0, abs=0.1)
    halved = show.spectrogram(tone(pitch, 0.5))[:, levels.shape[1] // 2]
    assert halved.max() == pytest.approx(-6.0, abs=0.1)


def test_a_spectrogram_shows_when(shown):
    late = torch.cat([torch.zeros(1, 3072), tone(samples=1024)], dim=1)
    loud = show.spectrogram(late).max(0) > -30.0
    assert not loud[: int(0.7 * len(loud))].any() and loud[int(0.78 * len(loud)) : -1].all()
    assert (show.spectrogram(torch.zeros(4096)) == hearing.FLOOR).all()


def test_axes_are_in_seconds_and_kilohertz():
    for width in (2.9, 6.4):
        above, below, *_ = show.sound.draw(tone(), width=width).axes
        assert below.get_xlim() == pytest.approx((0.0, 0.512)) and below.get_ylim() == pytest.approx((0.0, 4.0))
        assert below.get_xlabel() == "time (s)" and "kHz" in below.get_ylabel()
        assert above.get_ylim() == (-1.0, 1.0), "a quiet sound looks quiet"


def test_a_card_is_whole(shown):
    show.sound(
        tone(), alt='A "tone" <b>drawn</b> as one bright line', caption="Quiet & steady <i>tone</i>", heard=HEARD
    )
    (page,) = shown
    soup = BeautifulSoup(page, "html.parser")
    assert soup.find("img")["alt"] == 'A "tone" <b>drawn</b> as one bright line'
    assert soup.find("figcaption").text == "Quiet & steady <i>tone</i>" and not soup.find("i")
    assert soup.find("audio")["aria-label"] == f"Player: {HEARD}" and f"Heard: {HEARD}" in soup.text
    assert "http" not in page and "<script" not in page


def test_several_sounds_stand_side_by_side_with_what_is_measured(shown):
    clips = {name: targets.drum(name) for name in DRUMS}
    show.sounds(clips, heard={name: f"One stroke of a {name}." for name in DRUMS}, **WORDS)
    show.sounds(clips, heard="Five drums, one stroke each.", **WORDS)
    for page in shown:
        soup = BeautifulSoup(page, "html.parser")
        assert len(soup.find_all("audio")) == len(soup.find_all("img")) == 5
        assert soup.find(role="group")["aria-label"] == WORDS["alt"]
        for name, image in zip(DRUMS, soup.find_all("img"), strict=True):
            assert re.fullmatch(
                f"Waveform and spectrogram of {name}: 0.51 s, peak [01].\\d\\d, power -12 dB of full scale, strongest near "
                r"[\d,]+ Hz.", image["alt"],
            )  # fmt: skip
    assert shown[0].count("Heard:") == 5 and shown[1].count("Heard:") == 1


def test_the_strongest_frequency_is_that_of_a_tone():
    page = show.sounds_html({"tone": tone(1500.0)}, heard=HEARD, **WORDS)
    assert "power -15 dB of full scale, strongest near 1,500 Hz" in page
