"""Where what is removed is listed and put out of sight at once, before it is recorded and deleted for good.

A folder, of which all or some is one machine's own:

    <home>/pruned/<batch>/batch.json   the list, written first
    <home>/pruned/<batch>/<path>       the new place of each file or folder, moved by one rename

Objects on S3, which machines share:

    pruned/<batch>.json                the list, written first; then pointers and manifests go, and no reader sees more

What was not out of sight yet when a process was killed is considered again.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

from assets.exceptions import EvergreenError
from assets.home import Home
from assets.retention.contents import Removable
from assets.retention.folders import folders
from assets.shared import MANIFEST, POINTER, REPLACED, SharedStore
from assets.writing import write_atomically

__all__ = ["Batch", "Bin", "bins_of"]

_LIST, _FOLDER = "batch.json", "pruned"


@dataclass(frozen=True)
class Batch:
    """What was removed at one time, as of a day, and is out of sight."""

    name: str
    as_of: str
    items: tuple[Removable, ...]


class Bin(Protocol):
    """Holds batches until they are recorded."""

    def takes(self, item: Removable) -> bool:
        """Whether something is of the kind that is put here."""

    def put(self, name: str, as_of: str, items: Sequence[Removable]) -> None:
        """List some items as a batch, and put them out of sight."""

    def batches(self) -> Iterator[Batch]:
        """Those that were not emptied."""

    def empty(self, name: str) -> None:
        """Delete a batch and what is in it."""


def bins_of(home: Home) -> list[Bin]:
    """The bins of a home."""
    own = _FolderBin(home)
    return [own, _ObjectBin(home, home.lake.shared)] if home.lake.shared else [own]


@dataclass(frozen=True)
class _FolderBin:
    home: Home

    def takes(self, item: Removable) -> bool:
        return self.home.objects is None or not item.is_shared

    def put(self, name: str, as_of: str, items: Sequence[Removable]) -> None:
        batch = self._folder / name
        write_atomically(batch / _LIST, json.dumps({"as_of": as_of, "items": [asdict(item) for item in items]}))
        for item in items:
            target = batch / item.path
            target.parent.mkdir(parents=True, exist_ok=True)
            (self.home.root / item.path).rename(target)

    def batches(self) -> Iterator[Batch]:
        for name in folders(self._folder):
            batch = self._folder / name
            listed = json.loads((batch / _LIST).read_text()) if (batch / _LIST).exists() else {"as_of": "", "items": []}
            items = (Removable(**item) for item in listed["items"])
            yield Batch(name, listed["as_of"], tuple(item for item in items if (batch / item.path).exists()))

    def empty(self, name: str) -> None:
        (self._folder / name / _LIST).unlink(missing_ok=True)  # first: it is recorded, and not to be recorded again
        shutil.rmtree(self._folder / name)

    @property
    def _folder(self) -> Path:
        """Raises EvergreenError when it is a symbolic link."""
        path = self.home.root / _FOLDER
        if path.is_symlink():
            raise EvergreenError(f"{path} is a symbolic link; delete it, and prune again")
        return path


@dataclass(frozen=True)
class _Going:
    """An item with its objects, by their names in the home."""

    item: Removable
    heads: Sequence[str] = ()
    """Its pointer, and then its manifests: without them it is out of sight."""
    rest: Sequence[str] = ()
    """Its other objects, or folders of such with a slash at the end: what is written again gets folders of its own."""
    table: str = ""
    """The table in the lake of whose versions those that stay may need some of the rest."""
    versions: Sequence[Sequence[str]] = ()
    """The (table, version) of each version in it."""


@dataclass(frozen=True)
class _ObjectBin:
    home: Home
    store: SharedStore

    def takes(self, item: Removable) -> bool:
        return item.is_shared

    def put(self, name: str, as_of: str, items: Sequence[Removable]) -> None:
        going = [self._going(item) for item in items]
        content = {"as_of": as_of, "going": [asdict(each) for each in going]}
        self.home.shared.create(_list(name), json.dumps(content).encode())
        for kind in (POINTER, MANIFEST):
            self.home.shared.remove(head for each in going for head in each.heads if head.endswith(f"/{kind}"))

    def batches(self) -> Iterator[Batch]:
        for listed in list(self.home.shared.names(f"{_FOLDER}/")):
            name = listed.removeprefix(f"{_FOLDER}/").removesuffix(".json")
            as_of, going = self._read(name)
            yield Batch(name, as_of, tuple(each.item for each in going if self._is_out_of_sight(each)))

    def empty(self, name: str) -> None:
        for going in filter(self._is_out_of_sight, self._read(name)[1]):
            if going.item.is_report:
                self.store.drop(*going.item.path.removeprefix("lake/").rsplit("/", 2))
            names = [name for rest in going.rest for name in self._names(rest)]
            if going.table:
                self.store.discard(going.table, [name.removeprefix("lake/") for name in names])
            else:
                self.home.shared.remove(names)
            for table, version in going.versions:
                self.home.lake.drop_copy(table, version)
        self.home.shared.remove([_list(name)])

    def _going(self, item: Removable) -> _Going:
        if not item.in_lake:
            return _Going(item, rest=[item.path if PurePosixPath(item.path).suffix else f"{item.path}/"])
        named = item.path.removeprefix("lake/")
        if item.setting == "abandoned":
            return _Going(item, rest=[f"{item.path}/"], table=named.rsplit("/", 2)[0])
        if item.is_report:
            return _Going(item)
        table, _, version = named.rpartition("/")
        if self.store.exists(table, version):
            return self._versions(item, table, (table, version))
        whole = self._versions(item, named, *self.store.versions(named))
        heads, rest = [f"{item.path}/{POINTER}", *whole.heads], [*whole.rest, f"{item.path}/{REPLACED}/"]
        return replace(whole, heads=heads, rest=rest)

    def _versions(self, item: Removable, table: str, *versions: tuple[str, str]) -> _Going:
        heads = [f"lake/{whose}/{version}/{MANIFEST}" for whose, version in versions]
        files = [file for whose, version in versions for file in self.store.files(whose, version).values()]
        return _Going(item, heads, [f"lake/{file.object}" for file in files], table, versions)

    def _names(self, rest: str) -> Iterable[str]:
        return self.home.shared.names(rest) if rest.endswith("/") else [rest]

    def _is_out_of_sight(self, going: _Going) -> bool:
        return all(self.home.shared.sha256(head) is None for head in going.heads)

    def _read(self, name: str) -> tuple[str, list[_Going]]:
        stored = self.home.shared.read(_list(name))
        assert stored is not None
        content = json.loads(stored.content)
        return content["as_of"], [_Going(**each | {"item": Removable(**each["item"])}) for each in content["going"]]


def _list(name: str) -> str:
    return f"{_FOLDER}/{name}.json"
