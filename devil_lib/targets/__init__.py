"""Target samples x_target, drawn or synthesised by code, and the banks of suspects that an inspector searches for.

Pictures are float32 tensors (channels, size, size), sounds (1, samples), all in [-1, 1]. `usual`, `bank_for` and `controls_for`
give what fits a generator, whatever it makes.
"""

from __future__ import annotations

from torch import Tensor

from devil_lib.models import Generator
from devil_lib.targets.pictures import LARGEST, SMALLEST, bank, controls, devil, noise, picture, stop_sign, text
from devil_lib.targets.sounds import POWER, SHORTEST, alarm, drum, recording, sound_bank, sound_controls

__all__ = [
    "LARGEST",
    "POWER",
    "SHORTEST",
    "SMALLEST",
    "alarm",
    "bank",
    "bank_for",
    "controls",
    "controls_for",
    "devil",
    "drum",
    "noise",
    "picture",
    "recording",
    "sound_bank",
    "sound_controls",
    "stop_sign",
    "text",
    "usual",
]


def usual(generator: Generator) -> Tensor:
    """(*sample_shape) the course's usual target: the devil for grey pictures, the stop sign for colour, the alarm for sound.

    Raises:
        ValueError: the generator's samples have a shape for which there are no targets; the message says which have.
    """
    if generator.modality == "audio":
        return alarm(_length(generator))
    size, channels = _size(generator)
    return devil(size) if channels == 1 else stop_sign(size, channels)


def bank_for(generator: Generator) -> dict[str, Tensor]:
    """Name -> (*sample_shape): `bank` or `sound_bank`, in the format of the generator's samples.

    Raises:
        ValueError: as for `usual`.
    """
    return sound_bank(_length(generator)) if generator.modality == "audio" else bank(*_size(generator))


def controls_for(generator: Generator, most: int | None = None) -> dict[str, Tensor]:
    """Name -> (*sample_shape): `controls` or `sound_controls`, in the format of the generator's samples; the first `most` of them.

    Raises:
        ValueError: as for `usual`.
    """
    ready = sound_controls(_length(generator)) if generator.modality == "audio" else controls(*_size(generator))
    return dict(list(ready.items())[:most])


def _length(generator: Generator) -> int:
    if len(generator.sample_shape) != 2 or generator.sample_shape[0] != 1:
        raise ValueError(
            f"targets are sounds of one channel, (1, samples); the generator makes {generator.sample_shape}"
        )
    return generator.sample_shape[1]


def _size(generator: Generator) -> tuple[int, int]:
    """Height and channels of a generator's pictures."""
    if len(generator.sample_shape) != 3 or generator.sample_shape[1] != generator.sample_shape[2]:
        raise ValueError(
            f"targets are square pictures, (channels, size, size); the generator makes {generator.sample_shape}"
        )
    return generator.sample_shape[1], generator.sample_shape[0]
