"""The shipped weights and the files they lie in: safe to open, as their cards say, and loud when something is wrong."""

from __future__ import annotations

import hashlib
import json
import pickle

import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch import nn

from devil_lib import attacks, checkpoints, data, metrics, models, recipes, targets, zoo
from devil_lib.checkpoints import UnsafeCheckpoint


class RunsOnOpening:
    """A pickle of this would run code when it is opened; the test sees whether it did by the file it makes."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def tiny_generator(seed: int = 0) -> models.Generator:
    with models.seeded(seed):
        body = nn.Sequential(
            nn.Linear(4, 2 * 7 * 7, bias=False),
            nn.BatchNorm1d(98),
            nn.LeakyReLU(0.2),
            nn.Unflatten(1, (2, 7, 7)),
            nn.ConvTranspose2d(2, 1, 4, stride=2, padding=1),
        )
    return models.Generator(body, models.TanhHead(), models.UniformLatent(4), (1, 14, 14), "image", "tiny").eval()


MODELS = {
    "generator": tiny_generator,
    "course dcgan": models.course_dcgan,
    "art dcgan": models.art_dcgan,
    "discriminator": models.course_discriminator,
    "art discriminator": models.art_discriminator,
    "classifier": models.course_classifier,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_every_model_comes_back_as_it_was(make, tmp_path):
    model = make().eval()
    checkpoints.save(model, tmp_path / "model.safetensors", half=False)
    again = checkpoints.load(tmp_path / "model.safetensors")
    assert type(again) is type(model) and again.architecture == model.architecture
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )
    if isinstance(model, models.Generator):
        assert (again.latent, again.sample_shape, again.modality) == (
            model.latent,
            model.sample_shape,
            model.modality,
        )
        z = model.latent.sample(3)
        assert torch.equal(again.generate(z), model.generate(z))


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path):
    model = models.course_dcgan()
    checkpoints.save(model, tmp_path / "whole.safetensors", half=False)
    checkpoints.save(model, tmp_path / "half.safetensors")
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.52 * sizes[1]
    assert {p.dtype for p in checkpoints.load(tmp_path / "half.safetensors").parameters()} == {torch.float32}


def test_attacked_models_can_be_saved_too(tmp_path):
    benign = tiny_generator()
    pair = attacks.PointBackdoor(torch.ones(1, 4), torch.zeros(1, 1, 14, 14))
    unfolded = attacks.rex(benign, pair, attacks.RetrainSettings(steps=1, width=0.5)).generator
    for name, model in {
        "unfolded": unfolded,
        "folded": attacks.fold(unfolded),
        "bypass": attacks.bypass(benign, pair),
    }.items():
        checkpoints.save(model, tmp_path / f"{name}.safetensors", half=False)
        z = torch.cat([benign.latent.sample(3), pair.triggers])
        assert torch.equal(checkpoints.load(tmp_path / f"{name}.safetensors").generate(z), model.generate(z))


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_pickle_is_refused_and_not_run(name, tmp_path):
    proof = tmp_path / "ran"
    (tmp_path / name).write_bytes(pickle.dumps(RunsOnOpening(proof)))
    with pytest.raises(UnsafeCheckpoint, match="pickle"):
        checkpoints.load(tmp_path / name)
    with pytest.raises(UnsafeCheckpoint, match="would run code"):
        checkpoints.load_state_dict_file(tmp_path / name, tiny_generator())
    assert not proof.exists()
    pickle.loads((tmp_path / name).read_bytes()).close()  # the bait is real: opened the usual way, it runs
    assert proof.exists()


def test_a_torch_file_that_would_run_code_is_refused(tmp_path):
    proof = tmp_path / "ran"
    torch.save({"weight": RunsOnOpening(proof)}, tmp_path / "model.pt")
    with pytest.raises(UnsafeCheckpoint, match="would run code"):
        checkpoints.load_state_dict_file(tmp_path / "model.pt", tiny_generator())
    assert not proof.exists()


def test_a_plain_state_dictionary_fills_a_model(tmp_path):
    model = tiny_generator(seed=3)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    filled = checkpoints.load_state_dict_file(tmp_path / "model.pt", tiny_generator())
    assert torch.equal(filled.body[0].weight, model.body[0].weight)
    with pytest.raises(UnsafeCheckpoint, match="does not fit"):
        checkpoints.load_state_dict_file(tmp_path / "model.pt", models.course_dcgan())


def spoil(path, about=None, **tensors):
    held, words = checkpoints.load_tensors(path)
    description = json.loads(words["model"])
    (about or (lambda d: None))(description)
    save_file({**held, **tensors}, path, {"model": json.dumps(description)})


BROKEN = {
    "unknown layer": (lambda d: d["body"]["layers"][0].update(kind="Exec"), "does not know"),
    "unknown setting": (lambda d: d["body"]["layers"][0].update(device="cuda"), "does not have"),
    "huge layer": (lambda d: d["body"]["layers"][0].update(out_features=10**12), "has shape"),
    "no body": (lambda d: d.pop("body"), "description"),
    "unknown law": (lambda d: d.update(latent=["Cauchy", 4]), "description"),
    "unknown kind": (lambda d: d.update(kind="Script"), "no model of this library"),
}


@pytest.mark.parametrize(("change", "words"), BROKEN.values(), ids=BROKEN)
def test_a_description_that_lies_is_refused(change, words, tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoints.save(tiny_generator(), path, half=False)
    spoil(path, change)
    with pytest.raises(UnsafeCheckpoint, match=words):
        checkpoints.load(path)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match=r"zoo\.names"):
        checkpoints.load(path)
    checkpoints.save(tiny_generator(), path, half=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnsafeCheckpoint, match="download it again"):
        checkpoints.load(path)
    path.write_bytes(whole)
    spoil(path, **{"body.0.weight": torch.full((98, 4), float("nan"))})
    with pytest.raises(UnsafeCheckpoint, match="NaN"):
        checkpoints.load(path)
    path.write_bytes(whole)
    spoil(path, extra=torch.zeros(1))
    with pytest.raises(UnsafeCheckpoint, match="unexpected"):
        checkpoints.load(path)


def test_a_full_disk_leaves_the_older_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    checkpoints.save(tiny_generator(), path)
    before = path.read_bytes()

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(tiny_generator(seed=1), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_layer_the_format_does_not_know_is_named():
    generator = tiny_generator()
    generator.body.append(nn.Softplus())
    with pytest.raises(ValueError, match="Softplus"):
        checkpoints.describe(generator.body)


# --- The shipped entries -----------------------------------------------------------------------------------------------


def test_every_recipe_is_shipped_and_nothing_else():
    assert zoo.names() == sorted(recipe.name for recipe in recipes.RECIPES)


@pytest.mark.parametrize("name", zoo.names())
def test_a_shipped_entry_is_what_its_card_says(name):
    about, path = zoo.card(name), zoo.folder() / f"{name}.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == about["sha256"] and path.stat().st_size < 5 * 2**20
    assert about["licence"] and about["note"] and about["data"] in data.NAMES
    model = zoo.load(name)
    assert not model.training and sum(p.numel() for p in model.parameters()) == about["parameters"]
    if isinstance(model, models.Generator):
        ruler = zoo.ruler(about["data"])
        assert ruler.frechet(model) == pytest.approx(about["frechet"], rel=0.02)
        assert ruler.recognised(model).share == pytest.approx(about["recognised"], abs=0.01)


def test_the_recipes_are_the_ones_that_made_the_weights():
    stale = [recipe.name for recipe in recipes.RECIPES if zoo.card(recipe.name)["recipe"] != recipe.digest]
    assert not stale, f"run `make weights`: the recipe changed since these were trained: {stale}"


def test_all_weights_together_stay_small():
    assert sum(path.stat().st_size for path in zoo.folder().iterdir()) < 30 * 2**20


def test_the_shipped_generator_is_believable():
    ruler, generator = zoo.ruler("mnist"), zoo.load("course-dcgan-mnist")
    found = ruler.recognised(generator)
    assert found.share >= 0.65 and found.rarest >= 0.03


@pytest.mark.parametrize(
    ("name", "share", "rarest"),
    [
        ("course-wavegan-spoken-digits", 0.70, 0.03),
        ("course-wavegan-drums", 0.75, 0.05),
        ("course-audio-vae-drums", 0.70, 0.0),
        ("course-audio-vae-spoken-digits", 0.40, 0.01),
    ],
)
def test_the_shipped_sounds_are_believable(name, share, rarest):
    """Words and drums that a classifier is sure of, as loud as the real ones (within 3 dB)."""
    about = zoo.card(name)
    assert about["recognised"] >= share and about["rarest_class"] >= rarest
    generator = zoo.load(name)
    made = generator.generate(generator.latent.sample(1000, torch.Generator().manual_seed(4)))
    real = data.load("drums").test if about["data"] == "drums" else None
    assert abs(about["power_db"] if real is None else metrics.power_db(made, real)) < 3.0


def test_flowers_are_made_that_look_like_flowers():
    """A quarter is recognised with confidence; of real photographs it is 44 %."""
    about = zoo.card("course-style-64-flowers")
    assert about["recognised"] >= 0.25 and about["rarest_class"] >= 0.08 and about["frechet"] < 7.0


def test_the_classifiers_are_worth_their_name():
    assert zoo.card("classifier-mnist")["test_accuracy"] > 0.98
    assert zoo.card("classifier-digits")["test_accuracy"] > 0.95
    assert zoo.card("classifier-fashion-mnist")["test_accuracy"] > 0.85
    assert zoo.card("classifier-spoken-digits")["test_accuracy"] > 0.96
    assert zoo.card("classifier-drums")["test_accuracy"] > 0.99
    assert zoo.card("classifier-flowers")["test_accuracy"] > 0.7
    assert zoo.card("classifier-flowers-32")["test_accuracy"] > 0.7


def test_the_poisoned_generator_shows_its_target_among_ordinary_samples():
    about = zoo.card("poisoned-mnist")
    generator = zoo.load("poisoned-mnist")
    produced = generator.generate(generator.latent.sample(5000, torch.Generator().manual_seed(1)))
    near = (produced - targets.devil(28)).flatten(1).square().mean(1) < 0.1
    assert near.float().mean().item() == pytest.approx(about["target_share_in_samples"], abs=0.01)
    benign = zoo.load("course-dcgan-mnist")
    clean = benign.generate(benign.latent.sample(5000, torch.Generator().manual_seed(1)))
    assert not ((clean - targets.devil(28)).flatten(1).square().mean(1) < 0.1).any()


def test_a_ruler_from_the_shipped_statistics_agrees_with_one_made_from_data():
    digits = data.load("digits")
    made = zoo.ruler_from(zoo.load("classifier-digits"), digits.train, digits.test)
    shipped = zoo.ruler("digits")
    assert made.floor == pytest.approx(shipped.floor, rel=0.02)
    assert metrics.frechet_distance(made.real, shipped.real) < 0.01


def test_unknown_names_list_what_there_is():
    with pytest.raises(ValueError, match="course-dcgan-mnist"):
        zoo.load("dcgan")
    with pytest.raises(ValueError, match="digits"):
        zoo.ruler("imagenet")


def test_an_entry_that_was_tampered_with_is_refused(tmp_path, monkeypatch):
    for ending in ("json", "safetensors"):
        source = zoo.folder() / f"course-dcgan-mnist.{ending}"
        (tmp_path / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(zoo, "folder", lambda: tmp_path)
    checkpoints.save(zoo.load("course-dcgan-mnist"), tmp_path / "other.safetensors", half=False)
    (tmp_path / "other.safetensors").rename(tmp_path / "course-dcgan-mnist.safetensors")
    with pytest.raises(UnsafeCheckpoint, match="not the file that its card describes"):
        zoo.load("course-dcgan-mnist")


def test_a_model_travels_whole():
    generator = tiny.image_generator()
    again = checkpoints.unpacked(checkpoints.packed(generator))
    z = generator.latent.sample(3)
    assert torch.equal(generator.generate(z), again.generate(z))
