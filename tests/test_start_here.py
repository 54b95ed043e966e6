"""What the first lessons rest on: the check of the machine, the geometry of latents, the minutes in the map."""

import importlib.metadata
import math

import pytest
import torch

from devil_lib import zoo
from devil_lib.course import environment, minutes
from devil_lib.course.lessons import NOTEBOOKS
from devil_lib.widgets import latent_geometry


def by_name():
    return {check.what: check for check in environment.check_environment()}


def test_this_environment_is_in_place():
    found = by_name()
    assert found["packages"].good, found["packages"].found
    assert found["shipped weights"].good
    assert found["Python"].row()[1].startswith("✓")


def test_a_package_of_another_version_is_named(monkeypatch):
    true = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0" if name == "scipy" else true(name))
    check = by_name()["packages"]
    assert not check.good and "scipy 1.0 instead of" in check.found and "torch " not in check.found
    assert "make env" in check.row()[2]


def test_damaged_weights_are_named(monkeypatch, tmp_path):
    name = "classifier-mnist"
    for ending in ("json", "safetensors"):
        (tmp_path / f"{name}.{ending}").write_bytes((zoo.folder() / f"{name}.{ending}").read_bytes())
    (tmp_path / f"{name}.safetensors").write_bytes(b"damaged")
    monkeypatch.setattr(zoo, "folder", lambda: tmp_path)
    check = by_name()["shipped weights"]
    assert not check.good and name in check.found


def test_too_little_disk(monkeypatch):
    monkeypatch.setattr(environment, "_ROOM", 1e9)
    assert not by_name()["free disk"].good


@pytest.mark.parametrize("dim", [1, 3, 100])
def test_latent_geometry_against_closed_forms(dim):
    found = latent_geometry(dim, n=20_000)
    # The mean of the chi law; E cos = 0 and E cos^2 = 1 / d for two independent directions.
    mean = math.sqrt(2) * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))
    cosine = found.angles.deg2rad().cos()
    assert found.norms.mean().item() == pytest.approx(mean, rel=0.02)
    assert cosine.mean().item() == pytest.approx(0.0, abs=0.03)
    assert cosine.square().mean().item() == pytest.approx(1 / dim, rel=0.05)
    assert 0 < found.nearest < found.typical
    assert torch.equal(found.norms, latent_geometry(dim, n=20_000).norms)


def test_the_map_takes_minutes_of_every_lesson():
    rows = minutes._MAP.findall((NOTEBOOKS / "00_start_here.ipynb").read_text(encoding="utf-8"))
    assert [name for _, name in rows] == [
        "10_image_gan", "11_image_vae", "12_audio_gan", "13_audio_vae",
        "20_threat_model", "21_trail", "22_red", "23_rex", "24_trigger_distributions",
        "25_backdoored_vae", "26_backdoored_audio", "27_style_expansion",
        "30_inspect_the_model", "31_inspect_the_outputs", "40_sanitize", "41_audit_a_download", "42_the_matrix",
        "50_steal_a_gan", "51_defend_a_gan", "52_trigger_distributions_of_classifiers", "53_cleanse_a_training_set",
        "91_for_instructors",
    ]  # fmt: skip
