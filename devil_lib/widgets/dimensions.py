"""The explorer of how latents lie in spaces of more and more dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from devil_lib import show
from devil_lib.models import GaussianLatent
from devil_lib.show.core import BACKDOORED, BENIGN
from devil_lib.widgets.slider import SliderExplorer


@dataclass(frozen=True)
class LatentGeometry:
    """`n` draws of a latent law of one dimension, seen from the centre and from one more draw.

    norms: (n,). angles: (n,) in degrees between pairs of draws. nearest: the least distance of a draw to the one more, and
    typical: the median distance.
    """

    norms: Tensor
    angles: Tensor
    nearest: float
    typical: float


def latent_geometry(dim: int, n: int = 4000, seed: int = 0) -> LatentGeometry:
    """Norms, angles and distances of `n` latents of N(0, I) in `dim` dimensions."""
    rng = torch.Generator().manual_seed(seed)
    z, other, one = (GaussianLatent(dim).sample(count, rng).double() for count in (n, n, 1))
    cosine = (z * other).sum(1) / (z.norm(dim=1) * other.norm(dim=1))
    apart = (z - one).norm(dim=1)
    return LatentGeometry(
        z.norm(dim=1), cosine.clamp(-1.0, 1.0).acos().rad2deg(), apart.min().item(), apart.median().item()
    )


def dimension_explorer(
    dims: Sequence[int] = (1, 2, 3, 5, 10, 20, 50, 100),
    n: int = 4000,
    seed: int = 0,
    *,
    caption: str = "From few dimensions to many: norms gather at the square root of d, angles at 90 degrees.",
) -> SliderExplorer:
    """Display a slider over the latent dimension: where norms lie, at which angles latents meet, how near two come."""
    found = {dim: latent_geometry(dim, n, seed) for dim in dims}

    def render(dim: int) -> Figure:
        geometry = found[dim]
        with matplotlib.rc_context(show.style()):
            fig = Figure(figsize=(4.8, 3.9), layout="constrained")
            above, below = fig.subplots(2)
            above.hist(geometry.norms.numpy(), np.linspace(0, 14, 57), density=True, color=BENIGN, alpha=0.75)
            above.axvline(
                math.sqrt(dim),
                color="0.25",
                linestyle="--",
                marker="",
                label=f"square root of d = {math.sqrt(dim):.2g}",
            )
            above.set(xlim=(0, 14), xlabel="norm of a latent", ylabel="density")
            above.legend()
            below.hist(geometry.angles.numpy(), np.linspace(0, 180, 61), density=True, color=BACKDOORED, alpha=0.75)
            below.set(xlim=(0, 180), xticks=range(0, 181, 30), xlabel="angle between two latents, degrees")
            below.set_ylabel("density")
        return fig

    def describe(dim: int) -> str:
        geometry = found[dim]
        low, high = geometry.norms.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
        least, most = geometry.angles.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
        return (
            f"95 of 100 norms lie between {low:.2g} and {high:.2g} and 95 of 100 angles between {least:.0f} and "
            f"{most:.0f} degrees; of {n:,} latents the nearest to a given one is {geometry.nearest / geometry.typical:.2g} "
            "times as far as usual."
        )

    explorer = SliderExplorer(render, dims, label="dimension d", describe=describe, caption=caption)
    explorer.display()
    return explorer
