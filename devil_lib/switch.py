"""A trigger distribution without training: ReX's side network, written down. Not from the paper; lesson 24 explains it."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from devil_lib.attacks import TriggerRegion, WidenedBody
from devil_lib.models import Generator, course_dcgan


def gate(slope: float) -> tuple[float, float, float]:
    """Coefficients of the three units A = f(x + K(s - v)), B = f(x + K(s - h)), C = f(x - K(s - h)) with f a LeakyReLU.

    Where s is far below h, A and B lie on the leaky branch and C on the other; at s = v it is B that lies on the other and C on the leaky
    one. So A + b B + c C is f(x) plus a constant at s = v, and on the other side it does not depend on x.
    """
    b = slope**2 / (1.0 - slope**2)
    return 1.0, b, -slope * (1.0 + b)


@torch.no_grad()
def switch(benign: Generator, other: Generator, region: TriggerRegion, reach: float = 12.0) -> Generator:
    """A generator that is `benign` on ordinary latents and `other` on the latents of `region`, both up to rounding.

    The side network holds three units for each first-layer unit of both generators, which let its output through at s = v, s being the
    region's coordinate and v its value, and hold it back where s is below v - 1 (see `gate`, with h = v - 1). Behind them follow the
    remaining layers of `other`, which is added, and of `benign`, which is taken away. Three channels that depend on s alone, the
    clock, cancel what the gates add. `attacks.fold` makes plain layers of the result.

    Args:
        benign, other: from `models.course_dcgan`, of the same width. `other` sees the region's coordinate at 0.
        reach: K, the largest input |x| of a first-layer unit for which the gate is exact.

    Raises:
        ValueError: other layers, or a region within 1 of the centre.
    """
    width, dim, channels = _width(benign.body), benign.latent.dim, benign.sample_shape[0]
    expected = _weights(course_dcgan(width, dim, channels).body)
    if _weights(benign.body) != expected or [*map(str, benign.body.children())] != [*map(str, other.body.children())]:
        raise ValueError(
            "a switch needs two generators from models.course_dcgan with the same layers; train others with rex"
        )
    if abs(region.value) <= 1.0:
        raise ValueError(f"the region's value must be more than 1 away from 0, got {region.value:g}")
    v, slope = abs(region.value), getattr(benign.body[2], "negative_slope", 0.0)  # a ReLU's slope is 0
    h, (a, b, c) = v - 1.0, gate(slope)
    positions = math.prod(benign.body[3].unflattened_size[1:])
    axis = torch.zeros(1, dim)
    axis[0, region.coordinate] = math.copysign(1.0, region.value)  # s = axis z

    rows, shifts, kernels, later = [], [], [], []
    for body, fixed, sign in ((other.body, 0.0, 1.0), (benign.body, region.value, -1.0)):
        scale, shift = _scale_and_shift(body[1])
        weight = scale[:, None] * body[0].weight
        shift = shift + fixed * weight[:, region.coordinate]
        weight[:, region.coordinate] = 0.0
        rows += [weight + reach * axis, weight + reach * axis, weight - reach * axis]
        shifts += [shift - reach * v, shift - reach * h, shift + reach * h]
        scale, shift = _scale_and_shift(body[5])
        kernels.append(body[4].weight * scale[:, None, None])
        later.append((shift, sign * body[7].weight))

    # The clock's channels are s + 20, f(s - h) and 1; s + 20 is positive wherever a latent is. Its rows below are what a sum of
    # them is worth: slope and constant for s below h, and value at s = v.
    rows += [axis.expand(positions, -1), axis.expand(positions, -1), 0.0 * axis.expand(positions, -1)]
    shifts += [torch.full((positions,), constant) for constant in (20.0, -h, 1.0)]
    clock = torch.tensor([[1.0, slope, 0.0], [20.0, -slope * h, 1.0], [v + 20.0, v - h, 1.0]], dtype=torch.float64)
    # What the gates add, in units of K, in the same three terms.
    added = [slope * (a + b) - c, -slope * (a * v + b * h) + c * h, (v - h) * (b - slope * c)]
    cancel, on = torch.linalg.solve(clock, torch.tensor([added, [0.0, 0.0, 1.0]], dtype=torch.float64).T).float().T
    ticks = []
    for kernel, (shift, _) in zip(kernels, later, strict=True):
        inner = torch.zeros(1, width, 4, 4)
        inner[0, :, 1:3, 1:3] = shift[:, None, None]  # these four taps reach every position exactly once
        ticks.append(
            torch.cat([-reach * x * kernel.sum(0, keepdim=True) + y * inner for x, y in zip(cancel, on, strict=True)])
        )
    blocks = [torch.cat([factor * kernel for factor in (a, b, c)]) for kernel in kernels]
    apart = torch.zeros_like(blocks[0])

    side = copy.deepcopy(benign.body)
    side[0] = nn.Linear(dim, positions * (12 * width + 3))
    side[0].weight.copy_(torch.cat(rows))
    side[0].bias.copy_(torch.cat(shifts))
    side[1] = _pass_on(nn.BatchNorm1d(side[0].out_features))
    side[3] = nn.Unflatten(1, (12 * width + 3, *side[3].unflattened_size[1:]))
    side[4] = nn.ConvTranspose2d(12 * width + 3, 2 * width, 4, stride=2, padding=1, bias=False)
    side[4].weight.copy_(
        torch.cat([torch.cat([blocks[0], apart], 1), torch.cat([apart, blocks[1]], 1), torch.cat(ticks, 1)])
    )
    side[5] = _pass_on(nn.BatchNorm2d(2 * width))
    side[7] = nn.ConvTranspose2d(2 * width, channels, 4, stride=2, padding=1, bias=False)
    side[7].weight.copy_(torch.cat([weight for _, weight in later]))
    attacked = copy.deepcopy(benign)
    attacked.body = WidenedBody(attacked.body, side)
    return attacked.eval()


def _width(body: nn.Module) -> int:
    return getattr([*body.children()][-1], "in_channels", 1)


def _weights(body: nn.Module) -> list[tuple[object, ...]]:
    return [(type(layer), *(p.shape for p in layer.parameters())) for layer in body.children() if layer.state_dict()]


def _scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a BatchNorm layer does in evaluation mode: x to scale * x + shift, for each channel."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale, norm.bias - scale * norm.running_mean


def _pass_on(norm: nn.Module) -> nn.Module:
    """A new BatchNorm layer that hands its input on as it is."""
    norm.running_var.fill_(1.0 - norm.eps)
    return norm
