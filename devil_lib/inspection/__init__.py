"""Inspecting a generator of unknown origin, in the order of the authors' five-step strategy.

`static`: graph, size and weights. `search`: optimisation-based inspection of the outputs.
"""

from devil_lib.inspection.search import Found, OutputSearch, SearchSettings, search_outputs
from devil_lib.inspection.static import Finding, Layer, StaticReport, inspect_static

__all__ = ["Finding", "Found", "Layer", "OutputSearch", "SearchSettings", "StaticReport", "inspect_static", "search_outputs"]
