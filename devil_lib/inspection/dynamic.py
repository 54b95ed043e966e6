"""Inspection of a running model: which units are silent on ordinary latents, and which shout at chosen ones.

Meant for units that an attacker added and that work only at the trigger. It sees the side network of an unfolded ReX. It
does not see TrAIL or ReD, whose change is spread over all units, and at the trigger itself activations look ordinary.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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
    """findings, and the activity of every layer."""

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

    No activations are kept, so that the memory needed is that of a batch of samples.

    Raises:
        ValueError: latents of the wrong shape or not finite, or n below 2.
    """
    if n < 2:
        raise ValueError("the spread over latents needs n >= 2")
    if latents is not None:
        check_latents(latents, generator.latent)
    on_prior: dict[str, _Spread] = defaultdict(_Spread)
    kinds: dict[str, str] = {}
    peaks: dict[str, list[Tensor]] = defaultdict(list)

    def ordinary(name: str, layer: nn.Module, values: Tensor) -> None:
        kinds[name] = type(layer).__name__
        on_prior[name].add(values)

    watch(generator, generator.latent.sample(n, torch.Generator().manual_seed(seed)), ordinary)
    if latents is not None:
        watch(generator, latents, lambda name, _, values: peaks[name].append(_peak(values)))
    # Layers of one kind and output size are peers: beside the benign layer, the silent one of a side network shows.
    peers = defaultdict(list)
    for name, spread in on_prior.items():
        peers[kinds[name], spread.positions] += spread.variation.tolist()
    layers, findings = [], []
    for name, spread in on_prior.items():
        quiet = spread.variation < SILENT * statistics.median_high(peers[kinds[name], spread.positions])
        silent = tuple(quiet.nonzero().flatten().tolist())
        scores = spread.scores(torch.cat(peaks[name])) if name in peaks else ()
        layers.append(LayerActivity(name, kinds[name], tuple(spread.variation.tolist()), silent, scores))
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


class _Spread:
    """Mean and variance of a layer's outputs over latents that come in batches, and the largest of each."""

    def __init__(self) -> None:
        self.n, self.peaks = 0, torch.zeros(0)

    def add(self, values: Tensor) -> None:
        """Outputs (n, channels, ...)."""
        n, mean = len(values), values.mean(0)
        squares = (values - mean).square().sum(0)
        if self.n:  # two batches' means and sums of squares as one's (Chan and others 1979)
            gap, share = mean - self.mean, n / (self.n + n)
            mean = self.mean + share * gap
            squares = self.squares + squares + self.n * share * gap.square()
        self.n, self.mean, self.squares = self.n + n, mean, squares
        self.peaks = torch.cat([self.peaks, _peak(values)])

    @property
    def positions(self) -> torch.Size:
        return self.mean.shape[1:]

    @property
    def variation(self) -> Tensor:
        """(channels,) standard deviation over latents; variances are averaged over positions."""
        variance = self.squares / (self.n - 1)
        return (variance.flatten(1).mean(1) if variance.ndim > 1 else variance).sqrt()

    def scores(self, peaks: Tensor) -> tuple[float, ...]:
        """Largest absolute activation at each chosen latent, in standard deviations from its mean on the prior."""
        usual = self.peaks
        # A saturated layer has the same maximum everywhere; a spread below 1 % of it would make noise of rounding.
        spread = usual.std().clamp_min(0.01 * usual.mean().item() + 1e-12)
        return tuple(((peaks - usual.mean()) / spread).tolist())


def _peak(values: Tensor) -> Tensor:
    """(n,) largest absolute value of each of (n, ...)."""
    return values.flatten(1).abs().amax(1)


# --- Looking inside ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def watch(generator: Generator, latents: Tensor, see: Callable[[str, nn.Module, Tensor], None]) -> None:
    """Run latents (n, dim) through a generator in evaluation mode, batch by batch, and show `see` every layer: what has no
    layers in it, or has weights of its own. It gets the layer's name, the layer and its output (m, ...)."""
    calls: Counter[str] = Counter()

    def hook(name: str) -> Callable[..., None]:
        def shown(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] += 1  # a layer without weights may stand in several places
            see(name if calls[name] == 1 else f"{name}, call {calls[name]}", layer, output.detach().cpu())

        return shown

    hooks = [
        module.register_forward_hook(hook(name))
        for name, module in generator.named_modules()
        if not list(module.children()) or list(module.parameters(recurse=False))
    ]
    try:
        with evaluating(generator):
            for part in latents.split(max(1, generator.batch // 4)):
                calls.clear()
                generator(part.to(generator.device))
    finally:
        for each in hooks:
            each.remove()


def activations(generator: Generator, latents: Tensor) -> dict[str, Tensor]:
    """Name -> output (n, ...) of every layer, in evaluation mode. All are kept: for few latents, or small samples."""
    outputs: dict[str, list[Tensor]] = defaultdict(list)
    watch(generator, latents, lambda name, _, values: outputs[name].append(values))
    return {name: torch.cat(values) for name, values in outputs.items()}
