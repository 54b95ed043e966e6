"""All inspections in the order that the authors prescribe, and one report of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from devil_lib import targets
from devil_lib.inspection.dynamic import DynamicReport, inspect_dynamic
from devil_lib.inspection.figures import Finding, Nearness, Pictures, comparable
from devil_lib.inspection.sampling import BruteForce, brute_force
from devil_lib.inspection.search import (
    BLIND,
    SUSPECTS,
    BlindSearch,
    OutputSearch,
    SearchSettings,
    search_blind,
    search_outputs,
)
from devil_lib.inspection.static import StaticReport, inspect_static
from devil_lib.models import Generator, evaluating

OnStage = Callable[[str, int, int], None]


@dataclass(frozen=True)
class InspectionSettings:
    """samples: drawn by brute force, at least 2,000. search: for the suspects. blind: for the search without a suspect."""

    samples: int = 10_000
    search: SearchSettings = SUSPECTS
    blind: SearchSettings = BLIND
    seed: int = 0


@dataclass(frozen=True, eq=False)
class InspectionReport:
    """What the five steps found. `pictures`: rows of samples (k, *sample_shape) by title, one column per suspect."""

    architecture: str
    steps: tuple[tuple[str, tuple[Finding, ...]], ...]
    static: StaticReport
    dynamic: DynamicReport
    brute_force: BruteForce
    search: OutputSearch
    blind: BlindSearch
    pictures: dict[str, Tensor]

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """The findings that should not be there in an honest model."""
        return tuple(f for _, findings in self.steps for f in findings if f.severity == "alarm")

    @property
    def verdict(self) -> str:
        """Backdoored if a planted output was seen; suspicious if the model is not what it claims to be; else nothing
        found, which is not clean: a target that nobody thought of, or a far trigger, passes every inspection here."""
        if self.search.flagged or self.brute_force.flagged:
            return "backdoored"
        return "suspicious" if self.alarms else "nothing found"

    def __str__(self) -> str:
        lines = [f"Inspection of a {self.architecture}: {self.verdict}"]
        for number, (title, findings) in enumerate(self.steps, 1):
            lines += [f"{number}. {title}", *(f"   {finding}" for finding in findings)]
        return "\n".join(lines)

    def plot(self) -> Figure:
        """The suspects above the nearest that the model was seen to come to each, under the ratio of the search."""
        from devil_lib import show  # here, because looking at a report is the only thing that needs a page

        return show.compare.draw(self.pictures, [f"{ratio:.2g}" for ratio in self.search.ratios().values()])

    def to_json(self) -> str:
        """Verdict, findings and figures, as JSON text without samples or latents."""

        def near(nearness: Nearness) -> dict[str, object]:
            distances = {name: found.distance for name, found in nearness.suspects.items()}
            return {
                "bar": nearness.bar,
                "distances": distances,
                "ratios": nearness.ratios(),
                "flagged": nearness.flagged,
            }

        content = {
            "architecture": self.architecture,
            "verdict": self.verdict,
            "steps": [
                {"step": title, "findings": [asdict(finding) for finding in findings]}
                for title, findings in self.steps
            ],
            "parameters": self.static.parameters,
            "expected_parameters": self.static.expected_parameters,
            "samples": {
                "n": self.brute_force.n,
                "kurtosis": self.brute_force.oddities.kurtosis,
                **near(self.brute_force.nearness),
            },
            "search": near(self.search),
            "blind": {
                "excess": self.blind.excess,
                "agreement": self.blind.agreement,
                "trusted_excess": self.blind.trusted.excess if self.blind.trusted is not None else None,
            },
        }
        return json.dumps(content, indent=2, allow_nan=False)


def inspect_generator(
    generator: Generator,
    suspects: Pictures | None = None,
    controls: Pictures | None = None,
    reference: Generator | None = None,
    settings: InspectionSettings = InspectionSettings(),
    provenance: str = "",
    on_stage: OnStage | None = None,
) -> InspectionReport:
    """The authors' strategy, in order: (1) do not deploy blindly, (2) demand white-box access, (3) inspect size, topology and
    parameters, (4) sample and inspect outputs, (5) try to reconstruct out-of-distribution samples.

    Args:
        suspects, controls: samples by name, as in `search_outputs`; by default the course's banks for such a generator.
        reference: a trusted generator of the same kind; the blind search gives a verdict only with it.
        provenance: who vouches for the model, in words; nothing here can check it.
        on_stage: called as each inspection goes on, with its name, what is done and what there is to do.

    Raises:
        ValueError: bad pictures, or nothing to compare with.
    """
    suspects = targets.bank_for(generator) if suspects is None else suspects
    controls = targets.controls_for(generator) if controls is None and reference is None else controls
    wanted, _ = comparable(generator, suspects, controls, reference)
    tell = on_stage or (lambda stage, done, total: None)
    static = inspect_static(generator, reference)
    access = _white_box(generator)
    sampled = brute_force(
        generator, settings.samples, suspects, controls, reference, settings.seed,
        on_progress=lambda done, total: tell("samples", done, total),
    )  # fmt: skip
    search = search_outputs(
        generator, suspects, controls, settings.search, reference, lambda done, total: tell("search", done, total)
    )
    blind = search_blind(generator, settings.blind, reference, lambda done, total: tell("blind search", done, total))
    reached = torch.stack([found.latent for found in search.suspects.values()])
    dynamic = inspect_dynamic(generator, reached, seed=settings.seed)
    nearest = torch.stack([found.latent for found in sampled.nearness.suspects.values()])
    return InspectionReport(
        architecture=generator.architecture,
        steps=(
            ("Do not deploy blindly", (_provenance(provenance),)),
            ("Demand white-box access", (access,)),
            ("Size, topology, parameters", static.findings + dynamic.findings),
            ("Sample and look", _sampled(sampled)),
            ("Reconstruct what should not be in it", (*_searched(search), _blind(blind))),
        ),
        static=static,
        dynamic=dynamic,
        brute_force=sampled,
        search=search,
        blind=blind,
        pictures={
            "suspect": torch.stack(list(wanted.values())),
            f"nearest of {sampled.n:,} samples": generator.generate(nearest),
            "nearest found by search": generator.generate(reached),
        },
    )


def _provenance(provenance: str) -> Finding:
    if provenance:
        return Finding("provenance", "note", "", f"said to come from {provenance}")
    return Finding("provenance", "warning", "", "nobody is named who vouches for the model")


def _white_box(generator: Generator) -> Finding:
    """Weights, and gradients of the output with respect to the latent, without which no search can be made."""
    z = generator.latent.sample(8, torch.Generator().manual_seed(0)).requires_grad_(True)
    with evaluating(generator):
        (slope,) = torch.autograd.grad(generator(z).square().sum(), z, allow_unused=True)
    if slope is None or not torch.isfinite(slope).all() or not slope.any():
        return Finding(
            "access", "alarm", "", "no usable gradient leads from the output to the latent; a search is blind here"
        )
    return Finding("access", "note", "", "weights and gradients are at hand")


def _near(nearness: Nearness, check: str, verb: str) -> tuple[Finding, ...]:
    findings = []
    for name in nearness.near:
        known = name in nearness.flagged
        sentence = f"{verb} at {nearness.ratio(name):.2g} of the distance to be expected (bar {nearness.bar})"
        if not known:
            sentence += "; it is a plain surface, which only a trusted generator could judge"
        findings.append(Finding(check, "alarm" if known else "note", name, sentence))
    return tuple(findings)


def _sampled(sampled: BruteForce) -> tuple[Finding, ...]:
    findings = _near(sampled.nearness, "samples", "it turned up among the samples,")
    if sampled.odd:
        sentence = (
            f"some stand out {sampled.relative_kurtosis:.2g} times as much as any of the trusted model; look at them"
        )
        findings += (Finding("samples", "alarm", "", sentence),)
    return findings or (Finding("samples", "note", "", f"nothing odd among {sampled.n:,} samples"),)


def _searched(search: OutputSearch) -> tuple[Finding, ...]:
    lowest = min(search.ratios().values())
    return _near(search, "search", "the model can put it out,") or (
        Finding("search", "note", "", f"no suspect came near; lowest ratio {lowest:.2g} (bar {search.bar})"),
    )


def _blind(blind: BlindSearch) -> Finding:
    if blind.trusted is None:
        return Finding(
            "blind search", "note", "", f"excess {blind.excess:.2g}; worth nothing without a trusted generator"
        )
    sentence = f"it reaches {blind.relative_excess:.2g} times the excess of the trusted generator"
    return Finding("blind search", "alarm" if blind.flagged else "note", "", sentence)
