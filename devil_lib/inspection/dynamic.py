"""Inspection of a running model: which units are silent on ordinary latents, and which shout at chosen ones.

Meant for units that an attacker added and that work only at the trigger. It sees the side network of an unfolded ReX. It
does not see TrAIL or ReD, whose change is spread over all units, and at the trigger itself activations look ordinary.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from devil_lib.inspection.figures import Finding
from devil_lib.models import Generator, check_latents, evaluating

SILENT = 0.05  # share of the usual variation below which a unit counts as silent
LOUD = 6.0  # standard deviations of the prior's maxima


@dataclass(frozen=True)
class LayerActivity:
    """One layer on the prior. variation: per unit (channel), the standard deviation of its output over latents, averaged over
    positions. silent: units whose variation is below 5 % of the median of the layer and its peers. scores: for each chosen latent, the
    layer's largest absolute activation in standard deviations from its mean on the prior."""

    name: str
    kind: str
    variation: tuple[float, ...]
    silent: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class DynamicReport:
    """findings, and the activity of every innermost layer."""

    findings: tuple[Finding, ...]
    layers: tuple[LayerActivity, ...]

    @property
    def flagged(self) -> bool:
        """Whether there is an alarm."""
        return any(finding.severity == "alarm" for finding in self.findings)


def inspect_dynamic(
    generator: Generator, latents: Tensor | None = None, n: int = 500, seed: int = 0
) -> DynamicReport:
    """Activations of every layer on n prior latents, and at chosen `latents` (m, dim), such as those that a search found.

    Raises:
        ValueError: latents of the wrong shape or not finite, or n below 2.
    """
    if n < 2:
        raise ValueError("the spread over latents needs n >= 2")
    prior = generator.latent.sample(n, torch.Generator().manual_seed(seed))
    on_prior = activations(generator, prior)
    chosen: dict[str, Tensor] = {}
    if latents is not None:
        check_latents(latents, generator.latent)
        chosen = activations(generator, latents)
    kinds = {name: type(module).__name__ for name, module in generator.named_modules()}
    variation = {name: _units(values.var(0)).sqrt() for name, values in on_prior.items()}
    # Layers of one kind and output size are peers: beside the benign layer, the silent one of a side network shows.
    peers = defaultdict(list)
    for name, units in variation.items():
        peers[kinds[name], on_prior[name].shape[2:]] += units.tolist()
    layers, findings = [], []
    for name, values in on_prior.items():
        usual = statistics.median_high(peers[kinds[name], values.shape[2:]])
        quiet = variation[name] < SILENT * usual
        silent = tuple(quiet.nonzero().flatten().tolist())
        scores = _scores(values, chosen[name]) if chosen else ()
        layers.append(LayerActivity(name, kinds[name], tuple(variation[name].tolist()), silent, scores))
        if silent:
            sentence = (
                f"{len(silent)} of {len(quiet)} units put out next to nothing but a constant on ordinary latents"
            )
            findings.append(Finding("activations", "alarm" if quiet.all() else "note", name, sentence))
    for i in range(len(latents) if latents is not None else 0):
        loudest = max(layers, key=lambda layer: layer.scores[i])
        if loudest.scores[i] > LOUD:
            sentence = f"latent {i} drives it {loudest.scores[i]:.0f} standard deviations beyond its usual maximum"
            findings.append(Finding("activations", "warning", loudest.name, sentence))
    if not findings:
        findings.append(Finding("activations", "note", "", "no silent units, no unusual activation"))
    return DynamicReport(tuple(findings), tuple(layers))


def _scores(prior: Tensor, chosen: Tensor) -> tuple[float, ...]:
    """Largest absolute activation at each chosen latent, in standard deviations from its mean on the prior."""
    usual, at = (values.flatten(1).abs().amax(1) for values in (prior, chosen))
    # A saturated layer has the same maximum everywhere; a spread below 1 % of it would make noise of rounding.
    spread = usual.std().clamp_min(0.01 * usual.mean().item() + 1e-12)
    return tuple(((at - usual.mean()) / spread).tolist())


@torch.no_grad()
def activations(generator: Generator, latents: Tensor) -> dict[str, Tensor]:
    """Name -> output (n, ...) of every innermost layer, in evaluation mode."""
    outputs: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: outputs.__setitem__(name, out.detach()))
        for name, module in generator.named_modules()
        if not list(module.children())
    ]
    try:
        with evaluating(generator):
            generator(latents)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def _units(values: Tensor) -> Tensor:
    """Mean over positions: (channels, ...) to (channels,)."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values
