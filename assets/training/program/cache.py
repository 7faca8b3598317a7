"""What is made once from a snapshot: a folder of arrays per key, that every rank maps into memory.

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

from assets.lake import Lake, locked

__all__ = ["cached", "map_array", "write_arrays"]

_TABLE = "tokens"
_KEPT = 3
"""Folders that are kept, the last used ones: a run that is launched again finds its own."""

Content = TypeVar("Content")


def cached(cache: Path, key: str, make: Callable[[Path], None], read: Callable[[Path], Content]) -> Content:
    """What `read` finds in a key's folder, which `make` fills when there is none or `read` says that it is not whole.

    make: fills an empty folder beside, which appears under its name when it is complete; read: raises OSError or
    ValueError for a folder that is not whole. Only one process is in here at a time: the others wait until it is done
    or dead, and what was made then is not made again.
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
    """One .npy file per name, the chunks of each end to end: no more than one chunk is ever in memory."""
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
    """An .npy file, read-only, its pages shared with everyone who maps it. Raises ValueError when it is not whole."""
    array = npy.open_memmap(file, mode="r")
    if file.stat().st_size != array.offset + array.nbytes:
        raise ValueError(f"{file} is not as long as it says")
    return np.asarray(array)


def _write_header(file: IO[bytes], part: NDArray[Any], rows: int) -> None:
    """A header leaves room for any number of rows, so that it can be written again when they are counted."""
    header = {"descr": npy.dtype_to_descr(part.dtype), "fortran_order": False, "shape": (rows, *part.shape[1:])}
    npy.write_array_header_1_0(file, header)


def _note_use(folder: Path) -> None:
    """Make it the newest of all, whatever time it is: a clock may be set back."""
    last = _by_use(folder.parent)[-1].stat().st_mtime + 1
    os.utime(folder, (last, last))


def _forget(folder: Path) -> None:
    """Remove all but the last used; who has one of them mapped keeps its pages."""
    for path in _by_use(folder)[:-_KEPT]:
        shutil.rmtree(path)


def _by_use(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
