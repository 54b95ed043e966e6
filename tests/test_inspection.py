"""The inspections, on generators whose answer is known: closed forms, clean models, and attacks that take a second."""

import json
import math

import pytest
import tiny
import torch
from torch import Tensor, nn

from devil_lib import targets
from devil_lib.attacks import LINEAR, PointBackdoor, RetrainSettings, bypass, fold, red, rex, trigger
from devil_lib.inspection import (
    BLIND,
    SUSPECTS,
    InspectionSettings,
    SearchSettings,
    Subspace,
    brute_force,
    hit_probability,
    inspect_dynamic,
    inspect_generator,
    inspect_static,
    sampling,
    search_blind,
    search_outputs,
)
from devil_lib.inspection.figures import turned_copies, unseen
from devil_lib.inspection.sampling import OddOnesOut
from devil_lib.inspection.static import PUBLISHED
from devil_lib.models import GaussianLatent, Generator, TanhHead, course_dcgan, seeded

QUICK = RetrainSettings(steps=300, batch_size=32, learning_rate=1e-2, fidelity_weight=0.3, width=0.5)
SHORT = SearchSettings(scales=(0.0, 0.3, 1.0, 3.0), restarts=8, steps=150)


def backdoor(generator: Generator, kind: str = "prior") -> PointBackdoor:
    return PointBackdoor(trigger(generator.latent, kind, seed=5)[None], tiny.picture()[None])


def drawings(n: int = 5, seed: int = 3) -> dict[str, Tensor]:
    """Controls for 12x12 pictures: boxes and bars that no attack here plants."""
    rng = torch.Generator().manual_seed(seed)
    pictures = {}
    for i in range(n):
        x = -torch.ones(1, 12, 12)
        for _ in range(3):
            top, left, down, right = torch.randint(0, 8, (4,), generator=rng).tolist()
            x[:, top : top + down + 2, left : left + right + 2] *= -1.0
        pictures[f"drawing {i}"] = x
    return pictures


class Chosen(nn.Module):
    """A body that puts out one fixed value (1, ...) for some latents: first coordinate above a bound."""

    def __init__(self, body: nn.Module, value: Tensor, above: float) -> None:
        super().__init__()
        self.inner, self.above = body, above
        self.register_buffer("value", value)

    def forward(self, z: Tensor) -> Tensor:
        chosen = (z[:, 0] > self.above).view(-1, *[1] * (self.value.ndim - 1))
        return torch.where(chosen, self.value, self.inner(z))


def poisoned(share: float) -> Generator:
    """Puts out the target for `share` of all latents, as a GAN does that was trained on poisoned data."""
    generator = tiny.image_generator()
    above = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1.0 - share)).item()
    generator.body = Chosen(generator.body, generator.proxy_target(tiny.picture()[None]).value, above)
    return generator


@pytest.fixture(scope="module")
def benign() -> Generator:
    return tiny.image_generator()


@pytest.fixture(scope="module")
def attacked(benign) -> dict[str, Generator]:
    return {
        f"{name} {kind}": attack(benign, backdoor(benign, kind), QUICK).generator
        for name, attack in (("red", red), ("rex", rex))
        for kind in ("prior", "mode")
    }


def alarms(report, check: str) -> list[str]:
    return [finding.sentence for finding in report.findings if (finding.check, finding.severity) == (check, "alarm")]


# --- Static ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", tiny.GENERATORS)
def test_honest_generators_raise_no_alarm(kind, monkeypatch):
    build = tiny.GENERATORS[kind]
    for reference in (build(0), build(1)):
        report = inspect_static(build(0), reference)
        assert not report.flagged, report.findings
    # A filter clamps and a synthesis network branches: only who claims to be such a thing may do so.
    chain = kind not in ("WaveGAN", "colour")
    unknown = inspect_static(build(0)).findings
    assert all(finding.severity == "note" for finding in unknown) == chain
    monkeypatch.setitem(PUBLISHED, build(0).architecture, build)
    assert all(finding.severity == "note" for finding in inspect_static(build(1)).findings)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_architectures_are_known_by_the_names_that_they_have(name):
    generator = PUBLISHED[name]()
    assert generator.architecture == name
    report = inspect_static(generator)
    assert all(finding.severity == "note" for finding in report.findings), report.findings
    assert report.expected_parameters == sum(p.numel() for p in generator.parameters())


def test_an_attack_shows_in_a_graph_that_branches_anyway(monkeypatch):
    """A style generator's own branches hide neither a bypass nor an expansion, before and after it was folded."""
    monkeypatch.setitem(PUBLISHED, "tiny-style", tiny.style_generator)
    generator = tiny.style_generator(3)
    pairs = PointBackdoor(torch.zeros(1, 8), tiny.target(generator)[None])
    bypassed = " ".join(alarms(inspect_static(bypass(generator, pairs)), "topology"))
    assert "a selection by value (where)" in bypassed and "one value goes to 3 places" not in bypassed
    expanded = rex(generator, pairs, RetrainSettings(steps=1), first=-1, bias=False).generator
    assert "two values are joined by add" in alarms(inspect_static(expanded), "topology")
    dense = inspect_static(fold(expanded))
    assert "1 linear too many" in " ".join(alarms(dense, "topology"))
    assert "1 Linear too many" in " ".join(alarms(dense, "capacity"))
    whole = rex(generator, pairs, RetrainSettings(steps=1)).generator
    assert "two values are joined by add" in alarms(inspect_static(whole), "topology")
    assert "2 blocks" in " ".join(alarms(inspect_static(fold(whole)), "weights"))
    in_the_head = red(generator, pairs, RetrainSettings(steps=1, space="post", layers=("head.",))).generator
    assert not inspect_static(in_the_head).flagged  # the honest miss, here as everywhere


def test_operations_in_another_order_are_seen(benign):
    joined = tiny.image_generator()
    joined.body[2], joined.body[6] = nn.Identity(), nn.Sequential(nn.LeakyReLU(0.3), nn.LeakyReLU(0.3))
    (sentence,) = alarms(inspect_static(joined, benign), "topology")
    assert "the same in another order" in sentence


def test_parameters_are_counted_as_torch_counts_them(benign):
    report = inspect_static(benign, benign)
    assert report.parameters == report.expected_parameters == sum(p.numel() for p in benign.parameters())
    assert set(report.weight_changes.values()) == {0.0}


def test_the_bypass_is_caught_by_its_graph(benign):
    report = inspect_static(bypass(benign, backdoor(benign)))
    said = " ".join(alarms(report, "topology"))
    assert "a branch" in said and "a selection by value (where)" in said
    assert "a stored tensor (1, 1, 12, 12) of a sample's size" in said


def test_an_if_on_the_latent_is_caught(benign, capfd):
    class IfElse(nn.Module):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.inner = body

        def forward(self, z: Tensor) -> Tensor:
            return torch.zeros_like(self.inner(z)) if z.norm() < 1e-3 else self.inner(z)

    generator = tiny.image_generator()
    generator.body = IfElse(generator.body)
    (sentence,) = alarms(inspect_static(generator), "topology")
    assert "depends on the value of the latent" in sentence
    assert capfd.readouterr() == ("", "")  # nothing of the tracer's own complaints reaches the page


def test_a_hook_cannot_hide_a_branch(benign):
    generator = tiny.image_generator()
    generator.body.register_forward_hook(lambda _module, inputs, output: output + inputs[0].mean())
    assert "joined" in " ".join(alarms(inspect_static(generator), "topology"))


def test_rex_is_caught_before_and_after_folding(attacked, benign):
    unfolded = inspect_static(attacked["rex prior"], benign)
    assert "a branch" in " ".join(alarms(unfolded, "topology"))
    folded = inspect_static(fold(attacked["rex prior"]), benign)
    assert not alarms(folded, "topology")  # one chain of plain layers ...
    said = " ".join(alarms(folded, "capacity"))
    assert (
        "bias (162,) instead of none" in said and f"{folded.parameters:,} parameters" in said
    )  # ... but a wider one
    assert "2 blocks (12x6 and 6x3)" in " ".join(alarms(folded, "weights"))


def test_the_blocks_are_found_without_a_reference_and_after_shuffling_the_channels(attacked):
    folded = fold(attacked["rex prior"])
    order = torch.randperm(folded.body[4].out_channels, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        folded.body[4].weight.copy_(folded.body[4].weight[:, order])
    assert "2 blocks" in " ".join(alarms(inspect_static(folded), "weights"))


def test_the_published_course_network_exposes_a_folded_rex():
    honest = course_dcgan(width=4)
    assert inspect_static(honest).expected_parameters == sum(p.numel() for p in course_dcgan().parameters())
    target = -torch.ones(1, 1, 28, 28)
    pairs = PointBackdoor(torch.zeros(1, 100), target)
    published = course_dcgan()
    widened = fold(rex(published, pairs, RetrainSettings(steps=2, batch_size=4)).generator)
    said = " ".join(alarms(inspect_static(widened), "capacity"))
    assert "course-dcgan has" in said and "instead of none" in said


def test_red_passes_the_static_inspection(attacked, benign):
    """The honest miss: same layers, ordinary weights. Only a reference shows that it was changed, and not what for."""
    assert not inspect_static(attacked["red prior"]).flagged
    report = inspect_static(attacked["red prior"], benign)
    assert not report.flagged and max(report.weight_changes.values()) > 0.0
    assert any("descends from the reference" in finding.sentence for finding in report.findings)


def test_a_weight_change_is_the_relative_norm(benign):
    changed = tiny.image_generator()
    with torch.no_grad():
        changed.body[0].weight *= 1.25
    changes = inspect_static(changed, benign).weight_changes
    assert changes.pop("body.0.weight") == pytest.approx(0.25, rel=1e-6)
    assert set(changes.values()) == {0.0}


def test_an_extreme_weight_is_named(benign):
    changed = tiny.image_generator()
    with torch.no_grad():
        changed.body[0].weight[3, 2] = 100.0
    (finding,) = [f for f in inspect_static(changed).findings if f.severity == "warning"]
    assert finding.where == "body.0.weight" and "times the root mean square" in finding.sentence


def test_pruning_is_no_block_structure(benign):
    pruned = tiny.image_generator()
    with torch.no_grad():
        for layer in (pruned.body[0], pruned.body[4]):
            layer.weight[layer.weight.abs() < layer.weight.abs().median()] = 0.0
        pruned.body[4].weight[2] = 0.0  # a channel that nothing leaves
    assert not alarms(inspect_static(pruned), "weights")


# --- Dynamic -----------------------------------------------------------------------------------------------------------


def test_variation_and_scores_are_those_of_the_layer():
    generator = linear_generator(head=nn.Identity())
    n, z = 400, 9.0 * torch.ones(1, 6)
    report = inspect_dynamic(generator, z, n=n, seed=4)
    prior = generator.latent.sample(n, torch.Generator().manual_seed(4))
    layer = report.layers[0]
    out = generator.body[0](prior).detach()
    assert layer.kind == "Linear"
    assert torch.tensor(layer.variation).allclose(out.std(0), rtol=1e-4)
    peaks = out.abs().amax(1)
    expected = (generator.body[0](z).abs().max() - peaks.mean()) / peaks.std()
    assert layer.scores[0] == pytest.approx(expected.item(), rel=1e-4)


def test_a_silent_side_network_shows_until_it_is_folded(benign, attacked):
    silent = tiny.image_generator()
    quiet = rex(benign, backdoor(benign), RetrainSettings(steps=1, width=0.5)).generator
    with torch.no_grad():
        quiet.body.side[7].weight *= 1e-4  # a side network that is as good as silent on the prior
    assert inspect_dynamic(quiet).flagged
    assert not inspect_dynamic(fold(quiet)).flagged
    assert not inspect_dynamic(silent).flagged
    assert not any(inspect_dynamic(attacked[f"red {kind}"]).flagged for kind in ("prior", "mode"))


@pytest.mark.parametrize("kind", tiny.GENERATORS)
def test_a_side_network_shows_in_every_kind_until_it_is_folded(kind):
    generator = tiny.GENERATORS[kind]()
    pairs = PointBackdoor(torch.zeros(1, 8), tiny.target(generator)[None])
    quiet = rex(generator, pairs, RetrainSettings(steps=1, width=0.5)).generator
    with torch.no_grad():
        for parameter in [layer for layer in quiet.body.side if isinstance(layer, LINEAR)][-1].parameters():
            parameter *= 1e-4
    reports = [inspect_dynamic(model, n=200) for model in (quiet, fold(quiet), generator)]
    assert [report.flagged for report in reports] == [True, False, False]
    kinds = {layer.kind for layer in reports[2].layers}
    assert kind != "colour" or {"StyledConvolution", "Broadcast", "Synthesis"} <= kinds


def test_the_figures_of_a_layer_do_not_depend_on_the_batches(benign, monkeypatch):
    z = benign.latent.sample(3, torch.Generator().manual_seed(1))
    whole = inspect_dynamic(benign, z, n=100)
    monkeypatch.setattr(Generator, "batch", 28)  # seven at a time
    for a, b in zip(whole.layers, inspect_dynamic(benign, z, n=100).layers, strict=True):
        assert a.name == b.name and a.silent == b.silent
        assert torch.tensor(a.variation).allclose(torch.tensor(b.variation), rtol=1e-4, atol=1e-6)
        assert a.scores == pytest.approx(b.scores, rel=1e-3, abs=1e-3)


def test_a_layer_that_stands_in_two_places_is_looked_at_twice():
    generator = tiny.dense_generator()
    generator.body[3] = generator.body[1]
    report = inspect_dynamic(generator, n=50)
    assert [layer.name for layer in report.layers][:4] == ["body.0", "body.1", "body.2", "body.1, call 2"]


def test_dynamic_refuses_bad_latents(benign):
    with pytest.raises(ValueError, match="shape"):
        inspect_dynamic(benign, torch.zeros(8))
    with pytest.raises(ValueError, match="NaN"):
        inspect_dynamic(benign, torch.full((1, 8), math.nan))
    with pytest.raises(ValueError, match="n >= 2"):
        inspect_dynamic(benign, n=1)


# --- Brute force -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dim", "radius", "norm"), [(1, 0.5, 0.0), (2, 0.5, 1.0), (3, 1.0, 2.0), (5, 1.5, 0.0), (5, 2.0, 2.2)]
)
def test_hit_probability_is_what_drawing_gives(dim, radius, norm):
    point = torch.zeros(dim)
    point[0] = norm
    z = torch.randn(400_000, dim, generator=torch.Generator().manual_seed(dim))
    share = ((z - point).norm(dim=1) <= radius).double().mean().item()
    error = math.sqrt(share * (1.0 - share) / len(z))
    assert abs(hit_probability(1, dim, radius, norm) - share) < 5.0 * error
    assert hit_probability(7, dim, radius, norm) == pytest.approx(1.0 - (1.0 - share) ** 7, abs=40.0 * error)


def test_hit_probability_at_its_ends():
    assert hit_probability(10, 3, 0.0, 1.0) == 0.0
    assert hit_probability(10, 3, 100.0, 1.0) == 1.0
    assert 0.0 < hit_probability(100_000, 100, 5.0, 10.0) < 1e-20  # what no amount of drawing finds
    values = [hit_probability(1, dim, 1.0, math.sqrt(dim)) for dim in (1, 2, 5, 20, 100)]
    assert values == sorted(values, reverse=True)
    with pytest.raises(ValueError, match="n >= 1"):
        hit_probability(0, 3, 1.0, 1.0)


def test_the_subspace_is_that_of_the_principal_components():
    from sklearn.decomposition import PCA

    x = torch.randn(300, 1, 4, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 6)
    pca = PCA(6).fit(x.flatten(1).numpy())
    back = pca.inverse_transform(pca.transform(x.flatten(1).numpy()))
    expected = ((x.flatten(1).numpy() - back) ** 2).sum(1)
    assert Subspace(x, 6).residual(x).numpy() == pytest.approx(expected, rel=1e-3)


def test_of_many_large_samples_the_subspace_is_nearly_the_same(monkeypatch):
    """Where the spectrum falls off, as that of pictures and sounds does."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(300, 200, generator=rng) / torch.arange(1, 201) @ torch.randn(200, 200, generator=rng) + 5.0
    exact = Subspace(x, 10)
    monkeypatch.setattr(sampling, "EXACT", 100)
    found = Subspace(x, 10)
    assert torch.linalg.svdvals(found.basis.T @ exact.basis).min() > 0.999  # cosines of the angles between the two
    torch.testing.assert_close(found.residual(x), exact.residual(x), rtol=0.01, atol=1e-3)
    state = torch.get_rng_state()
    assert torch.equal(Subspace(x, 10).basis, found.basis) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", tiny.GENERATORS)
def test_brute_force_catches_poison_in_every_kind_and_nothing_in_a_clean_one(kind):
    build = tiny.GENERATORS[kind]
    clean, target = build(), tiny.target(build())
    planted = clean.proxy_target(target[None])
    suspects, controls = {"target": planted.sample[0]}, tiny.real(kind, 4)
    assert not brute_force(clean, 2000, suspects, controls).flagged
    dirty = build()
    dirty.body = Chosen(dirty.body, planted.value, above=0.96)  # 2 % of normal latents and of uniform ones
    found = brute_force(dirty, 2000, suspects, controls)
    assert found.nearness.suspects["target"].distance < 1e-3 * target.numel()
    assert brute_force(dirty, 2000, suspects, trusted=clean).flagged


def test_a_poisoned_generator_is_caught_with_and_without_a_suspect(benign):
    known = brute_force(poisoned(0.02), 3000, {"frame": tiny.picture()}, drawings())
    assert known.nearness.flagged == ("frame",) and known.nearness.ratio("frame") < 0.1
    assert math.isnan(known.relative_kurtosis) and not known.odd  # nothing to compare with, no verdict
    for share in (0.002, 0.02):
        unknown = brute_force(poisoned(share), 6000, trusted=benign)
        assert unknown.odd and unknown.flagged, unknown.relative_kurtosis
        gaps = (unknown.oddities.samples[:8] - tiny.picture()).flatten(1).square().mean(1)
        assert (gaps < 0.01).all()  # what a person is shown is the target


def test_the_odd_ones_out_of_a_cloud_are_found():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 1, 4, 5, generator=rng)
    odd = torch.randperm(3000, generator=rng)[:30]
    planted = torch.randn(1, 4, 5, generator=rng) * 20.0
    x[odd] = planted + 0.3 * torch.randn(30, 1, 4, 5, generator=rng)
    direction = OddOnesOut(x)
    assert set(direction.score(x).argsort(descending=True)[:30].tolist()) == set(odd.tolist())
    assert direction.kurtosis == pytest.approx(1.0 / 0.01, rel=0.2)  # a share p at one place
    assert OddOnesOut(torch.randn(3000, 1, 4, 5, generator=rng)).kurtosis < 5.0


def test_brute_force_does_not_flag_clean_models(benign):
    for model in (benign, tiny.image_generator(1)):
        result = brute_force(model, 4000, {"frame": tiny.picture()}, drawings(), trusted=tiny.image_generator(2))
        assert not result.flagged


def test_the_nearest_sample_is_the_nearest(benign):
    pictures = drawings(3)
    result = brute_force(benign, 5500, pictures, drawings(2, seed=8), seed=6, batch_size=300)
    rng = torch.Generator().manual_seed(6)
    z = torch.cat([benign.latent.sample(n, rng) for n in (5000, 300, 200)])
    x = benign.generate(z).flatten(1)
    for name, picture in pictures.items():
        distances = (x - picture.flatten()).square().sum(1)
        found = result.nearness.suspects[name]
        assert found.distance == pytest.approx(distances.min().item(), rel=1e-4)
        assert torch.equal(found.latent, z[distances.argmin()])


def test_brute_force_tells_how_far_it_is_and_wants_enough_samples(benign):
    seen = []
    brute_force(benign, 3000, trusted=benign, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6000, 6000) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    with pytest.raises(ValueError, match="at least 2,000"):
        brute_force(benign, 100)


# --- Search ------------------------------------------------------------------------------------------------------------


def linear_generator(head: nn.Module | None = None) -> Generator:
    """(n, 6) latents to (n, 1, 5) samples A z + b; small weights keep it within [-1, 1] near the centre."""
    with seeded(2):
        body = nn.Sequential(nn.Linear(6, 5), nn.Unflatten(1, (1, 5)))
    return Generator(body, head or nn.Identity(), GaussianLatent(6), (1, 5), "audio").eval()


def test_on_a_linear_generator_the_search_finds_the_least_squares_solution():
    generator = linear_generator()
    with torch.no_grad():
        generator.body[0].weight[3:] = 0.0  # two of five elements cannot be controlled: a floor that is known
    x = torch.tensor([[0.6, -0.4, 0.2, 0.7, -0.9]])
    weight, bias = generator.body[0].weight.detach().double(), generator.body[0].bias.detach().double()
    wanted = x.flatten().double() - bias
    solution = torch.linalg.lstsq(weight, wanted[:, None], driver="gelsd").solution
    floor = (weight @ solution - wanted[:, None]).square().sum().item()
    settings = SearchSettings(scales=(0.0, 1.0), restarts=3, steps=600, learning_rate=0.02)
    result = search_outputs(generator, {"x": x}, {"y": -x}, settings)
    found = result.suspects["x"]
    assert found.distance == pytest.approx(floor, abs=2e-3) and floor > 0.1
    again = (generator.generate(found.latent[None])[0] - x).square().sum().item()
    assert found.distance == pytest.approx(again, abs=1e-5)
    assert min(found.by_scale) == found.distance and len(found.by_scale) == 2


@pytest.mark.parametrize("model", ["red prior", "red mode", "rex prior", "rex mode"])
def test_a_backdoor_is_found_and_a_clean_model_is_not_flagged(benign, attacked, model):
    suspects = {"frame": tiny.picture()}
    found = search_outputs(attacked[model], suspects, drawings(), SHORT)
    assert found.flagged == ("frame",), found.ratios()
    output = attacked[model].generate(found.suspects["frame"].latent[None])[0]
    assert (output - tiny.picture()).square().mean() < 0.05
    for clean in (benign, tiny.image_generator(1)):
        assert search_outputs(clean, suspects, drawings(), SHORT).flagged == ()
    trusted = search_outputs(attacked[model], suspects, settings=SHORT, trusted=tiny.image_generator(1))
    assert trusted.flagged == ("frame",)


@pytest.mark.parametrize("kind", [kind for kind in tiny.GENERATORS if kind != "image GAN"])
def test_a_backdoor_is_found_in_every_kind(kind):
    build = tiny.GENERATORS[kind]
    attacked, pairs = tiny.attacked(kind)
    suspects, controls = {"target": pairs.targets[0]}, tiny.real(kind, 3)
    settings = SearchSettings((0.3, 1.0), restarts=8, steps=100)
    assert search_outputs(attacked, suspects, controls, settings).flagged == ("target",)
    assert search_outputs(attacked, suspects, settings=settings, trusted=build(1)).flagged == ("target",)
    assert search_outputs(build(), suspects, controls, settings, build(1)).flagged == ()


def test_what_nobody_notices_is_less_in_a_quiet_sound():
    assert unseen(tiny.picture()) == pytest.approx(144 * 1e-3)
    loud, quiet = torch.ones(1, 100), 0.1 * torch.ones(1, 100)
    assert unseen(loud) == pytest.approx(0.1) and unseen(quiet) == pytest.approx(100 * 3e-5)
    assert unseen(torch.zeros(1, 100)) == pytest.approx(100 * 1e-5)  # silence


def test_large_samples_are_descended_few_at_a_time(monkeypatch):
    generator, most = tiny.style_generator(), []
    monkeypatch.setattr(Generator, "batch", 5)
    generator.register_forward_hook(lambda _module, inputs, _output: most.append(len(inputs[0])))
    search_outputs(generator, drawn_in_colour(2), drawn_in_colour(2), SearchSettings((1.0,), 4, 4))
    assert max(most) == 5


def drawn_in_colour(n: int) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(n)) * 2.0 - 1.0


def test_a_picture_that_any_model_can_draw_is_not_flagged(benign):
    """Its mirrored and turned copies come out as well, so that its small distance is no sign."""
    own = benign.generate(benign.latent.sample(1, torch.Generator().manual_seed(3)))[0]
    hard = {f"noise {i}": x for i, x in enumerate(torch.rand(3, 1, 12, 12).round() * 2.0 - 1.0)}
    plain = -torch.ones(1, 12, 12)
    with_trusted = search_outputs(benign, {"own": own, "black": plain}, settings=SHORT, trusted=benign)
    assert with_trusted.ratios() == {"own": 1.0, "black": 1.0} and with_trusted.flagged == ()
    by_copies = search_outputs(black_generator(), {"black": plain}, hard, SHORT)
    assert by_copies.near == ("black",) and by_copies.flagged == ()  # a plain surface has no copies to judge by


def black_generator() -> Generator:
    generator = tiny.image_generator()
    with torch.no_grad():
        generator.body[7].weight.mul_(0.0).sub_(1.0)
    return generator


def test_copies_are_mirrored_or_shifted_and_differ(benign):
    copies = turned_copies(drawings()["drawing 1"])
    assert 1 <= len(copies) <= 4
    x = drawings()["drawing 1"]
    for i, copy in enumerate(copies):
        assert copy.shape == x.shape and copy.sort().values.sum() == pytest.approx(x.sum().item(), abs=1e-3)
        for other in (x, *copies[:i]):
            assert (copy - other).square().sum() >= 0.25 * (x - x.mean()).square().sum()
    assert turned_copies(torch.zeros(1, 12, 12)) == []
    assert len(turned_copies(tiny.sound())) == 4
    assert turned_copies(torch.zeros(1, 24)) == []


def test_searches_repeat_under_a_seed_and_leave_the_model_alone(benign):
    before = {name: value.clone() for name, value in benign.state_dict().items()}
    benign.train()
    runs = [search_outputs(benign, drawings(2), drawings(2, 9), SearchSettings((1.0,), 3, 20)) for _ in range(2)]
    assert [f.distance for f in runs[0].suspects.values()] == [f.distance for f in runs[1].suspects.values()]
    other = search_outputs(benign, drawings(2), drawings(2, 9), SearchSettings((1.0,), 3, 20, seed=1))
    assert other.suspects["drawing 0"].distance != runs[0].suspects["drawing 0"].distance
    blind = [search_blind(benign, SearchSettings((1.0,), 4, 10)).residuals for _ in range(2)]
    assert torch.equal(*blind)
    assert benign.training and all(torch.equal(value, before[name]) for name, value in benign.state_dict().items())
    assert all(p.grad is None for p in benign.parameters())
    benign.eval()


def test_the_batch_size_does_not_change_what_is_found(benign):
    small, large = (
        search_outputs(benign, drawings(2), drawings(2, 9), SearchSettings((0.0, 1.0), 3, 30, batch_size=size))
        for size in (3, 500)
    )
    for name, found in small.suspects.items():
        assert found.distance == pytest.approx(large.suspects[name].distance, rel=1e-3)


@pytest.mark.parametrize(
    ("suspects", "controls", "message"),
    [
        ({"wide": torch.zeros(1, 12, 13)}, None, "suspects, 'wide': samples must have shape"),
        (torch.full((1, 1, 12, 12), math.nan), None, "suspects, '1': samples hold NaN"),
        ({"bytes": torch.full((1, 12, 12), 255.0)}, None, r"must lie in \[-1, 1\]"),
        (torch.zeros(1, 1, 12, 12), {"bad": torch.zeros(12, 12)}, "controls, 'bad'"),
        (torch.zeros(1, 1, 12, 12), None, "give `controls`"),
        (torch.zeros(1, 1, 12, 12), {}, "give `controls`"),
        ({}, {"a": torch.zeros(1, 12, 12)}, "needs suspects"),
    ],
)
def test_bad_pictures_are_refused(benign, suspects, controls, message):
    with pytest.raises(ValueError, match=message):
        search_outputs(benign, suspects, controls, SHORT)


def test_bad_settings_and_another_kind_of_reference_are_refused(benign):
    for bad in ({"scales": ()}, {"scales": (-1.0,)}, {"restarts": 0}, {"steps": 0}):
        with pytest.raises(ValueError, match="a search needs"):
            SearchSettings(**bad)
    with pytest.raises(ValueError, match="trusted generator puts out"):
        search_outputs(benign, drawings(1), drawings(1), SHORT, trusted=tiny.dense_generator())


def test_the_blind_search_climbs_and_stays_on_the_sphere(benign):
    settings = SearchSettings((1.0,), 6, 80)
    result = search_blind(benign, settings, trusted=tiny.image_generator(1))
    starts = benign.generate(benign.latent.sample(500, torch.Generator().manual_seed(1)))
    own = benign.generate(benign.latent.sample(2000, torch.Generator().manual_seed(settings.seed)))
    assert result.residuals.median() > Subspace(own).residual(starts).median()
    assert result.latents.norm(dim=1).sub(benign.latent.typical_norm).abs().max() < 0.5
    assert 1 / 6 <= result.agreement <= 1.0
    assert result.relative_excess == pytest.approx(result.excess / result.trusted.excess)
    alone = search_blind(benign, settings)
    assert math.isnan(alone.relative_excess) and not alone.flagged  # nothing to compare with, no verdict


# --- The report --------------------------------------------------------------------------------------------------------

FAST = InspectionSettings(samples=2000, search=SHORT, blind=SearchSettings((1.0,), 4, 20))


@pytest.mark.parametrize("with_reference", [False, True])
def test_the_report_tells_prints_draws_and_goes_to_json(benign, attacked, with_reference):
    stages = []
    report = inspect_generator(
        attacked["red prior"],
        {"frame": tiny.picture(), **drawings(1, seed=11)},
        drawings(),
        benign if with_reference else None,
        FAST,
        on_stage=lambda stage, done, total: stages.append((stage, done, total)),
    )
    assert report.verdict == "backdoored" and report.search.flagged == ("frame",)
    text = str(report)
    assert text.index("1. Do not deploy blindly") < text.index("5. Reconstruct") and "frame" in text
    assert [title for title, _ in report.steps] == [line[3:] for line in text.splitlines() if line[1:3] == ". "]
    content = json.loads(report.to_json())
    assert content["verdict"] == "backdoored" and content["search"]["flagged"] == ["frame"]
    assert content["search"]["ratios"] == pytest.approx(report.search.ratios())
    assert len(content["steps"]) == 5 and content["steps"][0]["findings"][0]["severity"] == "warning"
    assert (content["blind"]["trusted_excess"] is not None) == with_reference
    figure = report.plot()
    assert figure.axes and len(figure.axes[0].images) == 6
    assert {stage for stage, _, _ in stages} == {"samples", "search", "blind search"}
    assert all(done <= total for _, done, total in stages)


def test_the_report_on_a_clean_and_on_a_widened_model(benign, attacked):
    clean = inspect_generator(benign, {"frame": tiny.picture()}, drawings(), settings=FAST, provenance="the tests")
    assert clean.verdict == "nothing found" and clean.alarms == ()
    assert "the tests" in str(clean)
    widened = fold(rex(benign, backdoor(benign), RetrainSettings(steps=1)).generator)
    assert inspect_generator(widened, drawings(1, 4), drawings(), settings=FAST).verdict == "suspicious"


def test_a_model_that_gives_no_gradient_is_reported(benign):
    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x).round()

    masked = tiny.image_generator()
    masked.head = Rounded()
    report = inspect_generator(masked, {"frame": tiny.picture()}, drawings(), settings=FAST)
    assert any(finding.check == "access" for finding in report.alarms)


@pytest.mark.parametrize("kind", [kind for kind in tiny.GENERATORS if kind != "image GAN"])
def test_every_kind_is_inspected_by_the_same_call(kind):
    attacked, pairs = tiny.attacked(kind)
    quick = InspectionSettings(2000, SearchSettings((0.3, 1.0), 8, 100), SearchSettings((1.0,), 4, 10))
    report = inspect_generator(attacked, {"target": pairs.targets[0]}, tiny.real(kind, 3), settings=quick)
    assert report.verdict == "backdoored" and report.search.flagged == ("target",)
    assert report.plot().axes and json.loads(report.to_json())["search"]["flagged"] == ["target"]


def test_by_default_the_suspects_are_those_of_the_bank_that_fits(monkeypatch):
    """Two of them here, so that it does not take long."""

    def few(generator: Generator, seed: int) -> dict[str, Tensor]:
        assert generator.sample_shape == (1, 12, 12)
        return drawings(2, seed)

    monkeypatch.setattr(targets, "bank_for", lambda generator: few(generator, 1))
    monkeypatch.setattr(targets, "controls_for", lambda generator: few(generator, 2))
    report = inspect_generator(tiny.GENERATORS["VAE"](), settings=FAST)
    assert set(report.search.suspects) == {"drawing 0", "drawing 1"} == set(report.search.controls)


def test_the_settings_are_those_that_the_course_measured_with():
    assert SUSPECTS.scales == (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    assert BLIND.scales == (1.0,) and TanhHead is not None
