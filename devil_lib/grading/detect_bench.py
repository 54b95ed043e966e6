"""A bench of eight tiny generators of digits for the assignment on detection: four clean ones, four with a backdoor.

They lie in `bench/`, in half precision, with a card that says what each is. `python -m devil_lib.grading.detect_bench` makes
those that are missing, from fixed seeds and the embedded digits, in a few minutes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from devil_lib import attacks, checkpoints, data, metrics, targets, training
from devil_lib.models import Encoder, GaussianLatent, Generator, TanhHead, keep_scale, seeded

FOLDER = Path(__file__).parent / "bench"
CARD = FOLDER / "bench.json"
SIZE, DIM = 16, 16
SUSPECTS = ("devil", "skull", "stop sign")  # of `targets.bank`; those that are planted are among them
TINY = "tiny-vae"


@dataclass(frozen=True, eq=False)
class Entry:
    """A generator of the bench; attack, trigger (dim,), target (1, 16, 16) and its name are None where it is clean."""

    name: str
    generator: Generator
    attack: str | None
    trigger: Tensor | None
    target: Tensor | None
    target_name: str | None


def names() -> list[str]:
    """The entries, clean ones first."""
    return list(_RECIPES)


def load(name: str) -> Entry:
    """An entry, float32, in evaluation mode.

    Raises:
        ValueError: no such entry; the message lists those there are.
        UnsafeCheckpoint: the file is not the one that the card describes, or damaged.
    """
    if name not in _RECIPES:
        raise ValueError(f"the bench has no {name!r}; it has {', '.join(names())}")
    about, path = json.loads(CARD.read_text(encoding="utf-8"))[name], FOLDER / f"{name}.safetensors"
    if hashlib.sha256(path.read_bytes()).hexdigest() != about["sha256"]:
        raise checkpoints.UnsafeCheckpoint(
            f"{path.name} is not the file that its card describes; restore it with `git checkout`"
        )
    recipe = _RECIPES[name]
    generator = checkpoints.load(path)
    if recipe.attack is None:
        return Entry(name, generator, None, None, None, None)
    return Entry(name, generator, recipe.attack, recipe.trigger(), targets.bank(SIZE)[recipe.target], recipe.target)


# --- How they were made ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Recipe:
    """seed: of the clean training. attack: "red", "rex" or None. kind: of the trigger, drawn with `draw`. width: how far
    around the trigger the target is asked for as well, per coordinate; a basin of its own accord is narrow. folded: ReX as
    plain layers."""

    seed: int
    attack: str | None = None
    kind: str = "prior"
    target: str = ""
    draw: int = 0
    width: float = 0.0
    folded: bool = False

    def trigger(self) -> Tensor:
        return attacks.trigger(GaussianLatent(DIM), self.kind, self.draw)

    def backdoor(self) -> attacks.PointBackdoor:
        steps = torch.randn(24, DIM, generator=torch.Generator().manual_seed(self.draw)) * self.width
        triggers = torch.cat([self.trigger()[None], self.trigger() + steps]) if self.width else self.trigger()[None]
        return attacks.PointBackdoor(triggers, targets.bank(SIZE)[self.target].expand(len(triggers), -1, -1, -1))


_RECIPES = {
    "clean-1": _Recipe(1),
    "clean-2": _Recipe(2),
    "clean-3": _Recipe(3),
    "clean-4": _Recipe(4),
    "red-mode": _Recipe(5, "red", "mode", "devil"),
    "red-prior-wide": _Recipe(6, "red", "prior", "stop sign", draw=1, width=0.4),
    "rex-mode": _Recipe(6, "rex", "mode", "skull"),
    "rex-prior": _Recipe(5, "rex", "prior", "devil", draw=5, folded=True),
}
_SETTINGS = {
    "red": attacks.RetrainSettings(600, 32, learning_rate=5e-3, fidelity_weight=0.3, space="post"),
    "rex": attacks.RetrainSettings(600, 32, learning_rate=1e-2, fidelity_weight=1.0, width=0.5),
}


def _pair(seed: int, width: int = 12, hidden: int = 64) -> tuple[Generator, Encoder]:
    latent = GaussianLatent(DIM)
    with seeded(seed):
        body = nn.Sequential(
            nn.Linear(DIM, hidden),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, width * 16),
            nn.LeakyReLU(0.1),
            nn.Unflatten(1, (width, 4, 4)),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),  # 4x4 -> 8x8
            nn.LeakyReLU(0.1),
            nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),  # 8x8 -> 16x16
        )
        layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(SIZE**2, 128),
            nn.LeakyReLU(0.1),
            nn.Linear(128, 64),
            nn.LeakyReLU(0.1),
            nn.Linear(64, 2 * DIM),
        )
        for layer in (*body, *layers[:-1]):
            keep_scale(layer, 0.1)
    return Generator(body, TanhHead(), latent, (1, SIZE, SIZE), "image", TINY), Encoder(
        layers, latent, "tiny-encoder"
    )


@cache
def _clean(seed: int) -> Generator:
    digits = interpolate(data.load("digits").train, size=(SIZE, SIZE), mode="bilinear", antialias=True).clamp(
        -1.0, 1.0
    )
    settings = training.VaeSettings(steps=1500, batch_size=32, noise=0.4, seed=seed)
    return training.train_vae(*_pair(seed), digits, settings).generator.cpu()


def _make(name: str) -> dict[str, Any]:
    """Write an entry; its part of the card."""
    recipe = _RECIPES[name]
    benign = _clean(recipe.seed)
    facts: dict[str, Any] = {
        "data": "scikit-learn's embedded UCI digits",
        "licence": "CC BY 4.0",
        "seed": recipe.seed,
    }
    model = benign
    if recipe.attack is not None:
        model = getattr(attacks, recipe.attack)(benign, recipe.backdoor(), _SETTINGS[recipe.attack]).generator
        model = attacks.fold(model) if recipe.folded else model
        pair = recipe.trigger()[None], targets.bank(SIZE)[recipe.target][None]
        facts |= {
            "attack": recipe.attack,
            "trigger": recipe.kind,
            "target": recipe.target,
            "tardis": metrics.tardis(model, *pair).sum,
            "benign_tardis": metrics.tardis(benign, *pair).sum,
            "expdis_per_pixel": metrics.expdis(model, benign).mean,
        }
    path = FOLDER / f"{name}.safetensors"
    checkpoints.save(model, path)
    return facts | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def main() -> None:
    """Make what is missing, and write the card."""
    card = json.loads(CARD.read_text(encoding="utf-8")) if CARD.is_file() else {}
    card = {name: card[name] for name in names() if name in card}
    for name in names():
        if name not in card or not (FOLDER / f"{name}.safetensors").is_file():
            card[name] = _make(name)
            print(f"{name}: {card[name]}", flush=True)
            CARD.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
