"""The asset `retention`: the last step of a night."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from assets.home import Home
from assets.resources import AS_OF, Concluded, Evergreen, as_of, as_of_run, concluded, table

if TYPE_CHECKING:
    from assets.retention.prune import Pruned

__all__ = ["forget_runs", "retention"]


@dg.asset(
    group_name="retention",
    pool="retention",
    deps=["retraining_decision"],
    partitions_def=AS_OF,
    kinds={"python"},
    owners=["team:evergreen"],
)
def retention(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Concluded:
    """Removes what nothing needs any more, by the policy in configs/retention.yaml, and records it in the ledger."""
    from assets.retention.prune import prune

    policy = evergreen.settings.retention
    pruned = prune(evergreen.home, policy, as_of(context), own=context.run.run_id)
    forgotten = forget_runs(context.instance, evergreen.home, policy.runs)
    yield from concluded(context, {**_metadata(pruned), "runs forgotten": len(forgotten)})


def forget_runs(instance: dg.DagsterInstance, home: Home, keep: int, *, dry_run: bool = False) -> list[str]:
    """Remove the events and logs of finished runs except the newest `keep`, and partitions without runs; the runs' ids.

    The runs that materialized an asset last stay, as do the attempts at a retraining that is due, since they are
    counted.
    """
    needed = _shown(instance) | _counted(instance, home)
    runs = [record.dagster_run for record in instance.get_run_records()]
    finished = [run for run in runs if run.is_finished]
    old = [run for run in finished[keep:] if run.run_id not in needed]
    left = {as_of_run(run) for run in runs if run not in old}
    for run in () if dry_run else old:
        instance.delete_run(run.run_id)
        instance.compute_log_manager.delete_logs(prefix=[run.run_id])
        for path in _remains(home, run.run_id):
            path.unlink()
        if (partition := as_of_run(run)) and partition not in left:
            instance.delete_dynamic_partition(str(AS_OF.name), partition)
    return [run.run_id for run in old]


def _shown(instance: dg.DagsterInstance) -> set[str]:
    """The runs of each asset's newest materialization."""
    events = (instance.get_latest_materialization_event(key) for key in instance.all_asset_keys())
    return {event.run_id for event in events if event}


def _counted(instance: dg.DagsterInstance, home: Home) -> set[str]:
    from assets.monitoring.retraining import ATTEMPT_AT, due
    from assets.registry.shared_ledger import ledger_of

    if (decision := due(ledger_of(home).entries())) is None:
        return set()
    return {run.run_id for run in instance.get_runs(dg.RunsFilter(tags={ATTEMPT_AT: str(decision.seq)}))}


def _remains(home: Home, run_id: str) -> list[Path]:
    """A run's files that Dagster does not remove, all in this home."""
    from assets.retention.folders import is_plain

    databases = [path.relative_to(home.root) for path in (home.dagster / "history" / "runs").glob(f"{run_id}.db*")]
    names = [*databases, Path("logs", f"{run_id}.log"), home.running(run_id).relative_to(home.root)]
    return [home.root / name for name in names if is_plain(home.root, str(name))]


def _metadata(pruned: "Pruned") -> dict[str, dg.MetadataValue | int | str]:
    counts = Counter(item.setting for item in pruned.removed)
    return {
        "removed": len(pruned.removed),
        "bytes freed": pruned.bytes,
        "marked": len(pruned.marked),
        "by setting": table(["setting", "removed"], sorted(counts.items())),
        "summary": pruned.sentence,
    }
