"""The result of a run and the current status, for people and as JSON."""

import json
from typing import Any

from assets.as_of import instant
from assets.display import capitalized, text_table
from assets.duck import connect
from assets.evaluation.criteria import title
from assets.evaluation.metrics import Metrics
from assets.evaluation.report import load_evaluation
from assets.features.snapshot import load_snapshot
from assets.home import Home
from assets.registry.judgement import load_verdict
from assets.registry.registry import Registry
from assets.registry.shared_ledger import ledger_of
from assets.settings import Domain
from assets.warehouse.marts import mart, visible
from pipelines.instance import open_instance
from pipelines.runs import GraphRun

__all__ = ["status", "summarize", "table"]

_TITLES = {"ece": "ECE"}


def summarize(home: Home, as_of: str, run: GraphRun) -> dict[str, Any]:
    """The result of a finished run of the whole graph, in order."""
    snapshot = load_snapshot(home.lake, as_of)
    evaluation = load_evaluation(home.lake, as_of)
    champion, challenger = Registry(home).champion(), Registry(home).challenger()
    verdict = load_verdict(home.lake, as_of)
    contenders = {"baseline": evaluation.baseline, "champion": evaluation.champion and evaluation.champion.metrics}
    return {
        "as_of": as_of,
        "run_id": run.run_id,
        "records": _records(home, as_of),
        "snapshot": {"id": snapshot.id, "train_rows": snapshot.train_rows, "test_rows": snapshot.test_rows},
        "challenger": {
            "version": challenger and challenger.version,
            "metrics": _metrics(evaluation.challenger),
            **{name: metrics and _metrics(metrics) for name, metrics in contenders.items()},
        },
        "verdict": {"decision": verdict["decision"], "reasons": verdict["reasons"]},
        "champion": {"version": champion and champion.version},
        "drift": _part(home, f"drift/{as_of}", "drift.json", ("detected", "share")),
        "retraining": _part(home, f"retraining_decision/{as_of}", "decision.json", ("decision", "reason")),
        "checks": {"passed": run.passed, "warnings": list(run.warnings)},
        "seconds": run.seconds,
    }


def table(summary: dict[str, Any], domain: Domain) -> str:
    """The summary as lines of text."""
    records, snapshot, challenger = summary["records"], summary["snapshot"], summary["challenger"]
    lines = [f"{domain.title}, as of {summary['as_of']}", ""]
    counts = ", ".join(f"{count:,} {name}" for name, count in records.items())
    lines.append(f"{capitalized(domain.record.many):<11} {counts}")
    lines.append(
        f"Snapshot    {snapshot['id']}: {snapshot['train_rows']:,} to train on, {snapshot['test_rows']:,} to test"
    )
    lines.append("")
    titles = [_TITLES.get(name, title(name, domain)) for name in challenger["metrics"]]
    contenders = {"challenger": challenger["metrics"]} | {who: challenger[who] for who in ("baseline", "champion")}
    rows = [[who, *_shown(metrics, len(titles))] for who, metrics in contenders.items()]
    lines.append(text_table(["", *titles], rows))
    lines.append("")
    lines.append(f"Verdict     {summary['verdict']['decision']}: {'; '.join(summary['verdict']['reasons'])}")
    lines.append(f"Champion    version {summary['champion']['version']} (challenger: version {challenger['version']})")
    drift = summary["drift"]
    detected = {True: "detected", False: "not detected", None: "could not be measured"}[drift["detected"]]
    share = "" if drift["share"] is None else f", in {drift['share']:.0%} of a group's columns"
    lines.append(f"Drift       {detected}{share}")
    lines.append(f"Retraining  {summary['retraining']['decision']}: {summary['retraining']['reason']}")
    warnings = summary["checks"]["warnings"]
    counted = f"{len(warnings) or 'no'} warning{'' if len(warnings) == 1 else 's'}"
    lines += [f"Checks      {summary['checks']['passed']} passed, {counted}", *(f"{'':<12}{line}" for line in warnings)]
    return "\n".join(lines)


def status(home: Home) -> dict[str, Any]:
    """Champion, challenger, records, last run and last decision; null if there is none yet."""
    registry, decisions = Registry(home), ledger_of(home).entries("retraining")
    champion, challenger = registry.champion(), registry.challenger()
    return {
        "champion": champion and {"version": champion.version, "as_of": champion.as_of},
        "challenger": challenger and {"version": challenger.version, "as_of": challenger.as_of},
        "records": _records(home, None) if home.lake.version("marts") else None,
        "last_run": _last_run(home),
        "last_decision": decisions[-1].body if decisions else None,
    }


def _last_run(home: Home) -> dict[str, str] | None:
    if not home.dagster.exists():
        return None
    with open_instance(home) as instance:
        records = instance.get_run_records(limit=1)
    runs = [record.dagster_run for record in records]
    return {"run_id": runs[0].run_id, "status": runs[0].status.value} if runs else None


def _records(home: Home, as_of: str | None) -> dict[str, int]:
    marts = home.lake.current("marts")
    fates = "select sum(landed), sum(valid), sum(quarantined), sum(duplicate) from read_parquet($path)"
    known = f"select count(*) from read_parquet($path) records where {visible('records')}"  # noqa: S608 - a constant
    with connect() as connection:
        counts = connection.execute(fates, {"path": mart(marts, "record_counts")}).fetchone()
        records = dict(zip(("landed", "valid", "quarantined", "duplicate"), map(int, counts or ()), strict=True))
        if as_of is not None:
            row = connection.execute(known, {"path": mart(marts, "fct_records"), "as_of": instant(as_of)}).fetchone()
            records["known"] = int(row[0]) if row else 0
    return records


def _metrics(metrics: Metrics) -> dict[str, float]:
    names = ("accuracy", "macro_f1", "log_loss", "ece")
    return {name: round(metrics.value(name), 6) for name in (*metrics.others, *names)}


def _shown(metrics: dict[str, float] | None, columns: int) -> list[str]:
    return [f"{value:.3f}" for value in metrics.values()] if metrics else ["none yet", *[""] * (columns - 1)]


def _part(home: Home, name: str, file: str, fields: tuple[str, ...]) -> dict[str, Any]:
    content = json.loads((home.lake.current(name) / file).read_text())
    return {field: content[field] for field in fields}
