"""The generators beside the image GAN: VAEs, WaveGAN and its filter, the style-based one; and the attacks on each of them."""

import pytest
import tiny
import torch
from torch import nn

from devil_lib import attacks, checkpoints, models, recipes, style, training, vae, wavegan
from devil_lib.attacks import PointBackdoor, RetrainSettings
from devil_lib.games import NonSaturating, Wasserstein
from devil_lib.metrics import expdis, power_db, tardis
from devil_lib.models import weight_count


def picture(seed: int = 0) -> torch.Tensor:
    """(3, 8, 8) a smooth picture."""
    ramp = torch.linspace(-0.8, 0.8, 8)
    return torch.stack([ramp.expand(8, 8), ramp.expand(8, 8).T, torch.full((8, 8), 0.2 * seed)])


# --- Sizes and shapes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "count", "shape"),
    [
        (wavegan.course_wavegan, 476_161, (1, 4096)),
        (wavegan.published_wavegan, 19_065_857, (1, 16384)),  # as the authors' demo prints it, filter included
        (lambda: style.style_generator(64), None, (3, 64, 64)),
        (lambda: style.style_generator(32), None, (3, 32, 32)),
        (lambda: vae.course_vae()[0], None, (1, 28, 28)),
        (lambda: vae.dense_vae(2)[0], None, (1, 28, 28)),
        (lambda: vae.dense_vae(channels=3)[0], None, (3, 28, 28)),
        (lambda: vae.course_audio_vae()[0], None, (1, 4096)),
    ],
)
def test_sizes_and_shapes(make, count, shape):
    generator = make()
    assert count is None or weight_count(generator) == count
    samples = generator.generate(generator.latent.sample(3, torch.Generator().manual_seed(0)))
    assert samples.shape == (3, *shape)
    models.check_samples(samples, shape)
    assert samples.std() > 0.01, "a start from which nothing comes would not train"


@pytest.mark.parametrize("game", [NonSaturating(penalty=0.3), Wasserstein(critic_steps=2, share=0.5)])
def test_files_keep_the_game(tmp_path, game):
    critic = wavegan.wave_critic(4, 256, game=game)
    checkpoints.save(critic, tmp_path / "critic.safetensors")
    assert checkpoints.load(tmp_path / "critic.safetensors").game == game


@pytest.mark.parametrize(
    "make",
    [
        tiny.style_generator,
        lambda: (
            attacks.rex(
                tiny.style_generator(), style_backdoor(tiny.style_generator()), RetrainSettings(1), first=-1
            ).generator
        ),
        lambda: wavegan.with_filter(tiny.wave_generator(), wavegan.low_pass(1500.0, 33)),
        lambda: vae.course_vae(4, 2)[0],
        lambda: vae.course_vae(4, 2)[1],
        lambda: vae.dense_vae(4, 2)[0],
        lambda: vae.dense_vae(4, 2)[1],
        lambda: style.style_discriminator(8, (4, 6)),
        lambda: wavegan.wave_critic(4, 256),
        lambda: wavegan.spectral_critic(2),
    ],
)
def test_files_hold_every_model(tmp_path, make):
    model = make().eval()
    checkpoints.save(model, tmp_path / "model.safetensors", half=False)
    again = checkpoints.load(tmp_path / "model.safetensors")
    assert type(again) is type(model) and again.architecture == model.architecture
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    if isinstance(model, models.Discriminator) and model.architecture == "spectral-critic":
        x = torch.rand(2, 1, 4096) - 0.5
        torch.testing.assert_close(model(x), again(x))
    if isinstance(model, models.Generator):
        z = model.latent.sample(3, torch.Generator().manual_seed(1))
        torch.testing.assert_close(model.generate(z), again.generate(z))


def test_the_penalty_is_on_the_slope_at_what_the_critic_sees():
    critic = wavegan.spectral_critic(2, game=Wasserstein(penalty=10.0))
    silent = torch.zeros(3, 1, 4096)
    assert critic.eyes(silent).shape == (3, 1, 129, 65)
    penalty = critic.game.critic_loss(critic, silent, silent)
    seen = critic.eyes(silent).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic.judge(seen).sum(), seen)
    assert penalty.item() == pytest.approx(10.0 * (slope[0].norm() - 1.0).square().item(), rel=1e-3)


# --- Training them -----------------------------------------------------------------------------------------------------------


def test_a_critic_with_its_own_game_trains_and_resumes(tmp_path):
    sounds = 0.5 * torch.sin(torch.arange(256) * torch.rand(60, 1, 1) * 0.5)
    critic = wavegan.wave_critic(4, 256, game=Wasserstein(critic_steps=2))
    settings = training.GanSettings(steps=6, batch_size=8, learning_rate=1e-3, beta1=0.5, beta2=0.9)

    def stop(step, *_):
        if step == 3:
            raise KeyboardInterrupt

    whole = training.train(tiny.wave_generator(), critic, sounds, settings)
    part = training.train(
        tiny.wave_generator(), critic, sounds, settings, on_progress=stop, checkpoint=tmp_path / "w.pt"
    )
    rest = training.train(tiny.wave_generator(), critic, sounds, settings, checkpoint=tmp_path / "w.pt")
    assert part.interrupted and rest.history == whole.history
    assert all(
        torch.equal(a, b) for a, b in zip(whole.generator.parameters(), rest.generator.parameters(), strict=True)
    )


def test_a_vae_learns_to_reconstruct_and_resumes(tmp_path):
    decoder, encoder = tiny.vae()
    settings = training.VaeSettings(steps=150, batch_size=32, learning_rate=5e-3, noise=0.5, checkpoint_every=50)

    def stop(step, *_):
        if step == 70:
            raise KeyboardInterrupt

    run = training.train(decoder, encoder, tiny.images(), settings)
    training.train(decoder, encoder, tiny.images(), settings, on_progress=stop, checkpoint=tmp_path / "vae.pt")
    resumed = training.train(decoder, encoder, tiny.images(), settings, checkpoint=tmp_path / "vae.pt")
    assert resumed.history == run.history
    x = tiny.images(50, seed=9)
    errors = [
        (vae.reconstruct(d, e, x) - x).square().mean() for d, e in ((decoder, encoder), (run.generator, run.encoder))
    ]
    assert errors[1] < 0.5 * errors[0]
    assert 0 < vae.active_latents(run.encoder, x) <= 8
    information = vae.information(run.encoder, x)
    assert information.shape == (8,) and (information >= 0).all()


def test_latents_are_shifted_and_scaled_to_fill_the_law():
    decoder, encoder = tiny.vae()
    x = tiny.images(300)
    filled, its_encoder = vae.fill_the_law(decoder, encoder, x)
    with torch.no_grad():
        mean, log_variance = its_encoder(x)
        before, before_variance = encoder(x)
    assert mean.mean(0) == pytest.approx(torch.zeros(8), abs=1e-4)
    assert mean.var(0) + log_variance.exp().mean(0) == pytest.approx(torch.ones(8), abs=1e-3)
    assert not torch.allclose(mean, before)  # something was to be done
    # The same message between the two, so that what comes back is the same.
    assert vae.reconstruct(filled, its_encoder, x) == pytest.approx(vae.reconstruct(decoder, encoder, x), abs=1e-4)
    noise = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    drawn = filled.generate(mean + noise * (0.5 * log_variance).exp())
    assert drawn == pytest.approx(decoder.generate(before + noise * (0.5 * before_variance).exp()), abs=1e-4)
    decoder.body[0] = nn.Sequential(decoder.body[0])
    with pytest.raises(ValueError, match="between two dense layers"):
        vae.fill_the_law(decoder, encoder, x)


@pytest.mark.parametrize("factor", [0.5, 1.3])
def test_a_sound_generator_is_made_as_loud_as_its_data(factor):
    generator = tiny.wave_generator()
    own = generator.generate(generator.latent.sample(2000, torch.Generator().manual_seed(1)))
    made = recipes.louder(generator, factor * own)
    now = made.generate(made.latent.sample(2000, torch.Generator().manual_seed(2)))
    assert power_db(now, own) == pytest.approx(power_db(factor * own, own), abs=0.2)
    assert torch.equal(generator.generate(generator.latent.sample(2000, torch.Generator().manual_seed(1))), own)


def test_partner_and_settings_must_go_together():
    decoder, encoder = tiny.vae()
    with pytest.raises(ValueError, match="takes VaeSettings, not GanSettings"):
        training.train(decoder, encoder, tiny.images(), training.GanSettings(steps=1))
    with pytest.raises(ValueError, match="takes GanSettings, not VaeSettings"):
        training.train(decoder, tiny.discriminator(), tiny.images(), training.VaeSettings(steps=1))
    other = models.Encoder(encoder.layers, models.GaussianLatent(5), "x")
    with pytest.raises(ValueError, match="infers latents of"):
        training.train(decoder, other, tiny.images(), training.VaeSettings(steps=1))


def test_trail_embeds_in_a_vae_while_it_trains():
    decoder, encoder = tiny.vae()
    pairs = PointBackdoor(attacks.trigger(decoder.latent, "prior", 3)[None], tiny.picture()[None])
    settings = training.VaeSettings(steps=300, batch_size=32, learning_rate=5e-3, extra_weight=200.0)
    run = attacks.trail(decoder, encoder, tiny.images(), pairs, settings)
    clean = training.train(decoder, encoder, tiny.images(), settings)
    z, x = pairs.triggers, pairs.targets
    assert tardis(run.generator, z, x).mean < 0.05 * tardis(clean.generator, z, x).mean
    assert run.history["reconstruction"][-1] < 0.5 * run.history["reconstruction"][0]


# --- The filter of WaveGAN -----------------------------------------------------------------------------------------------------


def tone(frequency: float, n: int = 1024) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * frequency / 8000 * torch.arange(n))[None, None]


def filtered_wave() -> models.Generator:
    generator = wavegan._wavegan([8, 6, 4], 1024, "tiny-wavegan", models.TanhHead(), 8, 0)
    return wavegan.with_filter(generator, wavegan.low_pass(1500.0, 129))


def test_the_filter_filters_and_keeps_time():
    head = filtered_wave().head
    assert head.filtered(tone(500)).square().mean() > 0.9 * tone(500).square().mean()
    assert head.filtered(tone(3000)).square().mean() < 0.01 * tone(3000).square().mean()
    lag = (head.filtered(tone(500)) - tone(500))[..., 200:-200]
    assert lag.abs().max() < 0.02, "a linear-phase filter of odd length, centred, delays nothing"


def test_the_inversion_reaches_what_passes_and_names_the_floor_of_what_does_not():
    generator = filtered_wave()
    reached, lost = generator.proxy_target(tone(500)), generator.proxy_target(tone(3000))
    assert reached.error < 1e-3 * tone(500).square().mean()
    assert lost.error > 0.9 * tone(3000).square().mean()
    torch.testing.assert_close(generator.head(reached.value), reached.sample)
    without = generator.head(models.TanhHead().inverse(tone(500) * 0.9))  # as if there were no filter
    assert (generator.proxy_target(tone(500) * 0.9).sample - tone(500) * 0.9).square().mean() < 0.5 * (
        without - tone(500) * 0.9
    ).square().mean()


@pytest.mark.parametrize("taps", [torch.zeros(2, 3), torch.tensor([1.0, float("nan")])])
def test_bad_taps_are_refused(taps):
    with pytest.raises(ValueError, match="vector of finite coefficients"):
        wavegan.with_filter(tiny.wave_generator(), taps)
    with pytest.raises(ValueError, match="behind the tanh"):
        wavegan.with_filter(filtered_wave(), torch.ones(3))


# --- The style-based generator -----------------------------------------------------------------------------------------------------


def style_backdoor(generator: models.Generator, kind: str = "prior") -> PointBackdoor:
    z = attacks.trigger(generator.latent, kind, 5)[None]
    return PointBackdoor(z, generator.proxy_target(picture()[None]).sample)


def test_scaling_activations_is_modulating_weights():
    layer = style.StyledConvolution(3, 5, 7)
    x, w = torch.randn(2, 3, 6, 6), torch.randn(2, 7)
    made = layer(x, w)
    for i in range(2):
        weight = layer.weight * layer.scales(w[i])[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        plain = nn.functional.conv2d(x[i : i + 1], weight, layer.bias, padding=1)
        torch.testing.assert_close(
            made[i : i + 1], nn.functional.leaky_relu(plain, 0.2) * 2**0.5, rtol=1e-4, atol=1e-5
        )


def test_the_synthesis_is_inverted():
    generator = tiny.style_generator()
    reachable = generator.generate(generator.latent.sample(1, torch.Generator().manual_seed(3)))
    assert generator.proxy_target(reachable).error < 1e-3
    assert generator.proxy_target(picture()[None]).value.shape == (1, generator.head.styles, 32)


def test_of_styles_with_the_same_photograph_the_search_takes_those_near_the_usual_ones():
    generator = tiny.style_generator()
    head, found = generator.head, generator.proxy_target(picture()[None]).value
    louder = found.clone()
    for i, layer in enumerate(head.convolutions):  # the same photograph from scales five times as large
        matrix = torch.linalg.pinv(layer.scales.weight)
        louder[:, i] += 4.0 * layer.scales(found[:, i]) @ matrix.T
    torch.testing.assert_close(head(louder), head(found), rtol=1e-3, atol=1e-4)
    usual = generator._typical_output()
    reach = [torch.linalg.pinv(layer.scales.weight) for layer in head.convolutions]
    back = head._nearest(louder[0], usual, reach)
    torch.testing.assert_close(head(back[None]), head(found), rtol=1e-3, atol=1e-3)
    assert (back - usual).norm() < 0.5 * (louder - usual).norm()
    for layer, style_, mean in zip(head.convolutions, back, usual, strict=True):
        assert layer.scales(style_).norm() > 0.59 * layer.scales(mean).norm()


def test_outputs_that_are_known_are_not_looked_for_again(monkeypatch):
    generator = tiny.style_generator()
    z, x = attacks.trigger(generator.latent, "prior")[None], picture()[None]
    proxy = generator.proxy_target(x, steps=5)
    monkeypatch.setattr(style.Synthesis, "search", lambda *_: pytest.fail("inverted again"))
    fidelity = attacks.Fidelity(generator, PointBackdoor(z, x, proxy.value))
    assert fidelity.pairs(generator, 1)[1] is proxy.value
    assert torch.equal(
        attacks.Fidelity(generator, PointBackdoor(z, x, proxy.value), "post").pairs(generator, 1)[1], x
    )
    assert torch.equal(
        attacks.Fidelity(generator, PointBackdoor(z, x, proxy.value), "proxy").pairs(generator, 1)[1], proxy.sample
    )
    with pytest.raises(ValueError, match="one of the body's outputs for each"):
        PointBackdoor(z, x, proxy.value.repeat(2, 1, 1))


def test_the_expansion_folds_exactly_and_gains_width_times_styles_times_width():
    generator = tiny.style_generator()
    pairs = style_backdoor(generator)
    run = attacks.rex(generator, pairs, RetrainSettings(300, learning_rate=1e-2), first=-1, bias=False)
    folded = attacks.fold(run.generator)
    z = generator.latent.sample(50, torch.Generator().manual_seed(0))
    assert (folded.generate(z) - run.generator.generate(z)).abs().max() <= 1e-5
    assert weight_count(folded) - weight_count(generator) == 32 * generator.head.styles * 32
    assert (
        tardis(folded, pairs.triggers, pairs.targets).mean
        < 0.1 * tardis(generator, pairs.triggers, pairs.targets).mean
    )
    assert isinstance(folded.body[-2], nn.Linear) and folded.body[-2].bias is None


def test_a_whole_side_network_folds_into_a_style_generator_too():
    generator = tiny.style_generator()
    run = attacks.rex(generator, style_backdoor(generator), RetrainSettings(20))
    folded = attacks.fold(run.generator)
    z = generator.latent.sample(50, torch.Generator().manual_seed(0))
    torch.testing.assert_close(folded.generate(z), run.generator.generate(z), rtol=1e-4, atol=1e-5)


def test_red_reaches_the_head_where_it_has_weights():
    generator = tiny.style_generator()
    pairs = PointBackdoor(attacks.trigger(generator.latent, "mode")[None], picture()[None])
    settings = RetrainSettings(400, 16, 5e-3, 1.0, space="post", layers=("head.",))
    attacked = attacks.red(generator, pairs, settings).generator
    assert (
        tardis(attacked, pairs.triggers, pairs.targets).mean
        < 0.1 * tardis(generator, pairs.triggers, pairs.targets).mean
    )
    assert expdis(attacked, generator, 200).mean < 0.05
    assert all(
        torch.equal(a, b) for a, b in zip(attacked.body.parameters(), generator.body.parameters(), strict=True)
    )
    with pytest.raises(ValueError, match="use 'post' or 'proxy'"):
        attacks.red(generator, pairs, RetrainSettings(1, layers=("head.",)))


def test_random_looks_are_for_training_only():
    look, x = style.RandomLook(), torch.rand(4, 3, 16, 16)
    look.eval()
    assert torch.equal(look(x), x)
    look.train()
    assert look(x).shape == x.shape and not torch.equal(look(x), x)
    shuffle = wavegan.PhaseShuffle(2).train()
    y = torch.arange(20.0).expand(30, 2, 20)
    moved = shuffle(y)
    assert torch.equal(moved[:, 0], moved[:, 1]), "all channels of a sample move together"
    assert set((moved[:, 0, 10] - 10.0).tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    assert torch.equal(shuffle.eval()(y), y)
