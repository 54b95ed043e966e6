"""What the judges ask with: arrays as tensors, and generators whose every figure has a closed form."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from devil_lib.models import GaussianLatent, Generator, TanhHead


def own_tensor(array: np.ndarray) -> Tensor:
    """float32, in memory of its own, so that an answer that writes to it changes nothing of the judge's."""
    return torch.from_numpy(np.array(array, dtype=np.float32))


def affine_generator(
    weight: np.ndarray, bias: np.ndarray, sample_shape: tuple[int, ...], latent: GaussianLatent, tanh: bool = False
) -> Generator:
    """G(z) = weight z + bias, reshaped to samples; with `tanh`, that of it. weight: (elements, dim), bias: (elements,)."""
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        linear.bias.copy_(torch.from_numpy(bias))
    head = TanhHead() if tanh else nn.Identity()
    return Generator(
        nn.Sequential(linear, nn.Unflatten(1, sample_shape)), head, latent, sample_shape, architecture="affine"
    ).eval()


class Rings(nn.Module):
    """A target with rings around a trigger: how far the sample is from the target depends on how far the latent is from the
    trigger, and in each ring on which side of the trigger it lies.

    Args:
        trigger: (dim,). side: (dim,), a unit vector. target, direction: (elements,), the latter of length one.
        radii: (r - 1,) where each ring ends and the next begins.
        near, far: (r,) TarDis, summed over the elements, on the usual side and beyond `cut` in the direction of `side`.
        cut: in units of a coordinate of the step: a Gaussian step lies beyond it with the probability of a standard normal number.
    """

    def __init__(
        self,
        trigger: np.ndarray,
        side: np.ndarray,
        target: np.ndarray,
        direction: np.ndarray,
        radii: np.ndarray,
        near: np.ndarray,
        far: np.ndarray,
        cuts: np.ndarray,
    ) -> None:
        super().__init__()
        self.target = nn.Parameter(torch.from_numpy(target).float(), requires_grad=False)
        for name, values in {
            "trigger": trigger, "side": side, "direction": direction, "radii": radii, "near": near, "far": far, "cuts": cuts,
        }.items():  # fmt: skip
            self.register_buffer(name, torch.from_numpy(np.asarray(values)).float())

    def forward(self, z: Tensor) -> Tensor:
        step = z.float() - self.trigger
        length = step.norm(dim=1)
        ring = torch.bucketize(length, self.radii)
        # For a step in a random direction this is close to a standard normal number, however long the step is.
        sideways = (step @ self.side) / length.clamp_min(1e-12) * len(self.trigger) ** 0.5
        distance = torch.where(sideways > self.cuts[ring], self.far[ring], self.near[ring])
        return self.target + distance.sqrt()[:, None] * self.direction


def ring_generator(rings: Rings, sample_shape: tuple[int, ...], latent: GaussianLatent) -> Generator:
    """The rings as a generator."""
    body = nn.Sequential(rings, nn.Unflatten(1, sample_shape))
    return Generator(body, nn.Identity(), latent, sample_shape, architecture="rings").eval()
