"""Scores a challenger, the champion and a simple baseline on the same frozen test rows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from assets.evaluation.baseline import baseline_probabilities
from assets.evaluation.criteria import criteria
from assets.evaluation.metrics import (
    Metrics,
    Slice,
    confusion,
    correct,
    label_scores,
    measure,
    reliability,
    slices,
)
from assets.evaluation.paired import compare_probabilities, pair_up
from assets.evaluation.pictures import draw
from assets.evaluation.rare import Answered
from assets.evaluation.report import (
    Evaluation,
    Golden,
    Reference,
    Rival,
    SliceScores,
    SnapshotFacts,
    read_evaluation,
    table,
    write_evaluation,
)
from assets.exceptions import BundleError, SnapshotError
from assets.features.snapshot import Snapshot
from assets.hashing import hash_file, hash_json
from assets.lake import Lake
from assets.settings import Domain, EvaluationSettings, GatePolicy
from assets.training.bundle import Bundle, load_bundle
from assets.training.tasks.classification.labels import places

__all__ = ["Champion", "evaluate", "evaluate_refit", "facts", "in_order", "on_reference", "scores"]

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Champion:
    """The version that holds the alias, and its local bundle."""

    version: str
    training_id: str
    path: Path


def evaluate(
    lake: Lake,
    as_of: str,
    snapshot: Snapshot,
    bundle_path: Path,
    champion: Champion | None,
    settings: EvaluationSettings,
    policy: GatePolicy,
) -> Evaluation:
    """Measure the bundle in `bundle_path` (named by its training id) on the snapshot's test rows.

    From the policy it needs the metrics that decide, and the costs of mistakes.

    An evaluation of the same inputs is reused. A challenger that is the champion is not compared with itself: the
    evaluation by which it was promoted remains. One whose golden rows differ is not published. Raises BundleError, and
    SnapshotError when the champion needs a feature that the snapshot lacks.
    """
    training_id = bundle_path.name
    basis = hash_json([training_id, snapshot.id, settings.model_dump(), *_decisive(policy), _code()])[:16]
    itself = champion is not None and champion.training_id == training_id
    rival = None if itself else champion
    earlier = _published(lake, as_of, _version(basis, rival))
    if earlier and (earlier.id == _version(basis, rival) or (itself and earlier.basis == basis)):
        lake.publish(table(as_of), earlier.id, earlier.folder(lake))
        return earlier
    return _measure(lake, as_of, snapshot, bundle_path, rival, settings, policy, basis)


def evaluate_refit(
    lake: Lake,
    as_of: str,
    snapshot: Snapshot,
    bundle_path: Path,
    evaluated: Champion,
    settings: EvaluationSettings,
    policy: GatePolicy,
) -> Evaluation:
    """Measure a refit on the reference rows, against the evaluated version; kept next to that version's evaluation.

    Raises the same errors as `evaluate`.
    """
    inputs = [bundle_path.name, snapshot.id, settings.model_dump(), *_decisive(policy), _code(), "refit"]
    basis = hash_json(inputs)[:16]
    folder = lake.path(table(as_of), _version(basis, evaluated))
    if folder.exists():
        return read_evaluation(folder)
    return _measure(lake, as_of, snapshot, bundle_path, evaluated, settings, policy, basis, refit=True)


def _decisive(policy: GatePolicy) -> tuple[Any, ...]:
    return sorted(policy.decided_by), policy.costs


def _version(basis: str, rival: Champion | None) -> str:
    return hash_json([basis, rival.training_id if rival else None])[:16]


def _published(lake: Lake, as_of: str, version: str) -> Evaluation | None:
    """The version if it exists, else the current one, if there is one."""
    folder = lake.path(table(as_of), version)
    current = lake.version(table(as_of))
    if not folder.exists() and current:
        folder = lake.path(table(as_of), current)
    return read_evaluation(folder) if folder.exists() else None


def _measure(
    lake: Lake,
    as_of: str,
    snapshot: Snapshot,
    bundle_path: Path,
    champion: Champion | None,
    settings: EvaluationSettings,
    policy: GatePolicy,
    basis: str,
    refit: bool = False,
) -> Evaluation:
    train, test = snapshot.train(), snapshot.reference() if refit else snapshot.test()
    reference = snapshot.reference() if champion else test.iloc[:0]
    rows = pd.concat([test, reference], ignore_index=True)
    answers, milliseconds = _challenger(bundle_path, rows)
    everywhere = {"challenger": answers}
    if champion:
        everywhere["champion"] = _champion(champion, snapshot, rows)
    by_model = {who: answers[: len(test)] for who, answers in everywhere.items()}
    by_model["baseline"] = baseline_probabilities(train, test, snapshot.labels)
    golden = golden_rows(test, by_model["challenger"], settings.golden_rows)
    evaluation = Evaluation(
        id=_version(basis, champion),
        basis=basis,
        as_of=as_of,
        training_id=bundle_path.name,
        labels=snapshot.labels,
        snapshot=facts(snapshot),
        golden=_serve_again(bundle_path, test, golden),
        milliseconds=milliseconds,
        rare_labels=_rare(train["label"], snapshot.labels, settings.min_label_rows),
        reference=on_reference(
            reference, snapshot.labels, {who: answers[len(test) :] for who, answers in everywhere.items()}
        ),
        settings=settings.model_dump(),
        refit_of=champion.training_id if champion and refit else None,
        **scores(test, snapshot.domain, by_model, champion, settings, policy),
    )
    if evaluation.golden.equal:
        answered = Answered(places(test["label"], snapshot.labels), by_model, policy.costs)
        _publish(lake, evaluation, snapshot.domain, answered, predictions(test, snapshot.labels, by_model), golden)
    return evaluation


def on_reference(rows: pd.DataFrame, labels: Sequence[str], by_model: dict[str, Probabilities]) -> Reference | None:
    """The part of an Evaluation about the probabilities of challenger and champion for the reference rows."""
    if rows.empty or "champion" not in by_model:
        return None
    truth = places(rows["label"], labels)
    ours, theirs = (correct(truth, by_model[who]) for who in ("challenger", "champion"))
    return Reference(
        rows=len(rows),
        challenger=float(ours.mean()),
        champion=float(theirs.mean()),
        **_differing(ours, theirs),
    )


def _differing(ours: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_]) -> dict[str, int]:
    """The rows that only one of the two gets right."""
    return {"only_challenger": int((ours & ~theirs).sum()), "only_champion": int((theirs & ~ours).sum())}


def _challenger(path: Path, test: pd.DataFrame) -> tuple[Probabilities, float]:
    """Its answers, and the milliseconds that one took."""
    bundle = load_bundle(path)
    if bundle.id != path.name:
        raise BundleError(f"{path}: contains another model, {bundle.id}")
    started = time.perf_counter()
    answers = bundle.predict_proba(test)
    return answers, (time.perf_counter() - started) / len(test) * 1000


def _champion(champion: Champion, snapshot: Snapshot, test: pd.DataFrame) -> Probabilities:
    bundle = load_bundle(champion.path)
    _require_features(bundle, champion.version, snapshot)
    return in_order(bundle.predict_proba(test), bundle.labels, snapshot.labels)


def in_order(probabilities: Probabilities, theirs: Sequence[str], ours: Sequence[str]) -> Probabilities:
    """Probabilities [rows, theirs] mapped to other labels [rows, ours]: labels that a model lacks get 0."""
    mapped = np.zeros((len(probabilities), len(ours)))
    for place, label in enumerate(ours):
        if label in theirs:
            mapped[:, place] = probabilities[:, theirs.index(label)]
    return mapped


def _require_features(bundle: Bundle, version: str, snapshot: Snapshot) -> None:
    if lacking := [name for name in bundle.features if name not in snapshot.features]:
        raise SnapshotError(
            f"training_set/{snapshot.as_of}: champion version {version} needs the feature {lacking[0]!r}, which the "
            f"snapshot lacks ({len(lacking)} in all); keep it in the feature service until the champion is replaced"
        )


def scores(
    test: pd.DataFrame,
    domain: Domain,
    by_model: dict[str, Probabilities],
    champion: Champion | None,
    settings: EvaluationSettings,
    policy: GatePolicy,
) -> dict[str, Any]:
    """The part of an Evaluation about the probabilities of challenger, baseline and champion for the test rows."""
    labels, bins = list(domain.labels), settings.calibration_bins
    truth = places(test["label"], labels)
    metrics = {who: _metrics(truth, probabilities, labels, bins, policy) for who, probabilities in by_model.items()}
    rival = champion and _rival(champion, truth, by_model, metrics["champion"], labels, policy)
    right = {who: correct(truth, probabilities) for who, probabilities in by_model.items()}
    return {
        "challenger": metrics["challenger"],
        "baseline": metrics["baseline"],
        "champion": rival,
        "slices": tuple(
            _slice_scores(part, right, settings.min_slice_rows) for part in slices(test, domain) if part.rows
        ),
        "by_label": tuple(label_scores(truth, by_model["challenger"], labels, bins)),
        "reliability": {who: tuple(reliability(truth, chance, bins)) for who, chance in by_model.items()},
        "confusion": tuple(tuple(row) for row in confusion(truth, by_model["challenger"]).tolist()),
    }


def _metrics(
    truth: npt.NDArray[np.int64], probabilities: Probabilities, labels: list[str], bins: int, policy: GatePolicy
) -> Metrics:
    """Metrics, including those that decide; those that cannot be computed are NaN."""
    metrics = measure(truth, probabilities, bins)
    wanted = criteria([name for name in policy.decided_by if not hasattr(metrics, name)], labels, policy.costs)
    sound = len(truth) > 0 and bool(np.isfinite(probabilities).all())
    others = {name: one.value(truth, probabilities) if sound else np.nan for name, one in wanted.items()}
    return replace(metrics, others=others)


def _rival(
    champion: Champion,
    truth: npt.NDArray[np.int64],
    by_model: dict[str, Probabilities],
    metrics: Metrics,
    labels: list[str],
    policy: GatePolicy,
) -> Rival:
    ours, theirs = by_model["challenger"], by_model["champion"]
    wanted = criteria(policy.decided_by, labels, policy.costs).values()
    return Rival(
        version=champion.version,
        training_id=champion.training_id,
        metrics=metrics,
        pairs=pair_up(truth, ours.argmax(axis=1), theirs.argmax(axis=1)),
        gains=compare_probabilities(truth, ours, theirs, wanted),
    )


def _slice_scores(part: Slice, right: dict[str, npt.NDArray[np.bool_]], min_rows: int) -> SliceScores:
    inside = {who: correct[part.mask] for who, correct in right.items()}
    shares = {who: float(correct.mean()) for who, correct in inside.items()}
    return SliceScores(
        by=part.by,
        value=part.value,
        rows=part.rows,
        decides=part.by != "label" and part.rows >= min_rows,
        challenger=shares["challenger"],
        baseline=shares["baseline"],
        champion=shares.get("champion"),
        **_differing(inside["challenger"], inside.get("champion", inside["challenger"])),
    )


def _rare(learned: "pd.Series[str]", labels: Sequence[str], enough: int) -> dict[str, int]:
    counts = learned.value_counts()
    return {label: rows for label in labels if (rows := int(counts.get(label, 0))) < enough}


def facts(snapshot: Snapshot) -> SnapshotFacts:
    """The part of an Evaluation about its snapshot."""
    return SnapshotFacts(
        id=snapshot.id,
        train_rows=snapshot.train_rows,
        test_rows=snapshot.test_rows,
        period=snapshot.manifest["period"],
    )


def golden_rows(test: pd.DataFrame, probabilities: Probabilities, rows: int) -> pd.DataFrame:
    """Rows spread evenly over the test part: record_id, and the probabilities that were evaluated."""
    chosen = np.unique(np.linspace(0, len(test) - 1, min(rows, len(test))).round().astype(np.int64))
    ids = test["record_id"].iloc[chosen].reset_index(drop=True)
    return pd.DataFrame({"record_id": ids, "probabilities": list(probabilities[chosen])})


def _serve_again(path: Path, test: pd.DataFrame, golden: pd.DataFrame) -> Golden:
    rows = test.set_index("record_id", drop=False).loc[golden["record_id"]].reset_index(drop=True)
    served = load_bundle(path).predict_proba(rows)
    return Golden(
        rows=len(rows), max_difference=float(np.abs(served - np.stack(golden["probabilities"].tolist())).max())
    )


def predictions(test: pd.DataFrame, labels: Sequence[str], by_model: dict[str, Probabilities]) -> pd.DataFrame:
    """The answers to every test row: the challenger's in full, and the others' labels."""
    ours = by_model["challenger"]
    answers = pd.DataFrame(test[["record_id", "known_at", "label"]].reset_index(drop=True))
    answers["predicted"] = _names(ours, labels)
    answers["confidence"] = ours.max(axis=1)
    answers["probabilities"] = list(ours)
    answers["baseline_predicted"] = _names(by_model["baseline"], labels)
    answers["champion_predicted"] = _names(by_model["champion"], labels) if "champion" in by_model else None
    return answers


def _names(probabilities: Probabilities, labels: Sequence[str]) -> list[str]:
    return [labels[code] for code in probabilities.argmax(axis=1)]


def _publish(
    lake: Lake,
    evaluation: Evaluation,
    domain: Domain,
    answered: Answered,
    answers: pd.DataFrame,
    golden: pd.DataFrame,
) -> None:
    with lake.staging(table(evaluation.as_of)) as staged:
        answers.to_parquet(staged / "predictions.parquet", index=False)
        golden.to_parquet(staged / "golden.parquet", index=False)
        draw(evaluation, domain, answered, staged)
        write_evaluation(evaluation, staged)
        (lake.keep if evaluation.refit_of else lake.publish)(table(evaluation.as_of), evaluation.id, staged)


def _code() -> list[str]:
    """Hashes of the files that decide what is measured."""
    return [
        hash_file(Path(__file__).with_name(f"{name}.py"))
        for name in ("metrics", "criteria", "baseline", "evaluate", "report", "paired")
    ]
