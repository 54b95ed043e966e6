"""Watching a generator while it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from IPython.display import HTML, display
from torch import Tensor

from devil_lib.models import Generator, check_latents
from devil_lib.show import waiting
from devil_lib.show.core import figure_html
from devil_lib.show.plots import samples


class Watch:
    """A callback `(step, generator, losses)` for training: progress, samples that change while one looks on, and what is kept.

    Args:
        latents: (n, dim), the same for every picture, so that one sees each sample form.
        total: steps of the training. description: a word or two on it, for the progress bar.
        keep: how many snapshots to keep, at steps that grow by a constant factor, since most happens early.
        measure: name -> a function of the generator, evaluated at every snapshot.
        rows: of the grid that is drawn.

    `steps`, `samples` (a tensor (n, *sample_shape) each) and `measured` (name -> numbers) hold the snapshots. Call it with step 0
    and the untrained generator to keep that one too. A training that is interrupted leaves the snapshots made until then.
    """

    def __init__(
        self,
        latents: Tensor,
        total: int,
        description: str,
        keep: int = 9,
        measure: Mapping[str, Callable[[Generator], float]] | None = None,
        rows: int = 2,
    ) -> None:
        if total < 1 or keep < 2:
            raise ValueError(f"a watch needs at least 1 step and 2 snapshots, got total={total} and keep={keep}")
        self.steps: list[int] = []
        self.samples: list[Tensor] = []
        self.measured: dict[str, list[float]] = {name: [] for name in measure or {}}
        self._latents, self._rows, self._measure = latents, rows, dict(measure or {})
        first = max(1, total // 64)
        self._due = {0} | {round(first * (total / first) ** (i / (keep - 1))) for i in range(keep)}
        self._redraw = max(1, total // 20)
        self._bar = waiting.progress(total, description)
        self._screen: Any = None

    def __call__(self, step: int, generator: Generator, losses: Mapping[str, float] | None = None) -> None:
        keep = step in self._due
        draw = waiting._watched() and (keep or step % self._redraw == 0)
        if keep or draw:
            check_latents(self._latents, generator.latent)
            made = generator.generate(self._latents)
            if keep:
                self.steps.append(step)
                self.samples.append(made)
                for name, function in self._measure.items():
                    self.measured[name].append(float(function(generator)))
            if draw:
                self._draw(step, made)
        if step:
            self._bar(step, losses or {})

    def _draw(self, step: int, made: Tensor) -> None:
        words = (
            f"The generator's samples at {len(made)} fixed latents after {step:,} steps of training.",
            f"Live: step {step:,}. The same {len(made)} latents every time.",
        )
        page = HTML(figure_html(samples.draw(made, rows=self._rows), *words))
        if self._screen is None:
            self._screen = display(page, display_id=True)
        else:
            self._screen.update(page)
