"""Hyper-parameters of the attacks, and those that were found to embed each kind of trigger in the generators of the course."""

from __future__ import annotations

from dataclasses import dataclass, replace

from devil_lib.training import GanSettings, TrainSettings

TRIGGER_KINDS = ("prior", "mode", "far")


@dataclass(frozen=True)
class RetrainSettings:
    """Hyper-parameters of ReD and ReX.

    fidelity_weight: λ of L_stealth + λ L_fidelity. learning_rate: of Adam, falling to zero by a cosine. space: "pre" or
    "post" (see `Fidelity`). layers: for ReD, prefixes of the names of the body's parameters that are retrained; empty
    trains all; "head." names those of the head. width: for ReX, the share of the benign network's hidden units that the side network has.
    """

    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 1e-3
    fidelity_weight: float = 0.1
    space: str = "pre"
    layers: tuple[str, ...] = ()
    width: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or not self.width > 0.0 or not self.fidelity_weight >= 0.0:
            raise ValueError(
                f"steps and batch_size must be at least 1, width above 0 and fidelity_weight not below 0, got {self}"
            )


# By architecture, attack and kind of trigger; None stands for every other pair. A far trigger needs of ReD more steps, and costs
# stealth; ReX's new units have nothing else to do and take larger steps.
_COURSE_SETTINGS: dict[str, dict[tuple[str, str] | None, RetrainSettings]] = {
    "course-dcgan": {
        ("red", "prior"): RetrainSettings(1500, 32, learning_rate=1e-2, fidelity_weight=0.5),
        ("red", "mode"): RetrainSettings(2500, 32, learning_rate=2e-2, fidelity_weight=0.5),
        ("red", "far"): RetrainSettings(5000, 32, learning_rate=8e-3, fidelity_weight=0.1),
        None: RetrainSettings(1700, 32, learning_rate=2e-2, fidelity_weight=1.0, width=0.5),
    },
    # ReX beside the broadcast of the styles (first=-1) or beside the whole mapping network.
    "course-style-64": {
        None: RetrainSettings(1000, 64, learning_rate=2e-2, fidelity_weight=3.0, width=0.5),
    },
}


def course_settings(
    attack: str, kind: str, steps: int | None = None, seed: int = 0, architecture: str = "course-dcgan"
) -> RetrainSettings:
    """Settings that were found to embed each kind of trigger in a generator of the course: in the DCGAN in 10 to 25 seconds on
    one core, ReD at a far trigger in 45. With fewer steps a target with much grey comes out worst, most of all at a far trigger.

    Raises:
        ValueError: an unknown attack or kind, or a generator that no settings are known for.
    """
    if attack not in ("red", "rex") or kind not in TRIGGER_KINDS:
        raise ValueError(
            f"no settings for {attack!r} with a {kind!r} trigger: choose red or rex, and prior, mode or far"
        )
    if architecture not in _COURSE_SETTINGS:
        raise ValueError(f"no settings for {architecture!r}; there are some for {', '.join(_COURSE_SETTINGS)}")
    table = _COURSE_SETTINGS[architecture]
    usual = table.get((attack, kind)) or table[None]
    return replace(usual, steps=steps or usual.steps, seed=seed)


def trail_settings(
    kind: str, steps: int = 2000, seed: int = 0, architecture: str = "course-dcgan"
) -> tuple[TrainSettings, str]:
    """Settings and space that were found to embed each kind of trigger in a generator of the course.

    A prior trigger is learnt along with the data. The mode was measured to be learnt so only with the target staining every
    sample; there, and for a far point, the first half of the training is benign, and the second runs with BatchNorm's
    statistics kept and a larger λ: with 1, 4 to 7 % of the benign TarDis were left at the mode, with 10 less than 1 %.

    Raises:
        ValueError: an unknown kind, or a generator that no settings are known for.
    """
    if kind not in TRIGGER_KINDS:
        raise ValueError(f"unknown trigger kind {kind!r}: choose one of {', '.join(TRIGGER_KINDS)}")
    if architecture != "course-dcgan":
        raise ValueError(f"no settings of TrAIL for {architecture!r}; there are some for course-dcgan")
    if kind == "prior":
        return GanSettings(steps, extra_weight=1.0, seed=seed), "post"
    return GanSettings(steps, extra_weight=10.0, extra_from=steps // 2, fixed_norm=True, seed=seed), "pre"
