"""Pictures and sounds. Every figure of the course goes through :func:`figure`, which demands a text alternative and a caption,
and every sound through :func:`sound` or :func:`sounds`, which also demand a sentence on what is heard.

The helpers take plain tensors, draw, display, and return nothing. Each has its drawing alone as `.draw`:
`show.curves.draw(...)` returns the matplotlib figure that `show.curves(..., alt=..., caption=...)` displays.
"""

from devil_lib.show.blocks import weight_blocks
from devil_lib.show.core import (
    BACKDOORED,
    BENIGN,
    COLOURS,
    check_words,
    figure,
    figure_html,
    png,
    storyboard_html,
    style,
    table,
)
from devil_lib.show.hearing import players_html, sound, sound_html, sounds, sounds_html, spectrogram, wav
from devil_lib.show.live import Watch
from devil_lib.show.plane import latent_plane
from devil_lib.show.plots import bars, compare, curves, heatmap_table, histogram, samples, scatter_tradeoff, verdicts
from devil_lib.show.waiting import progress
from devil_lib.show.walk import distance_to_target, fractions_towards, neighbourhood, walk_to_trigger

__all__ = [
    "BACKDOORED",
    "BENIGN",
    "COLOURS",
    "Watch",
    "bars",
    "check_words",
    "compare",
    "curves",
    "distance_to_target",
    "figure",
    "figure_html",
    "fractions_towards",
    "heatmap_table",
    "histogram",
    "latent_plane",
    "neighbourhood",
    "players_html",
    "png",
    "progress",
    "samples",
    "scatter_tradeoff",
    "sound",
    "sound_html",
    "sounds",
    "sounds_html",
    "spectrogram",
    "storyboard_html",
    "style",
    "table",
    "verdicts",
    "walk_to_trigger",
    "wav",
    "weight_blocks",
]
