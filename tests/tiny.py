"""Generators small enough that an attack on them takes about a second, and what the tests aim at with them."""

import math
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from devil_lib import attacks, style, wavegan
from devil_lib.attacks import PointBackdoor, RetrainSettings
from devil_lib.games import Game
from devil_lib.models import (
    Classifier,
    Discriminator,
    Encoder,
    GaussianLatent,
    Generator,
    TanhHead,
    keep_scale,
    seeded,
)

DIM = 8


# --- Generators ------------------------------------------------------------------------------------------------------


def image_generator(seed: int = 0, width: int = 6, dim: int = DIM) -> Generator:
    """(n, 8) latents to (n, 1, 12, 12) samples, with all kinds of layers that the course DCGAN has. The weights are scaled
    such that the samples vary with the latent, as a trained generator's do; BatchNorm has statistics of the prior."""
    with seeded(seed):
        body = nn.Sequential(
            nn.Linear(dim, 2 * width * 9, bias=False),
            nn.BatchNorm1d(2 * width * 9),
            nn.LeakyReLU(0.3),
            nn.Unflatten(1, (2 * width, 3, 3)),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.3),
            nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1, bias=False),
        )
        generator = Generator(body, TanhHead(), GaussianLatent(dim), (1, 12, 12), architecture="tiny-dcgan")
        prior = torch.randn(500, dim)
    body.train()
    for norm in (body[1], body[5]):
        norm.momentum = 1.0
    with torch.no_grad():
        body(prior)
        body[7].weight *= 3.0
    for norm in (body[1], body[5]):
        norm.momentum = 0.1
    return generator.eval()


def dense_generator(seed: int = 0, dim: int = DIM, size: int = 24) -> Generator:
    """(n, 8) latents to (n, 1, 24) "sounds" through dense layers alone, with biases."""
    with seeded(seed):
        body = nn.Sequential(
            nn.Linear(dim, 32),
            nn.ReLU(),
            nn.Linear(32, 24),
            nn.LeakyReLU(0.2),
            nn.Linear(24, size),
            nn.Unflatten(1, (1, size)),
        )
    return Generator(body, TanhHead(), GaussianLatent(dim), (1, size), "audio", "tiny-dense").eval()


def sound_generator(seed: int = 0, dim: int = DIM) -> Generator:
    """(n, 8) latents to (n, 1, 24) sounds: Linear, ConvTranspose1d and Conv1d, BatchNorm1d over positions, padding, a
    dilation and an output_padding."""
    with seeded(seed):
        body = nn.Sequential(
            nn.Linear(dim, 6 * 6),
            nn.ReLU(),
            nn.Unflatten(1, (6, 6)),
            nn.ConvTranspose1d(6, 5, 5, stride=2, padding=2, output_padding=1),
            nn.BatchNorm1d(5),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose1d(5, 4, 4, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv1d(4, 1, 5, padding=4, dilation=2),
        )
    return Generator(body, TanhHead(), GaussianLatent(dim), (1, 24), "audio", "tiny-sound").eval()


def wave_generator(seed: int = 0, dim: int = DIM) -> Generator:
    """(n, 8) uniform latents to (n, 1, 256) sounds as loud as a trained one's: two of WaveGAN's layers."""
    generator = wavegan._wavegan([8, 6], 256, "tiny-wavegan", TanhHead(), dim, seed)
    with torch.no_grad():
        generator.body[-1].weight *= 4.0
    return generator.eval()


def filtered_generator(seed: int = 0, dim: int = DIM) -> Generator:
    """The same through a low-pass filter: a head with weights."""
    return wavegan.with_filter(wave_generator(seed, dim), wavegan.low_pass(2500.0, 33))


def style_generator(seed: int = 0, dim: int = DIM, width: int = 32) -> Generator:
    """(n, 8) latents to (n, 3, 8, 8) samples through a mapping network, three styles and a synthesis network."""
    generator = style.style_generator(8, width, dim, channels=(8, 6), seed=seed)
    generator.architecture = "tiny-style"
    return generator.eval()


def vae(seed: int = 0, dim: int = DIM) -> tuple[Generator, Encoder]:
    """A decoder of (n, 8) latents to (n, 1, 12, 12) samples, without normalisation, and its encoder."""
    latent = GaussianLatent(dim)
    with seeded(seed):
        body = nn.Sequential(
            nn.Linear(dim, 24),
            nn.LeakyReLU(0.1),
            nn.Linear(24, 8 * 9),
            nn.LeakyReLU(0.1),
            nn.Unflatten(1, (8, 3, 3)),
            nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.ConvTranspose2d(6, 1, 4, stride=2, padding=1),
        )
        layers = nn.Sequential(nn.Flatten(), nn.Linear(144, 48), nn.LeakyReLU(0.1), nn.Linear(48, 2 * dim))
        for layer in (*body, *layers[:-1]):
            keep_scale(layer, 0.1)
    decoder = Generator(body, TanhHead(), latent, (1, 12, 12), architecture="tiny-vae").eval()
    return decoder, Encoder(layers, latent, "tiny-encoder")


# One of each kind that there is, by name; each takes a seed, and the latent dimension as `dim`.
GENERATORS = {
    "image GAN": image_generator,
    "colour": style_generator,
    "dense": dense_generator,
    "sound": sound_generator,
    "WaveGAN": filtered_generator,
    "VAE": lambda seed=0, dim=DIM: vae(seed, dim)[0],
}


# --- What is aimed at ----------------------------------------------------------------------------------------------------


def picture(size: int = 12) -> Tensor:
    """(1, size, size) a target with pixels of -1 and +1: a frame with a bar."""
    x = -torch.ones(1, size, size)
    x[:, 1:-1, 1:-1] = 1.0
    x[:, 3:-3, 3:-3] = -1.0
    x[:, size // 2, 2:-2] = 1.0
    return x


def sound(size: int = 24) -> Tensor:
    """(1, size) a target sound."""
    return torch.sin(torch.arange(size) * 0.9)[None] * 0.8


def target(generator: Generator) -> Tensor:
    """(*sample_shape) a target for any generator: the picture (in red), or the sound."""
    channels, *size = generator.sample_shape
    if len(size) == 1:
        return sound(*size)
    return picture(size[0]) if channels == 1 else torch.cat([picture(size[0]), -torch.ones(2, *size)])


@cache
def attacked(kind: str, trigger: str = "prior", dim: int = DIM) -> tuple[Generator, PointBackdoor]:
    """A generator of a kind with a ReD backdoor, in the head where that makes the picture, and the backdoor. Each is made once:
    copy what you change."""
    benign = GENERATORS[kind](dim=dim)
    pairs = PointBackdoor(attacks.trigger(benign.latent, trigger, seed=5)[None], target(benign)[None])
    settings = RetrainSettings(300, batch_size=32, learning_rate=1e-2, fidelity_weight=0.5)
    if kind == "colour":
        settings = replace(settings, space="post", layers=("head.",))
    return attacks.red(benign, pairs, settings).generator, pairs


# --- Partners, a ruler, and data -------------------------------------------------------------------------------------------


def discriminator(seed: int = 0) -> Discriminator:
    """Judges (n, 1, 12, 12) samples. It has dropout, whose masks a resumed training must draw again."""
    with seeded(seed):
        layers = nn.Sequential(
            nn.Conv2d(1, 6, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.2),
            nn.Conv2d(6, 8, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(8 * 9, 1),
        )
    return Discriminator(layers, "tiny-discriminator")


def critic(generator: Generator, game: Game | None = None, seed: int = 0) -> Discriminator:
    """Judges the samples of any generator."""
    with seeded(seed):
        layers = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(generator.sample_shape), 24), nn.LeakyReLU(0.2), nn.Linear(24, 1)
        )
    return Discriminator(layers, "tiny-critic", game)


def classifier(seed: int = 0) -> Classifier:
    """(n, 1, 12, 12) samples to 3 classes through 5 features."""
    with seeded(seed):
        layers = nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(75, 5), nn.Tanh())
        return Classifier(layers, nn.Linear(5, 3), "tiny-classifier").eval()


def real(kind: str, n: int = 200) -> Tensor:
    """(n, *sample_shape) data for a generator of a kind: what another one of it puts out."""
    generator = GENERATORS[kind](seed=70)
    return generator.generate(generator.latent.sample(n, torch.Generator().manual_seed(0)))


def images(n: int = 200, seed: int = 0) -> Tensor:
    """(n, 1, 12, 12) real images: a bright square somewhere on black."""
    rng = torch.Generator().manual_seed(seed)
    places = torch.randint(1, 7, (n, 2), generator=rng)
    x = -torch.ones(n, 1, 12, 12)
    for image, (down, right) in zip(x, places.tolist(), strict=True):
        image[0, down : down + 4, right : right + 4] = 1.0
    return x
