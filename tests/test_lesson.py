"""The figures of a lesson: what may be stated, what is printed, what is written."""

import json
import math
import os

import numpy as np
import pytest
import torch

from devil_lib import lesson as module
from devil_lib.lesson import Lesson, default_results_path, holds, write_json


@pytest.fixture
def lesson(tmp_path) -> Lesson:
    return Lesson("22_red", profile="quick", seed=1, data="digits", results=str(tmp_path / "deep" / "red.json"))


def test_the_results_file_says_everything(lesson, capsys):
    lesson.claim("TarDis", np.float32(0.25), below=1)
    lesson.claim("share", torch.tensor(0.75), above=0.5, below=1)
    lesson.record("steps", 400)
    path = lesson.finish()
    content = json.loads(path.read_text())
    assert content["claims"] == {
        "TarDis": {"value": 0.25, "below": 1.0, "above": None},
        "share": {"value": 0.75, "below": 1.0, "above": 0.5},
    }
    assert content["figures"] == {"steps": 400}
    assert {key: content[key] for key in ("lesson", "profile", "seed", "data")} == {
        "lesson": "22_red", "profile": "quick", "seed": 1, "data": "digits",
    }  # fmt: skip
    assert content["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert content["seconds"] >= 0
    printed = capsys.readouterr().out
    assert "TarDis: 0.25" in printed and "bar: above 0.5 and below 1" in printed
    assert str(path.parent) not in printed, "a notebook's output must show no path of this machine"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan"), torch.tensor(math.inf)])
def test_what_is_not_finite_is_refused(lesson, value):
    for state in (lesson.record, lambda name, value: lesson.claim(name, value, below=1)):
        with pytest.raises(ValueError, match="only finite numbers"):
            state("x", value)
    assert not lesson.claims and not lesson.figures


@pytest.mark.parametrize(
    "value", ["0.5", None, [0.5], True, np.bool_(True), np.zeros(2), torch.zeros(0), 1j, object()]
)
def test_what_is_no_number_is_refused(lesson, value):
    with pytest.raises(TypeError, match="the figure 'x'"):
        lesson.record("x", value)


def test_a_missed_bar_stops_the_lesson_but_is_written(lesson):
    lesson.claim("first", 1, below=2)
    with pytest.raises(AssertionError, match="second is 3, and the lesson claims below 2"):
        lesson.claim("second", 3, below=2)
    assert json.loads(lesson.path.read_text())["claims"]["second"]["value"] == 3


def test_a_bar_is_strict():
    assert holds(1, 2, 0) and holds(1, None, 0) and holds(1, None, None)
    assert not holds(2, 2, None) and not holds(0, None, 0) and not holds(math.nan, None, None)


def test_the_sweep_measures_through_a_missed_bar(lesson, monkeypatch, capsys):
    monkeypatch.setenv("DEVIL_CLAIMS", "measure")
    lesson.claim("distance", 3, below=2)
    assert "✗ distance" in capsys.readouterr().out
    assert json.loads(lesson.finish().read_text())["claims"]["distance"]["value"] == 3


def test_claims_need_a_bar_that_can_be_met(lesson):
    with pytest.raises(ValueError, match="has no bar"):
        lesson.claim("x", 1)
    with pytest.raises(ValueError, match="no figure is above 2 and below 1"):
        lesson.claim("x", 1, above=2, below=1)
    with pytest.raises(TypeError, match="the bar of x"):
        lesson.claim("x", 1, below="2")
    for bound in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="a bar is a finite number"):
            lesson.claim("x", 1, above=bound)


def test_names_are_used_once_and_before_the_end(lesson):
    lesson.record("x", 1)
    for again in (lambda: lesson.record("x", 2), lambda: lesson.claim("x", 2, below=3)):
        with pytest.raises(ValueError, match="stated before"):
            again()
    for name in ("", " ", "two\nlines", None):
        with pytest.raises(ValueError, match="name of one line"):
            lesson.record(name, 1)
    lesson.finish()
    with pytest.raises(ValueError, match="after finish"):
        lesson.record("y", 1)


def test_a_learner_may_run_a_cell_again(lesson, monkeypatch):
    monkeypatch.setattr(module, "_current_cell", lambda: "cell-a")
    lesson.claim("x", 1, below=3)
    lesson.finish()
    lesson.claim("x", 2, below=3)
    assert json.loads(lesson.finish().read_text())["claims"]["x"]["value"] == 2
    monkeypatch.setattr(module, "_current_cell", lambda: "cell-b")
    with pytest.raises(ValueError, match="stated before"):
        lesson.claim("x", 2, below=3)


def test_a_folder_for_the_results_file_is_named_before_the_run(tmp_path):
    with pytest.raises(ValueError, match=r"a folder: give a file in it, such as '.*22_red\.json'"):
        Lesson("22_red", results=str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"profile": "fast"}, "unknown PROFILE 'fast'"),
        ({"seed": -1}, "SEED is -1"),
        ({"seed": True}, "SEED is True"),
        ({"seed": 1.0}, "SEED is 1.0"),
        ({"data": ""}, "DATA is ''"),
        ({"name": "../red"}, "lesson name"),
    ],
)
def test_bad_parameters_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        Lesson(**{"name": "22_red", **arguments})


def test_choose_and_uses(lesson):
    assert lesson.choose(quick=1, lab=2, full=3) == 1
    with pytest.raises(TypeError):
        lesson.choose(quick=1, lab=2)

    class Set:
        name = "mnist"

    assert lesson.uses(Set) is Set
    assert lesson.data == "mnist"


def test_the_stored_sweep_stands_beside_a_claim(lesson, monkeypatch, tmp_path, capsys):
    entry = {"values": {"0": 0.1, "1": 0.2}, "mean": 0.15, "worst": 0.2}
    stored = {
        "lessons": {"22_red": {"mnist": {"claims": {"a": entry, "b": entry}}, "digits": {"claims": {"a": entry}}}}
    }
    monkeypatch.setattr(module, "SWEEP_FILE", write_json(tmp_path / "sweep.json", stored))
    for name in "abc":
        lesson.claim(name, 0.1, below=1)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.endswith("[bar: below 1; stored sweep on digits: mean 0.15, worst 0.2 of 2 seeds]")
    assert "stored sweep on mnist" in second, "another data set's sweep is named as such"
    assert third.endswith("[bar: below 1]")


def test_the_default_path_is_in_the_build_folder():
    path = default_results_path("22_red")
    assert path.parts[-3:] == ("build", "results", "22_red.json")
    assert (path.parents[2] / "pyproject.toml").is_file()


def test_a_full_disk_leaves_nothing_and_says_what_to_do(lesson, monkeypatch):
    lesson.record("x", 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        OSError, match=r"could not write .*red.json \(No space left on device\): free some disk space"
    ):
        lesson.finish()
    assert list(lesson.path.parent.iterdir()) == []


def test_an_unwritable_path_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="could not write"):
        Lesson("22_red", results=str(tmp_path / "file" / "red.json")).finish()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "nan.json", {"x": math.nan})
    assert not (tmp_path / "nan.json").exists()
