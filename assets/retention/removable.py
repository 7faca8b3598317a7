"""What may be removed from a home: all that stages leave behind, except what the policy keeps and what is needed.

Symbolic links are neither followed nor removed, and nothing outside the home is read.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from assets.as_of import shifted
from assets.ingestion.served import TABLE as SERVED
from assets.registry.registry import Registry
from assets.retention.contents import Contents, Removable
from assets.retention.folders import folders, is_plain, newest_first
from assets.retention.needed import Needed
from assets.settings import RetentionSettings

__all__ = ["find_removable"]

_DAILY = ("mart_audit", "predictions", "performance", "drift", "twins", "retraining_decision")
_OF_THE_REIGN = ("predictions", "performance", "drift")
"""The tables behind the champion's realised quality and the start of drift."""
_SERVED = (("drift",), ("evidently",))
_LEFTOVERS = (
    *("lake/*/.staging-*", "lake/*/*/.staging-*", "lake/*/.CURRENT-*", "lake/*/*/.CURRENT-*", "cache/*/.staging-*"),
    *("features/.online-*", "features/.apply-*", "warehouse/.parse-*", "running/evergreen-*.lock"),
    *("mlflow/.mlflow.db-*", "reports/.data-docs-*", "reports/evidently/.*.html-*", "cache/texts/*/.*.npz-*"),
    *("reports/pictures/*/*/.*.png-*", "served/source/*/.*.jsonl-*"),
)
"""Files left by killed processes."""


def find_removable(
    registry: Registry,
    as_of: str,
    settings: RetentionSettings,
    needed: Needed,
    contents: Contents,
    *,
    alone: bool = True,
) -> list[Removable]:
    """All that nothing needs as of a day, in the order of removal. `as_of`: empty for no day.

    `alone`: whether nobody else is at work; otherwise only what is in the lake is looked at.
    """
    root, search = registry.home.root, _Search(registry, as_of, settings, needed, contents)
    items = [*search.days(), *search.served(), *search.pages(), *search.models(), *search.tables()]
    items += [*search.abandoned(), *(search.outside_the_lake() if alone else ())]
    items += search.leftovers({item.path for item in items}) if alone else ()
    whole = {item.path for item in items}
    separate = [item for item in items if not whole & {parent.as_posix() for parent in Path(item.path).parents}]
    shared = registry.home.objects is not None
    return contents.sized([item for item in separate if (shared and item.is_shared) or is_plain(root, item.path)])


@dataclass(frozen=True)
class _Search:
    registry: Registry
    as_of: str
    settings: RetentionSettings
    needed: Needed
    contents: Contents

    def days(self) -> Iterator[Removable]:
        """Tables per day."""
        cut, why = self._before(self.settings.days), f"not of the last {self.settings.days} days"
        for family in _DAILY:
            reign = self.needed.reign if family in _OF_THE_REIGN else None
            days = self.contents.tables(family)
            for day in days:
                stays = day in days[-1:] or day > cut or (reign is not None and day >= reign)
                yield from self._table(f"{family}/{day}", (), "days", why, stays=stays)

    def served(self) -> Iterator[Removable]:
        """What was asked and answered, a table per segment; a segment is named by the moment that it was begun."""
        cut, why = self._before(self.settings.served_days), f"not of the last {self.settings.served_days} days"
        segments, evidence = self.contents.tables(SERVED), self.needed.evidence
        for segment in segments:
            stays = segment in segments[-1:] or segment[:10] > cut or (evidence is not None and segment >= evidence)
            yield from self._table(f"{SERVED}/{segment}", (), "served_days", why, stays=stays)

    def pages(self) -> Iterator[Removable]:
        """Evidently's reports, as served (formerly as drift pages) and in the lake, and pictures in Dagster's pages."""
        cut, why = self._before(self.settings.page_days), f"not of the last {self.settings.page_days} days"
        pages = [PurePosixPath(name) for name in self.registry.home.pages.names()]
        served = {
            (page.stem, f"reports/{page}") for page in pages if page.match("*.html") and page.parts[:-1] in _SERVED
        }
        pictures = [page for page in pages if len(page.parts) == 4 and page.parts[0] == "pictures"]
        drawn = {(page.parts[2], f"reports/{page.parent}") for page in pictures}
        for day, path in sorted([*served, *self.contents.reports(), *drawn]):
            if day <= cut:
                yield Removable(path, "page_days", why)

    def models(self) -> Iterator[Removable]:
        """The results of trainings: bundles, training sets and evaluations."""
        trained, sets = (self.contents.tables(name) for name in ("challenger", "training_set"))
        why = "neither needed nor from the newest trainings"
        for day in trained:
            stays = day in trained[-1:]
            yield from self._table(f"challenger/{day}", self.needed.bundles, "trainings", why, stays=stays)
        why = "from a training that is not kept reproducible"
        for day in sets:
            stays = day in sets[-1:] or day > max(trained, default="")
            yield from self._table(f"training_set/{day}", _of(day, self.needed.snapshots), "reproducible", why, stays)
        for name, judged in (("evaluation", self.needed.evaluations), ("verdict", frozenset[str]())):
            for day in self.contents.tables(name):
                yield from self._superseded(f"{name}/{day}", _of(day, judged))
        yield from self._copies()

    def tables(self) -> Iterator[Removable]:
        """Versions of the marts, and versions of the raw table whose records are all in a newer one, too."""
        most = self.settings.publications
        versions = self.contents.versions("marts")
        needed = {*self.needed.marts, *versions[:most], *self._built()}
        why = f"not one of the newest {most} publications, and no training set that is kept needs it"
        yield from self._superseded("marts", needed, "publications", why)
        current, held = self.contents.current("raw_records"), list[str]()
        for version in sorted(self.contents.versions("raw_records"), key=lambda version: version != current):
            if version != current and self.contents.holds("raw_records", version, held):
                yield Removable(
                    f"lake/raw_records/{version}", "superseded", "all of its records are in a newer version"
                )
            held.append(version)

    def abandoned(self) -> Iterator[Removable]:
        """What was uploaded of versions that were not written to their end, or are gone."""
        for path in self.contents.abandoned():
            yield Removable(path, "abandoned", "of an upload that nothing names")

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
        for path in sorted((self._root / "lake" / ".writing").glob("*/*.*")):
            table = f"lake/{path.parent.name}/{path.stem}"
            if table in going or not (self._root / table).exists():
                yield self._removable(path, "leftover", "the lock of a table that is gone")

    def _built(self) -> Iterator[str]:
        """The newest built marts, by the name that they have now."""
        home = self.registry.home
        if (built := home.warehouse / "BUILT").exists():
            yield home.lake.name("marts", built.read_text())

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
        if stays or set(self.contents.versions(table)) & set(kept):
            yield from self._superseded(table, kept)
        else:
            yield Removable(f"lake/{table}", setting, why)

    def _superseded(
        self, table: str, kept: Collection[str] = (), setting: str = "superseded", why: str = "not the current version"
    ) -> Iterator[Removable]:
        """The versions that are neither current nor kept; none if the pointer is damaged."""
        current, versions = self.contents.current(table), self.contents.versions(table)
        if current is None or current in versions:
            for version in versions:
                if version != current and version not in kept:
                    yield Removable(f"lake/{table}/{version}", setting, why)

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


def _of(day: str, names: Collection[str]) -> set[str]:
    """The versions of a day, from names such as <day>/<version>."""
    return {name.removeprefix(f"{day}/") for name in names if name.startswith(f"{day}/")}
