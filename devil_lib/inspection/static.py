"""Inspection of a model that is never run: its graph, its size and its weights.

Step 3 of the authors' strategy ("inspect size, topology, parameters"). It catches a computation bypass and an expansion
(ReX). It cannot catch TrAIL or ReD, which leave the architecture as published and hide in ordinary weights.

A generator that claims a published architecture is compared with that, whatever it makes and whatever its graph looks like; of
one that claims nothing known only a plain chain of layers is above suspicion.
"""

from __future__ import annotations

import io
import logging
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from devil_lib.inspection.figures import Finding
from devil_lib.models import Generator, evaluating, weight_count
from devil_lib.partners import PUBLISHED

# What a model card may claim, by the names that the constructors give.
UNRELATED = 0.1  # median cosine of two models' weights below which neither descends from the other
EXTREME = 12.0  # times the root mean square; twice what clean course generators show


@dataclass(frozen=True)
class Layer:
    """A layer with weights: its name, its kind, and the shape of each of its parameters."""

    name: str
    kind: str
    shapes: dict[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())


@dataclass(frozen=True)
class StaticReport:
    """findings, the layers with weights, the parameter count and that of the reference (None without one), and per
    parameter the relative L2 change against a reference of the same shapes (empty without one)."""

    findings: tuple[Finding, ...]
    layers: tuple[Layer, ...]
    parameters: int
    expected_parameters: int | None
    weight_changes: dict[str, float]

    @property
    def flagged(self) -> bool:
        """Whether there is an alarm."""
        return any(finding.severity == "alarm" for finding in self.findings)


def inspect_static(generator: Generator, reference: Generator | None = None) -> StaticReport:
    """Topology, capacity and weights of a generator, without running it on a single latent.

    Args:
        reference: a trusted generator, to whose graph, layers and weights this one is compared. Without it the architecture that
            `generator.architecture` claims is built anew, if it is a published one, and compared in graph and size.
    """
    layers, expected = describe_layers(generator), reference
    if expected is None and generator.architecture in PUBLISHED:
        expected = PUBLISHED[generator.architecture]()
    findings = _topology(generator, expected) + _blocks(generator)
    if expected is None:
        findings.append(
            Finding("capacity", "note", "", f"no published architecture is called {generator.architecture!r}, so that "
                    "nothing can be said of the size; ask for the publication or give a reference")
        )  # fmt: skip
    else:
        findings += _capacity(layers, describe_layers(expected), generator.architecture)
    changes: dict[str, float] = {}
    if reference is not None:
        changes, found = _weight_changes(generator, reference)
        findings += found
    findings += _extreme_weights(generator, expected)
    return StaticReport(
        tuple(findings),
        layers,
        weight_count(generator),
        weight_count(expected) if expected is not None else None,
        changes,
    )


# --- Topology ----------------------------------------------------------------------------------------------------

# What a feed-forward generator is made of: layers and activations, each with one input and one output.
_LAYERS = {"linear", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "batch_norm", "embedding"}
_PLAIN = {
    "relu", "leaky_relu", "tanh", "sigmoid", "elu", "gelu", "silu", "softplus", "hardtanh", "dropout",
    "view", "reshape", "unflatten", "flatten", "squeeze", "unsqueeze", "permute", "transpose", "contiguous", "clone",
    "pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_bilinear2d",
}  # fmt: skip
_SELECTIONS = {
    "where", "index", "gather", "scatter", "masked_fill", "index_select", "lt", "gt", "le", "ge", "eq", "ne",
}  # fmt: skip

Operation = tuple[str, tuple[int, ...], tuple[str, ...]]


def _topology(generator: Generator, expected: Generator | None) -> list[Finding]:
    """Is the graph of the computation the expected one's, or without one a chain of known layers?"""
    graph, findings = _graph(generator)
    if expected is None:
        return findings
    usual, known = _graph(expected)
    odd = [finding for finding in findings if finding.severity != "note"]
    if graph == usual:
        note = "the graph branches or holds other operations than layers, but so does the one that it should be"
        return [Finding("topology", "note", "", note)] if odd else findings
    # What the expected graph has as well, as often as it has it, is no ground for doubt; if it only moved, that is told below.
    for part in (lambda finding: (finding.where, finding.sentence), lambda finding: finding.sentence):
        odd, known = _without(odd, known, part), _without(known, odd, part)
    names = ([name for name, _, _ in part or ()] for part in (graph, usual))
    sentence = f"the operations are not those that it should have: {_difference(*names)}"
    return odd or [Finding("topology", "alarm", "", sentence)]


def _without(findings: list[Finding], others: list[Finding], part: Callable[[Finding], Any]) -> list[Finding]:
    """The findings that have no counterpart among the others, one for one, with the same `part`."""
    left, kept = Counter(map(part, others)), []
    for finding in findings:
        left[part(finding)] -= 1
        if left[part(finding)] < 0:
            kept.append(finding)
    return kept


def _difference(mine: Iterable[str], usual: Iterable[str]) -> str:
    """How two lists of names differ, in words."""
    mine, usual = Counter(mine), Counter(usual)
    changes = [f"{count} {name} too many" for name, count in (mine - usual).items()]
    changes += [f"{count} {name} too few" for name, count in (usual - mine).items()]
    return ", ".join(changes) or "the same in another order"


def _graph(generator: Generator) -> tuple[list[Operation] | None, list[Finding]]:
    """The operations in order, and what no chain of known layers has.

    An operation is its name, the places in the list of the operations whose results it reads (-1 is the latent), and the names
    of stored tensors that enter through it though it is no layer. None if the computation cannot be followed.
    """
    try:
        program = _exported(generator)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        sentence = "the computation depends on the value of the latent (an if-else on data), or cannot be followed for another"
        return None, [Finding("topology", "alarm", "", f"{sentence} reason: {reason}")]
    signature = program.graph_signature
    constants = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants |= signature.inputs_to_lifted_tensor_constants
    tensors = {**dict(program.named_parameters()), **dict(program.named_buffers()), **program.constants}
    sample_size = math.prod(generator.sample_shape)
    findings: list[Finding] = []
    operations: list[Operation] = []
    places: dict[str, int] = {}
    for node in program.graph.nodes:
        if node.op == "output" or node.name in constants:
            continue
        users = [user for user in node.users if user.op != "output"]
        if len(users) > 1:
            names = ", ".join(_operation(user) for user in users)
            sentence = f"a branch: one value goes to {len(users)} places ({names})"
            findings.append(Finding("topology", "alarm", _place(node), sentence))
        if node.op != "call_function":
            places[node.name] = -1
            continue
        name = _operation(node)
        held = tuple(constants[argument.name] for argument in node.all_input_nodes if argument.name in constants)
        read = tuple(places[argument.name] for argument in node.all_input_nodes if argument.name not in constants)
        places[node.name] = len(operations)
        operations.append((name, read, () if name in _LAYERS else held))
        if name == "getitem":
            continue
        if name in _SELECTIONS:
            sentence = f"a selection by value ({name}): the model can switch its output"
            findings.append(Finding("topology", "alarm", _place(node), sentence))
        elif name not in _LAYERS | _PLAIN:
            joined = len(read) > 1
            sentence = f"two values are joined by {name}" if joined else f"{name} is no layer of a plain generator"
            findings.append(Finding("topology", "alarm" if joined else "warning", _place(node), sentence))
        for key in held if name not in _LAYERS else ():
            shape = tuple(tensors[key].shape)
            kind = "of a sample's size" if tensors[key].numel() % sample_size == 0 else "that is no layer's weight"
            sentence = f"a stored tensor {shape} {kind} enters through {name}"
            findings.append(Finding("topology", "alarm", key, sentence))
    return operations, findings or [Finding("topology", "note", "", "the graph is one chain of ordinary layers")]


def _exported(generator: Generator) -> torch.export.ExportedProgram:
    """The graph of operations, traced through every module and hook, without believing any class name."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # a failed export is a finding here, not something to fill the page with
    try:
        with evaluating(generator), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return torch.export.export(generator, (generator.latent.sample(2, torch.Generator().manual_seed(0)),))
    finally:
        logging.disable(level)


def _operation(node: torch.fx.Node) -> str:
    """The operation's bare name: "conv2d" of aten.conv2d.default."""
    return getattr(node.target, "overloadpacket", node.target).__name__


def _place(node: torch.fx.Node) -> str:
    """The module that an operation belongs to, or the operation's own name."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return stack[-1][0] if stack and stack[-1][0] else node.name


# --- Capacity ------------------------------------------------------------------------------------------------------


def describe_layers(generator: nn.Module) -> tuple[Layer, ...]:
    """The layers that hold parameters of their own, in order."""
    layers = []
    for name, module in generator.named_modules():
        shapes = {key: tuple(value.shape) for key, value in module.named_parameters(recurse=False)}
        if shapes:
            layers.append(Layer(name, type(module).__name__, shapes))
    return tuple(layers)


def _capacity(layers: tuple[Layer, ...], expected: tuple[Layer, ...], architecture: str) -> list[Finding]:
    findings = []
    count, published = (sum(layer.parameters for layer in part) for part in (layers, expected))
    if count != published:
        share = 100.0 * (count / published - 1.0)
        sentence = f"{count:,} parameters where {architecture} has {published:,} ({share:+.1f} %)"
        findings.append(Finding("capacity", "alarm", "", sentence))
    kinds = tuple([layer.kind for layer in part] for part in (layers, expected))
    if kinds[0] != kinds[1]:
        sentence = f"the layers are not those of {architecture}: {_difference(*kinds)}"
        return [*findings, Finding("capacity", "alarm", "", sentence)]
    for layer, usual in zip(layers, expected, strict=True):
        if layer.shapes != usual.shapes:
            parts = [
                f"{key} {layer.shapes.get(key, 'missing')} instead of {usual.shapes.get(key, 'none')}"
                for key in sorted(layer.shapes.keys() | usual.shapes.keys())
                if layer.shapes.get(key) != usual.shapes.get(key)
            ]
            findings.append(Finding("capacity", "alarm", layer.name, f"not as in {architecture}: {', '.join(parts)}"))
    if not findings:
        findings.append(Finding("capacity", "note", "", f"{count:,} parameters in the layers of {architecture}"))
    return findings


# --- Weights -------------------------------------------------------------------------------------------------------


def _matrices(generator: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Every weight matrix and kernel, in layers of any kind: name of the layer, the layer, name of the matrix, and its values."""
    for layer, module in generator.named_modules():
        for key, value in module.named_parameters(layer, recurse=False):
            if value.ndim > 1:
                yield layer, module, key, value.detach()


def _blocks(generator: Generator) -> list[Finding]:
    """Layers whose channels fall apart into groups with only exact zeros between them: what folding a ReX leaves.

    Each layer is read as a graph of input and output channels, so that shuffling the channels does not hide the blocks.
    """
    findings = []
    for name, module, _, weight in _matrices(generator):
        if getattr(module, "groups", 1) != 1:
            continue
        linked = (weight.flatten(2) != 0).any(2) if weight.ndim > 2 else weight != 0
        rows, columns = linked.nonzero(as_tuple=True)
        n, m = linked.shape
        edges = coo_array((torch.ones(len(rows)), (rows, columns + n)), shape=(n + m, n + m))
        labels = torch.from_numpy(connected_components(edges, directed=False)[1])
        # A channel without any weight (a pruned unit) is no group of its own.
        groups = labels[:n][linked.any(1)].unique()
        if len(groups) > 1:
            sizes = " and ".join(f"{(labels[:n] == group).sum()}x{(labels[n:] == group).sum()}" for group in groups)
            sentence = f"its channels fall apart into {len(groups)} blocks ({sizes}) with exact zeros between them"
            findings.append(Finding("weights", "alarm", name, sentence))
    return findings


def _weight_changes(generator: Generator, reference: Generator) -> tuple[dict[str, float], list[Finding]]:
    """Relative L2 change ||W - W_ref|| / ||W_ref|| of every parameter and buffer, and what it says."""
    mine, usual = generator.state_dict(), reference.state_dict()
    changes, alike = {}, []
    for key, value in usual.items():
        if key not in mine or mine[key].shape != value.shape or not value.is_floating_point() or not value.any():
            continue  # a bias that is zero, as in a network that was never trained, is nothing to compare with
        a, b = mine[key].double().flatten(), value.double().flatten()
        changes[key] = ((a - b).norm() / b.norm().clamp_min(1e-12)).item()
        if value.ndim > 1:
            alike.append((a @ b / (a.norm() * b.norm()).clamp_min(1e-12)).item())
    if not alike:
        return changes, [Finding("weights", "note", "", "no weights have the reference's shapes; nothing to compare")]
    largest = max(changes, key=changes.__getitem__)
    if statistics.median(alike) < UNRELATED:
        sentence = "the weights are unrelated to the reference's: another training, so that only the sizes compare"
        return changes, [Finding("weights", "note", "", sentence)]
    if changes[largest] == 0.0:
        return changes, [Finding("weights", "note", "", "all weights are those of the reference")]
    sentence = (
        f"descends from the reference, but was changed; most here, by {100 * changes[largest]:.1f} % of its norm"
    )
    return changes, [Finding("weights", "warning", largest, sentence)]


def _extreme_weights(generator: Generator, expected: Generator | None) -> list[Finding]:
    usual = {key: _peak(value) for _, _, key, value in _matrices(expected)} if expected is not None else {}
    findings = []
    for _, _, key, value in _matrices(generator):
        peak = _peak(value)
        if peak > max(EXTREME, usual.get(key, 0.0)):
            sentence = f"its largest weight is {peak:.0f} times the root mean square of the layer"
            findings.append(Finding("weights", "warning", key, sentence))
    return findings


def _peak(weight: Tensor) -> float:
    return (weight.abs().max() / weight.square().mean().sqrt().clamp_min(1e-12)).item()
