"""GAN and classifier training: resuming, interruption, checkpoints that are not what they should be."""

import dataclasses
import math
import os
import pickle
import signal
import threading
import warnings
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor, nn

from devil_lib import training
from devil_lib.models import Classifier, Generator, seeded
from devil_lib.training import GanRun, GanSettings, train_gan

SETTINGS = GanSettings(steps=12, batch_size=16, checkpoint_every=5, learning_rate=2e-3)


def train(settings: GanSettings = SETTINGS, **options) -> GanRun:
    return train_gan(tiny.image_generator(3), tiny.discriminator(), tiny.images(), settings, **options)


def stop_at(step: int):
    def watch(done: int, _generator: Generator, _losses: dict[str, float]) -> None:
        if done == step:
            raise KeyboardInterrupt

    return watch


def everything(run: GanRun) -> dict[str, Tensor]:
    parts = {"average": run.generator, "raw": run.raw_generator, "discriminator": run.discriminator}
    return {
        f"{part}.{name}": value.clone()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }


def assert_same(a: GanRun, b: GanRun) -> None:
    first, second = everything(a), everything(b)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert a.history == b.history and a.steps_done == b.steps_done


# --- What training does --------------------------------------------------------------------------------------------------


def test_training_brings_the_samples_nearer_to_the_data_and_leaves_its_input():
    start, critic, images = tiny.image_generator(3), tiny.discriminator(), tiny.images()
    before = {name: value.clone() for name, value in start.state_dict().items()}
    run = train_gan(start, critic, images, GanSettings(steps=250, batch_size=32, averaging=0.9))
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())
    z = start.latent.sample(500, torch.Generator().manual_seed(0))
    gaps = [(model.generate(z).mean(0) - images.mean(0)).square().mean().item() for model in (start, run.generator)]
    assert gaps[1] < 0.3 * gaps[0]
    assert not any(module.training for module in (run.generator, run.raw_generator, run.discriminator))
    assert run.history["step"] == [float(step) for step in range(1, 251)]


def test_progress_is_reported_after_every_step():
    steps, losses = [], []
    run = train(on_progress=lambda step, generator, found: (steps.append(step), losses.append(found)))
    assert steps == list(range(1, 13))
    assert run.history["generator"] == [found["generator"] for found in losses]


def test_the_best_snapshot_is_kept_and_the_training_is_not_disturbed():
    """The score is given, so that its lowest lies in the middle; what is out of the question has none."""
    scores, seen = {2: math.inf, 4: 3.0, 6: 1.0, 8: 1.0, 10: 2.0}, {}

    def score(generator):
        seen[2 * len(seen) + 2] = {name: value.clone() for name, value in generator.state_dict().items()}
        return scores[max(seen)]

    best = training.Best(score, every=2)
    looked = train(dataclasses.replace(SETTINGS, steps=11), on_progress=best)
    assert_same(looked, train(dataclasses.replace(SETTINGS, steps=11)))
    assert sorted(seen) == [2, 4, 6, 8, 10]
    assert best.step == 6 and best.lowest == 1.0, "of equals the first"
    kept = best.generator.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in seen[6].items())
    assert not all(torch.equal(kept[name], value) for name, value in seen[10].items()), "a copy, not what is trained"
    nothing = training.Best(lambda generator: math.inf, every=1)
    train(on_progress=nothing)
    assert nothing.generator is None and nothing.step == 0 and nothing.lowest == math.inf


def test_a_seed_decides_everything_and_the_callers_random_state_stays():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = train()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert_same(first, train())
    other = train(dataclasses.replace(SETTINGS, seed=1))
    assert not torch.equal(everything(first)["raw.body.0.weight"], everything(other)["raw.body.0.weight"])


def test_the_average_is_the_running_average_of_the_steps():
    raw, averages = [], []
    settings = dataclasses.replace(SETTINGS, steps=8, averaging=0.5)
    for step in range(1, 9):
        run = train(settings, on_progress=stop_at(step))
        raw.append(run.raw_generator.body[7].weight.detach())
        averages.append(run.generator.body[7].weight.detach())
    expected = tiny.image_generator(3).body[7].weight.detach()
    for done, (value, average) in enumerate(zip(raw, averages, strict=True)):
        decay = min(0.5, (1 + done) / (10 + done))
        expected = decay * expected + (1 - decay) * value
        torch.testing.assert_close(average, expected)
    assert not torch.equal(raw[-1], averages[-1])


def test_without_averaging_the_last_step_is_returned():
    run = train(dataclasses.replace(SETTINGS, averaging=0.0))
    for name, value in run.generator.state_dict().items():
        torch.testing.assert_close(value, run.raw_generator.state_dict()[name])


def test_the_learning_rate_falls_to_a_tenth_over_the_last_half():
    rates = [training._anneal(step, GanSettings(steps=100)) for step in (0, 50, 75, 100)]
    assert rates == [1.0, 1.0, pytest.approx(0.55), pytest.approx(0.1)]
    assert training._anneal(100, GanSettings(steps=100, anneal=False)) == 1.0


def test_the_warm_up_trains_the_discriminator_alone():
    start = tiny.image_generator(3)
    run = train(dataclasses.replace(SETTINGS, warm_up=12, fixed_norm=True))
    for name, value in start.state_dict().items():
        assert torch.equal(value, run.raw_generator.state_dict()[name]), name
    assert not torch.equal(run.discriminator.layers[0].weight, tiny.discriminator().layers[0].weight)
    later = train(dataclasses.replace(SETTINGS, warm_up=11, fixed_norm=True))
    assert not torch.equal(later.raw_generator.body[0].weight, start.body[0].weight)


def test_fixed_norm_keeps_the_generators_statistics_and_trains_its_weights():
    start = tiny.image_generator(3)
    fixed, free = (train(dataclasses.replace(SETTINGS, fixed_norm=choice)).raw_generator for choice in (True, False))
    assert torch.equal(fixed.body[1].running_mean, start.body[1].running_mean)
    assert not torch.equal(free.body[1].running_mean, start.body[1].running_mean)
    assert not torch.equal(fixed.body[0].weight, start.body[0].weight)


def test_latents_may_come_from_elsewhere():
    drawn: list[int] = []

    def zeros(n: int, rng: torch.Generator) -> Tensor:
        drawn.append(n)
        return torch.zeros(n, tiny.DIM)

    run = train(dataclasses.replace(SETTINGS, fixed_norm=True), latents=zeros)
    assert drawn == [16] * 12
    assert torch.equal(run.raw_generator.body[0].weight, tiny.image_generator(3).body[0].weight), (
        "z = 0: no gradient for W"
    )
    assert not torch.equal(run.raw_generator.body[4].weight, tiny.image_generator(3).body[4].weight)


def test_the_extra_loss_is_added_with_its_weight_and_in_evaluation_mode():
    modes: list[bool] = []

    def pull(generator: Generator, rng: torch.Generator) -> Tensor:
        modes.append(any(part.training for part in generator.modules()))
        return generator.body(torch.zeros(1, tiny.DIM)).square().mean()

    train(extra_loss=pull)  # in which the generator itself is in training mode
    settings = dataclasses.replace(SETTINGS, steps=60, fixed_norm=True)
    with_it = train(dataclasses.replace(settings, extra_weight=10.0), extra_loss=pull)
    without = train(settings, extra_loss=pull)
    assert not any(modes)
    assert with_it.history["extra"][0] == without.history["extra"][0]
    assert with_it.history["extra"][-1] < 0.3 * without.history["extra"][-1]


# --- Interruption and resuming ---------------------------------------------------------------------------------------------


def test_an_interrupted_run_keeps_the_model():
    run = train(on_progress=stop_at(7))
    assert run.interrupted and run.steps_done == 7 == len(run.history["step"])
    assert not run.generator.training
    assert run.generator.generate(torch.zeros(1, tiny.DIM)).isfinite().all()


@pytest.mark.parametrize("step", [3, 5, 11, 12])
def test_a_resumed_run_comes_to_the_very_same_result(tmp_path, step):
    file = tmp_path / "deep" / "gan.pt"
    first = train(on_progress=stop_at(step), checkpoint=file)
    assert first.interrupted and first.steps_done == step
    resumed = train(checkpoint=file)
    assert not resumed.interrupted
    assert_same(resumed, train())
    assert_same(resumed, train(checkpoint=file))  # a finished one is given back
    assert [path.name for path in file.parent.iterdir()] == ["gan.pt"]


def test_a_run_that_died_goes_on_from_the_last_checkpoint(tmp_path):
    def die(step: int, _generator: Generator, _losses: dict[str, float]) -> None:
        if step == 8:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(on_progress=die, checkpoint=tmp_path / "gan.pt")
    seen: list[int] = []
    resumed = train(on_progress=lambda step, *_: seen.append(step), checkpoint=tmp_path / "gan.pt")
    assert seen == list(range(6, 13))
    assert_same(resumed, train())


def test_control_c_in_the_middle_of_a_step_waits_for_its_end(tmp_path):
    def interrupt(generator: Generator, rng: torch.Generator) -> Tensor:
        calls.append(1)
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return torch.zeros(())

    calls: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    run = train(extra_loss=interrupt, checkpoint=tmp_path / "gan.pt")
    assert run.interrupted and run.steps_done == 6
    assert signal.getsignal(signal.SIGINT) is before
    assert_same(train(extra_loss=lambda generator, rng: torch.zeros(()), checkpoint=tmp_path / "gan.pt"), train())


def test_training_runs_in_a_thread():
    runs: list[GanRun] = []
    thread = threading.Thread(target=lambda: runs.append(train(dataclasses.replace(SETTINGS, steps=2))))
    thread.start()
    thread.join()
    assert runs[0].steps_done == 2


# --- Checkpoints that are not what they should be ------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    train(on_progress=stop_at(6), checkpoint=tmp_path / "gan.pt")
    return tmp_path / "gan.pt"


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1000], lambda content: b"", lambda content: b"no archive"]
)
def test_a_damaged_checkpoint_is_refused(checkpoint, damage):
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    with pytest.raises(ValueError, match="damaged or no checkpoint of ours; delete it"):
        train(checkpoint=checkpoint)


@pytest.mark.parametrize("content", [torch.zeros(3), {"weights": torch.zeros(3)}, [1, 2]])
def test_another_file_of_torch_is_refused(checkpoint, content):
    torch.save(content, checkpoint)
    with pytest.raises(ValueError, match="no checkpoint of ours"):
        train(checkpoint=checkpoint)


def test_other_settings_are_refused(checkpoint):
    with pytest.raises(ValueError, match="made with other settings"):
        train(dataclasses.replace(SETTINGS, learning_rate=1e-3), checkpoint=checkpoint)


def test_other_networks_are_refused(checkpoint):
    with pytest.raises(ValueError, match="of other networks"):
        train_gan(tiny.image_generator(width=4), tiny.discriminator(), tiny.images(), SETTINGS, checkpoint=checkpoint)


class Malicious:
    """A pickle of this runs a command as it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    "save", [torch.save, lambda content, file: file.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_a_malicious_pickle_is_refused_and_not_executed(checkpoint, tmp_path, save):
    mark = tmp_path / "executed"
    save({"settings": dataclasses.asdict(SETTINGS), "average": Malicious(mark)}, checkpoint)
    with pytest.raises(ValueError, match="damaged or no checkpoint of ours"):
        train(checkpoint=checkpoint)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Malicious(mark)))
    assert mark.exists(), "the pickle is one that would have run"


def test_a_full_disk_is_warned_of_and_costs_no_model(tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training.torch, "save", full)
    with pytest.warns(UserWarning, match=r"gan\.pt could not be written .*No space left.*free some space"):
        run = train(checkpoint=tmp_path / "gan.pt")
    assert run.steps_done == 12 and list(tmp_path.iterdir()) == []
    assert_same(run, train())


# --- Bad input -------------------------------------------------------------------------------------------------------------------


def test_nan_images_are_refused():
    images = tiny.images()
    images[7, 0, 3, 3] = math.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        train_gan(tiny.image_generator(), tiny.discriminator(), images, SETTINGS)


@pytest.mark.parametrize("images", [torch.zeros(20, 1, 28, 28), torch.zeros(20, 12, 12), torch.zeros(1, 1, 12, 12)])
def test_images_of_the_wrong_shape_are_refused(images):
    with pytest.raises(ValueError, match=r"\(n, \(1, 12, 12\)\) with n >= 2"):
        train_gan(tiny.image_generator(), tiny.discriminator(), images, SETTINGS)


def test_a_loss_that_is_no_number_says_what_to_do():
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train(dataclasses.replace(SETTINGS, learning_rate=1e30))


def test_the_device_can_be_named_and_auto_is_one_that_works():
    assert training.pick_device("cpu") == torch.device("cpu")
    assert torch.zeros(1, device=training.pick_device()).item() == 0.0
    assert train(dataclasses.replace(SETTINGS, steps=2, device="cpu")).steps_done == 2


# --- The classifier ----------------------------------------------------------------------------------------------------------------


def small_classifier() -> Classifier:
    with seeded(0):
        layers = nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(216, 16), nn.ReLU()
        )
        return Classifier(layers, nn.Linear(16, 2), "small")


def test_the_classifier_learns_and_its_input_stays():
    images = tiny.images(600)
    labels = (images[:, 0, :, :6].sum((1, 2)) > images[:, 0, :, 6:].sum((1, 2))).long()  # left or right
    start, losses = small_classifier(), []
    before = start.output.weight.clone()
    trained = training.train_classifier(
        start,
        images,
        labels,
        epochs=12,
        batch_size=50,
        learning_rate=1e-2,
        shift=0,
        on_progress=lambda step, loss: losses.append(loss),
    )
    assert torch.equal(start.output.weight, before) and not trained.training
    assert (trained(images).argmax(1) == labels).float().mean() > 0.95
    assert len(losses) == 12 * 12 and losses[-1] < 0.5 * losses[0]
    again = training.train_classifier(start, images, labels, epochs=12, batch_size=50, learning_rate=1e-2, shift=0)
    assert torch.equal(again.output.weight, trained.output.weight)


def test_no_warning_is_given_without_cause(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(checkpoint=tmp_path / "gan.pt")
