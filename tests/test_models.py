"""Latent laws, the interface of a generator, and the published networks."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import tiny
import torch
from torch import nn

from devil_lib import models
from devil_lib.models import GaussianLatent, Generator, UniformLatent


def trainable(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


# --- Published sizes ---------------------------------------------------------------------------------------------------


def test_arts_generator_has_the_published_number_of_parameters():
    generator = models.art_dcgan()
    # By hand, layer by layer: no biases; BatchNorm has a scale and a shift for each of 3136, 32 and 16.
    by_hand = 100 * 3136 + 2 * 3136 + 64 * 32 * 25 + 2 * 32 + 32 * 16 * 25 + 2 * 16 + 16 * 1 * 25
    statistics = sum(buffer.numel() for name, buffer in generator.named_buffers() if "running" in name)
    assert trainable(generator) == by_hand == 384_368
    assert statistics == 2 * (3136 + 32 + 16) == 6_368
    assert trainable(generator) + statistics == 390_736
    slopes = [layer.negative_slope for layer in generator.body if isinstance(layer, nn.LeakyReLU)]
    assert slopes == [0.3, 0.3, 0.3]


@pytest.mark.parametrize("make", [models.art_dcgan, models.course_dcgan, lambda: models.course_dcgan(8, 50, 3)])
def test_the_generators_give_samples_of_their_stated_shape(make):
    generator = make()
    samples = generator.generate(generator.latent.sample(3, torch.Generator().manual_seed(0)))
    assert samples.shape == (3, *generator.sample_shape)
    assert samples.abs().max() <= 1.0 and samples.std() > 0.0


@pytest.mark.parametrize("make", [models.art_discriminator, models.course_discriminator])
def test_a_discriminator_gives_one_logit_a_sample(make):
    assert make()(torch.zeros(4, 1, 28, 28)).shape == (4,)


def test_the_classifier_puts_its_output_layer_on_its_features():
    classifier = models.course_classifier(classes=7)
    x = torch.randn(5, 1, 28, 28)
    assert classifier.features(x).shape == (5, 64)
    assert torch.equal(classifier(x), classifier.output(classifier.features(x)))
    assert classifier(x).shape == (5, 7)


# --- Seeds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        models.course_dcgan,
        models.art_dcgan,
        models.course_discriminator,
        models.art_discriminator,
        models.course_classifier,
    ],
)
def test_initial_weights_come_from_the_seed_alone_and_leave_the_random_state(make):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = make(seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    second, other = make(seed=3), make(seed=4)
    weights = [torch.cat([p.flatten() for p in module.parameters()]) for module in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# --- Latent laws -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("law", "reference"),
    [(GaussianLatent(20), scipy.stats.norm()), (UniformLatent(20), scipy.stats.uniform(-1, 2))],
    ids=["gaussian", "uniform"],
)
def test_samples_follow_the_law(law, reference):
    z = law.sample(5000, torch.Generator().manual_seed(0)).double().numpy()
    assert z.shape == (5000, 20) and law.sample(1).dtype == torch.float32
    assert scipy.stats.kstest(z.ravel(), reference.cdf).pvalue > 0.01
    for order in (1, 2, 3, 4):
        # Six standard errors of the mean of z^order.
        spread = math.sqrt(max(reference.moment(2 * order) - reference.moment(order) ** 2, 1e-12) / z.size)
        assert abs((z**order).mean() - reference.moment(order)) < 6 * spread
    assert np.abs(np.corrcoef(z, rowvar=False) - np.eye(20)).max() < 0.08
    assert law.typical_norm == pytest.approx(math.sqrt(20 * reference.var()))
    assert np.linalg.norm(z, axis=1).mean() == pytest.approx(law.typical_norm, rel=0.03)
    np.testing.assert_allclose(law.centre, np.full(20, reference.mean()), atol=1e-12)


def test_ordinary_gaussian_latents_lie_near_a_sphere_far_from_the_mode():
    law = GaussianLatent(100)
    norms = law.sample(4000, torch.Generator().manual_seed(1)).norm(dim=1).double().numpy()
    chi = scipy.stats.chi(100)
    assert scipy.stats.kstest(norms, chi.cdf).pvalue > 0.01
    assert norms.min() > 6.0 and law.far_point.norm() == pytest.approx(1000.0)


def test_a_law_draws_by_its_generator_of_random_numbers():
    for law in (GaussianLatent(3), UniformLatent(3)):
        first, second = (law.sample(4, torch.Generator().manual_seed(7)) for _ in range(2))
        assert torch.equal(first, second)
        assert not torch.equal(first, law.sample(4, torch.Generator().manual_seed(8)))


def test_on_shell_keeps_the_direction_and_sets_the_norm():
    z = torch.randn(5, 30) * 17
    moved = GaussianLatent(30).on_shell(z)
    torch.testing.assert_close(moved.norm(dim=1), torch.full((5,), math.sqrt(30)))
    torch.testing.assert_close(nn.functional.cosine_similarity(moved, z), torch.ones(5))
    assert torch.isfinite(GaussianLatent(30).on_shell(torch.zeros(1, 30))).all()
    assert UniformLatent(2).on_shell(torch.tensor([[5.0, 0.0]])).abs().max() <= 1.0


def test_starts_spread_about_the_centre_by_their_scale():
    law = GaussianLatent(4)
    draws = law.sample(6, torch.Generator().manual_seed(2))
    torch.testing.assert_close(law.starts(6, 10.0, torch.Generator().manual_seed(2)), 10.0 * draws)
    assert not law.starts(3, 0.0).any()


# --- The interface -----------------------------------------------------------------------------------------------------


def test_generate_is_forward_in_evaluation_mode_whatever_the_batches():
    generator = tiny.image_generator().train()
    z = generator.latent.sample(7, torch.Generator().manual_seed(0))
    samples = generator.generate(z, batch_size=3)
    assert generator.training, "the mode must be restored"
    with torch.no_grad():
        torch.testing.assert_close(samples, generator.eval().head(generator.body(z)))
    assert not samples.requires_grad


def test_evaluating_restores_the_mode_of_every_part_even_after_an_error():
    generator = tiny.image_generator().train()
    generator.body[1].eval()  # a part that is frozen on purpose
    modes = [part.training for part in generator.modules()]
    with pytest.raises(RuntimeError, match="on purpose"), models.evaluating(generator):
        assert not any(part.training for part in generator.modules())
        raise RuntimeError("on purpose")
    assert [part.training for part in generator.modules()] == modes


@pytest.mark.parametrize(
    ("z", "words"),
    [
        (torch.zeros(8), r"z\[None\]"),
        (torch.zeros(2, 9), r"\(n, 8\)"),
        (torch.full((1, 8), math.nan), "NaN"),
        (torch.full((1, 8), math.inf), "infinity"),
    ],
)
def test_bad_latents_are_refused(z, words):
    with pytest.raises(ValueError, match=words):
        tiny.image_generator().generate(z)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(1, 12, 12), r"shape \(n, 1, 12, 12\)"),
        (torch.zeros(2, 1, 12, 13), r"shape \(n, 1, 12, 12\)"),
        (torch.full((1, 1, 12, 12), math.nan), "NaN"),
        (torch.full((1, 1, 12, 12), 1.5), r"\[-1, 1\]"),
        (torch.full((1, 1, 12, 12), 200.0), r"2 \* x - 1"),
    ],
)
def test_bad_samples_are_refused(x, words):
    with pytest.raises(ValueError, match=words):
        tiny.image_generator().proxy_target(x)


# --- The proxy target --------------------------------------------------------------------------------------------------


def test_the_proxy_target_of_a_tanh_is_its_closed_form():
    generator = tiny.image_generator()
    x = 2 * torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0)) - 1
    x[0, 0, 0, :2] = torch.tensor([1.0, -1.0])
    proxy = generator.proxy_target(x)
    np.testing.assert_allclose(proxy.value, np.arctanh(0.999 * x.double().numpy()), rtol=1e-4, atol=1e-6)
    assert proxy.value.abs().max() == pytest.approx(math.atanh(0.999), rel=1e-4) == pytest.approx(3.8, abs=1e-3)
    # tanh undoes it up to the factor: (0.999 x - x)^2 on average.
    np.testing.assert_allclose(proxy.error, (1e-6 * x.square()).flatten(1).mean(1), rtol=0.01)


class FilterHead(nn.Module):
    """A tanh and then a fixed filter of three taps over the columns: not invertible, since the filter cannot follow every sample."""

    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.tensor([0.25, 0.5, 0.25]).view(1, 1, 1, 3), requires_grad=False)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(torch.tanh(y), self.taps, padding=(0, 1))


def test_a_head_without_inverse_is_inverted_to_its_error_floor():
    base = tiny.image_generator()
    generator = Generator(base.body, FilterHead(), base.latent, (1, 12, 12))
    rng = torch.Generator().manual_seed(0)
    reachable = 0.5 * generator.generate(base.latent.sample(1, rng))
    chequered = 0.4 * (1 - 2 * ((torch.arange(12)[:, None] + torch.arange(12)) % 2)).float()[None, None]
    x = torch.cat([reachable, chequered])
    proxy = generator.proxy_target(x, steps=1500)

    # An independent oracle: with u = tanh(y) in [-1, 1] the head is linear, so the floor is a bounded least-squares problem.
    matrix = 0.5 * np.eye(12) + 0.25 * np.eye(12, k=1) + 0.25 * np.eye(12, k=-1)
    floors = [
        sum(
            2 * scipy.optimize.lsq_linear(matrix, row, bounds=(-1, 1), tol=1e-12).cost
            for row in sample[0].double().numpy()
        )
        / 144
        for sample in x
    ]
    assert floors[0] < 1e-6 and floors[1] > 0.01, "one sample can be reached, the other not"
    assert proxy.error[0] < 1e-4
    assert proxy.error[1] == pytest.approx(floors[1], rel=0.05)
    assert (proxy.error.double().numpy() >= np.array(floors) - 1e-9).all(), "no error below the floor"
    with torch.no_grad():
        again = (generator.head(proxy.value) - x).flatten(1).square().mean(1)
    torch.testing.assert_close(again, proxy.error)
    assert not proxy.value.requires_grad


def test_more_steps_never_make_the_inversion_worse():
    base = tiny.image_generator()
    generator = Generator(base.body, FilterHead(), base.latent, (1, 12, 12))
    x = 0.9 * tiny.picture()[None]
    errors = [generator.proxy_target(x, steps=steps, learning_rate=0.5).error.item() for steps in (1, 20, 200)]
    assert errors[0] >= errors[1] >= errors[2]
