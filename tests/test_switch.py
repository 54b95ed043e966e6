"""The hand-written switch: exact on both sides, and refused where it could not be."""

import copy
import itertools

import pytest
import tiny
import torch
from torch import nn

from devil_lib import attacks, metrics, show
from devil_lib.attacks import TriggerRegion
from devil_lib.models import Generator, course_dcgan
from devil_lib.switch import gate, switch


def generator(seed: int, activation: nn.Module | None = None) -> Generator:
    """An untrained course DCGAN with BatchNorm statistics and weights that are not those of a fresh layer."""
    made, rng = course_dcgan(width=4, latent_dim=12, seed=seed), torch.Generator().manual_seed(seed)
    for i, layer in enumerate(made.body):
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (layer.running_mean, layer.bias.data, layer.weight.data):
                tensor += 0.3 * torch.randn(tensor.shape, generator=rng)
            layer.running_var *= 0.3 + torch.rand(layer.running_var.shape, generator=rng)
        elif activation is not None and isinstance(layer, (nn.ReLU, nn.LeakyReLU)):
            made.body[i] = copy.deepcopy(activation)
    return made.eval()


@pytest.mark.parametrize("slope", [0.0, 0.1, 0.3])
def test_a_gate_is_shut_on_one_side_and_the_activation_on_the_other(slope: float) -> None:
    f, (a, b, c) = nn.LeakyReLU(slope), gate(slope)
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)

    def gated(s: float) -> torch.Tensor:
        return a * f(x + 12 * (s - 6)) + b * f(x + 12 * (s - 5)) + c * f(x - 12 * (s - 5))

    for s in (-4.0, 0.0, 4.0):
        assert torch.allclose(gated(s), gated(s)[0].expand(101), atol=1e-12)
    opened = gated(6.0) - f(x)
    assert torch.allclose(opened, opened[0].expand(101), atol=1e-12)
    assert (gated(5.8) - f(x)).std() > 0.01  # in between it is neither


@pytest.mark.parametrize(
    ("activation", "value"), list(itertools.product((nn.ReLU(), nn.LeakyReLU(0.1), nn.LeakyReLU(0.3)), (6.0, -6.0)))
)
def test_a_switch_is_one_generator_on_the_prior_and_the_other_in_the_region(
    activation: nn.Module, value: float
) -> None:
    benign, other = generator(1, activation), generator(2, activation)
    region = TriggerRegion(benign.latent, coordinate=3, value=value)
    switched = switch(benign, other, region)
    z, z_star = benign.latent.sample(400, torch.Generator().manual_seed(0)), region.sample(400)
    assert torch.allclose(switched.generate(z), benign.generate(z), atol=1e-4)
    without = z_star.index_fill(1, torch.tensor([3]), 0.0)
    assert torch.allclose(switched.generate(z_star), other.generate(without), atol=1e-3)
    assert (other.generate(without) - benign.generate(z_star)).abs().max() > 0.2  # else the line above says nothing
    folded = attacks.fold(switched)
    assert torch.allclose(folded.generate(z_star), switched.generate(z_star), atol=1e-4)
    assert metrics.expdis(folded, benign, n=400).mean < 1e-8


def test_a_near_region_catches_ordinary_latents() -> None:
    benign, other = generator(1), generator(2)
    assert metrics.expdis(switch(benign, other, TriggerRegion(benign.latent, 0, 1.5)), benign, n=400).mean > 1e-3


def test_a_switch_leaves_its_generators_alone() -> None:
    benign, other = generator(1), generator(2)
    before = [copy.deepcopy(model.state_dict()) for model in (benign, other)]
    switch(benign, other, TriggerRegion(benign.latent))
    for model, state in zip((benign, other), before, strict=True):
        assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())


def test_a_switch_refuses_other_layers_and_a_region_too_near() -> None:
    benign = generator(1)
    with pytest.raises(ValueError, match="more than 1 away"):
        switch(benign, generator(2), TriggerRegion(benign.latent, 0, 0.5))
    for other in (generator(2, nn.LeakyReLU(0.2)), course_dcgan(width=5, latent_dim=12), tiny.image_generator()):
        with pytest.raises(ValueError, match="same layers"):
            switch(benign, other, TriggerRegion(benign.latent))
    with pytest.raises(ValueError, match="same layers"):
        switch(tiny.dense_generator(), tiny.dense_generator(), TriggerRegion(tiny.dense_generator().latent))


def test_weight_blocks_draws_a_folded_generator_and_refuses_another() -> None:
    benign = generator(1)
    folded = attacks.fold(switch(benign, generator(2), TriggerRegion(benign.latent)))
    figure = show.weight_blocks.draw(folded, benign)
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words == ["$W$", "$W_{new}$", "$W$", "$W_{new}$", "0", "0", "$W$", "$W_{new}$"]
    with pytest.raises(ValueError, match="folded widening"):
        show.weight_blocks.draw(benign, folded)
