"""What may be removed from a home: all that stages leave behind, except what the policy keeps and what is needed.

Symbolic links are neither followed nor removed, and nothing outside the home is read.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from assets.as_of import shifted
from assets.hashing import hash_file
from assets.ingestion.served import TABLE as SERVED
from assets.registry.registry import Registry
from assets.retention.folders import folders, freed, is_plain, newest_first
from assets.retention.needed import Needed
from assets.settings import RetentionSettings

__all__ = ["Removable", "find_removable", "sized"]

_DAILY = ("mart_audit", "predictions", "performance", "drift", "twins", "retraining_decision")
_OF_THE_REIGN = ("predictions", "performance", "drift")
"""The tables behind the champion's realised quality and the start of drift."""
_LEFTOVERS = (
    *("lake/*/.staging-*", "lake/*/*/.staging-*", "lake/*/.CURRENT-*", "lake/*/*/.CURRENT-*", "cache/*/.staging-*"),
    *("features/.online-*", "features/.apply-*", "warehouse/.parse-*", "running/evergreen-*.lock"),
    *("mlflow/.mlflow.db-*", "reports/.data-docs-*", "reports/evidently/.*.html-*", "cache/texts/*/.*.npz-*"),
    *("reports/pictures/*/*/.*.png-*", "served/source/*/.*.jsonl-*"),
)
"""Files left by killed processes."""


@dataclass(frozen=True)
class Removable:
    """A file or folder that nothing needs."""

    path: str
    """Relative to the home."""
    setting: str
    """The setting in configs/retention.yaml that could keep it; `superseded` or `leftover` if none could."""
    why: str
    bytes: int = 0
    """The bytes that removing it frees, after those before it: a file linked from elsewhere frees none."""


def find_removable(registry: Registry, as_of: str, settings: RetentionSettings, needed: Needed) -> list[Removable]:
    """All that nothing needs as of a day, in the order of removal. `as_of`: empty for no day."""
    root, search = registry.home.root, _Search(registry, as_of, settings, needed)
    items = [
        *search.days(),
        *search.served(),
        *search.pages(),
        *search.models(),
        *search.tables(),
        *search.outside_the_lake(),
    ]
    items += search.leftovers({item.path for item in items})
    whole = {item.path for item in items}
    separate = [item for item in items if not whole & {parent.as_posix() for parent in Path(item.path).parents}]
    plain = [item for item in separate if is_plain(root, item.path)]
    return sized(root, plain)


def sized(root: Path, items: Sequence[Removable]) -> list[Removable]:
    """Items with the bytes that removing them in this order frees."""
    sizes = freed(root / item.path for item in items)
    return [replace(item, bytes=size) for item, size in zip(items, sizes, strict=True)]


@dataclass(frozen=True)
class _Search:
    registry: Registry
    as_of: str
    settings: RetentionSettings
    needed: Needed

    def days(self) -> Iterator[Removable]:
        """Tables per day."""
        cut, why = self._before(self.settings.days), f"not of the last {self.settings.days} days"
        for family in _DAILY:
            reign = self.needed.reign if family in _OF_THE_REIGN else None
            days = folders(self._root / "lake" / family)
            for day in days:
                stays = day in days[-1:] or day > cut or (reign is not None and day >= reign)
                yield from self._table(f"{family}/{day}", (), "days", why, stays=stays)

    def served(self) -> Iterator[Removable]:
        """What was asked and answered, a table per segment; a segment is named by the moment that it was begun."""
        cut, why = self._before(self.settings.served_days), f"not of the last {self.settings.served_days} days"
        segments, evidence = folders(self._root / "lake" / SERVED), self.needed.evidence
        for segment in segments:
            stays = segment in segments[-1:] or segment[:10] > cut or (evidence is not None and segment >= evidence)
            yield from self._table(f"{SERVED}/{segment}", (), "served_days", why, stays=stays)

    def pages(self) -> Iterator[Removable]:
        """Evidently's reports, as served (formerly as drift pages) and in the lake, and pictures in Dagster's pages."""
        cut, why = self._before(self.settings.page_days), f"not of the last {self.settings.page_days} days"
        reports = self._root / "reports"
        served = [(path.stem, path) for name in ("drift", "evidently") for path in (reports / name).glob("*.html")]
        stored = [(path.parts[-3], path) for path in (self._root / "lake" / "drift").glob("*/*/report.html")]
        drawn = [(path.name, path) for path in (self._root / "reports" / "pictures").glob("*/*")]
        for day, path in sorted(served + stored + drawn):
            if day <= cut:
                yield self._removable(path, "page_days", why)

    def models(self) -> Iterator[Removable]:
        """The results of trainings: bundles, training sets and evaluations."""
        trained, sets = (folders(self._root / "lake" / name) for name in ("challenger", "training_set"))
        why = "neither needed nor from the newest trainings"
        for day in trained:
            stays = day in trained[-1:]
            yield from self._table(f"challenger/{day}", self.needed.bundles, "trainings", why, stays=stays)
        why = "from a training that is not kept reproducible"
        for day in sets:
            stays = day in sets[-1:] or day > max(trained, default="")
            yield from self._table(f"training_set/{day}", _of(day, self.needed.snapshots), "reproducible", why, stays)
        for name, judged in (("evaluation", self.needed.evaluations), ("verdict", frozenset[str]())):
            for day in folders(self._root / "lake" / name):
                yield from self._superseded(f"{name}/{day}", _of(day, judged))
        yield from self._copies()

    def tables(self) -> Iterator[Removable]:
        """Versions of the marts, and versions of the raw table whose records are all in a newer one, too."""
        most = self.settings.publications
        versions = [path.name for path in self._versions("marts")]
        needed = {*self.needed.marts, *versions[:most], *self._built()}
        why = f"not one of the newest {most} publications, and no training set that is kept needs it"
        yield from self._superseded("marts", needed, "publications", why)
        held: dict[str, list[Path]] = defaultdict(list)
        current = self._current("raw_records")
        for path in sorted(self._versions("raw_records"), key=lambda path: path.name != current):
            own = {f"{file.parent.name}/{file.name}": file for file in path.glob("re*/*")}
            if path.name != current and all(_is_among(file, held[name]) for name, file in own.items()):
                yield self._removable(path, "superseded", "all of its records are in a newer version")
            for name, file in own.items():
                held[name].append(file)

    def outside_the_lake(self) -> Iterator[Removable]:
        """Folders next to the lake: each can be recreated."""
        root, settings = self._root, self.settings
        for name, keep in (("checkpoints", settings.checkpoints), ("replay", settings.replays)):
            paths = [root / name / folder for folder in folders(root / name)]
            yield from self._oldest(paths, "replays" if name == "replay" else name, keep)
        texts = root / "cache" / "texts"
        yield from self._oldest([texts / folder for folder in folders(texts)], "replays", settings.replays)
        yield from self._oldest([*(root / "warehouse" / "manifests").glob("*.json")], "manifests", settings.manifests)

    def leftovers(self, going: Collection[str]) -> Iterator[Removable]:
        """Files a killed process was writing, and locks of tables that are gone, or going."""
        for path in sorted(path for pattern in _LEFTOVERS for path in self._root.glob(pattern)):
            yield self._removable(path, "leftover", "left by a process that was killed")
        for day in folders(self._root / "lake" / "predictions")[:-1]:
            for path in sorted((self._root / "lake" / "predictions" / day).glob(".*.parts")):
                yield self._removable(path, "leftover", "from a scoring that did not finish")
        for path in sorted((self._root / "lake" / ".writing").glob("*/*.lock")):
            table = f"lake/{path.parent.name}/{path.stem}"
            if table in going or not (self._root / table).exists():
                yield self._removable(path, "leftover", "the lock of a table that is gone")

    def _built(self) -> Iterator[str]:
        """The newest built marts, by the name that they have now."""
        home = self.registry.home
        if (built := home.warehouse / "BUILT").exists():
            yield home.lake.path("marts", built.read_text()).name

    @property
    def _root(self) -> Path:
        return self.registry.home.root

    def _before(self, days: int) -> str:
        """The as-of this many days earlier; what is later is of these days."""
        return shifted(self.as_of, -days) if self.as_of else ""

    def _removable(self, path: Path, setting: str, why: str) -> Removable:
        return Removable(path.relative_to(self._root).as_posix(), setting, why)

    def _table(self, table: str, kept: Collection[str], setting: str, why: str, stays: bool) -> Iterator[Removable]:
        """A whole table or, if it stays or some of its versions are kept, its superseded versions."""
        versions = {path.name for path in self._versions(table)}
        if stays or versions & set(kept):
            yield from self._superseded(table, kept)
        else:
            yield self._removable(self._root / "lake" / table, setting, why)

    def _superseded(
        self, table: str, kept: Collection[str] = (), setting: str = "superseded", why: str = "not the current version"
    ) -> Iterator[Removable]:
        """The versions that are neither current nor kept; none if the pointer is damaged."""
        current, versions = self._current(table), self._versions(table)
        if current is None or current in {path.name for path in versions}:
            for path in versions:
                if path.name != current and path.name not in kept:
                    yield self._removable(path, setting, why)

    def _current(self, table: str) -> str | None:
        pointer = self._root / "lake" / table / "CURRENT"
        return pointer.read_text(errors="replace") if pointer.exists() else None

    def _versions(self, table: str) -> list[Path]:
        """A table's versions, newest first."""
        folder = self._root / "lake" / table
        return newest_first(folder / name for name in folders(folder))

    def _oldest(self, paths: Collection[Path], setting: str, keep: int) -> Iterator[Removable]:
        for path in newest_first(paths)[keep:]:
            yield self._removable(path, setting, f"not one of the last {keep}")

    def _copies(self) -> Iterator[Removable]:
        """MLflow's copies of bundles that are not needed; its remote copies are not in this home."""
        artifacts, why = self.registry.home.mlflow, "MLflow's copy of a bundle that is not kept"
        for version in self.registry.versions():
            if version.training_id not in self.needed.bundles:
                path = self.registry.copy_here(version)
                if path.is_relative_to(artifacts) and path != artifacts:
                    yield self._removable(path, "trainings", why)


def _is_among(file: Path, others: Sequence[Path]) -> bool:
    """Whether one of some files is this one, or has its content."""
    return any(file.samefile(other) for other in others) or hash_file(file) in map(hash_file, others)


def _of(day: str, names: Collection[str]) -> set[str]:
    """The versions of a day, from names such as <day>/<version>."""
    return {name.removeprefix(f"{day}/") for name in names if name.startswith(f"{day}/")}
