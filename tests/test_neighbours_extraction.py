"""Serving a generator, stealing it, choosing among its samples, and the published table of thieves."""

import math

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from devil_lib import metrics, models, zoo
from devil_lib.models import Discriminator
from devil_lib.neighbours import extraction, serving, subsampling
from devil_lib.neighbours import extraction_table as table
from devil_lib.neighbours.serving import (
    AdversarialNoise,
    Compression,
    Defence,
    Filtering,
    GaussianNoise,
    LinearInterpolation,
    SemanticInterpolation,
    Server,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def target():
    return models.course_dcgan(width=4, latent_dim=6, seed=3).eval()


@pytest.fixture(scope="module")
def pictures():
    """Ten pictures of a bright bar on a dark ground, each at a place of its own."""
    x = -torch.ones(10, 1, 28, 28)
    for i in range(10):
        x[i, :, 4:24, 5 + i : 9 + i] = 1.0
    return x


# --- Serving -----------------------------------------------------------------------------------------------------------------


def test_a_server_hands_out_what_an_image_file_holds_and_counts_it(target):
    server = Server(target, seed=5)
    first, second = server.serve(30), server.serve(7)
    assert first.shape == (30, 1, 28, 28) and len(second) == 7 and server.queries == 37
    levels = (first + 1.0) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-3) and first.abs().max() <= 1.0
    wanted = target.generate(target.latent.sample(30, rng(5)))
    assert (first - wanted).abs().max() <= serving.STEP / 2 + 1e-6, "nothing but the rounding is done to the samples"
    assert torch.equal(first, Server(target, seed=5).serve(30))
    assert not torch.equal(first[:7], second), "every call goes on drawing"


def test_latents_are_taken_only_where_the_service_takes_them(target):
    z = target.latent.sample(5, rng(1))
    with pytest.raises(PermissionError, match="takes no latents"):
        Server(target).serve(latents=z)
    open_one = Server(target, accepts_latents=True)
    assert torch.equal(open_one.serve(latents=z), serving.as_files(target.generate(z)))
    assert open_one.queries == 5
    with pytest.raises(ValueError, match="draws the latents itself"):
        Server(target, LinearInterpolation(), accepts_latents=True)
    Server(target, GaussianNoise(), accepts_latents=True)


@pytest.mark.parametrize("asked", [{}, {"n": 0}, {"n": 3, "latents": torch.zeros(3, 6)}])
def test_a_query_says_what_it_wants(target, asked):
    with pytest.raises(ValueError):
        Server(target, accepts_latents=True).serve(**asked)


def test_linear_interpolation_serves_points_of_segments(target):
    z = LinearInterpolation(points=5).latents(target, 12, rng())
    assert z.shape == (12, 6)
    for group in (z[:5], z[5:10]):
        differences = group[1:] - group[0]
        assert torch.linalg.matrix_rank(differences, atol=1e-4) == 1, "on one line"
    assert torch.linalg.matrix_rank(z[4:6] - z[0], atol=1e-4) == 2, "and the next five on another"
    many = LinearInterpolation(points=1).latents(target, 4000, rng()).square().sum(1).mean().item()
    # E |(1-t) a + t b|^2 = dim E[(1-t)^2 + t^2] = 2/3 dim
    assert many == pytest.approx(2.0 / 3.0 * 6, rel=0.05)


def test_semantic_interpolation_moves_along_its_directions_alone(target):
    directions = torch.eye(6)[:2]
    z = SemanticInterpolation(directions, points=4, reach=2.0).latents(target, 40, rng())
    groups = z.reshape(10, 4, 6)
    assert (groups[:, :, 2:] - groups[:, :1, 2:]).abs().max() == 0.0
    spread = (groups[:, :, :2] - groups[:, :1, :2]).abs().max()
    assert 1.0 < spread <= 4.0
    with pytest.raises(ValueError, match="reach above 0"):
        SemanticInterpolation(directions, reach=0.0)
    with pytest.raises(ValueError, match="at least one answer"):
        LinearInterpolation(points=0)


def test_attributes_of_a_bar_are_those_of_geometry(pictures):
    found = serving.attributes(pictures)
    assert torch.allclose(found[:, 0], torch.full((10,), 80 / 784.0), atol=1e-6)
    assert torch.allclose(found[:, 1], torch.full((10,), math.sqrt((4**2 - 1) / 12)), atol=1e-5)
    assert found[:, 2].abs().max() < 1e-6, "an upright bar has no slant"
    leaning = -torch.ones(1, 1, 28, 28)
    for row in range(20):
        leaning[0, 0, 4 + row, 4 + row] = 1.0
    assert serving.attributes(leaning)[0, 2] == pytest.approx(1.0, abs=1e-5)


class Bright(nn.Module):
    """A body whose pictures' ink grows with the second latent and nothing else."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, z):
        return (self.scale * 0.3 * z[:, 1])[:, None, None, None].expand(-1, 1, 8, 8)


def test_semantic_directions_find_the_latent_that_ink_depends_on():
    simple = models.Generator(Bright(), models.TanhHead(), models.GaussianLatent(4), (1, 8, 8))
    directions = serving.semantic_directions(simple, n=500)
    assert directions.shape == (3, 4)
    assert directions[0, 1] > 0.99
    assert torch.allclose(directions[0].norm(), torch.tensor(1.0), atol=1e-5)


def test_output_perturbations_keep_shape_and_range(pictures):
    critic = models.course_discriminator(4)
    for defence in (GaussianNoise(0.5), AdversarialNoise(critic, 0.3), Filtering(1.0), Compression(5), Defence()):
        served = defence.samples(pictures, rng())
        assert served.shape == pictures.shape and served.abs().max() <= 1.0 + 1e-6
        assert not defence.draws_latents
    coloured = torch.rand(3, 3, 16, 16) * 2 - 1
    assert Compression(50).samples(coloured).shape == coloured.shape
    with pytest.raises(ValueError, match="one channel or three"):
        Compression().samples(torch.zeros(1, 2, 8, 8))
    with pytest.raises(ValueError, match="qualities from 1 to 95"):
        Compression(0)


def test_gaussian_noise_has_the_variance_it_says():
    grey = torch.zeros(20, 1, 28, 28)
    assert serving.pixel_error(GaussianNoise(0.2), grey) == pytest.approx(0.04, rel=0.05)
    assert serving.pixel_error(Defence(), grey) == 0.0


def test_adversarial_noise_stays_in_its_bounds_and_lowers_the_logit(pictures):
    critic = models.course_discriminator(4, seed=1).eval()
    served = AdversarialNoise(critic, strength=0.1).samples(pictures)
    assert (served - pictures).abs().max() <= 0.1 + 1e-6
    random = (pictures + 0.1 * torch.randn(pictures.shape, generator=rng()).sign()).clamp(-1, 1)
    before, after, by_chance = (subsampling.logits(critic, x).mean() for x in (pictures, served, random))
    assert after < before and after < by_chance - 2 * (by_chance - before).abs()
    assert all(p.grad is None for p in critic.parameters())


def test_filtering_keeps_the_mean_and_compression_keeps_more_at_a_higher_quality(pictures):
    blurred = Filtering(1.0).samples(pictures)
    assert blurred.mean() == pytest.approx(pictures.mean().item(), abs=1e-3) and blurred.std() < pictures.std()
    errors = [serving.pixel_error(Compression(quality), pictures) for quality in (5, 30, 95)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3


# --- Choosing among samples -----------------------------------------------------------------------------------------------------

# A world of one pixel in which everything can be computed: real ~ N(1, 1), generated ~ N(0, 1), so D(x) = sigmoid(x - 1/2).
WORLD = Discriminator(nn.Sequential(nn.Flatten(), nn.Linear(1, 1)), "line")
with torch.no_grad():
    WORLD.layers[1].weight.fill_(3.0)  # an overconfident discriminator: three times the true logit
    WORLD.layers[1].bias.fill_(-1.5)


def one_pixel(mean: float, n: int, seed: int) -> torch.Tensor:
    return mean + torch.randn(n, 1, 1, 1, generator=rng(seed))


@pytest.mark.parametrize("method", subsampling.METHODS)
def test_calibration_undoes_overconfidence(method):
    real, generated = one_pixel(1.0, 4000, 0), one_pixel(0.0, 4000, 1)
    probability = subsampling.calibrated(WORLD, real, generated, method)
    x = torch.linspace(-1.0, 2.0, 13).reshape(-1, 1, 1, 1)
    assert (probability(x) - torch.sigmoid(x.flatten() - 0.5)).abs().max() < 0.06
    raw = torch.sigmoid(subsampling.logits(WORLD, x))
    assert (raw - torch.sigmoid(x.flatten() - 0.5)).abs().max() > 0.15, "which was needed"
    fresh = subsampling.reliability(probability, one_pixel(1.0, 4000, 2), one_pixel(0.0, 4000, 3))
    assert max(abs(stated - is_real) for stated, is_real, n in fresh if n > 200) < 0.07


def test_calibrated_chains_turn_the_generated_law_into_the_real_one():
    generated = one_pixel(0.0, 60_000, 4)
    probability = torch.sigmoid(generated.flatten() - 0.5)
    start = torch.sigmoid(one_pixel(1.0, 3000, 5).flatten() - 0.5)
    kept = subsampling.metropolis_hastings(probability, start, chain=20)
    assert len(kept) == 3000 and (kept // 20 == torch.arange(3000)).all(), "one of each chain"
    x = generated.flatten()[kept]
    assert x.mean() == pytest.approx(1.0, abs=0.1) and x.std() == pytest.approx(1.0, abs=0.1)


def test_rejection_moves_it_the_further_the_less_it_keeps():
    generated = one_pixel(0.0, 60_000, 4)
    probability = torch.sigmoid(generated.flatten() - 0.5)
    kept = [subsampling.rejection(probability, percentile) for percentile in (50.0, 80.0, 99.0)]
    means = [generated.flatten()[places].mean().item() for places in kept]
    assert 60_000 > len(kept[0]) > len(kept[1]) > len(kept[2]) > 500
    assert 0.2 < means[0] < means[1] < means[2] < 1.0, "towards the real mean of 1, and not beyond"
    assert (kept[2].diff() > 0).all()


def test_the_raw_discriminator_would_have_moved_it_too_far():
    generated = one_pixel(0.0, 60_000, 4)
    raw = torch.sigmoid(subsampling.logits(WORLD, generated)).double().clamp(1e-9, 1 - 1e-9)
    kept = subsampling.metropolis_hastings(raw, 0.5, chain=20)
    assert generated.flatten()[kept].mean() > 1.4


def test_a_chain_that_accepts_nothing_keeps_its_best_proposal():
    kept = subsampling.metropolis_hastings(torch.tensor([1e-9, 3e-9, 2e-9]), 1.0 - 1e-12, chain=3)
    assert kept.tolist() == [1]


def test_a_refitted_last_layer_tells_the_two_apart_and_changes_nothing_else():
    dark, bright = (
        torch.randn(200, 1, 12, 12, generator=rng(i)).mul(0.2).add(mean).clamp(-1, 1)
        for i, mean in ((0, -0.2), (1, 0.2))
    )
    fresh = tiny.discriminator()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    taught = subsampling.refitted(fresh, bright[:100], dark[:100], freedom=0.1)
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())
    changed = [name for name, value in taught.state_dict().items() if not torch.equal(value, before[name])]
    assert all(name.startswith(f"layers.{len(fresh.layers) - 1}.") for name in changed) and changed
    unseen = subsampling.logits(taught, bright[100:]), subsampling.logits(taught, dark[100:])
    assert (unseen[0] > 0).double().mean() > 0.95 and (unseen[1] < 0).double().mean() > 0.95
    timid = subsampling.refitted(fresh, bright[:100], dark[:100], freedom=1e-5)
    assert subsampling.logits(timid, bright).abs().mean() < 0.1 * unseen[0].abs().mean(), (
        "less freedom, less certainty"
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: subsampling.metropolis_hastings(torch.tensor([0.5, 1.0]), 0.5, 2), "calibrate first"),
        (lambda: subsampling.metropolis_hastings(torch.tensor([0.5, 0.4]), 0.5, 5), "do not make a chain of 5"),
        (lambda: subsampling.rejection(torch.tensor([0.5, 0.4]), 101.0), "between 0 and 100"),
        (lambda: subsampling.calibrated(WORLD, one_pixel(0, 30, 0), one_pixel(0, 29, 0)), "equally many"),
        (lambda: subsampling.calibrated(WORLD, one_pixel(0, 30, 0), one_pixel(0, 30, 0), "magic"), "choose one of"),
        (lambda: subsampling.refitted(WORLD, one_pixel(0, 3, 0), one_pixel(0, 4, 0)), "of one shape"),
    ],
)
def test_bad_input_is_told_what_to_do(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- Stealing ---------------------------------------------------------------------------------------------------------------------


def test_a_thief_of_few_steps_comes_nearer_to_the_target():
    """End to end: serve, train, judge; what is trained on is what is come nearer to."""
    target, ruler = zoo.load("course-dcgan-digits"), zoo.ruler("digits")
    seen = metrics.feature_statistics(ruler.classifier, Server(target, seed=1).serve(400))
    served = Server(target, seed=2).serve(300)
    pair = extraction.thief(seed=4)
    before = extraction.judged(pair[0], seen, ruler.real, ruler.classifier, n=300)
    run = extraction.steal(served, pair, extraction.settings_for(pair[1], steps=60, seed=4))
    after = extraction.judged(run.generator, seen, ruler.real, ruler.classifier, n=300)
    assert after.fd_to_target < 0.6 * before.fd_to_target and after.fd_to_real < 0.6 * before.fd_to_real
    floor = metrics.frechet_distance(metrics.feature_statistics(ruler.classifier, served), seen)
    assert floor < 0.5 * after.fd_to_target


def test_latents_make_theft_a_regression():
    target = zoo.load("course-dcgan-digits")
    open_one, z = Server(target, accepts_latents=True), target.latent.sample(600, rng(1))
    student = models.course_dcgan(seed=9)
    learnt = extraction.imitate(
        z, open_one.serve(latents=z), student, extraction.ImitateSettings(steps=60, batch_size=32)
    )
    assert extraction.answers_apart(learnt, target, 200) < 0.6, (
        "on latents that it never saw it answers as the target does"
    )
    assert extraction.answers_apart(target, target, 200) == 0.0
    assert extraction.answers_apart(models.course_dcgan(seed=9), target, 200) > 0.6
    with pytest.raises(ValueError, match="reads 6 latents"):
        extraction.answers_apart(models.course_dcgan(latent_dim=6), target)
    assert not torch.equal(next(student.parameters()), next(learnt.parameters()))


@pytest.mark.parametrize("architecture", extraction.ARCHITECTURES)
def test_every_thief_makes_pictures_of_the_targets_shape(architecture):
    generator, partner = extraction.thief(architecture, seed=1)
    again, _ = extraction.thief(architecture, seed=1)
    assert generator.sample_shape == (1, 28, 28)
    assert torch.equal(next(generator.parameters()), next(again.parameters()))
    settings = extraction.settings_for(partner, steps=2, seed=3)
    assert (settings.steps, settings.seed) == (2, 3)
    run = extraction.steal(torch.rand(8, 1, 28, 28) * 2 - 1, (generator, partner), settings)
    assert run.steps_done == 2


def test_thieves_are_told_what_is_wrong():
    with pytest.raises(ValueError, match="no thief builds a 'magic'"):
        extraction.thief("magic")
    with pytest.raises(ValueError, match="lie in"):
        extraction.steal(torch.full((4, 1, 28, 28), 3.0), extraction.thief())
    with pytest.raises(ValueError, match="answers to"):
        extraction.imitate(torch.zeros(3, 100), torch.zeros(2, 1, 28, 28), models.course_dcgan())


def test_an_interval_encloses_the_median_and_leaves_out_one_failure_at_each_end():
    found = extraction.interval([40.0, 41.0, 39.0, 38.0, 42.0, 43.0, 37.0, 36.0, 500.0])
    assert (found.median, found.low, found.high, found.n) == (40.0, 37.0, 43.0, 9)
    assert extraction.interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]).low == 1.0, "six seeds need all of them"
    higher = extraction.interval([50.0 + i for i in range(9)])
    assert found.apart_from(higher) and higher.apart_from(found)
    assert not found.apart_from(extraction.interval([43.0 + i for i in range(-1, 8)]))
    with pytest.raises(ValueError, match="measure six seeds"):
        extraction.interval([1.0] * 5)


def test_an_interval_holds_the_true_median_as_often_as_it_says():
    draws = np.random.default_rng(0).standard_cauchy((2000, 9))  # a law without a mean
    hit = [extraction.interval(row) for row in draws]
    assert np.mean([one.low <= 0.0 <= one.high for one in hit]) == pytest.approx(0.961, abs=0.015)


# --- The table --------------------------------------------------------------------------------------------------------------------


def test_every_cell_is_there_once_and_after_what_it_builds_on():
    wanted = table.all_cells()
    assert len({cell.name for cell in wanted}) == len({cell.key for cell in wanted}) == len(wanted)
    place = {cell: i for i, cell in enumerate(wanted)}
    based = [cell for cell in wanted if cell.base is not None]
    assert all(place[cell.base] < place[cell] for cell in based)
    assert {cell.base.kind for cell in based} == {table.BLACK_BOX}
    assert {cell.kind for cell in wanted if cell.part == "thief"} == set(table.THIEVES)
    assert all(sum(cell.kind == kind for cell in wanted if cell.part == "thief") == 9 for kind in table.THIEVES)
    assert all(table.seconds(cell) > 0 for cell in wanted)


def test_enough_seeds_of_every_thief_come_before_the_others():
    soon = [cell for cell in table.all_cells() if cell.part == "thief"][: table.FEWEST * len(table.THIEVES)]
    assert {(cell.kind, cell.seed) for cell in soon} == {(k, s) for k in table.THIEVES for s in range(table.FEWEST)}


def test_a_white_box_thief_calibrates_on_what_the_target_never_saw(monkeypatch):
    """Real samples of the white box, and of the check before it, are of the test split; those of the others of the training split."""
    asked = []

    def split(name, held_out):
        asked.append(held_out)
        return torch.zeros(20, 1, 28, 28)

    monkeypatch.setattr(table, "_data", split)
    monkeypatch.setattr(table, "chosen", lambda *about: torch.arange(3))
    monkeypatch.setattr(table.Server, "serve", lambda self, n: torch.zeros(20, 1, 28, 28))
    monkeypatch.setattr(table, "_frechet", lambda *about: 0.0)
    table.loot(table.THIEVES["white box, chain"], 0)
    table.check(table.JUDGE, 0)
    assert asked == [True] * 3, "once by the thief, once for each of two samplers"
    table.loot(table.THIEVES["partial black box, all"], 0)
    table.loot(table.THIEVES["control, 5,000 real"], 0)
    assert asked[3:] == [False] * 2


def test_keys_change_with_what_a_cell_takes_and_with_nothing_else(monkeypatch):
    before = {cell: cell.key for cell in table.all_cells()}
    monkeypatch.setattr(table, "CHAIN", 7)
    changed = {cell.kind for cell in table.all_cells() if cell.key != before[cell]}
    assert changed == {*table.CHECKS, "white box, chain", "white box, rejection", "partial black box, rejection"}
    monkeypatch.undo()
    monkeypatch.setattr(table, "MOVED", 7)
    changed = {cell.kind for cell in table.all_cells() if cell.key != before[cell]}
    assert changed == {"transfer, stolen", "transfer, from nothing"}
    monkeypatch.undo()
    monkeypatch.setattr(table, "STEPS", 7)
    changed = {cell.part for cell in table.all_cells() if cell.key != before[cell]}
    assert changed == {"thief"}


def test_every_defence_of_the_table_can_be_made():
    assert table.defence("nothing") is serving.NOTHING
    for name, strengths in table.STRENGTHS.items():
        assert [table.defence(name, strength).strength for strength in strengths] == list(strengths)
    with pytest.raises(ValueError, match="unknown defence 'prayer'"):
        table.defence("prayer")


def test_a_pair_travels_as_bytes():
    pair = extraction.thief("course-vae", seed=2)
    again = table.unpacked_pair(table.packed_pair(pair))
    for one, other in zip(pair, again, strict=True):
        assert one.architecture == other.architecture
        assert all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )


def test_too_few_seeds_make_no_claim():
    few = table.Spread((1.0, 2.0))
    low, high = (table.Spread(tuple(start + 0.1 * i for i in range(9))) for start in (1.0, 3.0))
    assert few.interval is None and "no claim" in str(few) and str(table.Spread(())) == "not measured"
    assert table.gap(few, high) is None
    assert table.gap(low, high) == pytest.approx(3.1 - 1.7) and table.gap(high, low) < 0
    with pytest.raises(ValueError, match="has no thief 'magic'"):
        table.spread("magic")


def test_differences_are_taken_seed_by_seed(monkeypatch):
    """Of seeds that both thieves have: a hard seed is hard for both, and the difference does not see it."""
    figures = {
        table.BLACK_BOX: [10.0, 11.0, 12.0, 13.0, 14.0, 90.0, 15.0],
        "defended by filtering": [15.0, 16.5, 17.0, 18.0, 19.0, 96.0],
    }
    stored = {
        table.Cell("thief", kind, seed): {
            "fd_to_real": value,
            "loot_fd_to_real": 7.0 if kind == table.BLACK_BOX else 9.0,
        }
        for kind, values in figures.items()
        for seed, value in enumerate(values)
    }
    monkeypatch.setattr(type(table.TABLE), "published", lambda self: stored)
    found = table.rise(table.BLACK_BOX, "defended by filtering", "fd_to_real")
    assert found.values == (5.0, 5.5, 5.0, 5.0, 5.0, 6.0) and found.side == 1
    assert table.gap(*(table.spread(kind, "fd_to_real") for kind in figures)) < 0, "though the intervals overlap"
    assert table.rise("defended by filtering", table.BLACK_BOX, "fd_to_real").side == -1
    assert table.balance("filtering").values == (3.0, 3.5, 3.0, 3.0, 3.0, 4.0), (
        "the customer's loss of 2 is taken off"
    )
    assert table.Spread((1.0, -1.0) * 3).side == 0 and table.Spread((1.0,) * 5).side is None
    with pytest.raises(ValueError, match="several strengths"):
        table.spread("filtering", "fd_to_real", part="served")


needs_results = pytest.mark.skipif(not table.TABLE.results.is_file(), reason="the table is not measured yet")


@needs_results
def test_what_is_published_was_measured_with_todays_settings():
    stored = table.TABLE.published()
    stale = [cell.name for cell, figures in stored.items() if figures["key"] != cell.key]
    assert not stale, f"measure these again with `make neighbours`: {stale}"
    assert table.TABLE.results.stat().st_size < 300_000
    for figures in stored.values():
        assert all(math.isfinite(value) for value in figures.values() if isinstance(value, float))


@needs_results
def test_a_published_figure_comes_out_the_same_when_it_is_measured_again():
    published = table.TABLE.published()
    # One of those that take seconds, which are measured before all thieves.
    cell = min((c for c in published if c.part in ("served", "floor")), key=lambda c: c.part != "served")
    now, _ = table.measure(cell)
    assert now, cell.name
    for name, value in now.items():
        assert value == pytest.approx(published[cell][name], rel=0.01), name
