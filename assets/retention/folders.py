"""Reads a home's folders without following symbolic links."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["files", "folders", "freed", "is_plain", "newest_first"]


def folders(path: Path) -> list[str]:
    """The sorted names of the folders in a folder, except hidden ones; none if it does not exist."""
    try:
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if e.is_dir(follow_symlinks=False) and e.name[0] != ".")
    except FileNotFoundError:
        return []


def newest_first(paths: Iterable[Path]) -> list[Path]:
    """Paths by the time of their last change."""
    return sorted(paths, key=lambda path: (path.lstat().st_mtime_ns, path.name), reverse=True)


def files(path: Path) -> Iterator[os.stat_result]:
    """The status of a file, or of every file under a folder; files removed in the meantime are skipped."""
    paths = (Path(folder, name) for folder, _, names in os.walk(path) for name in names) if path.is_dir() else [path]
    for file in paths:
        with suppress(FileNotFoundError):
            yield file.lstat()


def freed(paths: Iterable[Path]) -> Iterator[int]:
    """The bytes freed by removing each path, in turn: a file that is linked from elsewhere frees none."""
    links: Counter[tuple[int, int]] = Counter()
    for path in paths:
        size = 0
        for file in files(path):
            links[file.st_dev, file.st_ino] += 1
            if links[file.st_dev, file.st_ino] == file.st_nlink:
                size += file.st_blocks * 512
        yield size


def is_plain(root: Path, path: str) -> bool:
    """Whether a path under a folder exists, without a symbolic link on the way to it."""
    place = root
    for part in Path(path).parts:
        place /= part
        if part == ".." or place.is_symlink() or not place.exists():
            return False
    return True
