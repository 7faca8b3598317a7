"""Pages and pictures for people: the files of a folder or, where machines share a home, objects with copies in one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from assets.hashing import hash_file
from assets.objects import Objects

__all__ = ["Pages"]

_INDEX = "index.html"


@dataclass(frozen=True)
class Pages:
    """The files below a folder that are to be looked at, by their names there.

    What is hidden is none of them, and neither is a symbolic link. With `shared` every method raises ObjectsError.
    """

    folder: Path
    shared: Objects | None = None

    def below(self, folder: str) -> "Pages":
        """Those of a folder, by their names there."""
        return Pages(self.folder / folder, self.shared and self.shared.under(folder))

    def put(self, path: Path) -> None:
        """Share a file, or all files of a folder in the place of those that it had, which this machine has written."""
        if self.shared is None:
            return
        own = path.relative_to(self.folder).as_posix()
        names = [own] if path.is_file() else [f"{own}/{name}" for name in _files(path)]
        for name in sorted(names, key=lambda name: PurePosixPath(name).name == _INDEX):
            self.shared.upload(name, self.folder / name, hash_file(self.folder / name))
        if path.is_dir():
            self.shared.remove(set(self.shared.names(f"{own}/")) - set(names))

    def names(self, under: str = "") -> list[str]:
        """The sorted names that begin with a folder's, which ends with a slash; by default all."""
        if self.shared is None:
            return sorted(f"{under}{name}" for name in _files(self.folder / under))
        return sorted(name for name in self.shared.names(under) if _is_shown(name))

    def fetch(self, name: str) -> Path | None:
        """The file of a name, as the newest writer left it; None if there is none."""
        path = self.folder / name
        if _is_shown(name) and self.shared is not None:
            self._renew(self.shared, name, path)
        return path if _is_shown(name) and path.is_file() and not path.is_symlink() else None

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there count as removed."""
        gone = list(names)
        if self.shared is not None:
            self.shared.remove(gone)
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)

    def _renew(self, shared: Objects, name: str, path: Path) -> None:
        sha256 = shared.sha256(name)
        if sha256 is None:
            path.unlink(missing_ok=True)
        elif not path.is_file() or hash_file(path) != sha256:
            path.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".fetched-", dir=path.parent) as temporary:
                if shared.download(name, Path(temporary) / "page", sha256):
                    (Path(temporary) / "page").replace(path)


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        links = any(each.is_symlink() for each in (path, *path.parents[: name.count("/")]))
        if _is_shown(name) and path.is_file() and not links:
            yield name


def _is_shown(name: str) -> bool:
    """Whether a name stays in its folder, and no part of it is hidden."""
    return all(part and part[0] != "." for part in name.split("/"))
