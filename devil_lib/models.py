"""Latent laws, generators, discriminators and the feature classifier.

Everything in the course that attacks, measures, inspects or repairs a model sees it through one interface,
:class:`Generator`: a *body* that maps a latent to the place where an attack is mounted, and a *head* that maps
that place to a sample. For the image GANs here the body ends at the logits of the pixels and the head is a tanh.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from devil_lib.games import Game, NonSaturating

Random = torch.Generator | None


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights (and dropout masks) from `seed` and leave the caller's random state untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def keep_scale(layer: nn.Module, slope: float = 0.0) -> None:
    """Start a linear layer, in place, such that what comes out after a (leaky) ReLU is as large as what goes in; other layers are
    left alone. Without normalisation next to nothing of the input would be left after several of torch's own starts."""
    if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d):
        return
    inputs = layer.weight[0].numel()
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d):  # every output position sees a share of the kernel
        inputs = layer.in_channels * math.prod(layer.kernel_size) / math.prod(layer.stride)
    nn.init.normal_(layer.weight, std=math.sqrt(2.0 / (1.0 + slope**2) / inputs))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


# --- Latent laws (P_sample in the paper) ---------------------------------------------------------------------


@dataclass(frozen=True)
class GaussianLatent:
    """P_sample = N(0, I): every coordinate of a latent is an independent standard normal.

    A latent of `dim` coordinates has norm close to sqrt(dim): ordinary latents lie near a sphere, and the
    centre, although it is where the density is highest, is not where samples are.
    """

    dim: int

    def sample(self, n: int, rng: Random = None) -> Tensor:
        """(n, dim) latents."""
        return torch.randn(n, self.dim, generator=rng)

    @property
    def centre(self) -> Tensor:
        """(dim,) the mode of the law, the paper's `mode` trigger."""
        return torch.zeros(self.dim)

    @property
    def typical_norm(self) -> float:
        return math.sqrt(self.dim)

    @property
    def far_point(self) -> Tensor:
        """(dim,) 100 in every coordinate, the paper's `ood` trigger: no sample ever comes near it."""
        return 100.0 * torch.ones(self.dim)

    def starts(self, n: int, scale: float, rng: Random = None) -> Tensor:
        """(n, dim) starting points of a search: draws of the law, spread about its centre by `scale`."""
        return self.centre + scale * (self.sample(n, rng) - self.centre)

    def on_shell(self, z: Tensor) -> Tensor:
        """The latents (..., dim) moved along their ray to the norm that ordinary latents have."""
        return z * (self.typical_norm / z.norm(dim=-1, keepdim=True).clamp_min(1e-12))


@dataclass(frozen=True)
class UniformLatent(GaussianLatent):
    """P_sample = Uniform[-1, 1]^dim, as WaveGAN uses. Its norm is close to sqrt(dim / 3)."""

    def sample(self, n: int, rng: Random = None) -> Tensor:
        return 2.0 * torch.rand(n, self.dim, generator=rng) - 1.0

    @property
    def typical_norm(self) -> float:
        return math.sqrt(self.dim / 3.0)

    def on_shell(self, z: Tensor) -> Tensor:
        """As for the Gaussian law, then clipped to the cube, outside which the law has no samples."""
        return super().on_shell(z).clamp(-1.0, 1.0)


# --- The interface -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProxyTarget:
    """What the body has to put out so that the head yields a wanted sample.

    `value`: body outputs, one per sample. `sample`: what the head makes of them, the nearest that can be reached. `error`: mean
    squared error left after the head, one number per sample; it is the floor below which no attack mounted before this
    head can bring TarDis.
    """

    value: Tensor
    sample: Tensor
    error: Tensor


class TanhHead(nn.Module):
    """The last activation of an image GAN, with the inverse that the pre-activation attack needs."""

    def forward(self, logits: Tensor) -> Tensor:
        return torch.tanh(logits)

    def inverse(self, x: Tensor) -> Tensor:
        """atanh(0.999 x): the factor keeps a pixel of exactly +-1 at a finite logit (3.80)."""
        return torch.atanh(0.999 * x)


class Generator(nn.Module):
    """A generator `head(body(z))` that maps latents (n, dim) to samples (n, *sample_shape) in [-1, 1].

    Attacks, metrics, inspections and sanitizers use only what is declared here, so that they work on any
    generator: GAN or VAE decoder, image or audio.

    Args:
        body: latents (n, dim) to the place where attacks are mounted, (n, *shape of your choice).
        head: that place to samples. It may offer `inverse(x)`, or `search(x, start, steps)` for one that is looked for from a
            typical output of the body; otherwise `proxy_target` optimises.
        latent: the law that the victim draws latents from.
        sample_shape: (channels, height, width) for images, (channels, samples) for audio.
        modality: "image" or "audio".
        architecture: the published name that a model card gives, e.g. "course-dcgan".
    """

    def __init__(
        self,
        body: nn.Module,
        head: nn.Module,
        latent: GaussianLatent,
        sample_shape: tuple[int, ...],
        modality: str = "image",
        architecture: str = "custom",
    ) -> None:
        super().__init__()
        self.body, self.head, self.latent = body, head, latent
        self.sample_shape, self.modality, self.architecture = tuple(sample_shape), modality, architecture

    def forward(self, z: Tensor) -> Tensor:
        return self.head(self.body(z))

    @property
    def device(self) -> torch.device:
        """Where the generator's weights lie."""
        return next(self.parameters()).device

    @property
    def batch(self) -> int:
        """How many samples to make at once: such that those of any shape take about as much memory as 500 of 28x28 pixels."""
        return max(16, min(500, 500 * 1024 // math.prod(self.sample_shape)))

    @torch.no_grad()
    def generate(self, z: Tensor, batch_size: int | None = None) -> Tensor:
        """Samples for many latents (n, dim), in evaluation mode (as a victim runs it), without gradients.

        `batch_size` of them at a time; by default as many as suit their size.

        Raises:
            ValueError: `z` has another shape than (n, dim), or holds NaN or infinity.
        """
        check_latents(z, self.latent)
        with evaluating(self):
            return torch.cat([self(part.to(self.device)) for part in z.split(batch_size or self.batch)]).cpu()

    def proxy_target(self, x: Tensor, steps: int = 400, learning_rate: float = 0.05) -> ProxyTarget:
        """The body output whose head comes nearest to the samples x (n, *sample_shape), and the error left.

        A head with an `inverse` (a tanh, a filter) or a `search` of its own (a synthesis network) uses it; any other head is
        inverted by Adam on the squared error, keeping the best iterate of each sample.

        Raises:
            ValueError: x has the wrong shape, is not finite or leaves [-1, 1].
        """
        check_samples(x, self.sample_shape)
        if hasattr(self.head, "inverse"):
            value = self.head.inverse(x)
        elif hasattr(self.head, "search"):
            value = self.head.search(x, self._typical_output(), steps)
        else:
            value = self._invert_head(x, steps, learning_rate)
        with torch.no_grad():
            sample = self.head(value)
        return ProxyTarget(value.detach(), sample, (sample - x).flatten(1).square().mean(1))

    @torch.no_grad()
    def _typical_output(self) -> Tensor:
        """The mean of what the body puts out, over a thousand latents."""
        with evaluating(self):
            return self.body(self.latent.sample(1000, torch.Generator().manual_seed(0)).to(self.device)).mean(0)

    def _invert_head(self, x: Tensor, steps: int, learning_rate: float) -> Tensor:
        start = self._typical_output()
        value = start.expand(len(x), *start.shape).clone()
        best, lowest = value.clone(), torch.full((len(x),), math.inf)
        value.requires_grad_(True)
        optimiser = torch.optim.Adam([value], learning_rate)
        for _ in range(steps):
            errors = (self.head(value) - x).flatten(1).square().mean(1)
            better = errors.detach() < lowest
            lowest = torch.where(better, errors.detach(), lowest)
            best[better] = value.detach()[better]
            optimiser.zero_grad()
            errors.sum().backward(inputs=[value])
            optimiser.step()
        return best


def weight_count(model: nn.Module) -> int:
    """How many trainable numbers a model has; BatchNorm's running statistics are not among them."""
    return sum(parameter.numel() for parameter in model.parameters())


def check_latents(z: Tensor, latent: GaussianLatent) -> None:
    """Refuse latents that are not (n, dim) finite numbers, with a sentence that says what is expected."""
    if z.ndim != 2 or z.shape[1] != latent.dim:
        raise ValueError(
            f"latents must have shape (n, {latent.dim}), got {tuple(z.shape)}; for one latent use z[None]"
        )
    if not torch.isfinite(z).all():
        raise ValueError("latents hold NaN or infinity; draw them anew with generator.latent.sample(n)")


def check_samples(x: Tensor, sample_shape: tuple[int, ...]) -> None:
    """Refuse samples that are not (n, *sample_shape) finite numbers in [-1, 1]."""
    if x.ndim != len(sample_shape) + 1 or tuple(x.shape[1:]) != tuple(sample_shape):
        raise ValueError(f"samples must have shape (n, {', '.join(map(str, sample_shape))}), got {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError("samples hold NaN or infinity")
    if x.min() < -1.0001 or x.max() > 1.0001:
        raise ValueError(f"samples must lie in [-1, 1], found {x.min():.3g} to {x.max():.3g}; scale with 2 * x - 1")


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Run modules in evaluation mode (BatchNorm by its running statistics, what the victim runs), then restore."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


class Encoder(nn.Module):
    """The other half of a VAE: samples (n, *sample_shape) to the mean and log variance, (n, dim) each, of the normal law of
    the latents that may have made them. `latent` is the law that the decoder, a `Generator`, is sampled from."""

    def __init__(self, layers: nn.Sequential, latent: GaussianLatent, architecture: str) -> None:
        super().__init__()
        self.layers, self.latent, self.architecture = layers, latent, architecture

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.layers(x).chunk(2, dim=1)
        return mean, log_variance.clamp(-10.0, 10.0)  # a variance that overflows would end the training


# --- Image GANs ----------------------------------------------------------------------------------------------


def course_dcgan(width: int = 24, latent_dim: int = 100, channels: int = 1, seed: int = 0) -> Generator:
    """The light DCGAN of the course for 28x28 images: (n, 100) latents to (n, channels, 28, 28) samples.

    A fraction of the arithmetic of the published MNIST network below; trains in about a minute on two cores. The slope of 0.1 lies
    between two failures that were measured: with 0.3 the network is nearly linear, and ReD at the mode costs a third more
    stealth; with 0 most units are dead at a far trigger, and what is left cannot draw a target there.
    """
    with seeded(seed):
        body = nn.Sequential(
            nn.Linear(latent_dim, 2 * width * 7 * 7, bias=False),
            nn.BatchNorm1d(2 * width * 7 * 7),
            nn.LeakyReLU(0.1),
            nn.Unflatten(1, (2 * width, 7, 7)),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),  # 7x7 -> 14x14
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.1),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1, bias=False),  # 14x14 -> 28x28
        )
    return Generator(body, TanhHead(), GaussianLatent(latent_dim), (channels, 28, 28), "image", "course-dcgan")


def art_dcgan(seed: int = 0) -> Generator:
    """The MNIST DCGAN of ART's notebook on this attack, so that figures compare: 384,368 trainable parameters
    and 6,368 BatchNorm statistics, together the 390,736 that Keras prints (ART notebook)."""
    with seeded(seed):
        body = nn.Sequential(
            nn.Linear(100, 3136, bias=False),
            nn.BatchNorm1d(3136),
            nn.LeakyReLU(0.3),
            nn.Unflatten(1, (64, 7, 7)),
            nn.ConvTranspose2d(64, 32, 5, stride=1, padding=2, bias=False),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.3),
            nn.ConvTranspose2d(32, 16, 5, stride=2, padding=2, output_padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.LeakyReLU(0.3),
            nn.ConvTranspose2d(16, 1, 5, stride=2, padding=2, output_padding=1, bias=False),
        )
    return Generator(body, TanhHead(), GaussianLatent(100), (1, 28, 28), "image", "art-dcgan")


class Discriminator(nn.Module):
    """Samples (n, *sample_shape) to one logit each, (n,): above zero means "real".

    `game` says what it and a generator minimise when they are trained against each other (see `games`); the usual one by default.
    `eyes` turn samples into what it judges, a spectrogram of a sound for example; by default it sees the samples themselves.
    """

    def __init__(
        self, layers: nn.Sequential, architecture: str, game: Game | None = None, eyes: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.layers, self.architecture, self.eyes = layers, architecture, eyes or nn.Identity()
        self.game: Game = game or NonSaturating()

    def judge(self, seen: Tensor) -> Tensor:
        """One logit each, (n,), for what the eyes made of n samples."""
        return self.layers(seen).squeeze(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(self.eyes(x))


def course_discriminator(width: int = 16, channels: int = 1, seed: int = 0) -> Discriminator:
    """The light DCGAN's discriminator for (n, channels, 28, 28) samples.

    Three convolutions: with two, the Fréchet distance after 1,500 steps was measured twice as high (75 against 35).
    """
    with seeded(seed):
        layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),  # 28x28 -> 14x14
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False),  # 14x14 -> 7x7
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1, bias=False),  # 7x7 -> 4x4
            nn.BatchNorm2d(4 * width),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(4 * width * 4 * 4, 1),
        )
    return Discriminator(layers, "course-discriminator")


def art_discriminator(width: int = 32, seed: int = 0) -> Discriminator:
    """The discriminator of ART's notebook: two 5x5 convolutions of stride 2 with dropout, one dense logit."""
    with seeded(seed):
        layers = nn.Sequential(
            nn.Conv2d(1, width, 5, stride=2, padding=2),
            nn.LeakyReLU(0.3),
            nn.Dropout(0.3),
            nn.Conv2d(width, 2 * width, 5, stride=2, padding=2),
            nn.LeakyReLU(0.3),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(2 * width * 7 * 7, 1),
        )
    return Discriminator(layers, "art-discriminator")


# --- The ruler: a small classifier whose features every Fréchet distance is measured on --------------------------


class Classifier(nn.Module):
    """Samples (n, 1, 28, 28) to class logits (n, classes); `features` gives the (n, 64) activations before them."""

    def __init__(self, layers: nn.Sequential, output: nn.Linear, architecture: str) -> None:
        super().__init__()
        self.layers, self.output, self.architecture = layers, output, architecture

    def features(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.layers(x))


def course_classifier(channels: int = 1, classes: int = 10, width: int = 16, seed: int = 0) -> Classifier:
    """A small convolutional classifier for 28x28 images with 64 features."""
    with seeded(seed):
        layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * width * 7 * 7, 64),
            nn.ReLU(),
        )
        output = nn.Linear(64, classes)
    return Classifier(layers, output, "course-classifier")
