"""Checks a model's folder before any library reads it: plain files, JSON of bounded size, and the sizes they declare.

Every function raises ValueError, naming the file and what is wrong with it.
"""

import json
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["check_folder", "read_config", "read_json", "read_shapes", "require_plain"]

Shapes = dict[str, list[int]]

_CONFIG_BYTES = 4 << 20
_HEADER_BYTES = 16 << 20
_TENSORS = 100_000
"""About as many as in the largest open models."""
_OBEYED = ("quantization_config", "transformers_weights")
"""Keys that make transformers import other packages, or read other files."""
_COUNTS = ("layer", "block", "expert", "num_labels")
"""Parts of keys whose value counts things with their own tensors, or their own lists in memory."""


def check_folder(folder: Path) -> None:
    """Check a folder's config.json and the headers of its weights against each other, and against size limits."""
    shapes = read_shapes(folder)
    for name, value in _entries(read_config(folder)):
        if name in _OBEYED and value:
            raise ValueError(f"{folder / 'config.json'}: {name} is not supported")
        if any(part in name for part in _COUNTS) and isinstance(value, int) and value > len(shapes):
            raise ValueError(
                f"{folder / 'config.json'}: {name} is {value:,}, but the weights are {len(shapes):,} tensors"
            )


def require_plain(path: Path, links: bool = False) -> None:
    """Require a file that can be read to its end: no folder, pipe or device, and a link only if `links` is set."""
    mode = (path.stat if links else path.lstat)().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is not a plain file")


def read_config(folder: Path) -> dict[str, Any]:
    """A model's config.json."""
    path = folder / "config.json"
    if path.stat().st_size > _CONFIG_BYTES:
        raise ValueError(f"{path} has more than {_CONFIG_BYTES:,} bytes")
    return read_json(path)


def read_json(path: Path) -> dict[str, Any]:
    """A file of one JSON object."""
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is not JSON") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object")
    return content


def read_shapes(folder: Path) -> Shapes:
    """Name and shape of every tensor, from the JSON header of the safetensors files: no weight is read."""
    shapes: Shapes = {}
    for file in sorted(folder.glob("*.safetensors")):
        shapes |= _shapes(file)
        if len(shapes) > _TENSORS:
            raise ValueError(f"{file} has more than {_TENSORS:,} tensors")
    return shapes


def _shapes(file: Path) -> Shapes:
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 0 < length <= file.stat().st_size - 8:
            raise ValueError(f"{file} is not a safetensors file")
        if length > _HEADER_BYTES:
            raise ValueError(f"{file} has a header of more than {_HEADER_BYTES:,} bytes")
        header = stream.read(length)
    try:
        return {name: _shape(entry) for name, entry in json.loads(header).items() if name != "__metadata__"}
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        raise ValueError(f"{file} is not a safetensors file") from None


def _shape(entry: Mapping[str, Any]) -> list[int]:
    shape = list(entry["shape"])
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError
    return shape


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of nested objects, with its value."""
    open_values = [value]
    while open_values:
        inner = open_values.pop()
        if isinstance(inner, Mapping):
            yield from inner.items()
            open_values.extend(inner.values())
        elif isinstance(inner, list):
            open_values.extend(inner)
