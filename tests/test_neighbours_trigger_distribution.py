"""The distribution of triggers: its networks, its loss, the ensemble, removal, and the published table."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from devil_lib.models import Classifier
from devil_lib.neighbours import poisoning, trigger_distribution_table
from devil_lib.neighbours import trigger_distribution as mesa
from devil_lib.neighbours.poisoning import Patch
from devil_lib.neighbours.trigger_distribution import Approximation, Implant, Retraining, Staircase, SubModel

QUICK = Approximation(steps=60, batch=32, noise=16, hidden=32, learning_rate=2e-3)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Brightest(nn.Module):
    """Logits (n, 3) of which the first grows with the mean of the brightest 3x3 square: a victim whose triggers are known exactly."""

    def __init__(self, slope: float = 8.0, bias: float = -4.0):
        super().__init__()
        self.slope, self.bias = slope, bias
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        brightest = nn.functional.avg_pool2d(x, 3, stride=1).flatten(1).amax(1)
        first = self.dropout(self.slope * brightest + self.bias)
        return torch.stack([first, torch.zeros_like(first), torch.zeros_like(first) - 1.0], 1)


def brightest() -> Classifier:
    return Classifier(Brightest(), nn.Identity(), "brightest")


BLACK = -torch.ones(50, 1, 10, 10)


# --- Networks ---------------------------------------------------------------------------------------------------------------


def test_a_generator_gives_triggers_in_range_that_differ():
    generator = mesa.TriggerGenerator(3, 3, 16, 32)
    triggers = generator.sample(20, rng())
    assert triggers.shape == (20, 3, 3, 3) and triggers.abs().max() <= 1
    assert mesa.variety(triggers) > 0
    assert torch.equal(triggers, generator.sample(20, rng())) and not torch.equal(
        triggers, generator.sample(20, rng(1))
    )


def test_every_chunk_of_the_noise_reaches_the_trigger():
    generator = mesa.TriggerGenerator(1, 3, 16, 32).eval()
    z = torch.rand(1, 16, generator=rng()).requires_grad_(True)
    generator(z).square().sum().backward()
    assert (z.grad != 0).view(4, 4).any(1).all()
    with pytest.raises(ValueError, match="multiple of 4"):
        mesa.TriggerGenerator(noise=18)


def test_sampling_leaves_the_generator_as_it_is():
    generator = mesa.TriggerGenerator(1, 3, 16, 32).train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    generator.sample(20, rng())
    assert generator.training and all(
        torch.equal(before[name], value) for name, value in generator.state_dict().items()
    )


def test_the_bound_is_zero_for_a_constant_and_exact_for_the_best_function():
    assert mesa.information_bound(torch.full((9,), 3.0), torch.full((7,), 3.0)).item() == pytest.approx(0.0, abs=1e-6)
    # Two normal variables of correlation r share -log(1 - r^2) / 2 nats; T = log of the ratio of densities reaches it.
    r = 0.8
    z, other, e = torch.randn(3, 200_000, generator=rng(), dtype=torch.float64)
    x = r * z + math.sqrt(1 - r * r) * e

    def ratio(z):
        return -0.5 * math.log(1 - r * r) - (r * r * (x * x + z * z) - 2 * r * x * z) / (2 * (1 - r * r))

    assert mesa.information_bound(ratio(z), ratio(other)).item() == pytest.approx(
        -0.5 * math.log(1 - r * r), abs=0.02
    )


# --- Sub-models --------------------------------------------------------------------------------------------------------------


def test_a_sub_model_reaches_its_level_and_a_level_limits_it():
    # Against this victim success depends on a trigger's brightness alone, and nothing but the level keeps it from all white.
    low, high = (mesa.approximate(brightest(), BLACK, 0, beta, replace(QUICK, steps=150)) for beta in (0.3, 0.9))
    success = [
        Brightest().eval()(Patch(model(200, rng()))(BLACK[:1].expand(200, 1, 10, 10), rng())).softmax(1)[:, 0]
        for model in (low, high)
    ]
    assert success[0].mean() > 0.25 and success[1].mean() > 0.75
    assert low(200, rng()).mean() < high(200, rng()).mean()


def test_the_entropy_term_makes_triggers_more_varied():
    flat, varied = (
        mesa.approximate(brightest(), BLACK, 0, 0.8, replace(QUICK, alpha=alpha, steps=200)) for alpha in (0.0, 0.5)
    )
    assert mesa.variety(varied(300, rng())) > 1.2 * mesa.variety(flat(300, rng()))


def test_the_victim_is_neither_changed_nor_left_in_another_mode():
    victim = brightest().train()
    before = [value.clone() for value in victim.state_dict().values()]
    model = mesa.approximate(victim, BLACK, 0, 0.5, replace(QUICK, steps=3))
    assert victim.training and victim.layers.dropout.training
    assert all(torch.equal(one, other) for one, other in zip(before, victim.state_dict().values(), strict=True))
    assert len(model.history["success"]) == len(model.history["information"]) == 3
    again = mesa.approximate(victim, BLACK, 0, 0.5, replace(QUICK, steps=3))
    assert model.history == again.history, "the same seed, the same sub-model"


@pytest.mark.parametrize("beta", [0.0, 1.1, math.nan])
def test_a_level_lies_between_0_and_1(beta):
    with pytest.raises(ValueError, match="level"):
        mesa.approximate(brightest(), BLACK, 0, beta, QUICK)


def test_settings_that_make_no_sense_are_refused():
    for wrong in (
        lambda: Approximation(steps=0), lambda: Approximation(alpha=-1.0), lambda: Implant(share=0.0),
        lambda: Implant(epochs=0), lambda: Retraining(share=1.5), lambda: Retraining(epochs=0),
        lambda: mesa.approximate(brightest(), BLACK[:0], 0, 0.5, QUICK),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            wrong()


# --- The ensemble -------------------------------------------------------------------------------------------------------------


def constant(value: float) -> SubModel:
    class Flat(nn.Module):
        def sample(self, n, rng=None):
            return torch.full((n, 1, 3, 3), value)

    return SubModel(Flat(), 0.5)


def test_a_staircase_draws_from_each_sub_model_with_its_weight():
    stairs = [constant(0.0), constant(0.5), constant(1.0)]
    equal = Staircase(stairs)(6000, rng()).flatten(1)[:, 0]
    assert {0.0, 0.5, 1.0} == set(equal.tolist())
    assert all(abs((equal == value).float().mean() - 1 / 3) < 0.03 for value in (0.0, 0.5, 1.0))
    weighted = Staircase(stairs, (0.0, 1.0, 3.0))(6000, rng()).flatten(1)[:, 0]
    assert abs((weighted == 1.0).float().mean() - 0.75) < 0.03 and not (weighted == 0.0).any()
    for wrong in ((), (1.0,), (0.0, 0.0, 0.0), (1.0, -1.0, 1.0)):
        with pytest.raises(ValueError):
            Staircase(stairs if wrong else [], wrong)


def test_spread_and_variety_have_their_closed_forms():
    black, white = -torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3)
    assert mesa.spread(torch.cat([black, white]), white[0]).tolist() == [2.0, 0.0]
    assert mesa.variety(white.expand(9, 1, 3, 3)) == 0.0
    uniform = mesa.random_patches((1, 3, 3))(20_000, rng())
    assert mesa.variety(uniform) == pytest.approx(1 / math.sqrt(3), abs=0.01)
    assert torch.equal(mesa.always(white[0])(4, rng()), white.expand(4, 1, 3, 3))


# --- An attack undone ----------------------------------------------------------------------------------------------------------


def halves(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes of 10x10 images: bright above, bright below, neither, with noise."""
    labels = torch.arange(3).repeat(n)
    samples = 0.2 * torch.randn(len(labels), 1, 10, 10, generator=rng(seed)) - 0.5
    samples[labels == 0, :, :5] += 0.4
    samples[labels == 1, :, 5:] += 0.4
    return samples.clamp(-1.0, 1.0), labels


def small_classifier() -> Classifier:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(200, 32), nn.ReLU()
    )
    return Classifier(layers, nn.Linear(32, 3), "small")


@pytest.fixture(scope="module")
def attacked():
    trigger = poisoning.patch(341)
    train, test = halves(200, 0), halves(60, 1)
    clean = mesa.implant(small_classifier(), *train, None, 2, Implant(epochs=6, learning_rate=3e-3))
    victim = mesa.implant(small_classifier(), *train, trigger, 2, Implant(epochs=12, learning_rate=3e-3))
    return clean, victim, trigger, test


def test_the_backdoor_embeds(attacked):
    clean, victim, trigger, test = attacked
    assert poisoning.attack_success(victim, *test, trigger, 2) > 0.9
    assert poisoning.attack_success(clean, *test, trigger, 2) < 0.1
    assert not victim.training


def test_the_target_stands_out_of_the_victim_and_retraining_undoes_the_attack(attacked):
    _clean, victim, trigger, test = attacked
    settings = replace(QUICK, steps=120)
    found = mesa.detect_target(victim, *test, 3, settings=settings)
    assert found[2] == max(found) and found[2] > 0.6 > sorted(found)[1]
    model = mesa.approximate(victim, test[0], 2, 0.8, settings)
    assert mesa.success_of(victim, *test, model, 2, 20).mean() > 0.6
    weights = [value.clone() for value in victim.state_dict().values()]
    after = mesa.retrain(victim, *test, model, Retraining(share=0.5, learning_rate=2e-2, epochs=8))
    assert poisoning.attack_success(after, *test, trigger, 2) < 0.15
    assert all(torch.equal(one, other) for one, other in zip(weights, victim.state_dict().values(), strict=True))


def test_a_reversed_trigger_works_and_stays_in_range(attacked):
    _clean, victim, _trigger, test = attacked
    single = mesa.reversed_trigger(victim, test[0], 2, steps=60, batch=32)
    assert single.shape == (1, 3, 3) and single.abs().max() <= 1
    assert poisoning.attack_success(victim, *test, Patch(single), 2) > 0.8


def test_no_image_carries_a_trigger_where_the_share_is_nothing(attacked):
    _clean, victim, _trigger, test = attacked

    def refused(n, rng=None):
        return torch.full((n, 1, 3, 3), math.nan)  # one of them on one image, and every weight is NaN

    after = mesa.retrain(victim, *test, refused, Retraining(share=0.0, epochs=1))
    assert all(value.isfinite().all() for value in after.state_dict().values())


# --- The table -----------------------------------------------------------------------------------------------------------------


def test_every_cell_has_its_own_name_and_key_and_all_patterns_are_there():
    cells = trigger_distribution_table.cells()
    assert len({cell.name for cell in cells}) == len({cell.key for cell in cells}) == len(cells) == len(set(cells))
    assert all(cell.base is None or cell.base in cells[:place] for place, cell in enumerate(cells))
    assert len([cell for cell in cells if cell.data == "digits" and cell.stage == "defence"]) == 51
    assert len(trigger_distribution_table.FIRST) >= 8


def test_a_key_changes_with_what_its_cell_depends_on_and_with_nothing_else(monkeypatch):
    cells = [trigger_distribution_table.Cell("digits", stage, 495) for stage in ("victim", "defence", "search")]
    before = [cell.key for cell in cells]
    setting = trigger_distribution_table.SETTINGS["digits"]
    monkeypatch.setitem(
        trigger_distribution_table.SETTINGS, "digits", replace(setting, approximation=Approximation(alpha=10.0))
    )
    assert [one != cell.key for one, cell in zip(before, cells, strict=True)] == [False, True, False]
    monkeypatch.setitem(trigger_distribution_table.SETTINGS, "digits", replace(setting, training=Implant(share=0.1)))
    assert all(one != cell.key for one, cell in zip(before, cells, strict=True))


def test_colouring_keeps_what_is_dark_darker_than_what_is_light():
    grey = trigger_distribution_table.load("digits")
    tinted = trigger_distribution_table.load("coloured-digits")
    assert tinted.train.shape == (len(grey.train), 3, 28, 28) and tinted.train.abs().max() <= 1.0
    assert torch.equal(tinted.train, trigger_distribution_table.load("coloured-digits").train)
    ink, paper = grey.train.expand_as(tinted.train) > 0.99, grey.train.expand_as(tinted.train) < -0.99
    assert tinted.train[ink].min() >= -0.02 and tinted.train[paper].max() <= 0.02


def test_the_parts_of_a_data_set_have_no_image_in_common():
    setting = trigger_distribution_table.SETTINGS["digits"]
    parts = trigger_distribution_table.split(trigger_distribution_table.load("digits"), setting)
    assert [len(part[0]) for part in (parts.train, parts.defender, parts.tested)] == [1400, 200, 197]
    flat = torch.cat([part[0].flatten(1) for part in (parts.defender, parts.tested)])
    assert len(torch.unique(flat, dim=0)) == 397


def test_what_embeds_is_judged_by_three_figures():
    good = {"success": 0.95, "clean_success": 0.01, "accuracy": 0.96, "clean_accuracy": 0.965}
    assert trigger_distribution_table.embedded(good)
    for wrong in ({"success": 0.89}, {"clean_success": 0.06}, {"accuracy": 0.95}):
        assert not trigger_distribution_table.embedded(good | wrong)


def test_the_published_figures_are_of_today_s_settings():
    for cell, figures in trigger_distribution_table.TABLE.published().items():
        assert figures["key"] == cell.key, f"{cell.name} was measured with other settings"


def test_a_published_cell_is_measured_again_with_the_same_figures():
    cell = trigger_distribution_table.Cell("digits", "clean")
    published = trigger_distribution_table.TABLE.published()[cell]
    figures, product = trigger_distribution_table.measure(cell)
    assert product and figures["accuracy"] == pytest.approx(published["accuracy"], abs=0.02)
