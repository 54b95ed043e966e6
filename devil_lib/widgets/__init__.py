"""Interactive explorers. Each has a storyboard beside it, three settings side by side, for print and exported pages."""

from devil_lib.widgets.dimensions import LatentGeometry, dimension_explorer, latent_geometry
from devil_lib.widgets.explorers import neighbourhood_explorer, training_explorer
from devil_lib.widgets.slider import SliderExplorer, slider_explorer

__all__ = [
    "LatentGeometry",
    "SliderExplorer",
    "dimension_explorer",
    "latent_geometry",
    "neighbourhood_explorer",
    "slider_explorer",
    "training_explorer",
]
