"""The assets run in order in one process, with every blocking check passed, and again without a change."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from assets.features import checks, definitions, snapshot
from assets.features.serving import materialize, online_store
from assets.features.snapshot import load_snapshot
from assets.home import Home
from assets.resources import Evergreen

AS_OF = "2020-03-15"
Shown = Callable[[Any], list[list[Any]]]
CHECKS = {
    *("as_it_had_landed", "point_in_time", "future_canary_is_null", "shifted_by_a_day", "labels_known"),
    *("no_overlap", "no_outcome_columns", "rows_conserved"),
    "online_equals_offline",
}


def ran(*assets: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
    resources = {"evergreen": Evergreen()}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("as_of", [AS_OF])
        return dg.materialize(assets, partition_key=AS_OF, resources=resources, instance=instance, raise_on_error=False)


def run(home: Home) -> dg.ExecuteInProcessResult:
    return ran(definitions.feature_definitions, definitions.training_set, definitions.online_features)


@pytest.fixture
def filled(home: Home, make_records: Callable[..., list[dict[str, object]]], publish: Callable[..., Path]) -> Home:
    publish(home, make_records(days=80, per_day=22))
    return home


def test_assets_publish_a_checked_training_set_and_fill_the_online_store(filled: Home, shown: Shown) -> None:
    first = run(filled)
    assert first.success
    checks = {check.check_name: check for check in first.get_asset_check_evaluations()}
    adversarial = checks.pop("test_rows_look_like_train_rows")
    assert {name for name, check in checks.items() if check.passed} == CHECKS == checks.keys()
    made = load_snapshot(filled.lake, AS_OF)
    assert adversarial.severity == dg.AssetCheckSeverity.WARN
    _, *listed = shown(adversarial.metadata["best_features"])
    assert 3 <= len(listed) <= 5
    assert all(name in made.features for name, _ in listed)
    assert run(filled).success
    assert load_snapshot(filled.lake, AS_OF) == made
    assert {path.name for path in made.path.parent.iterdir()} == {made.id, "CURRENT"}


def test_a_failed_check_stops_what_is_downstream(filled: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def leak(*args: object) -> pq.ParquetFile:
        joined = with_features(*args)
        place = joined.column_names.index("company_labels")
        return joined.set_column(place, "company_labels", joined["state_labels"])

    with_features = snapshot.with_features
    monkeypatch.setattr(snapshot, "with_features", leak)

    @dg.asset(deps=["training_set"], partitions_def=definitions.AS_OF)
    def downstream() -> None:
        raise AssertionError("was run")

    result = ran(definitions.feature_definitions, definitions.training_set, downstream)
    assert not result.success
    assert not [e for e in result.all_events if e.is_step_start and e.step_key == "downstream"]


def test_an_online_store_that_fails_its_check_is_never_served(filled: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    materialize(filled, "2020-03-14")
    served = online_store(filled.features)
    monkeypatch.setattr(checks, "_differences", lambda online, offline: 1)
    result = run(filled)
    assert not result.success
    assert online_store(filled.features) == served


def test_definitions_import_neither_feast_nor_pandas() -> None:
    code = (
        "import assets.features.definitions, sys; print([m for m in ('feast', 'pandas', 'torch') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
