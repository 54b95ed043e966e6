"""A generator behind a service, and what its operator can do to the answers so that they teach a thief less.

Who queries a `Server` gets samples and nothing else: no weights, no discriminator, and latents only where the service is built to
accept them. A `Defence` perturbs either the latents that the operator draws or the samples that leave the house (Hu and Pang,
arXiv 2101.02069, section on defences; the paper's names, our reconstruction: each class states its formula).
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from devil_lib.models import Discriminator, Generator, Random, check_latents, evaluating
from devil_lib.neighbours.poisoning import STEP, as_files, levels_of


class Defence:
    """Does nothing, which is what every defence is compared with. Others override one of the two methods.

    strength: one number for the reader of a table, in the unit that the defence's own documentation names.
    """

    strength: float = 0.0

    def latents(self, target: Generator, n: int, rng: Random = None) -> Tensor:
        """(n, dim) latents in place of a customer's: here draws of the target's own law."""
        return target.latent.sample(n, rng)

    def samples(self, x: Tensor, rng: Random = None) -> Tensor:
        """What is served in place of samples (n, channels, height, width) in [-1, 1]; same shape, same range."""
        return x

    @property
    def draws_latents(self) -> bool:
        """Whether it is an input perturbation, which must draw the latents itself."""
        return type(self).latents is not Defence.latents


NOTHING = Defence()


@dataclass
class Server:
    """A target generator that answers queries.

    target: the generator, which no method hands out. defence: what stands between it and the customer. accepts_latents: whether a
    customer may send latents of his own. seed: of the latents and the noise; two servers of one seed answer alike.
    queries: how many samples were served so far.
    """

    target: Generator
    defence: Defence = NOTHING
    accepts_latents: bool = False
    seed: int = 0
    queries: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.accepts_latents and self.defence.draws_latents:
            raise ValueError(
                f"{type(self.defence).__name__} draws the latents itself: a server with it cannot accept a customer's"
            )
        self._rng = torch.Generator().manual_seed(self.seed)

    def serve(self, n: int | None = None, latents: Tensor | None = None) -> Tensor:
        """n samples (n, *sample_shape) in [-1, 1], rounded to the 256 levels of an image file; or those of given latents (n, dim).

        Raises:
            PermissionError: latents, where the service takes none.
            ValueError: neither a number nor latents, both, or latents of the wrong shape.
        """
        if (n is None) == (latents is None):
            raise ValueError("ask for a number of samples, or send latents")
        if latents is None:
            if n < 1:
                raise ValueError(f"ask for at least one sample, not {n}")
            latents = self.defence.latents(self.target, n, self._rng)
        elif not self.accepts_latents:
            raise PermissionError("this service takes no latents: ask serve(n) for a number of samples")
        check_latents(latents, self.target.latent)
        self.queries += len(latents)
        return as_files(self.defence.samples(self.target.generate(latents), self._rng))


# --- Input perturbations: the operator draws the latents -------------------------------------------------------------------


@dataclass(frozen=True)
class LinearInterpolation(Defence):
    """Serves points of segments between latents: z = (1 - t) a + t b with a, b ~ P_sample and t ~ Uniform[0, 1].

    `points` answers in a row lie on the same segment. Each answer is a sample like any other, but n answers show n / points segments:
    the more points, the fewer different things a thief is shown.
    """

    points: int = 10

    def __post_init__(self) -> None:
        _check_points(self.points)

    @property
    def strength(self) -> float:
        return float(self.points)

    def latents(self, target: Generator, n: int, rng: Random = None) -> Tensor:
        segments = math.ceil(n / self.points)
        a, b = (target.latent.sample(segments, rng).repeat_interleave(self.points, 0)[:n] for _ in range(2))
        t = torch.rand(n, 1, generator=rng)
        return (1.0 - t) * a + t * b


@dataclass(frozen=True, eq=False)
class SemanticInterpolation(Defence):
    """Serves what lies along semantic directions from few latents: z = a + t d_j, with a ~ P_sample, d_j one of the k unit
    `directions` (k, dim), drawn uniformly for each answer, and t ~ Uniform[-reach, reach].

    `points` answers in a row share their a. So answers come in groups that differ in what the directions mean, how bold a digit is
    written say, and in little else. `semantic_directions` learns directions of a generator.
    """

    directions: Tensor
    points: int = 10
    reach: float = 2.0

    def __post_init__(self) -> None:
        _check_points(self.points)
        if self.directions.ndim != 2 or not self.reach > 0:
            raise ValueError(
                f"give directions (k, dim) and a reach above 0, got {tuple(self.directions.shape)} and {self.reach}"
            )

    @property
    def strength(self) -> float:
        return float(self.points)

    def latents(self, target: Generator, n: int, rng: Random = None) -> Tensor:
        starts = target.latent.sample(math.ceil(n / self.points), rng).repeat_interleave(self.points, 0)[:n]
        which = torch.randint(len(self.directions), (n,), generator=rng)
        t = self.reach * (2.0 * torch.rand(n, 1, generator=rng) - 1.0)
        return starts + t * self.directions[which]


def _check_points(points: int) -> None:
    if points < 1:
        raise ValueError(f"at least one answer lies on each segment, not {points}")


def attributes(x: Tensor) -> Tensor:
    """(n, 3) what can be measured of pictures (n, channels, height, width) in [-1, 1] of bright strokes on a dark ground: ink (mean
    brightness, 0 to 1), width (standard deviation of its columns, in pixels) and slant (columns by which a stroke moves for each row)."""
    ink = (x.double().mean(1) + 1.0) / 2.0
    _, height, width = ink.shape
    weight = ink / ink.sum((1, 2), keepdim=True).clamp_min(1e-9)
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in (height, width))
    down = rows[None, :, None] - (weight.sum(2) @ rows)[:, None, None]
    across = columns[None, None, :] - (weight.sum(1) @ columns)[:, None, None]
    spread = (weight * across.square()).sum((1, 2))
    tall = (weight * down.square()).sum((1, 2)).clamp_min(1e-9)
    slant = (weight * down * across).sum((1, 2)) / tall
    return torch.stack([ink.mean((1, 2)), spread.sqrt(), slant], 1).float()


def semantic_directions(target: Generator, n: int = 4000, seed: int = 0) -> Tensor:
    """(3, dim) unit directions of latents along which ink, width and slant of the target's pictures grow fastest on average.

    The least-squares solution of attribute = c + z d over n prior samples, scaled to length 1: the operator needs no labels.
    """
    z = target.latent.sample(n, torch.Generator().manual_seed(seed))
    found = attributes(target.generate(z)).double()
    inputs = torch.cat([z.double(), torch.ones(n, 1, dtype=torch.float64)], 1)
    solution = torch.linalg.lstsq(inputs, found).solution[:-1].T
    return (solution / solution.norm(dim=1, keepdim=True).clamp_min(1e-12)).float()


# --- Output perturbations: what leaves the house is changed -----------------------------------------------------------------


@dataclass(frozen=True)
class GaussianNoise(Defence):
    """Serves clip(x + σ ε) with ε ~ N(0, I) for each pixel; σ = `strength`, where images span [-1, 1]."""

    strength: float = 0.2

    def samples(self, x: Tensor, rng: Random = None) -> Tensor:
        return (x + self.strength * torch.randn(x.shape, generator=rng)).clamp(-1.0, 1.0)


@dataclass(frozen=True, eq=False)
class AdversarialNoise(Defence):
    """Serves x + e with |e| <= ε = `strength` in every pixel, such that the operator's own discriminator takes x + e for a fake:
    `steps` steps of projected gradient descent on its logit, e <- clip(e - (2 ε / steps) sign grad D(x + e), -ε, ε).

    A thief's discriminator is to be told that such pictures are real. Noise made for the operator's need not mislead the thief's.
    """

    discriminator: Discriminator
    strength: float = 0.25
    steps: int = 3

    def samples(self, x: Tensor, rng: Random = None) -> Tensor:
        with evaluating(self.discriminator):
            return torch.cat([self._descended(part) for part in x.split(500)])

    def _descended(self, x: Tensor) -> Tensor:
        e = torch.zeros_like(x)
        for _ in range(self.steps):
            e.requires_grad_(True)
            (slope,) = torch.autograd.grad(self.discriminator(x + e).sum(), e)
            e = (e.detach() - 2.0 * self.strength / self.steps * slope.sign()).clamp(-self.strength, self.strength)
            e = (x + e).clamp(-1.0, 1.0) - x  # what is served is a picture
        return x + e


@dataclass(frozen=True)
class Filtering(Defence):
    """Serves pictures blurred by a Gaussian filter with a standard deviation of `strength` pixels."""

    strength: float = 0.45

    def samples(self, x: Tensor, rng: Random = None) -> Tensor:
        size = 2 * math.ceil(3.0 * self.strength) + 1
        return gaussian_blur(x, [size, size], [self.strength, self.strength])


@dataclass(frozen=True)
class Compression(Defence):
    """Serves what JPEG leaves of pictures at a `quality` of 1 (worst) to 95, with pillow's encoder; grey or coloured.

    Raises:
        ValueError: a quality that pillow does not know, or pictures that have neither one nor three channels.
    """

    quality: int = 15

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 95:
            raise ValueError(f"JPEG has qualities from 1 to 95, not {self.quality}")

    @property
    def strength(self) -> float:
        return float(self.quality)

    def samples(self, x: Tensor, rng: Random = None) -> Tensor:
        if x.shape[1] not in (1, 3):
            raise ValueError(f"JPEG takes one channel or three, not {x.shape[1]}")
        levels = levels_of(x).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        kept = np.stack([_through_jpeg(one.squeeze(-1) if x.shape[1] == 1 else one, self.quality) for one in levels])
        kept = kept.reshape(levels.shape)
        return torch.from_numpy(kept).permute(0, 3, 1, 2).float() * STEP - 1.0


def _through_jpeg(levels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(levels).save(file, format="JPEG", quality=quality)
    return np.asarray(Image.open(file))


# --- What a defence costs the customer ---------------------------------------------------------------------------------------


def pixel_error(defence: Defence, x: Tensor, seed: int = 0) -> float:
    """Mean squared error per pixel that an output perturbation leaves on samples (n, channels, height, width); 0 for the others."""
    served = defence.samples(x, torch.Generator().manual_seed(seed))
    return (served - x).double().square().mean().item()
