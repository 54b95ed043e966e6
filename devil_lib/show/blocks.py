"""The weight matrices of a widened generator, with the blocks that ReX's zero-padding makes."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from devil_lib.models import Generator
from devil_lib.show.core import BACKDOORED, BENIGN, displayed

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)


@displayed
def weight_blocks(widened: Generator, benign: Generator) -> Figure:
    """One panel for each layer with a weight matrix: outputs downwards, inputs to the right, the benign block framed.

    A cell is the root mean square of the weights between two channels (over the kernel, and over the positions where a
    dense layer's outputs are reshaped to channels; a layer with a single output channel shows each position of its
    kernel as a row). Weights that are exactly zero stay white.

    Raises:
        ValueError: `widened` is not as deep as `benign`, or one of its weight matrices is smaller.
    """
    pairs = list(zip(_matrices(benign.body), _matrices(widened.body), strict=False))
    if len(_matrices(benign.body)) != len(_matrices(widened.body)) or any(
        a > b for (_, old), (_, new) in pairs for a, b in zip(old.shape, new.shape, strict=True)
    ):
        raise ValueError("the first generator must be a folded widening of the second: see attacks.fold")
    fig = Figure(figsize=(9.0, 4.1), layout="constrained")
    widths = [max(1.0, math.sqrt(new.shape[1] / 24)) for _, (_, new) in pairs]
    panels = np.atleast_1d(fig.subplots(1, len(pairs), width_ratios=widths))
    values = torch.cat([new[new > 0] for _, (_, new) in pairs])
    norm = matplotlib.colors.LogNorm(values.quantile(0.02).item(), values.max().item(), clip=True)
    for axes, ((name, old), (_, new)) in zip(panels, pairs, strict=True):
        mesh = _panel(axes, old, new, norm)
        axes.set(title=name, xlabel="inputs")
    panels[0].set_ylabel("outputs")
    fig.colorbar(mesh, ax=list(panels), label="size of the weights", shrink=0.8)
    return fig


def _matrices(body: nn.Module) -> list[tuple[str, Tensor]]:
    """(name, (outputs, inputs)) of each layer whose weights connect channels."""
    layers, found = list(body), []
    for i, layer in enumerate(layers):
        weight = getattr(layer, "weight", None)
        if weight is None or weight.ndim < 2:
            continue
        weight = weight.detach().transpose(0, 1) if isinstance(layer, _TRANSPOSED) else weight.detach()
        if weight.ndim == 2 and i + 1 < len(layers):  # a dense layer: are its outputs reshaped to channels?
            unflatten = next((one for one in layers[i + 1 :] if hasattr(one, "unflattened_size")), None)
            positions = math.prod(unflatten.unflattened_size[1:]) if unflatten is not None else 1
            matrix = weight.unflatten(0, (-1, positions)).square().mean(1).sqrt()
        elif len(weight) == 1:
            matrix = weight[0].flatten(1).T.abs()
        else:
            matrix = weight.flatten(2).square().mean(2).sqrt()
        found.append((f"layer {i}\n{type(layer).__name__}", matrix))
    return found


def _panel(axes: Axes, old: Tensor, new: Tensor, norm: matplotlib.colors.Normalize) -> matplotlib.image.AxesImage:
    rows, columns = new.shape
    mesh = axes.imshow(np.ma.masked_equal(new.numpy(), 0.0), norm=norm, aspect="auto", interpolation="nearest")
    above, left = old.shape
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    blocks = [(0, 0, above, left, "W", BENIGN)]
    if above < rows and left < columns:
        blocks += [
            (above, left, rows - above, columns - left, "W_new", BACKDOORED),
            (0, left, above, columns - left, "0", "0.4"),
            (above, 0, rows - above, left, "0", "0.4"),
        ]
    elif above < rows:
        blocks.append((above, 0, rows - above, columns, "W_new", BACKDOORED))
    elif left < columns:
        blocks.append((0, left, rows, columns - left, "W_new", BACKDOORED))
    for top, start, height, width, word, colour in blocks:
        if word != "0":
            inset = (start - 0.5, top - 0.5)
            axes.add_patch(Rectangle(inset, width, height, fill=False, edgecolor=colour, linewidth=3, clip_on=False))
        text = {"W_new": "$W_{new}$", "W": "$W$", "0": "0"}[word]
        axes.text(
            start + width / 2 - 0.5, top + height / 2 - 0.5, text, ha="center", va="center", fontsize=15,
            color=colour, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2.5},
        )  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    return mesh
