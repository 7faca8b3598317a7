"""Looking at a home's files without following a symbolic link."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["files", "folders", "freed", "is_plain", "newest_first"]


def folders(path: Path) -> list[str]:
    """The names of the folders in a folder, sorted, but for hidden ones; none when it is not there."""
    try:
        with os.scandir(path) as found:
            return sorted(e.name for e in found if e.is_dir(follow_symlinks=False) and e.name[0] != ".")
    except FileNotFoundError:
        return []


def newest_first(paths: Iterable[Path]) -> list[Path]:
    """By when each was last changed."""
    return sorted(paths, key=lambda path: (path.lstat().st_mtime_ns, path.name), reverse=True)


def files(path: Path) -> Iterator[os.stat_result]:
    """A file, or every file under a folder, as far as it is still there."""
    found = (Path(folder, name) for folder, _, names in os.walk(path) for name in names) if path.is_dir() else [path]
    for file in found:
        with suppress(FileNotFoundError):
            yield file.lstat()


def freed(paths: Iterable[Path]) -> Iterator[int]:
    """The bytes that removing each of them frees, in turn: a file that is linked from elsewhere frees none."""
    links: Counter[tuple[int, int]] = Counter()
    for path in paths:
        size = 0
        for found in files(path):
            links[found.st_dev, found.st_ino] += 1
            if links[found.st_dev, found.st_ino] == found.st_nlink:
                size += found.st_blocks * 512
        yield size


def is_plain(root: Path, path: str) -> bool:
    """Whether something is there, under a folder, and no symbolic link on the way to it."""
    place = root
    for part in Path(path).parts:
        place /= part
        if part == ".." or place.is_symlink() or not place.exists():
            return False
    return True
