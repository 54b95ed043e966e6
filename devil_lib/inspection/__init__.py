"""Inspecting a generator of unknown origin, in the order of the authors' five-step strategy.

`static`: graph, size and weights. `dynamic`: activations. `sampling`: brute force. `search`: descent to a feared output.
`report`: all of them at once.
"""

from devil_lib.inspection.dynamic import DynamicReport, LayerActivity, inspect_dynamic
from devil_lib.inspection.figures import Finding, Found, Nearness
from devil_lib.inspection.report import InspectionReport, InspectionSettings, inspect_generator
from devil_lib.inspection.sampling import BruteForce, Oddities, Subspace, brute_force, hit_probability
from devil_lib.inspection.search import (
    BLIND,
    SUSPECTS,
    BlindSearch,
    OutputSearch,
    SearchSettings,
    search_blind,
    search_outputs,
)
from devil_lib.inspection.static import Layer, StaticReport, inspect_static

__all__ = [
    "BLIND",
    "SUSPECTS",
    "BlindSearch",
    "BruteForce",
    "DynamicReport",
    "Finding",
    "Found",
    "InspectionReport",
    "InspectionSettings",
    "Layer",
    "LayerActivity",
    "Nearness",
    "Oddities",
    "OutputSearch",
    "SearchSettings",
    "StaticReport",
    "Subspace",
    "brute_force",
    "hit_probability",
    "inspect_dynamic",
    "inspect_generator",
    "inspect_static",
    "search_blind",
    "search_outputs",
]  # fmt: skip
