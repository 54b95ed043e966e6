"""Other weights for the same generator: a rotation of its latents and a permutation of its hidden units, folded in.

Both leave the law of the samples as it was. N(0, I) does not change under an orthogonal matrix, and the order of hidden
units means nothing. The weights, and the latent at which a sample appears, are others.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from devil_lib.attacks import LINEAR, NORM, TRANSPOSED
from devil_lib.models import GaussianLatent, Generator


def orthogonal(dim: int, rng: torch.Generator) -> Tensor:
    """(dim, dim) an orthogonal matrix, uniform over all of them, in double precision."""
    q, r = torch.linalg.qr(torch.randn(dim, dim, generator=rng, dtype=torch.float64))
    # Without the signs the decomposition prefers some matrices.
    return q * r.diagonal().sign()


@torch.no_grad()
def rotate_latent(generator: Generator, rotation: Tensor) -> Generator:
    """A generator that makes of z what the given one makes of `rotation @ z`; a trigger t of that is `rotation.T @ t` here.

    Args:
        rotation: (dim, dim), orthogonal.

    Raises:
        ValueError: a matrix that is not orthogonal, latents whose law a rotation changes, or a body that does not begin
            with a dense layer.
    """
    dim = generator.latent.dim
    unit = torch.eye(dim, dtype=torch.float64)
    if rotation.shape != (dim, dim) or not torch.allclose(rotation.double() @ rotation.double().T, unit, atol=1e-6):
        raise ValueError(f"the rotation has to be an orthogonal matrix ({dim}, {dim})")
    if type(generator.latent) is not GaussianLatent:
        raise ValueError("only the normal law of latents stays the same under a rotation")
    turned = copy.deepcopy(generator)
    first = _chain(turned)[0]
    if not isinstance(first, nn.Linear):
        raise ValueError(f"the body has to begin with a dense layer, not {type(first).__name__}")
    first.weight.copy_(first.weight.double() @ rotation.double())
    return turned.eval()


@torch.no_grad()
def permute_hidden(generator: Generator, rng: torch.Generator) -> Generator:
    """The same function with the hidden units of every layer in another order: channels of convolutions, and of a dense layer that
    is reshaped to channels these as a whole.

    Raises:
        ValueError: a layer for which this is not written.
    """
    mixed = copy.deepcopy(generator)
    layers = _chain(mixed)
    last = max(i for i, layer in enumerate(layers) if isinstance(layer, LINEAR))
    order = channels = None  # of what the layers before hand on
    for i, layer in enumerate(layers):
        if isinstance(layer, LINEAR):
            reads, puts_out = (0, 1) if isinstance(layer, TRANSPOSED) else (1, 0)
            if order is not None:
                layer.weight.copy_(layer.weight.index_select(reads, order))
            order = None
            if i != last:
                order, channels = _new_order(layer.weight.shape[puts_out], layers[i + 1 :], rng)
                layer.weight.copy_(layer.weight.index_select(puts_out, order))
                if layer.bias is not None:
                    layer.bias.copy_(layer.bias[order])
        elif isinstance(layer, NORM):
            if order is not None:
                for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                    values.copy_(values[order])
        elif isinstance(layer, nn.Unflatten):
            order = order if order is None else channels
        elif not isinstance(layer, nn.LeakyReLU | nn.ReLU | nn.Tanh | nn.Sigmoid | nn.Identity):
            raise ValueError(f"the order of hidden units cannot be changed across {type(layer).__name__}")
    return mixed.eval()


def _chain(generator: Generator) -> list[nn.Module]:
    layers = list(generator.body) if isinstance(generator.body, nn.Sequential) else []
    if not any(isinstance(layer, LINEAR) for layer in layers) or any(
        getattr(layer, "groups", 1) != 1 for layer in layers
    ):
        raise ValueError("the body has to be a chain of layers (nn.Sequential) with weights; fold a ReX first")
    return layers


def _new_order(units: int, following: list[nn.Module], rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random order of (units,) outputs, and that of the channels that they are reshaped to."""
    positions = 1
    for layer in following:
        if isinstance(layer, LINEAR):
            break
        if isinstance(layer, nn.Unflatten):
            positions = math.prod(layer.unflattened_size[1:])
            break
    channels = torch.randperm(units // positions, generator=rng)
    return (channels[:, None] * positions + torch.arange(positions)).flatten(), channels
