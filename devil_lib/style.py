"""A small style-based generator for colour photographs (after StyleGAN; Karras and others 2019, 2020).

latent z -> mapping network -> w -> broadcast to L styles -> synthesis network -> photograph. The generator's *body* is what lies
before the synthesis network and its *head* is the synthesis network: the paper's attack on StyleGAN is mounted between the two,
where a sample is described by L styles (paper section on StyleGAN; demo of the authors).
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from devil_lib.games import NonSaturating
from devil_lib.models import Discriminator, GaussianLatent, Generator, keep_scale, seeded

_SLOPE = 0.2
_LEAST_SCALE = 0.6  # of an inverted photograph's scales, as a share of the usual ones


class Broadcast(nn.Module):
    """w (n, width) to L equal styles (n, L, width). It has no weights; folding an expansion into it makes it a dense layer."""

    def __init__(self, styles: int) -> None:
        super().__init__()
        self.styles = styles

    def forward(self, w: Tensor) -> Tensor:
        return w[:, None].expand(-1, self.styles, -1)


class StyledConvolution(nn.Module):
    """A 3x3 convolution whose input channels are scaled by a style (n, width), and whose output is scaled back to unit size.

    Scaling the input and the output is the same as scaling the weights for each sample (weight demodulation), and lets all
    samples of a batch share one convolution.
    """

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.inputs, self.outputs, self.width = inputs, outputs, width
        self.scales = nn.Linear(width, inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3) / math.sqrt(9 * inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.scales.weight, std=1.0 / math.sqrt(width))
        nn.init.ones_(self.scales.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scales = self.scales(style)
        y = functional.conv2d(x * scales[:, :, None, None], self.weight, padding=1)
        size = (scales.square() @ self.weight.square().sum((2, 3)).T + 1e-8).sqrt()
        return functional.leaky_relu(y / size[:, :, None, None] + self.bias[:, None, None], _SLOPE) * math.sqrt(2.0)


class Synthesis(nn.Module):
    """L styles (n, L, width) to photographs (n, 3, size, size) in [-1, 1]: a constant 4x4 picture, doubled until it is large
    enough, with a styled convolution before and after each doubling and the colours of all sizes added up.

    Args:
        size: 32 or 64 (any power of two from 8).
        width: of a style.
        channels: of each size's convolutions, from 4x4 up.
    """

    def __init__(self, size: int, width: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        if size != 4 * 2 ** (len(channels) - 1):
            raise ValueError(f"a picture of {size} pixels takes channels for 4, 8, ... {size}, got {channels}")
        self.size, self.width, self.channels = size, width, tuple(channels)
        self.start = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        pairs = list(pairwise(channels))
        inputs = [channels[0], *(c for _, after in pairs for c in (_, after))]
        outputs = [channels[0], *(after for _, after in pairs for _ in range(2))]
        self.convolutions = nn.ModuleList(
            StyledConvolution(a, b, width) for a, b in zip(inputs, outputs, strict=True)
        )
        self.colours = nn.ModuleList(nn.Conv2d(c, 3, 1) for c in channels)

    @property
    def styles(self) -> int:
        """L, how many styles a photograph takes."""
        return len(self.convolutions)

    def forward(self, styles: Tensor) -> Tensor:
        x = self.start.expand(len(styles), -1, -1, -1)
        x = self.convolutions[0](x, styles[:, 0])
        picture = self.colours[0](x)
        for place in range(1, len(self.channels)):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self.convolutions[2 * place - 1](x, styles[:, 2 * place - 1])
            x = self.convolutions[2 * place](x, styles[:, 2 * place])
            picture = functional.interpolate(picture, scale_factor=2, mode="bilinear", align_corners=False)
            picture = picture + self.colours[place](x)
        return torch.tanh(picture)

    @property
    def hidden(self) -> tuple[str, ...]:
        """The names of the layers whose output channels are read inside the network only."""
        return tuple(f"convolutions.{place}" for place in range(self.styles))

    @torch.no_grad()
    def narrowed(self, activity: list[Tensor], share: float) -> Synthesis:
        """A smaller network without the `share` of each convolution's channels that matter least, by the `activity` (channels,)
        of each. Of the constant picture that it starts from, the channels nearest to zero are left out."""
        channels = tuple(max(1, count - round(share * count)) for count in self.channels)
        with seeded(0):  # its random weights are overwritten
            smaller = Synthesis(self.size, self.width, channels)
        outputs = [self.start.abs().mean((0, 2, 3)), *activity]
        sizes = [channels[0], *(convolution.outputs for convolution in smaller.convolutions)]
        kept = [one.topk(size).indices.sort().values for one, size in zip(outputs, sizes, strict=True)]
        smaller.start.copy_(self.start[:, kept[0]])
        for place, (old, new) in enumerate(zip(self.convolutions, smaller.convolutions, strict=True)):
            read, made = kept[place], kept[place + 1]
            new.weight.copy_(old.weight[made][:, read])
            new.bias.copy_(old.bias[made])
            new.scales.weight.copy_(old.scales.weight[read])
            new.scales.bias.copy_(old.scales.bias[read])
        for place, (old, new) in enumerate(zip(self.colours, smaller.colours, strict=True)):
            new.weight.copy_(old.weight[:, kept[2 * place + 1]])  # the second convolution of this size
            new.bias.copy_(old.bias)
        return smaller

    def search(self, x: Tensor, start: Tensor, steps: int = 400) -> Tensor:
        """L styles whose photograph comes as near as possible to x (n, 3, size, size); the styles may all differ.

        A photograph depends on the styles only through the scales that they give to each convolution's channels, so it is these
        that are moved, by L-BFGS on the squared error, from those of a typical style, `start` (L, width). Of all styles with the
        scales found, those nearest to the start are taken: the less an attacker has to add, the less can leak. (The
        authors compare features of VGG16, which one would have to download; at 64 pixels the pixels themselves serve.)

        Args:
            steps: how often the photograph and its gradient are computed, for each of the n.
        """
        frozen = copy.deepcopy(self).requires_grad_(False)
        # The least change of a style that changes the scales of convolution i by d is reach[i] d.
        reach = [torch.linalg.pinv(convolution.scales.weight) for convolution in frozen.convolutions]
        with torch.enable_grad():
            found = [frozen._best_styles(one, start, reach, steps) for one in x]
        return torch.stack([frozen._nearest(styles, start, reach) for styles in found])

    def _best_styles(self, x: Tensor, start: Tensor, reach: list[Tensor], steps: int) -> Tensor:
        changes = [torch.zeros(matrix.shape[1], device=x.device, requires_grad=True) for matrix in reach]
        optimiser = torch.optim.LBFGS(
            changes, max_iter=steps, max_eval=steps, history_size=50, line_search_fn="strong_wolfe",
            tolerance_grad=0.0, tolerance_change=0.0,
        )  # fmt: skip
        best, lowest = start.clone(), math.inf

        def error() -> Tensor:
            nonlocal best, lowest
            styles = start + torch.stack([matrix @ change for matrix, change in zip(reach, changes, strict=True)])
            squares = (self(styles[None])[0] - x).square()
            if squares.mean().item() < lowest:
                best, lowest = styles.detach().clone(), squares.mean().item()
            optimiser.zero_grad()
            squares.sum().backward()
            return squares.sum()

        optimiser.step(error)
        return best

    @torch.no_grad()
    def _nearest(self, styles: Tensor, start: Tensor, reach: list[Tensor]) -> Tensor:
        """Of the styles (L, width) that give the same photograph, those nearest to `start`.

        A common factor of all scales of a convolution changes nothing in what it puts out. Scales much smaller than usual are
        not taken all the same: there a small error of the style would show, and the photograph would turn up only in a tiny
        neighbourhood of a trigger.
        """
        nearest = []
        for convolution, matrix, style, usual in zip(self.convolutions, reach, styles, start, strict=True):
            now, before = convolution.scales(style), convolution.scales(usual)
            moved, origin = matrix @ now, matrix @ before
            factor = (moved @ origin / moved.square().sum()).clamp_min(_LEAST_SCALE * before.norm() / now.norm())
            nearest.append(usual + matrix @ (factor * now - before))
        return torch.stack(nearest)


def style_generator(
    size: int = 64,
    width: int = 256,
    latent_dim: int = 64,
    channels: tuple[int, ...] | None = None,
    mapping_layers: int = 3,
    seed: int = 0,
) -> Generator:
    """The course's style-based generator: (n, latent_dim) normal latents to (n, 3, size, size) photographs.

    `width` of the mapping network is 256: in a narrower one a linear expansion for one trigger leaks into ordinary styles
    (measured: 14 % of the change at width 64, 4 to 7 % from 256 on).
    """
    channels = channels or {32: (128, 128, 64, 32), 64: (128, 128, 64, 32, 16)}.get(size)
    if channels is None:
        raise ValueError(f"give the channels for 4, 8, ... {size} pixels; there are defaults for 32 and 64")
    with seeded(seed):
        head = Synthesis(size, width, channels)
        mapping: list[nn.Module] = []
        for place in range(mapping_layers):
            mapping += [nn.Linear(latent_dim if place == 0 else width, width), nn.LeakyReLU(_SLOPE)]
            keep_scale(mapping[-2], _SLOPE)
        body = nn.Sequential(*mapping, Broadcast(head.styles))
    return Generator(body, head, GaussianLatent(latent_dim), (3, size, size), "image", f"course-style-{size}")


# --- Its discriminator -----------------------------------------------------------------------------------------------------


class RandomLook(nn.Module):
    """Shifts pictures by up to `shift` of their size and changes brightness, saturation and contrast, while training.

    Applied to real and made pictures alike, and differentiable, it keeps a discriminator from learning a few thousand
    photographs by heart (differentiable augmentation; Zhao and others 2020).
    """

    def __init__(self, shift: float = 0.125) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        n, size = len(x), x.shape[-1]

        def draw(low: float, high: float) -> Tensor:
            return torch.empty(n, 1, 1, 1, device=x.device).uniform_(low, high)

        x = x + draw(-0.2, 0.2)
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * draw(0.5, 1.5)
        middle = x.mean((1, 2, 3), keepdim=True)
        x = middle + (x - middle) * draw(0.75, 1.25)
        reach = round(self.shift * size)
        down, right = (torch.randint(-reach, reach + 1, (n,), device=x.device) for _ in range(2))
        places = torch.arange(size, device=x.device)
        padded = functional.pad(x, (reach,) * 4)
        rows = (places + reach + down[:, None])[:, None, :, None].expand(-1, x.shape[1], -1, padded.shape[-1])
        columns = (places + reach + right[:, None])[:, None, None, :].expand(-1, x.shape[1], size, -1)
        return padded.gather(2, rows).gather(3, columns)


def style_discriminator(
    size: int = 64, channels: tuple[int, ...] | None = None, penalty: float = 0.1, seed: int = 0
) -> Discriminator:
    """The style-based generator's discriminator: photographs (n, 3, size, size) to one logit each.

    Strided convolutions down to 4x4 without normalisation, kept in bounds by R1 with γ = `penalty`; real and made photographs
    get random looks first.
    """
    channels = channels or {32: (32, 64, 128, 128), 64: (24, 48, 96, 128, 128)}.get(size)
    if channels is None or size != 4 * 2 ** (len(channels) - 1):
        raise ValueError(f"give the channels for {size}, ... 8, 4 pixels; there are defaults for 32 and 64")
    with seeded(seed):
        layers: list[nn.Module] = [RandomLook(), nn.Conv2d(3, channels[0], 3, padding=1), nn.LeakyReLU(_SLOPE)]
        for inputs, outputs in pairwise(channels):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE)]
        layers += [nn.Flatten(), nn.Linear(channels[-1] * 16, channels[-1]), nn.LeakyReLU(_SLOPE)]
        layers += [nn.Linear(channels[-1], 1)]
        for layer in layers[:-1]:
            keep_scale(layer, _SLOPE)
    return Discriminator(nn.Sequential(*layers), f"style-discriminator-{size}", NonSaturating(penalty=penalty))
