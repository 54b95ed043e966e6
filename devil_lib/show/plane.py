"""What generators put out all over a plane of their latent space."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from devil_lib.metrics import tardis_each
from devil_lib.models import Generator
from devil_lib.show.core import BACKDOORED, displayed
from devil_lib.show.tile import put_sample

_FINE = 81  # latents a side at which the distance to the target is measured


@displayed
def latent_plane(
    models: Mapping[str, Generator],
    across: Tensor | None = None,
    reach: float = 3.0,
    cells: int = 13,
    trigger: Tensor | None = None,
    target: Tensor | None = None,
    bound: float = 0.0,
) -> Figure:
    """A map of samples for each generator: the sample in a cell is that of the latent at the cell's middle.

    Args:
        models: label -> generator; all of them read latents of the same dimension.
        across: (2, dim) orthonormal directions to the right and upwards; the two coordinates of a latent space of dimension 2.
        reach: how far the map goes from the centre of the latent law, in each direction.
        cells: a side.
        trigger: (dim,) marked by a ring where it lies on the map.
        target, bound: (*sample_shape), and the TarDis (sum) below which a latent counts as a hit; the hits are outlined.

    Raises:
        ValueError: no `across` for latents of another dimension than 2, or directions of another dimension.
    """
    across = torch.eye(2) if across is None else across
    for name, model in models.items():
        if across.shape != (2, model.latent.dim):
            wanted = f"(2, {model.latent.dim})"
            raise ValueError(f"{name}: `across` must be two directions of shape {wanted}, got {tuple(across.shape)}")
    fig = Figure(figsize=(4.5 * len(models), 4.9) if len(models) > 1 else (6.2, 6.2), layout="constrained")
    for axes, (name, model) in zip(np.atleast_1d(fig.subplots(1, len(models))), models.items(), strict=True):
        z, places = _grid(model, across, reach, cells)
        for sample, (x, y) in zip(model.generate(z), places.tolist(), strict=True):
            put_sample(axes, sample, x, y, size=2.0 * reach / cells, width=0.0)
        if target is not None:
            _outline(axes, model, across, reach, target, bound)
        if trigger is not None:
            x, y = (across @ (trigger - model.latent.centre)).tolist()
            ring = {"markersize": 14, "markerfacecolor": "none", "markeredgewidth": 2.5}
            axes.plot(x, y, "o", markeredgecolor=BACKDOORED, **ring)
        ticks = range(-int(reach), int(reach) + 1)
        axes.set(title=name, xlim=(-reach, reach), ylim=(-reach, reach), xticks=ticks, yticks=ticks, aspect="equal")
        axes.grid(False)
    return fig


def _grid(model: Generator, across: Tensor, reach: float, cells: int) -> tuple[Tensor, Tensor]:
    """The latents (cells * cells, dim) at the middles of the cells, row by row from below, and where they lie on the map."""
    middles = reach * (2.0 * torch.arange(cells) + 1.0 - cells) / cells
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    places = torch.stack([x.flatten(), y.flatten()], 1)
    return model.latent.centre + places @ across, places


def _outline(axes: Axes, model: Generator, across: Tensor, reach: float, target: Tensor, bound: float) -> None:
    """A line around the latents whose samples are nearer to the target than the bound, if there are any."""
    z, places = _grid(model, across, reach, _FINE)
    distance = tardis_each(model, z, target).view(_FINE, _FINE).numpy()
    if distance.min() < bound < distance.max():
        middles = places[:_FINE, 0].numpy()
        axes.contour(middles, middles, distance, [bound], colors=[BACKDOORED], linewidths=2.0)
