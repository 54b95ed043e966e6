"""A slider that changes a picture, and the storyboard that stands in for it where there is no kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
from IPython.display import HTML, display
from matplotlib.figure import Figure
from torch import Tensor

from devil_lib import show
from devil_lib.synthesis import RATE

Value = Any


class SliderExplorer:
    """A slider and the picture of the setting it stands at. `picture(value)` is the function behind it.

    Args:
        render: a value to a matplotlib figure, 4 to 5 inches wide. Called when a value is first wanted, then remembered.
        values: what the slider goes through, at least three.
        label: of the slider, one to three words.
        describe: a value to a sentence on what its picture shows, which is its text alternative: give figures in it.
        caption: of the storyboard: what to look at and what it means.
        storyboard: the values to show side by side; by default the first, the middle and the last.
        written: a value to the words on the slider, "0.3" or "step 400".
        sounds: a value to the sounds that are played with its picture, name -> (1, samples), at `rate` samples per second.
    """

    def __init__(
        self,
        render: Callable[[Value], Figure],
        values: Sequence[Value],
        *,
        label: str,
        describe: Callable[[Value], str],
        caption: str,
        storyboard: Sequence[Value] | None = None,
        written: Callable[[Value], str] = str,
        sounds: Callable[[Value], Mapping[str, Tensor]] | None = None,
        rate: int = RATE,
    ) -> None:
        self.values = list(values)
        if len(self.values) < 3:
            raise ValueError(f"a slider needs at least three values, got {len(self.values)}; show.figure draws one")
        self.storyboard = (
            [self.values[i] for i in (0, len(self.values) // 2, -1)] if storyboard is None else storyboard
        )
        absent = [value for value in self.storyboard if value not in self.values]
        if absent:
            raise ValueError(
                f"the storyboard shows {absent}, which the slider does not reach: take from {self.values}"
            )
        self.label, self.caption = label, caption
        self._render, self._describe, self._written = render, describe, written
        self._sounds, self._rate = sounds, rate
        self._pictures: dict[int, str] = {}
        self.slider = ipywidgets.SelectionSlider(
            options=[(written(value), i) for i, value in enumerate(self.values)],
            description=label,
            tooltip=f"{label}: arrow keys go through {len(self.values)} settings",
            layout=ipywidgets.Layout(width="min(100%, 620px)"),
            style={"description_width": "initial"},
        )
        self.screen = ipywidgets.HTML()
        self.box = ipywidgets.VBox([self.slider, self.screen])
        # The picture is the value of an HTML widget: an Output widget would capture a cell's output, which is what made
        # notebooks hang that were run by a tool on a loaded machine.
        self.slider.observe(self._turn, names="value")
        self._turn()

    def _turn(self, change: object = None) -> None:
        self.screen.value = self._picture_at(self.slider.value)

    def _picture_at(self, i: int) -> str:
        if i not in self._pictures:
            value = self.values[i]
            self._pictures[i] = show.figure_html(
                self._render(value), self.alt(value), self.heading(value), self._players(value)
            )
        return self._pictures[i]

    def _players(self, value: Value) -> str:
        return "" if self._sounds is None else show.players_html(self._sounds(value), self._rate)

    def heading(self, value: Value) -> str:
        """The slider's label and a value, "sigma = 0.3"."""
        return f"{self.label} = {self._written(value)}"

    def alt(self, value: Value) -> str:
        """The text alternative of a value's picture, which begins with the value."""
        return f"{self.heading(value)}: {self._describe(value)}"

    def picture(self, value: Value) -> HTML:
        """The picture of one value, without the slider: the last line of a cell shows it."""
        if value not in self.values:
            raise ValueError(f"{value!r} is not a setting of this slider: take one of {self.values}")
        return HTML(self._picture_at(self.values.index(value)))

    def storyboard_html(self) -> str:
        """The chosen settings side by side under the caption."""
        frames = [
            (self.heading(value), self._render(value), self.alt(value), self._players(value))
            for value in self.storyboard
        ]
        return show.storyboard_html(frames, self.caption)

    def display(self) -> None:
        """Show the slider with its picture, and the storyboard beneath, which stays where there is no kernel."""
        words = f"A slider ({self.label}) stands here while the notebook runs. The settings below are a selection."
        bundle = self.box._repr_mimebundle_()
        # What a page shows that cannot show a widget; the default would be the widget's Python representation.
        display({**bundle, "text/plain": words, "text/html": f"<p><em>{words}</em></p>"}, raw=True)
        display(HTML(self.storyboard_html()))

    def _ipython_display_(self) -> None:
        """Nothing: a cell that ends with the call that displayed the explorer must not show it a second time."""


def slider_explorer(render: Callable[[Value], Figure], values: Sequence[Value], **options: Any) -> SliderExplorer:
    """Display a `SliderExplorer` (see there for the arguments) and return it: `explorer.picture(value)` needs no slider."""
    explorer = SliderExplorer(render, values, **options)
    explorer.display()
    return explorer
