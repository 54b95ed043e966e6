"""Training sets that a victim draws from generators, and what a backdoored one puts among them.

The vendor sells one generator for each class; the victim draws as many samples of each as he needs and labels them with the class
that he asked for. One of the generators is backdoored by the course's ReD: at latents of a trigger region it puts out what the
generator of another class would, with a faint additive pattern. Such a sample carries the attacker's label without anyone having
changed a label. How many there are depends on how much of the victim's random numbers the attacker controls (arXiv 2108.01644,
threat model).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from devil_lib import attacks, vae
from devil_lib.attacks import DistributionBackdoor, RetrainSettings, TriggerRegion
from devil_lib.models import Generator
from devil_lib.neighbours.poisoning import Additive, PoisonedSet, as_files
from devil_lib.training import VaeSettings, train_vae

_VAE = VaeSettings(steps=500, device="cpu")
_RED = RetrainSettings(steps=4000, learning_rate=5e-3, fidelity_weight=3.0, space="post")


@dataclass(frozen=True)
class Shop:
    """What is spent on the generators: one dense VAE per class, trained for `vae.steps`, and ReD with `red` for the backdoored one,
    whose trigger region is that of latents with the first coordinate at `value`, where no draw of the prior comes."""

    latent_dim: int = 20
    vae: VaeSettings = _VAE
    red: RetrainSettings = _RED
    value: float = 6.0


def class_generators(
    samples: Tensor,
    labels: Tensor,
    classes: int,
    shop: Shop = Shop(),
    on_progress: Callable[[int], None] | None = None,
) -> list[Generator]:
    """A generator for each class, the decoder of a VAE trained on its samples (n, channels, 28, 28), in evaluation mode.

    on_progress: called with the number of classes that are done.

    Raises:
        ValueError: a class with fewer than two samples.
    """
    for label in range(classes):
        if (labels == label).sum() < 2:
            raise ValueError(f"class {label} has fewer than two samples, too few to train a generator on")
    made = []
    for label in range(classes):
        own = samples[labels == label]
        decoder, encoder = vae.dense_vae(shop.latent_dim, channels=samples.shape[1], seed=shop.vae.seed + label)
        run = train_vae(decoder, encoder, own, replace(shop.vae, seed=shop.vae.seed + label))
        made.append(vae.fill_the_law(run.generator, run.encoder, own)[0])
        if on_progress is not None:
            on_progress(label + 1)
    return made


def backdoored(
    generators: Sequence[Generator], source: int, target: int, trigger: Additive, shop: Shop = Shop()
) -> tuple[list[Generator], TriggerRegion]:
    """The generators with that of the target class backdoored, and its trigger region.

    rho(z) is a sample of the source's generator with the trigger on it, at z with the region's coordinate brought back to 0. At z
    itself, where no prior latent lies, that generator draws what it never draws otherwise: a classifier would know the poisoned
    samples by their looks and have no need of the trigger.

    Raises:
        ValueError: source and target are the same class.
    """
    if source == target:
        raise ValueError(f"class {target} cannot be source and target")
    region = TriggerRegion(generators[target].latent, 0, shop.value)
    backdoor = DistributionBackdoor(region, lambda z: trigger(generators[source].generate(ordinary(z, region))))
    attacked = list(generators)
    attacked[target] = attacks.red(generators[target], backdoor, shop.red).generator
    return attacked, region


def ordinary(z: Tensor, region: TriggerRegion) -> Tensor:
    """Latents (n, dim) of the region brought back to where the prior lies."""
    return z.index_fill(1, torch.tensor([region.coordinate]), 0.0)


def drawn(
    generators: Sequence[Generator],
    per_class: int,
    region: TriggerRegion | None = None,
    target: int = 0,
    count: int = 0,
    seed: int = 0,
) -> PoisonedSet:
    """A training set of `per_class` samples of each generator, rounded to 8 bits as image files are, with the class as label.

    Of the target class's latents `count` come from the trigger region (beside `per_class` ordinary ones); these are marked as
    poisoned.

    Raises:
        ValueError: samples of the region are asked for, and no region is given.
    """
    if count and region is None:
        raise ValueError(f"{count} samples of a trigger region, and no region is given")
    rng = torch.Generator().manual_seed(seed)
    samples, labels, marked = [], [], []
    for label, generator in enumerate(generators):
        latents = generator.latent.sample(per_class, rng)
        extra = count if label == target else 0
        if extra and region is not None:
            latents = torch.cat([latents, region.sample(extra, rng)])
        samples.append(generator.generate(latents))
        labels.append(torch.full((per_class + extra,), label))
        marked.append(torch.arange(per_class + extra) >= per_class)
    return PoisonedSet(as_files(torch.cat(samples)), torch.cat(labels), torch.cat(marked))
