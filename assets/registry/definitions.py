"""The assets `registered_model`, `champion` and `refit`."""

from typing import TYPE_CHECKING

import dagster as dg

from assets.display import markdown_list
from assets.exceptions import EvergreenError
from assets.home import Home
from assets.resources import AS_OF, Concluded, Evergreen, as_of, concluded, table, tag, worker_runner

if TYPE_CHECKING:
    from assets.registry.judgement import Judgement
    from assets.registry.refit import Refit
    from assets.registry.registry import RegisteredVersion

__all__ = ["champion", "refit", "registered_model"]

_ALIAS = "alias_is_evaluated"
_LEDGER = "ledger_is_as_written"
_SETTLED = "refit_is_settled"


@dg.asset(
    group_name="registry",
    pool="training",
    partitions_def=AS_OF,
    deps=["challenger_evaluation"],
    kinds={"mlflow"},
    owners=["team:evergreen"],
)
def registered_model(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Concluded:
    """The challenger as a version in MLflow's registry: at most one version per training, fully documented."""
    from assets.evaluation.report import load_evaluation
    from assets.evaluation.tables import metrics_table
    from assets.registry.registry import Registry, version_url

    home, day = evergreen.home, as_of(context)
    evaluation = load_evaluation(home.lake, day)
    bundle = home.lake.path(f"challenger/{day}", evaluation.training_id)
    version = Registry(home).register(bundle, evaluation, context.run.run_id)
    yield from concluded(
        context,
        {
            "version": int(version.version),
            "page": dg.MetadataValue.url(version_url(home, version.version)),
            "metrics": table(*metrics_table(evaluation, home.domain)),
            "training": version.training_id,
            "snapshot": version.snapshot_id,
        },
    )


@dg.asset(
    group_name="registry",
    pool="training",
    partitions_def=AS_OF,
    deps=["registered_model"],
    kinds={"mlflow", "sqlite"},
    owners=["team:evergreen"],
    check_specs=[
        dg.AssetCheckSpec(
            _ALIAS,
            asset="champion",
            blocking=True,
            description="The ledger is as it was written, and the alias `champion` is where the ledger says, on an "
            "evaluated version with intact files.",
        ),
        # An old evaluation that was edited cannot be repaired, so this does not block scoring.
        dg.AssetCheckSpec(
            _LEDGER,
            asset="champion",
            description="No entry of the ledger was edited, removed, reordered or forged, and every evaluation still "
            "in the lake is the one that was judged.",
        ),
    ],
)
def champion(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Concluded:
    """The version that scores, after the gate's verdict on the newest challenger; every verdict is in the ledger.

    A rejected challenger is a good outcome: the champion stays.
    """
    from assets.registry.judgement import judge_challenger

    judgement = judge_challenger(evergreen.home, as_of(context), evergreen.settings.gate)
    tag(context.instance, context.run.run_id, verdict=judgement.verdict.decision)
    problems = {_ALIAS: judgement.problem, _LEDGER: judgement.ledger_problem}
    yield from concluded(
        context,
        _metadata(judgement, evergreen.home),
        [
            dg.AssetCheckResult(check_name=name, passed=problem is None, description=problem or "no problem")
            for name, problem in problems.items()
        ],
    )


# Of no as-of: scoring a day needs the champion of then, not a refit of that day.
@dg.asset(
    group_name="registry",
    pool="training",
    deps=["champion"],
    kinds={"deepspeed", "mlflow"},
    owners=["team:evergreen"],
    check_specs=[
        # The evaluated champion can score, so nothing waits for its refit.
        dg.AssetCheckSpec(
            _SETTLED, asset="refit", description="The champion is a refit, or there is a reason why it is not."
        )
    ],
)
def refit(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Concluded:
    """The champion trained again on its test rows too, with the same settings; if it is no worse, it serves instead.

    Only if training.cost.refit is set. It is judged on the reference rows, against the evaluated version, which remains
    the one that the gate compares with.
    """
    from assets.registry.refit import refit_champion

    problem: str | None = None
    try:
        outcome = refit_champion(
            evergreen.home, evergreen.settings, worker_runner(context, evergreen.home), context.run.run_id
        )
    except EvergreenError as error:
        outcome = problem = f"the champion stays as it was evaluated, and the next run tries again: {error}"
    settled = dg.AssetCheckResult(check_name=_SETTLED, passed=problem is None, severity=dg.AssetCheckSeverity.WARN)
    yield from concluded(context, _refit_metadata(outcome, evergreen.home), [settled])


def _refit_metadata(outcome: "Refit | str", home: Home) -> dict[str, dg.MetadataValue | str | float]:
    if isinstance(outcome, str):
        return {"decision": "none", "reason": outcome}
    return {
        "decision": outcome.verdict.decision,
        "reasons": dg.MetadataValue.md(markdown_list(outcome.verdict.reasons)),
        "version": _link(outcome.version, home),
        "refit of": _link(outcome.evaluated, home),
        "seconds of training": float(outcome.training.report["seconds"]),
    }


def _metadata(judgement: "Judgement", home: Home) -> dict[str, dg.MetadataValue | str | float]:
    verdict, now = judgement.verdict, judgement.champion
    numbers = [[name, f"{value:.6g}"] for name, value in verdict.numbers.items()]
    return {
        "decision": verdict.decision,
        "reasons": dg.MetadataValue.md(markdown_list(verdict.reasons)),
        "challenger": _link(judgement.challenger, home),
        "champion": _link(now, home) if now else "unknown" if judgement.ledger_problem else "none yet",
        "numbers": table(["number", "value"], numbers),
    }


def _link(version: "RegisteredVersion", home: Home) -> dg.MetadataValue:
    from assets.registry.registry import MODEL, version_url

    return dg.MetadataValue.md(f"[{MODEL} version {version.version}]({version_url(home, version.version)})")
