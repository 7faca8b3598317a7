"""What a home holds that may be removed: a folder's tables and pages, or those of S3, which machines share."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol

from assets.hashing import hash_file
from assets.home import Home
from assets.retention.folders import folders, freed, newest_first
from assets.shared import File, Listing, SharedStore

__all__ = ["Contents", "InFolder", "OnS3", "Removable", "contents_of"]

_RECORDS = "re*/*"
"""The files of the raw table that have its records and rejects."""
_REPORT = "report.html"


@dataclass(frozen=True)
class Removable:
    """A file or folder that nothing needs."""

    path: str
    """Relative to the home."""
    setting: str
    """The setting in configs/retention.yaml that could keep it; `superseded`, `leftover`, `abandoned` if none could."""
    why: str
    bytes: int = 0
    """The bytes that removing it frees, after those before it: a file linked from elsewhere frees none."""

    @property
    def in_lake(self) -> bool:
        """Whether others may be reading it in the lake; what a killed process of this machine has left, none reads."""
        return self.path.startswith("lake/") and self.setting != "leftover"

    @property
    def is_report(self) -> bool:
        """Whether it is a page in the lake, which its version can do without."""
        return self.in_lake and self.path.endswith(f"/{_REPORT}")

    @property
    def is_shared(self) -> bool:
        """Whether it is an object, where machines share the home; the rest is this machine's own."""
        return self.in_lake or (self.path.startswith("reports/") and self.setting != "leftover")


class Contents(Protocol):
    """The tables and reports of a home."""

    def tables(self, family: str) -> list[str]:
        """The sorted names of the tables of a family, published or not: days, or segments."""

    def versions(self, table: str) -> list[str]:
        """The versions of a table, newest first."""

    def current(self, table: str) -> str | None:
        """The version that a table's pointer names, whether it exists or not; None without a pointer."""

    def holds(self, table: str, version: str, others: Sequence[str]) -> bool:
        """Whether each file of records of a version is among those of others, by name and content."""

    def reports(self) -> Iterator[tuple[str, str]]:
        """Evidently's reports in the lake, by day, each with its path relative to the home."""

    def abandoned(self) -> Iterator[str]:
        """What was written of versions that no manifest names, as paths relative to the home."""

    def sized(self, items: Sequence[Removable]) -> list[Removable]:
        """Items with the bytes that removing them in this order frees."""


def contents_of(home: Home) -> Contents:
    """Those of a home, as they are now."""
    shared = home.lake.shared
    return OnS3(home, shared, shared.listing()) if shared else InFolder(home.root)


@dataclass(frozen=True)
class InFolder:
    """The contents of a folder, in which symbolic links are not followed."""

    root: Path
    _files: dict[tuple[str, str], dict[str, Path]] = field(default_factory=dict)

    def tables(self, family: str) -> list[str]:
        return folders(self.root / "lake" / family)

    def versions(self, table: str) -> list[str]:
        folder = self.root / "lake" / table
        return [path.name for path in newest_first(folder / name for name in folders(folder))]

    def current(self, table: str) -> str | None:
        pointer = self.root / "lake" / table / "CURRENT"
        return pointer.read_text(errors="replace") if pointer.exists() else None

    def holds(self, table: str, version: str, others: Sequence[str]) -> bool:
        held: dict[str, list[Path]] = defaultdict(list)
        for name, file in (item for other in others for item in self._records(table, other).items()):
            held[name].append(file)
        return all(_is_among(file, held[name]) for name, file in self._records(table, version).items())

    def reports(self) -> Iterator[tuple[str, str]]:
        for path in (self.root / "lake" / "drift").glob(f"*/*/{_REPORT}"):
            yield path.parts[-3], path.relative_to(self.root).as_posix()

    def abandoned(self) -> Iterator[str]:
        """None: what a killed process has staged is a leftover."""
        yield from ()

    def sized(self, items: Sequence[Removable]) -> list[Removable]:
        sizes = freed(self.root / item.path for item in items)
        return [replace(item, bytes=size) for item, size in zip(items, sizes, strict=True)]

    def _records(self, table: str, version: str) -> dict[str, Path]:
        folder = self.root / "lake" / table / version
        if (table, version) not in self._files:
            found = {path.relative_to(folder).as_posix(): path for path in folder.glob(_RECORDS)}
            self._files[table, version] = found
        return self._files[table, version]


def _is_among(file: Path, others: Sequence[Path]) -> bool:
    """Whether one of some files is this one, or has its content."""
    return any(file.samefile(other) for other in others) or hash_file(file) in map(hash_file, others)


@dataclass(frozen=True)
class OnS3:
    """The contents of a home that machines share; what is not in the lake or a page is this machine's."""

    home: Home
    store: SharedStore
    listing: Listing
    _read: dict[tuple[str, str], Mapping[str, File]] = field(default_factory=dict)

    def tables(self, family: str) -> list[str]:
        tables = {table for table, _ in self.listing.written} | self.listing.pointers
        return sorted(table.removeprefix(f"{family}/") for table in tables if table.startswith(f"{family}/"))

    def versions(self, table: str) -> list[str]:
        written = self.listing.versions[table]
        if any(name.startswith(f"{table}/.") for name in self.listing.replaced):  # then not all times are their own
            written = {version: self.store.since(table, version) for version in written}
        return sorted(written, key=lambda version: (written[version], version), reverse=True)

    def current(self, table: str) -> str | None:
        if table not in self.listing.pointers:
            return None
        versions = list(self.listing.versions[table])
        return versions[0] if len(versions) == 1 else self.store.pointer(table).version

    def holds(self, table: str, version: str, others: Sequence[str]) -> bool:
        held = {item for other in others for item in self._records(table, other)}
        return self._records(table, version) <= held

    def reports(self) -> Iterator[tuple[str, str]]:
        for table, version in self.listing.written:
            family, _, day = table.partition("/")
            if family == "drift" and _REPORT in self._files(table, version):
                yield day, f"lake/{table}/{version}/{_REPORT}"

    def abandoned(self) -> Iterator[str]:
        yield from self._abandoned

    def sized(self, items: Sequence[Removable]) -> list[Removable]:
        own = InFolder(self.home.root).sized([item for item in items if not item.is_shared])
        sizes = {item.path: item.bytes for item in own}
        sizes |= self._freed([item for item in items if item.is_shared])
        return [replace(item, bytes=sizes[item.path]) for item in items]

    def _freed(self, items: Sequence[Removable]) -> dict[str, int]:
        """The bytes that removing each frees, by path: an object goes with the last version that has it."""
        tables = {self._parts(item)[0] for item in items if item.in_lake}
        whole = [self._files(table, version) for table in tables for version in self.listing.versions[table]]
        left = Counter(file.object for files in whole for file in files.values())
        freed = {}
        for item in items:
            objects = self._objects(item)
            left.subtract(file.object for file in objects)
            freed[item.path] = sum(file.bytes for file in set(objects) if left[file.object] <= 0)
        return freed

    def _objects(self, item: Removable) -> list[File]:
        """What holds something of an item, as often as a version in it does."""
        if not item.in_lake:
            return [File(item.path, self._pages[item.path])]
        if item.setting == "abandoned":
            return self._abandoned[item.path]
        table, *version = self._parts(item)
        versions = version[:1] or self.listing.versions[table]
        files = [named for each in versions for named in self._files(table, each).items()]
        return [file for name, file in files if name in (version[1:] or [name])]

    def _parts(self, item: Removable) -> list[str]:
        """An item's table and, where it is not the whole of it, the version, and the file of that."""
        parts = item.path.removeprefix("lake/").split("/")
        tables = (place for place in range(1, len(parts)) if "/".join(parts[:place]) in self.listing.versions)
        place = next(tables, len(parts))
        return ["/".join(parts[:place]), *parts[place:]]

    def _files(self, table: str, version: str) -> Mapping[str, File]:
        if (table, version) not in self._read:
            self._read[table, version] = self.store.files(table, version)
        return self._read[table, version]

    @cached_property
    def _abandoned(self) -> Mapping[str, list[File]]:
        """What nothing names, by the path of its upload."""
        found = self.store.abandoned(self.listing)
        return {
            f"lake/{table}/{version}/.{upload}": [File(name, size) for name, size in files.items()]
            for table, version, (upload, files) in found
        }

    @cached_property
    def _pages(self) -> Counter[str]:
        """The bytes of the pages at and under each path relative to the home."""
        sizes = Counter[str]()
        for page in self.home.shared.listed("reports/"):
            path = PurePosixPath(page.name)
            sizes.update({each.as_posix(): page.bytes for each in (path, *path.parents)})
        return sizes

    def _records(self, table: str, version: str) -> set[tuple[str, str]]:
        files = self._files(table, version).items()
        return {(name, file.sha256) for name, file in files if _is_of_records(PurePosixPath(name))}


def _is_of_records(name: PurePosixPath) -> bool:
    return len(name.parts) == 2 and name.match(_RECORDS)
