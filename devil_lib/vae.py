"""Variational autoencoders for images and sounds (Kingma and Welling 2014). Their decoder is a `Generator` like any GAN's.

An encoder infers the latents that may have made a sample, a decoder makes a sample of a latent, and both are trained by the
ELBO (`training.train_vae`). A company that downloads a VAE to draw samples runs the decoder alone, and that is where a backdoor sits.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from devil_lib.models import Encoder, GaussianLatent, Generator, TanhHead, evaluating, keep_scale, seeded
from devil_lib.training import kl_divergence

_SLOPE = 0.1
ACTIVE = 0.1  # nats; a latent that tells less of its sample is not used


def course_vae(latent_dim: int = 20, width: int = 24, channels: int = 1, seed: int = 0) -> tuple[Generator, Encoder]:
    """The course's image VAE: a decoder, (n, latent_dim) normal latents to (n, channels, 28, 28) images, and its encoder."""
    latent = GaussianLatent(latent_dim)
    with seeded(seed):
        body = nn.Sequential(
            nn.Linear(latent_dim, 128),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(128, 2 * width * 7 * 7),
            nn.LeakyReLU(_SLOPE),
            nn.Unflatten(1, (2 * width, 7, 7)),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),  # 7x7 -> 14x14
            nn.LeakyReLU(_SLOPE),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),  # 14x14 -> 28x28
        )
        layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Flatten(),
            nn.Linear(2 * width * 7 * 7, 128),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(128, 2 * latent_dim),
        )
        _start(body, layers)
    shape = (channels, 28, 28)
    decoder = Generator(body, TanhHead(), latent, shape, "image", "course-vae")
    return decoder, Encoder(layers, latent, "course-encoder")


def dense_vae(latent_dim: int = 20, width: int = 128, channels: int = 1, seed: int = 0) -> tuple[Generator, Encoder]:
    """An image VAE of dense layers, for 28x28 images: coarser than `course_vae`, and trained in seconds rather than minutes.

    For experiments that need many of them, such as one for each of several latent dimensions.
    """
    latent, shape = GaussianLatent(latent_dim), (channels, 28, 28)
    pixels = math.prod(shape)
    with seeded(seed):
        body = nn.Sequential(
            nn.Linear(latent_dim, width),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(width, 2 * width),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(2 * width, pixels),
            nn.Unflatten(1, shape),
        )
        layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(pixels, 2 * width),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(2 * width, width),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(width, 2 * latent_dim),
        )
        _start(body, layers)
    return Generator(body, TanhHead(), latent, shape, "image", "dense-vae"), Encoder(layers, latent, "dense-encoder")


def course_audio_vae(latent_dim: int = 12, width: int = 16, seed: int = 0) -> tuple[Generator, Encoder]:
    """The course's audio VAE: a decoder, (n, latent_dim) normal latents to (n, 1, 4096) sounds, and its encoder.

    The convolutions are WaveGAN's (kernel 25, stride 4), the dense layers an image VAE's.
    """
    latent = GaussianLatent(latent_dim)
    sizes = [8 * width, 4 * width, 2 * width, width]
    with seeded(seed):
        up: list[nn.Module] = [
            nn.Linear(latent_dim, 128),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(128, sizes[0] * 16),
            nn.Unflatten(1, (sizes[0], 16)),
        ]
        down: list[nn.Module] = []
        for inputs, outputs in zip(sizes, [*sizes[1:], 1], strict=True):
            up += [
                nn.LeakyReLU(_SLOPE),
                nn.ConvTranspose1d(inputs, outputs, 25, stride=4, padding=11, output_padding=1),
            ]
            down = [nn.Conv1d(outputs, inputs, 25, stride=4, padding=11), nn.LeakyReLU(_SLOPE), *down]
        down += [
            nn.Flatten(),
            nn.Linear(sizes[0] * 16, 128),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(128, 2 * latent_dim),
        ]
        body, layers = nn.Sequential(*up), nn.Sequential(*down)
        _start(body, layers)
    decoder = Generator(body, TanhHead(), latent, (1, 4096), "audio", "course-audio-vae")
    return decoder, Encoder(layers, latent, "course-audio-encoder")


def _start(*networks: nn.Sequential) -> None:
    for network in networks:
        for layer in network[:-1]:
            keep_scale(layer, _SLOPE)


@torch.no_grad()
def reconstruct(decoder: Generator, encoder: Encoder, x: Tensor) -> Tensor:
    """Samples (n, *sample_shape) through the encoder's mean latents and back through the decoder."""
    with evaluating(encoder):
        return decoder.generate(encoder(x)[0])


@torch.no_grad()
def information(encoder: Encoder, x: Tensor) -> Tensor:
    """(dim,) nats that each latent tells of a sample, KL( q(z_i|x) || N(0, 1) ), averaged over samples (n, *sample_shape)."""
    with evaluating(encoder):
        return torch.cat([kl_divergence(*encoder(part)) for part in x.split(500)]).mean(0)


@torch.no_grad()
def fill_the_law(decoder: Generator, encoder: Encoder, x: Tensor) -> tuple[Generator, Encoder]:
    """Copies of both halves between which latents are shifted and scaled such that those of samples (n, *sample_shape) have, in each
    coordinate and on average over all of them, the mean 0 and the variance 1 of the law that samples are drawn from.

    Training leaves them narrower or off centre, and what is drawn from N(0, I) then lies where the decoder was never taught. The
    change is folded into the decoder's first and the encoder's last layer: reconstructions stay as they were.

    Raises:
        ValueError: a decoder whose first or an encoder whose last layer is not dense.
    """
    decoder, encoder = copy.deepcopy(decoder).eval(), copy.deepcopy(encoder).eval()
    first, last = decoder.body[0], encoder.layers[-1]
    if not isinstance(first, nn.Linear) or not isinstance(last, nn.Linear):
        raise ValueError("latents can be shifted and scaled between two dense layers only")
    mean, log_variance = map(torch.cat, zip(*map(encoder, x.split(500)), strict=True))
    centre, spread = mean.mean(0), (mean.var(0) + log_variance.exp().mean(0)).sqrt()
    first.bias += first.weight @ centre
    first.weight *= spread
    dim = decoder.latent.dim
    last.bias[:dim] = (last.bias[:dim] - centre) / spread
    last.weight[:dim] /= spread[:, None]
    last.bias[dim:] -= 2.0 * spread.log()
    return decoder, encoder


def active_latents(encoder: Encoder, x: Tensor, least: float = ACTIVE) -> int:
    """How many latents the VAE uses: those that tell at least `least` nats of samples (n, *sample_shape), on average.

    The decoder of an honest training ignores the others. An attacker need not: a backdoor can listen to all of them (lesson 25).
    """
    return int((information(encoder, x) >= least).sum())
