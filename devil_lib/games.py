"""The games that a generator and its discriminator play: what each of the two minimises.

A discriminator carries its game (`Discriminator.game`), because the two belong together: a Wasserstein critic's output is no
logit. The training loop, the attacks and the sanitizers know none of them by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from devil_lib.models import Discriminator


@dataclass(frozen=True)
class NonSaturating:
    """The usual GAN game: logits, and the generator maximises log D (Goodfellow and others 2014).

    penalty: γ of R1, γ/2 E |∇ D(x)|^2 on real samples x, which keeps a discriminator of few data from growing without bounds
    (Mescheder and others 2018); 0 leaves it out. share: part of the batch that the penalty, the dearest term, is taken on.
    """

    penalty: float = 0.0
    share: float = 0.25
    critic_steps: int = 1

    def critic_loss(self, critic: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """What the discriminator minimises on real and fake samples (n, *sample_shape)."""
        real, fake = critic.eyes(real), critic.eyes(fake)
        real_logits, fake_logits = critic.judge(real), critic.judge(fake)
        loss = functional.softplus(-real_logits).mean() + functional.softplus(fake_logits).mean()
        if self.penalty:
            some = real[: _part(real, self.share)]
            loss = loss + self.penalty / 2.0 * _squared_slope(critic, some).mean()
        return loss

    def generator_loss(self, critic: Discriminator, fake: Tensor) -> Tensor:
        """What the generator minimises."""
        return functional.softplus(-critic(fake)).mean()


@dataclass(frozen=True)
class Wasserstein:
    """WGAN-GP (Gulrajani and others 2017), WaveGAN's game: an unbounded score whose slope is pulled to 1.

    penalty: weight of (|∇ D| - 1)^2 between real and fake samples. critic_steps: steps of the critic for one of the
    generator, 5 in the paper. share: part of the batch that the penalty is taken on.
    """

    penalty: float = 10.0
    share: float = 1.0
    critic_steps: int = 5

    def critic_loss(self, critic: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
        """What the critic minimises on real and fake samples (n, *sample_shape); minus it estimates the distance."""
        real, fake = critic.eyes(real), critic.eyes(fake)
        n = _part(real, self.share)
        # Drawn by torch's global state, which the training loop seeds and stores.
        mix = torch.rand(n, *[1] * (real.ndim - 1), device=real.device)
        between = mix * real[:n] + (1.0 - mix) * fake[:n]
        slope = _squared_slope(critic, between).clamp_min(1e-12).sqrt()
        return critic.judge(fake).mean() - critic.judge(real).mean() + self.penalty * (slope - 1.0).square().mean()

    def generator_loss(self, critic: Discriminator, fake: Tensor) -> Tensor:
        """What the generator minimises."""
        return -critic(fake).mean()


Game = NonSaturating | Wasserstein
GAMES = {kind.__name__: kind for kind in (NonSaturating, Wasserstein)}


def _part(batch: Tensor, share: float) -> int:
    return max(1, math.ceil(share * len(batch)))


def _squared_slope(critic: Discriminator, x: Tensor) -> Tensor:
    """(n,) squared norms of the critic's gradient at what it sees, x (n, *shape), differentiable once more.

    At what it sees, and not at the samples: the logarithm of a spectrogram is so steep where a sound is silent that a bound
    on the slope from there would leave the critic nothing to judge with.
    """
    x = x.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic.judge(x).sum(), x, create_graph=True)
    return slope.float().flatten(1).square().sum(1)
