"""Audits the marts of the newest build as a whole, and publishes exactly what was audited.

The audit is bound to the content of the files: `publish` refuses files that are not the audited ones, and readers of
the lake see the previous publication until the pointer moves. The verdict is the lake table `mart_audit/<as_of>`.
"""

import json
from dataclasses import asdict, dataclass

from assets.exceptions import AuditError, Superseded
from assets.hashing import hash_json
from assets.home import Home
from assets.settings import WarehouseSettings
from assets.validation.expectations import validate
from assets.validation.figures import Figures, measure
from assets.validation.objects import find_problems, new_objects
from assets.warehouse.marts import content
from assets.warehouse.project import built, require_newest

__all__ = ["Audit", "Failure", "audit", "load_audit", "publish"]


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
    """The verdict on a build's marts, and what it is based on."""

    as_of: str
    content: str
    """A hash over the audited files; the version they are published as."""
    previous: str | None
    """The publication that they were compared with, and that they may take the place of."""
    figures: Figures
    checked: dict[str, int]
    """Expectations by suite."""
    failures: tuple[Failure, ...]

    @property
    def critical(self) -> tuple[Failure, ...]:
        return tuple(failure for failure in self.failures if failure.severity != "warning")

    @property
    def passed(self) -> bool:
        """Whether the marts may be published: no critical expectation failed."""
        return not self.critical


def audit(home: Home, as_of: str, policy: WarehouseSettings) -> Audit:
    """Judge the newest build's marts as of a date; writes the verdict, and Data Docs into the home's reports.

    Raises AuditError when no build has staged marts, and Superseded when another machine has published since the build.
    """
    table = _table(as_of)
    with home.lake.staging(table) as staged:
        folder, previous = built(home), home.lake.version("marts")
        require_newest(home, folder, previous)
        before = home.lake.path("marts", previous) if previous else None
        figures = measure(folder, before, as_of)
        problems = find_problems(new_objects(folder, before), figures.published_mix, policy)
        outcome = validate(home, folder, figures, problems, as_of, policy)
        failures = tuple(Failure(*failed) for failed in outcome.failed)
        verdict = Audit(as_of, folder.name, previous, figures, outcome.checked, failures)
        (staged / "audit.json").write_text(json.dumps(asdict(verdict), indent=2))
        home.lake.publish(table, hash_json(asdict(verdict))[:16], staged)
    return verdict


def load_audit(home: Home, as_of: str) -> Audit:
    """The latest audit as of a date. Raises AuditError when there is none."""
    if home.lake.version(_table(as_of)) is None:
        raise AuditError(f"no audit as of {as_of}; run mart_audit first")
    record = json.loads((home.lake.current(_table(as_of)) / "audit.json").read_text())
    failures = tuple(Failure(**failure) for failure in record.pop("failures"))
    return Audit(figures=Figures(**record.pop("figures")), failures=failures, **record)


def publish(home: Home, verdict: Audit, policy: WarehouseSettings) -> Audit:
    """Make the audited marts the current publication; returns the audit it is based on.

    If another run has published in the meantime, the newest build is audited against that publication. Raises
    AuditError when the audit failed, or when the files are no longer the audited ones.
    """
    if not verdict.passed:
        names = "; ".join(f"{failure.suite}: {failure.expectation}" for failure in verdict.critical)
        raise AuditError(f"the audit as of {verdict.as_of} failed ({names}); the previous publication stays")
    before = home.lake.path("marts", verdict.previous) if verdict.previous else None
    if content(home.lake.path("marts", verdict.content), before) != verdict.content:
        raise AuditError(f"the marts {verdict.content} are not the audited ones; materialize the warehouse again")
    try:
        home.lake.point("marts", verdict.content, verdict.previous)
    except Superseded:
        return publish(home, audit(home, verdict.as_of, policy), policy)
    return verdict


def _table(as_of: str) -> str:
    return f"mart_audit/{as_of}"
