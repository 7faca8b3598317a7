"""The asset `challenger_evaluation`."""

from typing import TYPE_CHECKING

import dagster as dg

from assets.home import Home
from assets.resources import AS_OF, Concluded, Evergreen, as_of, concluded, picture, table

if TYPE_CHECKING:
    from assets.evaluation.evaluate import Champion
    from assets.evaluation.report import Evaluation

__all__ = ["challenger_evaluation"]

_GOLDEN = "served_output_equals_evaluated_output"


@dg.asset(
    group_name="evaluation",
    pool="training",
    partitions_def=AS_OF,
    deps=["challenger", "training_set"],
    kinds={"scikitlearn", "matplotlib"},
    owners=["team:evergreen"],
    check_specs=[
        dg.AssetCheckSpec(
            _GOLDEN,
            asset="challenger_evaluation",
            blocking=True,
            description="Reloaded from its files, the bundle answers golden rows as it was evaluated, within 1e-5.",
        )
    ],
)
def challenger_evaluation(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Concluded:
    """The challenger, the champion and a simple baseline, measured on the same frozen test rows.

    Accuracy, macro-F1, log loss and calibration, overall and by label, by the domain's columns, by month and by the
    length of the text. The baseline is TF-IDF with a logistic regression, trained on the same snapshot.
    """
    from assets.evaluation.evaluate import evaluate
    from assets.features.snapshot import load_snapshot

    home, day = evergreen.home, as_of(context)
    evaluation = evaluate(
        home.lake,
        day,
        load_snapshot(home.lake, day),
        home.lake.current(f"challenger/{day}"),
        _champion(home, day),
        evergreen.settings.evaluation,
        evergreen.settings.gate,
    )
    yield from concluded(context, _metadata(evaluation, home), [_golden(evaluation)])


def _champion(home: Home, day: str) -> "Champion | None":
    """The champion of that day: a later one may have learned from the test rows. None if the ledger has none, or is not
    as it was written: then the gate says so, and judges nothing.
    """
    from assets.evaluation.evaluate import Champion
    from assets.registry.registry import Registry

    registry = Registry(home)
    champion = None if registry.ledger_problem() else registry.evaluated_champion(day)
    if champion is None:
        return None
    return Champion(champion.version, champion.training_id, registry.fetch(champion.version))


def _golden(evaluation: "Evaluation") -> dg.AssetCheckResult:
    golden = evaluation.golden
    numbers = {"rows": golden.rows, "largest difference": golden.max_difference}
    return dg.AssetCheckResult(check_name=_GOLDEN, passed=golden.equal, metadata=numbers)


def _metadata(evaluation: "Evaluation", home: Home) -> dict[str, dg.MetadataValue | str | float | int]:
    from assets.evaluation.pictures import PICTURES
    from assets.evaluation.tables import labels_table, metrics_table, rare_labels_table, slices_table

    names = ("accuracy", "macro_f1", "log_loss", "ece")
    numbers = {name: evaluation.challenger.value(name) for name in (*evaluation.challenger.others, *names)}
    drawn = PICTURES if evaluation.golden.equal else {}  # an evaluation that failed its check was not published
    folder, about = evaluation.folder(home.lake), (home, "challenger_evaluation", evaluation.as_of)
    return {
        **numbers,
        "metrics": table(*metrics_table(evaluation, home.domain)),
        **{title: picture(*about, title, (folder / name).read_bytes()) for title, name in drawn.items()},
        "slices": table(*slices_table(evaluation, home.domain)),
        "labels, the rarest first": table(*labels_table(evaluation, home.domain)),
        "labels with few training rows": table(*rare_labels_table(evaluation, home.domain)),
        "test rows": evaluation.challenger.rows,
        "snapshot": evaluation.snapshot.id,
        "training": evaluation.training_id,
        "evaluation": evaluation.id,
    }
