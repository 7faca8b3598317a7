"""Judges the staged marts as a whole, and publishes exactly what was judged.

The audit is bound to the content of the staged files: `publish` refuses files that are not the audited ones, and
readers of the lake see the previous publication until the pointer moves.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from assets.exceptions import AuditError
from assets.lake import Home, hash_tree, write_atomically
from assets.settings import WarehouseSettings
from assets.validation.expectations import validate
from assets.validation.figures import Figures, measure
from assets.validation.objects import find_problems, new_objects
from assets.warehouse.project import MARTS, staged

__all__ = ["Audit", "Failure", "audit", "load_audit", "publish"]

_NOT_STAGED = "no marts are staged; the warehouse's build did not end with all of its tests passed"


@dataclass(frozen=True)
class Failure:
    """An expectation that was not met."""

    suite: str
    expectation: str
    """What was expected, in one sentence."""
    severity: str
    """critical or warning."""


@dataclass(frozen=True)
class Audit:
    """The verdict over the staged marts, and what it rests on."""

    as_of: str
    content: str
    """Hash over the audited files; the version that they are published as."""
    figures: Figures
    checked: dict[str, int]
    """Expectations by suite."""
    failures: tuple[Failure, ...]

    @property
    def critical(self) -> tuple[Failure, ...]:
        return tuple(failure for failure in self.failures if failure.severity != "warning")

    @property
    def passed(self) -> bool:
        """Whether it may be published: no critical expectation failed."""
        return not self.critical


def audit(home: Home, as_of: str, policy: WarehouseSettings) -> Audit:
    """Judge the staged marts as of a date, write the verdict beside them and Data Docs into the home's reports.

    Raises AuditError when no marts are staged.
    """
    folder = staged(home)
    if not all((folder / f"{mart}.parquet").exists() for mart in MARTS):
        raise AuditError(_NOT_STAGED)
    content = hash_tree(folder)[:16]
    previous = home.lake.current("marts") if home.lake.version("marts") else None
    figures = measure(folder, previous, as_of)
    problems = find_problems(new_objects(folder, previous), figures.published_mix, policy)
    outcome = validate(folder, figures, problems, as_of, policy, home.reports / "data-docs")
    verdict = Audit(as_of, content, figures, outcome.checked, tuple(Failure(*failed) for failed in outcome.failed))
    write_atomically(_path(home), json.dumps(asdict(verdict), indent=2))
    return verdict


def load_audit(home: Home, as_of: str) -> Audit:
    """The latest audit. Raises AuditError when there is none, or when it judged another date."""
    record = json.loads(_path(home).read_text()) if _path(home).exists() else {"as_of": None}
    if record["as_of"] != as_of:
        raise AuditError(f"no audit as of {as_of} (the latest: {record['as_of']}); run mart_audit first")
    failures = tuple(Failure(**failure) for failure in record.pop("failures"))
    return Audit(figures=Figures(**record.pop("figures")), failures=failures, **record)


def publish(home: Home, verdict: Audit) -> str:
    """Make the audited marts the current publication, and return its version.

    Raises AuditError when the audit failed, or when the staged files are not the audited ones any more.
    """
    if not verdict.passed:
        names = "; ".join(f"{failure.suite}: {failure.expectation}" for failure in verdict.critical)
        raise AuditError(f"the audit as of {verdict.as_of} failed ({names}); the previous publication stays")
    with home.lake.staging("marts") as folder:
        _copy(staged(home), folder)
        if hash_tree(folder)[:16] != verdict.content:
            raise AuditError("the staged marts are not the audited ones; materialize mart_audit again")
        shutil.copyfile(_path(home), folder / "audit.json")
        home.lake.publish("marts", verdict.content, folder)
    return verdict.content


def _copy(source: Path, target: Path) -> None:
    for path in source.iterdir():
        shutil.copyfile(path, target / path.name)


def _path(home: Home) -> Path:
    return home.warehouse / "audit.json"
