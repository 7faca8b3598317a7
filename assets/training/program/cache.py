"""Caches data derived once from a snapshot: a folder of arrays per key, memory-mapped by every rank.

<cache>/tokens/<key>/    one .npy file per array, and whatever else its maker wrote
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from assets.lake import Lake
from assets.locks import locked

__all__ = ["cached", "map_array", "write_arrays"]

_TABLE = "tokens"
_KEPT = 3
"""The number of folders that are kept, the last used: a run that is launched again finds its own."""

Content = TypeVar("Content")


def cached(cache: Path, key: str, make: Callable[[Path], None], read: Callable[[Path], Content]) -> Content:
    """The content of a key's folder by `read`; `make` fills the folder if it is missing, or incomplete according to
    `read`.

    make: fills an empty temporary folder, which is renamed when it is complete; read: raises OSError or ValueError for
    an incomplete folder. Only one process is inside at a time: the others wait until it has ended, and use what it
    made.
    """
    lake = Lake(cache)
    folder = lake.path(_TABLE, key)
    with locked(folder.parent / ".lock"):
        try:
            content = read(folder)
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
            with lake.staging(_TABLE) as staged:
                make(staged)
                lake.keep(_TABLE, key, staged)
            content = read(folder)
        _note_use(folder)
        _forget(folder.parent)
    return content


def write_arrays(folder: Path, chunks: Iterable[Mapping[str, NDArray[Any]]]) -> None:
    """Write one .npy file per name, with its chunks concatenated: only one chunk is in memory at a time."""
    rows: Counter[str] = Counter()
    with ExitStack() as stack:
        files: dict[str, IO[bytes]] = {}
        for chunk in chunks:
            for name, part in chunk.items():
                if name not in files:
                    files[name] = stack.enter_context((folder / f"{name}.npy").open("wb"))
                    _write_header(files[name], part, rows=0)
                files[name].write(part.tobytes())
                rows[name] += len(part)
        for name, part in chunk.items():
            files[name].seek(0)
            _write_header(files[name], part, rows[name])


def map_array(file: Path) -> NDArray[Any]:
    """An .npy file, read-only, its pages shared by all that map it. Raises ValueError when it is incomplete."""
    array = npy.open_memmap(file, mode="r")
    if file.stat().st_size != array.offset + array.nbytes:
        raise ValueError(f"{file} is not as long as it says")
    return np.asarray(array)


def _write_header(file: IO[bytes], part: NDArray[Any], rows: int) -> None:
    """Write a header, which leaves room for any number of rows: it is written again once they are counted."""
    header = {"descr": npy.dtype_to_descr(part.dtype), "fortran_order": False, "shape": (rows, *part.shape[1:])}
    npy.write_array_header_1_0(file, header)


def _note_use(folder: Path) -> None:
    """Make it the newest of all, whatever the time: a clock may be set back."""
    last = _by_use(folder.parent)[-1].stat().st_mtime + 1
    os.utime(folder, (last, last))


def _forget(folder: Path) -> None:
    """Remove all but the last used; a process that has mapped a removed one keeps its pages."""
    for path in _by_use(folder)[:-_KEPT]:
        shutil.rmtree(path)


def _by_use(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
