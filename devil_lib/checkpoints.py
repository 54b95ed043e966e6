"""Model files that are safe to open: safetensors holding the weights, with a description of the layers beside them.

A `.pt` or `.pkl` file is a pickle, and opening a pickle can run any code that its author put in. A downloaded model is
exactly the file whose author one does not know, so nothing here ever unpickles: a description may name only the layers in
the table below, the weights are plain numbers, and their shapes are compared before anything is built.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save as serialize
from torch import Tensor, nn

from devil_lib.attacks import BypassBody, WidenedBody
from devil_lib.classifiers import MeanOverPlaces
from devil_lib.games import GAMES
from devil_lib.models import Classifier, Discriminator, Encoder, GaussianLatent, Generator, TanhHead, UniformLatent
from devil_lib.spectra import LogMagnitudes, LogSpectrogram
from devil_lib.style import Broadcast, RandomLook, Synthesis
from devil_lib.wavegan import FilteredTanhHead, PhaseShuffle

_SIZES = ("kernel_size", "stride", "padding", "dilation")
_LAYERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.Conv1d: ("in_channels", "out_channels", *_SIZES),
    nn.Conv2d: ("in_channels", "out_channels", *_SIZES),
    nn.ConvTranspose1d: ("in_channels", "out_channels", *_SIZES, "output_padding"),
    nn.ConvTranspose2d: ("in_channels", "out_channels", *_SIZES, "output_padding"),
    nn.BatchNorm1d: ("num_features", "eps"),
    nn.BatchNorm2d: ("num_features", "eps"),
    nn.LeakyReLU: ("negative_slope",),
    nn.Identity: (),
    nn.ReLU: (),
    nn.Tanh: (),
    nn.Sigmoid: (),
    nn.Dropout: ("p",),
    nn.MaxPool2d: ("kernel_size",),
    nn.Upsample: ("scale_factor", "mode"),
    nn.Flatten: (),
    nn.Unflatten: ("dim", "unflattened_size"),
    TanhHead: (),
    FilteredTanhHead: ("taps",),
    PhaseShuffle: ("shift",),
    LogMagnitudes: ("window", "hop"),
    Broadcast: ("styles",),
    Synthesis: ("size", "width", "channels"),
    RandomLook: ("shift",),
    LogSpectrogram: ("window", "hop", "bands"),
    MeanOverPlaces: (),
}
_BY_NAME = {kind.__name__: kind for kind in _LAYERS}
_LATENTS = {kind.__name__: kind for kind in (GaussianLatent, UniformLatent)}
_BIASED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
_LARGEST_FILE = 200 * 2**20


class UnsafeCheckpoint(ValueError):
    """A model file that cannot be opened without trusting it, or that is damaged; the message says what to do."""


# --- Description of a module, and back -----------------------------------------------------------------------------


def describe(module: nn.Module) -> dict[str, Any]:
    """The layers of a module as plain JSON values.

    Raises:
        ValueError: a layer that the format does not know.
    """
    if isinstance(module, nn.Sequential):
        return {"kind": "Sequential", "layers": [describe(layer) for layer in module]}
    if isinstance(module, WidenedBody):
        return {"kind": "WidenedBody", "benign": describe(module.benign), "side": describe(module.side)}
    if isinstance(module, BypassBody):
        shapes = {"triggers": list(module.triggers.shape), "outputs": list(module.outputs.shape)}
        return {"kind": "BypassBody", "benign": describe(module.benign), "tolerance": module.tolerance, **shapes}
    if type(module) not in _LAYERS:
        raise ValueError(
            f"a checkpoint cannot describe a layer of type {type(module).__name__}; known: {', '.join(_BY_NAME)}"
        )
    values = {name: getattr(module, name) for name in _LAYERS[type(module)]}
    if isinstance(module, _BIASED):
        values["bias"] = module.bias is not None
    return {"kind": type(module).__name__, **{name: _plain(value) for name, value in values.items()}}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, torch.Size)) else value


def _build(spec: Any) -> nn.Module:
    try:
        kind, values = spec["kind"], {name: value for name, value in spec.items() if name != "kind"}
        if kind == "Sequential":
            return nn.Sequential(*map(_build, values["layers"]))
        if kind == "WidenedBody":
            return WidenedBody(_build(values["benign"]), _build(values["side"]))
        if kind == "BypassBody":
            shapes = torch.empty(values["triggers"]), torch.empty(values["outputs"])
            return BypassBody(_build(values["benign"]), *shapes, float(values["tolerance"]))
        if kind not in _BY_NAME:
            raise UnsafeCheckpoint(f"the file asks for a layer {kind!r} that the format does not know")
        allowed = {*_LAYERS[_BY_NAME[kind]], "bias"}
        if not set(values) <= allowed:
            raise UnsafeCheckpoint(
                f"the file gives {kind} settings that it does not have: {sorted(set(values) - allowed)}"
            )
        return _BY_NAME[kind](**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
    except (KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise UnsafeCheckpoint(f"the file's description of its layers is damaged ({error})") from error


# --- Files -----------------------------------------------------------------------------------------------------------


def save(model: nn.Module, path: str | Path, half: bool = True) -> None:
    """Write a generator, discriminator, encoder or classifier to `path` (.safetensors), half precision by default.

    Written beside the target and renamed, so that a full disk or an interruption leaves an older file whole.
    """
    if isinstance(model, Generator):
        about = {
            "kind": "Generator",
            "architecture": model.architecture,
            "body": describe(model.body),
            "head": describe(model.head),
            "latent": [type(model.latent).__name__, model.latent.dim],
            "sample_shape": list(model.sample_shape),
            "modality": model.modality,
        }
    elif isinstance(model, Discriminator):
        about = {"kind": "Discriminator", "architecture": model.architecture, "layers": describe(model.layers)}
        about["eyes"] = describe(model.eyes)
        about["game"] = [type(model.game).__name__, asdict(model.game)]
    elif isinstance(model, Encoder):
        about = {"kind": "Encoder", "architecture": model.architecture, "layers": describe(model.layers)}
        about["latent"] = [type(model.latent).__name__, model.latent.dim]
    elif isinstance(model, Classifier):
        about = {"kind": "Classifier", "architecture": model.architecture, "layers": describe(model.layers)}
        about["output"] = describe(model.output)
    else:
        raise ValueError(
            f"only a Generator, Discriminator, Encoder or Classifier can be saved, not {type(model).__name__}"
        )
    save_tensors(model.state_dict(), path, {"model": json.dumps(about)}, half)


def save_tensors(tensors: dict[str, Tensor], path: str | Path, about: dict[str, str], half: bool = False) -> None:
    """Write named tensors and a few strings to `path`, atomically."""
    path = Path(path)
    stored = {
        name: (value.half() if half and value.is_floating_point() else value).contiguous()
        for name, value in tensors.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".saving-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(serialize(stored, about))
        os.chmod(scratch, 0o644)  # a temporary file is its owner's alone
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors (floating point ones as float32) and strings of a safetensors file.

    Raises:
        FileNotFoundError: no such file.
        UnsafeCheckpoint: not a safetensors file (a pickle is refused, with the reason), damaged, too large, or NaN inside.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no model file {path}; `devil_lib.zoo.names()` lists those that are shipped"
        )
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix in (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin") or start[:2] in (
        b"PK",
        b"\x80\x02",
        b"\x80\x04",
    ):
        raise UnsafeCheckpoint(
            f"{path.name} is a pickle, and opening a pickle runs whatever code its author put in. It was not opened. "
            "Ask for the weights as safetensors; for a plain state dictionary use load_state_dict_file(path, model)."
        )
    if path.stat().st_size > _LARGEST_FILE:
        raise UnsafeCheckpoint(f"{path.name} is larger than the {_LARGEST_FILE >> 20} MiB that any model here takes")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise UnsafeCheckpoint(f"{path.name} is not a whole safetensors file ({error}); download it again") from error
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UnsafeCheckpoint(f"{path.name} holds NaN or infinity in {name}")
    return tensors, about


def load(path: str | Path) -> Generator | Discriminator | Encoder | Classifier:
    """Open a model file without running anything from it; the model is in evaluation mode, float32.

    Raises:
        FileNotFoundError, UnsafeCheckpoint: as for `load_tensors`, and where the weights do not fit the description.
    """
    tensors, about = load_tensors(path)
    try:
        description = json.loads(about["model"])
        kind = description["kind"]
        # Built without memory first: a description may claim layers of any size, and only shapes are compared.
        with torch.device("meta"):
            if kind == "Generator":
                law, dim = description["latent"]
                model = Generator(
                    _build(description["body"]),
                    _build(description["head"]),
                    _LATENTS[law](int(dim)),
                    tuple(int(size) for size in description["sample_shape"]),
                    str(description["modality"]),
                    str(description["architecture"]),
                )
            elif kind == "Discriminator":
                # Files from before there were several games say nothing of theirs.
                game, values = description.get("game", ["NonSaturating", {}])
                model = Discriminator(
                    _build(description["layers"]),
                    str(description["architecture"]),
                    game=GAMES[game](
                        **{name: type(getattr(GAMES[game](), name))(value) for name, value in values.items()}
                    ),
                    eyes=_build(description.get("eyes", {"kind": "Identity"})),
                )
            elif kind == "Encoder":
                law, dim = description["latent"]
                latent = _LATENTS[law](int(dim))
                model = Encoder(_build(description["layers"]), latent, str(description["architecture"]))
            elif kind == "Classifier":
                layers, output = _build(description["layers"]), _build(description["output"])
                model = Classifier(layers, output, str(description["architecture"]))
            else:
                raise UnsafeCheckpoint(f"{Path(path).name} describes a {kind!r}, which is no model of this library")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UnsafeCheckpoint):
            raise
        raise UnsafeCheckpoint(f"{Path(path).name} has no readable description of its layers ({error!r})") from error
    _fill(model, tensors, Path(path).name)
    return model.eval()


def packed(model: Generator | Discriminator | Encoder | Classifier) -> bytes:
    """A model as the bytes of its file, in float32, as it travels between processes."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.safetensors"
        save(model, path, half=False)
        return path.read_bytes()


def unpacked(content: bytes) -> Generator | Discriminator | Encoder | Classifier:
    """The model that `packed` gave the bytes of.

    Raises:
        UnsafeCheckpoint: as `load`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.safetensors"
        path.write_bytes(content)
        return load(path)


def load_state_dict_file(path: str | Path, model: nn.Module) -> nn.Module:
    """Fill `model` from a `.pt` state dictionary, by torch's weights-only reader, which refuses everything but tensors.

    Raises:
        UnsafeCheckpoint: the file would run code, is damaged, or does not fit the model.
    """
    try:
        tensors = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise
    except Exception as error:
        raise UnsafeCheckpoint(
            f"{Path(path).name} was refused: read as plain weights it is damaged or would run code ({str(error).splitlines()[0]})"
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UnsafeCheckpoint(f"{Path(path).name} is no plain state dictionary of tensors")
    _fill(model, tensors, Path(path).name)
    return model.eval()


def _fill(model: nn.Module, tensors: dict[str, Tensor], name: str) -> None:
    wanted = model.state_dict()
    missing, extra = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or extra:
        raise UnsafeCheckpoint(f"{name} does not fit its description: missing {missing[:3]}, unexpected {extra[:3]}")
    for key, value in wanted.items():
        if value.shape != tensors[key].shape:
            raise UnsafeCheckpoint(
                f"{name}: {key} has shape {tuple(tensors[key].shape)}, described as {tuple(value.shape)}"
            )
    model.load_state_dict(tensors, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
