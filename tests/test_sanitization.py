"""The sanitizers and the verdict, on small generators with a ReX backdoor."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import tiny
import torch
from torch import Tensor, nn

from devil_lib import attacks, metrics, sanitization
from devil_lib.attacks import PointBackdoor, RetrainSettings
from devil_lib.inspection.dynamic import activations
from devil_lib.inspection.search import SearchSettings
from devil_lib.models import GaussianLatent, Generator, TanhHead, UniformLatent
from devil_lib.partners import discriminator_for
from devil_lib.sanitization import (
    ContinueSettings,
    ContinueVaeSettings,
    DistilSettings,
    SanitizationVerdict,
    WideLatents,
    continue_training,
    cut_units,
    distil,
    fine_prune,
    prune,
    unit_activity,
    verdict,
)

STEPS = RetrainSettings(steps=250, batch_size=32, learning_rate=1e-2, fidelity_weight=0.5, width=1.0)
DIM = (
    40  # with few latent dimensions the mode lies amidst the samples, and distillation would carry its backdoor over
)
QUICK = DistilSettings(steps=150, batch_size=32, learning_rate=1e-2)


@pytest.fixture(scope="module")
def benign() -> Generator:
    return tiny.image_generator(dim=DIM)


@pytest.fixture(scope="module")
def pairs(benign) -> PointBackdoor:
    return PointBackdoor(attacks.trigger(benign.latent, "mode")[None], tiny.picture()[None])


@pytest.fixture(scope="module")
def attacked(benign, pairs) -> Generator:
    return attacks.fold(attacks.rex(benign, pairs, STEPS).generator)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def recovered(model: Generator, benign: Generator, pairs: PointBackdoor) -> float:
    return (
        metrics.tardis(model, pairs.triggers, pairs.targets).sum
        / metrics.tardis(benign, pairs.triggers, pairs.targets).sum
    )


def stop_at(at: int):
    def watch(step: int, _generator: Generator, _value) -> None:
        if step == at:
            raise KeyboardInterrupt

    return watch


def continued(kind: str, generator: Generator) -> Generator:
    """A few steps with a discriminator; with an encoder where there is one."""
    dim, data, short = generator.latent.dim, tiny.real(kind), {"steps": 4, "batch_size": 16}
    if kind == "VAE":
        partner, settings = tiny.vae(dim=dim)[1], ContinueVaeSettings(**short)
    else:
        partner, settings = tiny.critic(generator), ContinueSettings(**short)
    return continue_training(generator, partner, data, settings).generator


SANITIZERS = {
    "continue_training": continued,
    "distil": lambda kind, g: (
        distil(g, tiny.GENERATORS[kind](seed=9, dim=g.latent.dim), DistilSettings(steps=4)).generator
    ),
    "prune": lambda kind, g: prune(g, 0.3),
    "cut_units": lambda kind, g: cut_units(g, 0.3),
    "fine_prune": lambda kind, g: fine_prune(g, 0.3, DistilSettings(steps=4)).generator,
}


@pytest.mark.parametrize("kind", tiny.GENERATORS)
@pytest.mark.parametrize("name", SANITIZERS)
def test_a_sanitizer_returns_a_new_generator_in_evaluation_mode_and_leaves_its_input(name, kind):
    given = tiny.GENERATORS[kind]().train()
    before = state(given)
    torch.manual_seed(1)
    sanitized = SANITIZERS[name](kind, given)
    assert same(state(given), before) and given.training
    assert sanitized is not given and not sanitized.training
    assert not any(a.data_ptr() == b.data_ptr() for a in given.parameters() for b in sanitized.parameters())
    assert not same(state(sanitized), before)
    assert sanitized.generate(given.latent.sample(3)).shape == (3, *given.sample_shape)
    torch.manual_seed(2)
    assert same(state(sanitized), state(SANITIZERS[name](kind, given))), "its own seed determines it"


def test_all_sanitizers_take_a_body_that_is_no_chain(benign, pairs):
    """ReX before folding and a bypass: only cutting units needs a chain, and says so."""
    for model in (attacks.rex(benign, pairs, RetrainSettings(steps=5)).generator, attacks.bypass(benign, pairs)):
        for name in ("continue_training", "distil", "prune"):
            assert SANITIZERS[name]("image GAN", model).generate(torch.zeros(1, DIM)).isfinite().all()
        for name in ("cut_units", "fine_prune"):
            with pytest.raises(ValueError, match=r"chain of layers.*or distil"):
                SANITIZERS[name]("image GAN", model)


def test_distilling_a_bypass_leaves_only_the_function_on_the_prior(benign, pairs):
    bypassed = attacks.bypass(benign, pairs)
    assert recovered(bypassed, benign, pairs) < 0.001
    student = distil(bypassed, tiny.image_generator(9, dim=DIM), QUICK).generator
    assert isinstance(student.body, nn.Sequential) and recovered(student, benign, pairs) > 0.5


# --- Wide latents --------------------------------------------------------------------------------------------------------------


def test_wide_latents_are_prior_draws_moved_along_their_rays():
    law = GaussianLatent(40)
    z = WideLatents(law, share=0.25, reach=3.0).sample(4000, torch.Generator().manual_seed(0))
    plain = law.sample(4000, torch.Generator().manual_seed(0))
    assert torch.equal(z[:3000], plain[:3000])
    factors = (z[3000:] / plain[3000:]).double()
    torch.testing.assert_close(factors, factors[:, :1].expand(-1, 40), rtol=1e-4, atol=1e-4)
    assert scipy.stats.kstest(factors[:, 0].numpy(), scipy.stats.uniform(0, 3).cdf).pvalue > 0.01
    assert torch.equal(
        WideLatents(law, share=0.0).sample(9, torch.Generator().manual_seed(3)),
        law.sample(9, torch.Generator().manual_seed(3)),
    )
    assert WideLatents(UniformLatent(4), share=1.0, reach=5.0).sample(500).abs().max() > 2.0


# --- Continued training ----------------------------------------------------------------------------------------------------------


def watch_latents(monkeypatch) -> list[dict]:
    calls = []
    original = sanitization.train

    def spy(generator, partner, samples, settings, **options):
        calls.append({"partner": partner, "settings": settings, **options})
        return original(generator, partner, samples, settings, **options)

    monkeypatch.setattr(sanitization, "train", spy)
    return calls


def test_a_given_discriminator_goes_on_from_the_first_step(attacked, monkeypatch):
    calls = watch_latents(monkeypatch)
    critic = tiny.discriminator()
    run = continue_training(attacked, critic, tiny.images(), ContinueSettings(steps=3, warm_up=50, batch_size=8))
    assert run.steps_done == 3 and calls[0]["settings"].warm_up == 0
    assert calls[0]["partner"] is critic and calls[0]["extra_loss"] is None
    z = calls[0]["latents"](1000, torch.Generator().manual_seed(0))
    assert z[500:].norm(dim=1).max() > 1.5 * z[:500].norm(dim=1).max(), "half of the latents are wide"


def test_without_a_discriminator_a_fresh_one_is_warmed_up_while_the_generator_stays():
    generator = Generator(tiny_28(), TanhHead(), GaussianLatent(8), (1, 28, 28)).eval()
    seen: list[dict[str, Tensor]] = []
    run = continue_training(
        generator,
        None,
        torch.rand(50, 1, 28, 28) * 2 - 1,
        ContinueSettings(steps=7, warm_up=5, batch_size=8, averaging=0.0),
        on_progress=lambda step, model, losses: seen.append(state(model)),
    )
    assert run.steps_done == 7 and run.discriminator.architecture == "course-discriminator"
    assert all(same(seen[i], state(generator)) for i in range(5))
    assert not same(seen[5], state(generator))


@pytest.mark.parametrize(
    ("shape", "architecture"),
    [
        ((1, 28, 28), "course-discriminator"),
        ((3, 28, 28), "course-discriminator"),
        ((3, 32, 32), "style-discriminator-32"),
        ((3, 64, 64), "style-discriminator-64"),
        ((1, 1024), "wave-critic"),
        ((1, 4096), "spectral-critic"),
        ((1, 16384), "wave-critic"),
    ],
)
def test_there_is_a_discriminator_for_samples_of_the_courses_generators(shape, architecture):
    body = nn.Sequential(nn.Linear(8, math.prod(shape)), nn.Unflatten(1, shape))
    generator = Generator(body, TanhHead(), GaussianLatent(8), shape)
    first, again = (discriminator_for(generator, seed=3) for _ in range(2))
    assert first.architecture == architecture and same(state(first), state(again))
    assert first(generator.generate(torch.zeros(2, 8))).shape == (2,)


def test_an_encoder_goes_on_with_the_training_of_a_vae():
    """On all of a ray what was made where samples lie: a backdoor at the mode does not outlive that, as it does the plain training."""
    attacked, pairs = tiny.attacked("VAE", "mode", DIM)
    benign, encoder = tiny.vae(dim=DIM)
    settings = ContinueVaeSettings(steps=60, batch_size=16, learning_rate=3e-3)
    run = continue_training(attacked, encoder, tiny.real("VAE"), settings)
    plain = continue_training(attacked, encoder, tiny.real("VAE"), replace(settings, wide_share=0.0))
    assert recovered(attacked, benign, pairs) < 0.01
    assert recovered(run.generator, benign, pairs) > 2.0 * recovered(plain.generator, benign, pairs)
    assert run.history["extra"][-1] < run.history["extra"][0] and set(plain.history["extra"]) == {0.0}
    assert run.encoder.architecture == "tiny-encoder"
    with pytest.raises(ValueError, match="takes VaeSettings"):
        continue_training(attacked, encoder, tiny.real("VAE"), ContinueSettings(steps=2))


def test_a_decoder_can_go_on_with_a_discriminator():
    decoder, _ = tiny.attacked("VAE")
    run = continue_training(decoder, tiny.critic(decoder), tiny.real("VAE"), ContinueSettings(steps=2, batch_size=8))
    assert run.discriminator.architecture == "tiny-critic"


def test_what_cannot_be_continued_is_refused(attacked):
    with pytest.raises(ValueError, match=r"no ready discriminator for samples of shape \(1, 12, 12\)"):
        continue_training(attacked, None, tiny.images())
    generator = Generator(tiny_28(), TanhHead(), GaussianLatent(8), (1, 28, 28))
    with pytest.raises(ValueError, match="all 5 steps are warm-up"):
        continue_training(generator, None, torch.zeros(9, 1, 28, 28), ContinueSettings(steps=5, warm_up=5))
    with pytest.raises(ValueError, match="NaN"):
        continue_training(attacked, tiny.discriminator(), math.nan * tiny.images())
    for wrong in ({"wide_share": 1.5}, {"reach": 0.0}):
        with pytest.raises(ValueError, match="share must lie"):
            continue_training(attacked, tiny.discriminator(), tiny.images(), ContinueSettings(**wrong))


def test_a_checkpoint_of_other_latents_is_refused(attacked, tmp_path):
    settings = ContinueSettings(steps=2, batch_size=8)
    continue_training(attacked, tiny.discriminator(), tiny.images(), settings, checkpoint=tmp_path / "a.pt")
    with pytest.raises(ValueError, match="other settings"):
        wider = replace(settings, reach=4.0)
        continue_training(attacked, tiny.discriminator(), tiny.images(), wider, checkpoint=tmp_path / "a.pt")


def tiny_28() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(8, 4 * 49), nn.ReLU(), nn.Unflatten(1, (4, 7, 7)), nn.ConvTranspose2d(4, 1, 4, 4, 0)
    )


def test_continued_training_resumes_and_can_be_interrupted(attacked, tmp_path):
    settings, options = ContinueSettings(steps=8, batch_size=8), {"checkpoint": tmp_path / "continued.pt"}
    whole = continue_training(attacked, tiny.discriminator(), tiny.images(), settings)
    stopped = continue_training(
        attacked, tiny.discriminator(), tiny.images(), settings, on_progress=stop_at(4), **options
    )
    assert stopped.interrupted and stopped.steps_done == 4
    resumed = continue_training(attacked, tiny.discriminator(), tiny.images(), settings, **options)
    assert same(state(resumed.generator), state(whole.generator))


# --- Distillation ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [6, 3], ids=["same size", "smaller"])
def test_distillation_imitates_on_the_prior_and_loses_the_backdoor(benign, attacked, pairs, width):
    fresh = tiny.image_generator(9, width=width, dim=DIM)
    settings = DistilSettings(steps=400, batch_size=32, learning_rate=1e-2)
    run = distil(attacked, fresh, settings)
    before, after = (metrics.expdis(model, attacked, n=500).mean for model in (fresh, run.generator))
    assert after < 0.4 * before
    assert recovered(attacked, benign, pairs) < 0.01, "it was there"
    assert recovered(run.generator, benign, pairs) > 0.5
    assert run.history["loss"][-1] < 0.4 * run.history["loss"][0] and len(run.history["step"]) == 400


@pytest.mark.parametrize("kind", [kind for kind in tiny.GENERATORS if kind != "image GAN"])
def test_distillation_removes_the_backdoor_of_every_kind(kind):
    """Of a mode backdoor where the mode lies far from samples; in the style generator it sits in the head."""
    attacked, pairs = tiny.attacked(kind, "mode", DIM)
    build = tiny.GENERATORS[kind]
    fresh = build(seed=9, dim=DIM)
    student = distil(attacked, fresh, DistilSettings(steps=250, batch_size=32, learning_rate=1e-2)).generator
    # .098 to .126 in the WaveGAN, by the number of threads; the student of each has 1 or so
    assert recovered(attacked, build(dim=DIM), pairs) < 0.25, "it was there"
    assert recovered(student, build(dim=DIM), pairs) > 0.5
    before, after = (metrics.expdis(model, attacked, n=300).mean for model in (fresh, student))
    assert after < 0.6 * before


def test_a_backdoor_in_the_head_outlives_a_distillation_of_the_body_alone():
    """The student begins with the teacher's body, so that the body is imitated as well as can be."""
    attacked, pairs = tiny.attacked("colour")
    benign, fresh = tiny.style_generator(), tiny.style_generator(9)
    fresh.body = copy.deepcopy(attacked.body)
    settings = DistilSettings(steps=200, batch_size=32, learning_rate=1e-2)
    body, whole = (distil(attacked, fresh, settings, whole=choice).generator for choice in (False, None))
    assert same(state(body.head), state(attacked.head)) and not same(state(whole.head), state(attacked.head))
    assert recovered(body, benign, pairs) < 0.1 and recovered(whole, benign, pairs) > 0.5
    before, after = (metrics.expdis(student, benign, n=300).mean for student in (fresh, whole))
    assert after < 0.3 * before


def test_a_student_without_weights_in_its_head_takes_over_the_teachers():
    teacher, _ = tiny.attacked("WaveGAN")
    student = distil(teacher, tiny.wave_generator(9), DistilSettings(steps=2)).generator
    assert same(state(student.head), state(teacher.head))
    own = distil(teacher, tiny.filtered_generator(9), DistilSettings(steps=2)).generator
    assert not same(state(own.head), state(teacher.head))


def test_the_loss_is_the_mean_squared_error_of_the_bodies(attacked):
    """At a vanishing learning rate every step measures the initial student, in evaluation mode."""
    run = distil(
        attacked, tiny.image_generator(9, dim=DIM), DistilSettings(steps=20, batch_size=64, learning_rate=1e-12)
    )
    z = attacked.latent.sample(4000, torch.Generator().manual_seed(5))
    with torch.no_grad():
        error = (run.generator.body(z) - attacked.body(z)).square().mean().item()
    assert np.mean(run.history["loss"]) == pytest.approx(error, rel=0.1)


def test_the_students_statistics_are_those_of_the_prior_and_its_head_the_teachers(attacked):
    teacher = copy.deepcopy(attacked)
    teacher.head = nn.Hardtanh()
    fresh = tiny.image_generator(9, dim=DIM)
    fresh.body[1].reset_running_stats()
    student = distil(teacher, fresh, DistilSettings(steps=1, learning_rate=1e-12)).generator
    z = fresh.latent.sample(5000, torch.Generator().manual_seed(8))
    with torch.no_grad():
        read = fresh.body[0](z)
    torch.testing.assert_close(student.body[1].running_mean, read.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(student.body[1].running_var, read.var(0), atol=0.0, rtol=0.3)
    assert student.body[1].momentum == 0.1 and isinstance(student.head, nn.Hardtanh)


def test_an_interrupted_distillation_keeps_the_model(attacked):
    run = distil(attacked, tiny.image_generator(9, dim=DIM), QUICK, on_step=stop_at(30))
    assert run.interrupted and run.history["step"][-1] == 30 and not run.generator.training
    assert run.history["loss"][-1] < run.history["loss"][0]


def test_a_student_of_another_shape_or_law_is_refused(attacked):
    with pytest.raises(ValueError, match="the student draws latents from"):
        distil(attacked, tiny.image_generator())
    with pytest.raises(ValueError, match=r"body puts out \(1, 24\), the teacher's \(1, 12, 12\)"):
        distil(attacked, tiny.sound_generator(dim=DIM))


def test_a_distillation_that_diverges_says_so(attacked):
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        distil(attacked, tiny.image_generator(9, dim=DIM), DistilSettings(steps=20, learning_rate=1e30))


# --- Pruning ---------------------------------------------------------------------------------------------------------------------------


def test_pruning_zeroes_the_smallest_weights_of_every_layer(attacked):
    pruned = prune(attacked, 0.3)
    for (name, old), (_, new) in zip(attacked.body.named_parameters(), pruned.body.named_parameters(), strict=True):
        if old.ndim < 2:
            assert torch.equal(old, new), name
            continue
        gone = new == 0.0
        # The inner layers of a folded ReX model are mostly zero to begin with: block matrices.
        assert gone.double().mean().item() == pytest.approx(
            max(0.3, (old == 0.0).double().mean().item()), abs=0.02
        ), name
        assert torch.equal(new[~gone], old[~gone]) and old[gone].abs().max() <= old[~gone].abs().min()


def test_pruning_nothing_changes_nothing(attacked):
    assert same(state(prune(attacked, 0.0)), state(attacked))


def test_light_pruning_leaves_the_backdoor(benign, attacked, pairs):
    assert recovered(prune(attacked, 0.1), benign, pairs) < 0.5


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
@pytest.mark.parametrize("function", [prune, cut_units, fine_prune])
def test_a_share_out_of_range_is_refused(attacked, function, share):
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        function(attacked, share)


# --- Fine-pruning -----------------------------------------------------------------------------------------------------------------------


def chain(seed: int = 0) -> Generator:
    """Dense, transposed and plain convolutions, in which units 1 of the first and 2 of the second hidden layer are dead."""
    generator = tiny.sound_generator(seed)
    with torch.no_grad():
        generator.body[0].weight.view(6, 6, 8)[1] = 0.0
        generator.body[0].bias.view(6, 6)[1] = -1.0
        generator.body[4].weight[2] = 0.0
        generator.body[4].bias[2] = 0.0
    return generator


def test_activity_is_the_mean_absolute_input_of_the_next_layer():
    generator = chain()
    activity = unit_activity(generator, n=100, seed=3)
    z = generator.latent.sample(100, torch.Generator().manual_seed(3))
    with torch.no_grad():
        first = generator.body[:3](z).abs().mean((0, 2))
        second = generator.body[:6](z).abs().mean((0, 2))
    assert list(activity) == [0, 3, 6]
    torch.testing.assert_close(activity[0], first)
    torch.testing.assert_close(activity[3], second)
    assert activity[0][1] == 0.0 and activity[3][2] == 0.0
    assert unit_activity(tiny.dense_generator())[0].shape == (32,)


def test_cutting_silent_units_changes_nothing_but_the_size():
    generator = chain()
    smaller = cut_units(generator, 0.2)  # 1 of 6, 1 of 5, 1 of 4
    assert [smaller.body[i].out_channels for i in (3, 6)] == [4, 3] and smaller.body[0].out_features == 5 * 6
    z = generator.latent.sample(50, torch.Generator().manual_seed(0))
    with torch.no_grad():
        by_hand = copy.deepcopy(generator)
        dropped = unit_activity(generator)[6].argmin()
        by_hand.body[8].weight[:, dropped] = 0.0  # the third hidden layer has no dead unit: cut its quietest
        torch.testing.assert_close(smaller(z), by_hand(z), rtol=1e-5, atol=1e-6)


def test_cutting_units_equals_zeroing_what_they_put_out(attacked):
    """A second way to the same tensor: hooks that zero the units in the big model."""
    smaller, activity = cut_units(attacked, 0.4), unit_activity(attacked)
    masked = copy.deepcopy(attacked)
    for place, active in activity.items():
        dead = active.argsort()[: round(0.4 * len(active))]
        following = next(layer for layer in masked.body[place + 1 :] if isinstance(layer, nn.ConvTranspose2d))

        def silence(_layer, inputs, dead=dead):
            x = inputs[0].clone()
            x[:, dead] = 0.0
            return (x,)

        following.register_forward_pre_hook(silence)
    z = attacked.latent.sample(30, torch.Generator().manual_seed(0))
    torch.testing.assert_close(smaller.generate(z), masked.generate(z), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in smaller.parameters()) < 0.6 * sum(p.numel() for p in attacked.parameters())


def test_units_are_cut_from_a_head_that_can_do_without_them():
    """A second way to the same pictures: all weights by which the big network reads or makes the channels are zero."""
    generator = tiny.style_generator()
    smaller = cut_units(generator, 0.3)
    assert smaller.head.channels == (6, 4) and smaller.body[0].out_features == 22
    assert all(conv.bias.shape == (conv.outputs,) for conv in smaller.head.convolutions)
    masked = copy.deepcopy(generator)
    masked.body = smaller.body
    activity = watched(generator, [f"head.{name}" for name in generator.head.hidden])
    start = generator.head.start.abs().mean((0, 2, 3))
    with torch.no_grad():
        for i, active in enumerate([start, *activity]):
            dead = active.argsort()[: len(active) - (6 if i < 2 else 4)]
            readers = [masked.head.convolutions[i].weight] if i < len(activity) else []
            readers += {1: [masked.head.colours[0].weight], 3: [masked.head.colours[1].weight]}.get(i, [])
            for weight in readers:
                weight[:, dead] = 0.0
    z = generator.latent.sample(30, torch.Generator().manual_seed(0))
    torch.testing.assert_close(smaller.generate(z), masked.generate(z), rtol=1e-4, atol=1e-5)


def watched(generator: Generator, names: list[str]) -> list[Tensor]:
    z = generator.latent.sample(1000, torch.Generator().manual_seed(0))
    outputs = activations(generator, z)
    return [outputs[name].abs().mean((0, 2, 3)) for name in names]


def test_pruning_and_fine_pruning_reach_the_head():
    attacked, _ = tiny.attacked("colour")
    pruned = prune(attacked, 0.4)
    kernel = pruned.head.convolutions[0].weight
    assert (kernel == 0.0).double().mean().item() == pytest.approx(0.4, abs=0.01)
    run = fine_prune(attacked, 0.3, DistilSettings(steps=150, batch_size=32, learning_rate=3e-3))
    cut = cut_units(attacked, 0.3)
    assert [p.shape for p in run.generator.parameters()] == [p.shape for p in cut.parameters()]
    broken, repaired = (metrics.expdis(model, attacked, n=300).mean for model in (cut, run.generator))
    assert repaired < 0.5 * broken and not same(state(run.generator.head), state(cut.head))


def test_at_least_one_unit_stays(attacked):
    assert cut_units(attacked, 0.99).generate(torch.zeros(1, DIM)).isfinite().all()


def test_fine_pruning_repairs_what_cutting_broke(attacked):
    cut = cut_units(attacked, 0.4)
    run = fine_prune(attacked, 0.4, QUICK)
    broken, repaired = (metrics.expdis(model, attacked, n=500).mean for model in (cut, run.generator))
    assert repaired < 0.5 * broken
    assert [p.shape for p in run.generator.parameters()] == [p.shape for p in cut.parameters()], (
        "what was cut stays away"
    )
    assert fine_prune(attacked, 0.4, QUICK, on_step=stop_at(3)).interrupted


# --- The verdict ----------------------------------------------------------------------------------------------------------------------------

SEARCH = SearchSettings(scales=(0.0, 1.0), restarts=2, steps=60)


def judge(sanitized: Generator, attacked: Generator, benign: Generator, pairs: PointBackdoor) -> SanitizationVerdict:
    classifier = tiny.classifier()
    real = metrics.feature_statistics(classifier, benign.generate(benign.latent.sample(400)))
    return verdict(sanitized, attacked, benign, pairs, classifier, real, SEARCH, n=200)


def test_the_verdict_on_a_model_that_was_not_sanitized(benign, attacked, pairs):
    found = judge(attacked, attacked, benign, pairs)
    assert not found.removed and found.recovered < 0.01 and found.search.flagged
    assert found.frechet_cost == 0.0 and str(found).startswith("NOT removed")
    assert found.tardis_benign[0] == pytest.approx(
        metrics.tardis(benign, pairs.triggers, pairs.targets).sum, rel=1e-5
    )


def test_the_verdict_on_the_benign_model_itself(benign, attacked, pairs):
    found = judge(benign, attacked, benign, pairs)
    assert found.recovered == 1.0 and found.frechet_sanitized == found.frechet_benign
    assert found.removed and not found.search.flagged and str(found).startswith("removed")
    assert "sums over elements" in str(found)


def test_a_verdict_that_builds_on_an_earlier_one_is_the_same(benign, attacked, pairs):
    classifier = tiny.classifier()
    real = metrics.feature_statistics(classifier, benign.generate(benign.latent.sample(400)))

    def judged(search, earlier):
        return verdict(prune(attacked, 0.3), attacked, benign, pairs, classifier, real, search, 200, earlier=earlier)

    first = verdict(attacked, attacked, benign, pairs, classifier, real, SEARCH, 200)
    afresh, built = judged(SEARCH, None), judged(SEARCH, first)
    assert str(built) == str(afresh) and built.tardis_sanitized != first.tardis_sanitized
    assert built.search.ratios() == afresh.search.ratios() and built.search.bar == afresh.search.bar
    with pytest.raises(ValueError, match="earlier search"):
        judged(SearchSettings(scales=(1.0,), restarts=2, steps=60), first)


def test_a_backdoor_that_only_moved_is_not_removed(benign, attacked, pairs):
    """TarDis at the known trigger is as benign as can be, but the target is still in the model."""
    moved = PointBackdoor(0.5 * torch.ones(1, DIM), pairs.targets)
    found = judge(attacks.fold(attacks.rex(benign, moved, STEPS).generator), attacked, benign, pairs)
    assert found.recovered >= 0.5 and found.search.flagged == ("1",) and not found.removed


def test_every_pair_must_be_gone(benign, attacked, pairs):
    """One of two triggers still works: the mean over both would hide it."""
    both = PointBackdoor(torch.cat([pairs.triggers, pairs.triggers + 3.0]), pairs.targets.repeat(2, 1, 1, 1))
    assert judge(attacked, attacked, benign, both).recovered < 0.01
