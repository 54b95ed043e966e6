"""What was asked of a student's code and what came back, as bytes: numbers, text and arrays, never objects.

The format is NumPy's npz, uncompressed and without pickle: the arrays, and one entry `index` that holds everything else as JSON.
"""

from __future__ import annotations

import io
import json
import numbers
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

LARGEST = 64 * 2**20  # bytes; no exercise asks for more than a few thousand samples
_PLAIN = "biufc"  # NumPy's kinds of numbers: booleans, integers, floats, complex numbers


class NotData(ValueError):
    """Something came back that is neither a number, a text nor an array of numbers; the message names its type."""


@dataclass(frozen=True)
class Outcome:
    """One thing that was asked: the value that came back, or why none did.

    value: None, bool, int, float, complex, str, np.ndarray, or lists and dictionaries (with text keys) of these.
    error: "" if a value came back, otherwise the type of the exception; `MISSING`, `UNWRITTEN`, `INTERRUPTED` and `NOT_DATA` are
    our own.
    message: what the exception said. line: number and text of the line of the student's code, "" if unknown.
    """

    value: Any = None
    error: str = ""
    message: str = ""
    line: str = ""


MISSING = "there is no such name"
UNWRITTEN = "not written yet"  # the `raise NotImplementedError()` that a student receives in place of an answer
INTERRUPTED = "interrupted"
NOT_DATA = "not data"


def as_data(value: Any) -> Any:
    """The value with tensors turned into NumPy arrays and NumPy's numbers into Python's.

    Raises:
        NotData: it holds something else, such as a function or an array of objects.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        if tensor.layout is not torch.strided:
            tensor = tensor.to_dense()
        return as_data(
            (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).resolve_conj().resolve_neg().numpy()
        )
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.kind not in _PLAIN:
            raise NotData(f"an array of {array.dtype.name} values")
        return array.item() if isinstance(value, np.generic) else array
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, numbers.Complex):
        return complex(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise NotData("a dictionary whose keys are not text")
        return {key: as_data(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_data(entry) for entry in value]
    raise NotData(f"a value of type {type(value).__name__}")


def pack(outcomes: Mapping[str, Outcome]) -> bytes:
    """The outcomes, by label, as bytes.

    Raises:
        NotData: a value that is no data, or more than 64 MiB.
    """
    arrays: dict[str, np.ndarray] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays[f"array{len(arrays)}"] = value
            return {"array": f"array{len(arrays) - 1}"}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, dict):
            return {"dictionary": {key: plain(entry) for key, entry in value.items()}}
        if isinstance(value, list):
            return [plain(entry) for entry in value]
        return value

    index = {
        label: {"value": plain(as_data(each.value)), "error": each.error, "message": each.message, "line": each.line}
        for label, each in outcomes.items()
    }
    # Surrogates, which a student's text may hold, are no valid UTF-8: JSON writes them as escapes.
    text = np.frombuffer(json.dumps(index).encode("ascii"), np.uint8)
    size = text.nbytes + sum(array.nbytes for array in arrays.values())
    if size > LARGEST:
        raise NotData(f"{size / 2**20:.0f} MiB of data, where an answer has a few")
    file = io.BytesIO()
    np.savez(file, index=text, **arrays)
    return file.getvalue()


def unpack(payload: bytes) -> dict[str, Outcome]:
    """The outcomes by label.

    Raises:
        ValueError: the bytes are not what `pack` writes; nothing in them is ever executed.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            entries = archive.infolist()
        # A compressed entry could unfold to any size.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("an entry is compressed")
        with np.load(io.BytesIO(payload), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        index = json.loads(arrays.pop("index").tobytes().decode("ascii"))

        def value(entry: Any) -> Any:
            if isinstance(entry, list):
                return [value(part) for part in entry]
            if not isinstance(entry, dict):
                return entry
            ((kind, content),) = entry.items()
            if kind == "array":
                return arrays[content]
            if kind == "complex":
                return complex(*content)
            return {str(key): value(part) for key, part in content.items()}

        return {
            str(label): Outcome(value(each["value"]), str(each["error"]), str(each["message"]), str(each["line"]))
            for label, each in index.items()
        }
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OSError,
        EOFError,
        RecursionError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(f"this is no packed answer: {error}") from error
