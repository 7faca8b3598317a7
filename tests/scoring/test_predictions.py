import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.exceptions import BundleError, NotPublished
from assets.resources import Evergreen
from assets.scoring.definitions import predictions
from assets.scoring.predictions import _Window, load_manifest, predict
from assets.scoring.score import score_rows
from assets.settings import ScoringSettings

AS_OF = "2024-02-01"
FEATURE = "company_records_7d"
SETTINGS = ScoringSettings(window_days=30, batch_tokens=256, chunk_rows=1000, precision="float32")


def rows_of(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path / "predictions.parquet")


def test_rows_without_text_are_not_scored(bundle: Any) -> None:
    texts = ["mortgage late", None, "", " \n\t ", "other thing"]
    rows = pd.DataFrame({"text": texts, "company_records_7d": 1.0}, index=[7, 3, 9, 1, 5])
    scored = score_rows(bundle, rows, "3", SETTINGS)
    assert list(scored.index) == [7, 3, 9, 1, 5]
    assert scored["predicted"].tolist() == ["mortgage", None, None, None, "other"]
    assert scored["reason"].tolist() == [None, "no-text", "no-text", "no-text", None]
    assert scored["confidence"].tolist()[0] == pytest.approx(0.6)
    assert np.isnan(scored["confidence"].to_numpy()[1:4]).all()
    assert bundle.seen == ["mortgage late", "other thing"]


def test_no_row_has_text(bundle: Any) -> None:
    scored = score_rows(bundle, pd.DataFrame({"text": [None, None]}), "3", SETTINGS)
    assert scored["reason"].tolist() == ["no-text", "no-text"]
    assert bundle.seen == []


def test_what_is_visible_in_the_window_is_scored_once(home, bundle, champion, publish_marts) -> None:  # type: ignore[no-untyped-def]
    publish_marts(
        {"record_id": "too-old", "known_at": "2024-01-02"},
        {"record_id": "first-day", "known_at": "2024-01-03"},
        {"record_id": "as-of-day", "known_at": "2024-02-01", "text": None},
        {"record_id": "future", "known_at": "2024-02-02"},
        {"record_id": "changed", "known_at": "2024-01-10", "known_until": "2024-01-20", "text": "other a"},
        {"record_id": "changed", "known_at": "2024-01-20", "known_until": "2024-02-05", "text": "mortgage b"},
        {"record_id": "changed", "known_at": "2024-02-05", "text": "student_loan c"},
    )
    found = predict(home, AS_OF, champion, lambda: bundle, SETTINGS)
    rows = rows_of(found.path).set_index("record_id")
    assert list(rows.index) == ["first-day", "changed", "as-of-day"]
    assert rows["predicted"].tolist() == ["cards", "mortgage", None]
    assert rows["reason"].tolist() == [None, None, "no-text"]
    assert set(rows["as_of"]) == {AS_OF}
    assert set(rows["model_version"]) == {"3"}
    assert rows["company_records_7d"].tolist() == [0.0, 1.0, 2.0]
    assert found.labels == {"cards": 1, "mortgage": 1, "no-text": 1}
    assert found.mean_confidence == pytest.approx(0.6)
    manifest = load_manifest(found.path)
    assert (manifest.rows, manifest.snapshot_as_of, manifest.marts_version) == (3, "2024-01-01", "m1")


def test_a_second_time_changes_nothing(home, bundle, champion, publish_marts) -> None:  # type: ignore[no-untyped-def]
    publish_marts({"record_id": "1", "known_at": "2024-01-20"})
    first = predict(home, AS_OF, champion, lambda: bundle, SETTINGS)
    again = predict(home, AS_OF, champion, lambda: pytest.fail("the bundle was loaded"), SETTINGS)
    assert again.reused
    assert not first.reused
    assert again.version == first.version
    assert home.lake.current(f"predictions/{AS_OF}") == first.path


def test_the_version_follows_the_marts_the_champion_and_the_settings(home, bundle, champion, publish_marts) -> None:  # type: ignore[no-untyped-def]
    publish_marts({"record_id": "1", "known_at": "2024-01-20"})
    versions = [predict(home, AS_OF, champion, lambda: bundle, SETTINGS).version]
    bundle.id = "training-2"
    versions.append(predict(home, AS_OF, replace(champion, training_id="training-2"), lambda: bundle, SETTINGS).version)
    bundle.id = "training-1"
    wider = SETTINGS.model_copy(update={"window_days": 31})
    versions.append(predict(home, AS_OF, champion, lambda: bundle, wider).version)
    publish_marts({"record_id": "1", "known_at": "2024-01-20"}, version="m2")
    versions.append(predict(home, AS_OF, champion, lambda: bundle, SETTINGS).version)
    assert len(set(versions)) == 4
    assert home.lake.version(f"predictions/{AS_OF}") == versions[-1]


def test_another_model_than_the_champion_s_scores_nothing(home, bundle, champion, publish_marts) -> None:  # type: ignore[no-untyped-def]
    publish_marts({"record_id": "1", "known_at": "2024-01-20"})
    bundle.id = "training-2"
    with pytest.raises(BundleError, match="training-2 is not the model of version 3, training-1"):
        predict(home, AS_OF, champion, lambda: bundle, SETTINGS)


def test_chunks_do_not_change_the_rows(home, bundle, champion, publish_marts) -> None:  # type: ignore[no-untyped-def]
    publish_marts(*({"record_id": f"{n}", "known_at": f"2024-01-{n}"} for n in range(10, 17)))
    whole = predict(home, AS_OF, champion, lambda: bundle, SETTINGS)
    parts = predict(home, AS_OF, champion, lambda: bundle, SETTINGS.model_copy(update={"chunk_rows": 2}))
    columns = ["record_id", "predicted", "confidence"]
    pd.testing.assert_frame_equal(rows_of(whole.path)[columns], rows_of(parts.path)[columns])


def test_a_killed_scoring_goes_on_where_it_stopped(home, bundle, champion, publish_marts) -> None:  # type: ignore[no-untyped-def]
    ids = range(10, 17)
    publish_marts(*({"record_id": f"{n}", "known_at": f"2024-01-{n}", "text": f"cards {n}"} for n in ids))
    settings = SETTINGS.model_copy(update={"chunk_rows": 2})
    bundle.fail_after = 4
    with pytest.raises(KeyboardInterrupt):
        predict(home, AS_OF, champion, lambda: bundle, settings)
    with pytest.raises(NotPublished):
        home.lake.current(f"predictions/{AS_OF}")
    bundle.fail_after = None
    found = predict(home, AS_OF, champion, lambda: bundle, settings)
    assert bundle.seen == [f"cards {n}" for n in ids]
    assert rows_of(found.path)["record_id"].tolist() == [str(n) for n in ids]
    assert [path.name for path in found.path.parent.iterdir() if path.name.startswith(".")] == []


def test_what_another_model_had_scored_is_not_taken(home, bundle, champion, publish_marts) -> None:  # type: ignore[no-untyped-def]
    publish_marts(*({"record_id": f"{n}", "known_at": f"2024-01-{n}"} for n in range(10, 14)))
    settings = SETTINGS.model_copy(update={"chunk_rows": 2})
    bundle.fail_after = 2
    with pytest.raises(KeyboardInterrupt):
        predict(home, AS_OF, champion, lambda: bundle, settings)
    bundle.fail_after = None
    found = predict(home, AS_OF, replace(champion, version="4"), lambda: bundle, settings)
    assert set(rows_of(found.path)["model_version"]) == {"4"}
    assert [path.name for path in found.path.parent.iterdir() if path.name.startswith(".")] == []


def test_a_record_that_would_be_scored_twice_is_not_published(home, bundle, champion, publish_marts) -> None:  # type: ignore[no-untyped-def]
    twice = {"record_id": "1", "known_at": "2024-01-20"}
    publish_marts(twice, twice, {"record_id": "2", "known_at": "2024-01-21"})
    found = predict(home, AS_OF, champion, lambda: bundle, SETTINGS)
    assert not found.manifest.each_record_once
    assert (found.manifest.rows, found.manifest.records) == (3, 2)
    with pytest.raises(NotPublished):
        home.lake.current(f"predictions/{AS_OF}")


def test_a_record_that_was_lost_is_noticed_and_nothing_is_published(  # type: ignore[no-untyped-def]
    home, bundle, champion, publish_marts, monkeypatch
) -> None:
    publish_marts(*({"record_id": f"{n}", "known_at": f"2024-01-{n}"} for n in (20, 21)))
    whole = _Window.chunks
    monkeypatch.setattr(_Window, "chunks", lambda window: islice(whole(window), 1))
    found = predict(home, AS_OF, champion, lambda: bundle, SETTINGS.model_copy(update={"chunk_rows": 1}))
    assert (found.manifest.rows, found.manifest.records, found.manifest.expected) == (1, 1, 2)
    assert home.lake.version(f"predictions/{AS_OF}") is None


def test_a_champion_that_answers_otherwise_than_evaluated_publishes_nothing(  # type: ignore[no-untyped-def]
    home, bundle, champion_evaluated_as, publish_marts
) -> None:
    publish_marts({"record_id": "1", "known_at": "2024-01-20"})
    found = predict(home, AS_OF, champion_evaluated_as("cards"), lambda: bundle, SETTINGS)
    assert (found.manifest.golden.rows, found.manifest.golden.others) == (1, 1)
    assert home.lake.version(f"predictions/{AS_OF}") is None
    found = predict(home, AS_OF, champion_evaluated_as("mortgage"), lambda: bundle, SETTINGS)
    assert (found.manifest.golden.rows, found.manifest.golden.others) == (1, 0)
    assert found.manifest.golden.max_difference == pytest.approx(0.4)
    assert home.lake.version(f"predictions/{AS_OF}") == found.version


@pytest.mark.parametrize("lost", ["evaluation/2024-01-01", "training_set/2024-01-01"])
def test_a_champion_whose_answers_cannot_be_compared_publishes_nothing(  # type: ignore[no-untyped-def]
    home, bundle, champion, publish_marts, lost
) -> None:
    publish_marts({"record_id": "1", "known_at": "2024-01-20"})
    shutil.rmtree(home.lake.root / lost)
    found = predict(home, AS_OF, champion, lambda: bundle, SETTINGS)
    assert found.manifest.golden.rows == 0
    assert home.lake.version(f"predictions/{AS_OF}") is None


def test_an_empty_window_is_published_as_such(home, bundle, champion, publish_marts) -> None:  # type: ignore[no-untyped-def]
    publish_marts({"record_id": "1", "known_at": "2020-01-20"})
    found = predict(home, AS_OF, champion, lambda: bundle, SETTINGS)
    assert found.manifest.each_record_once
    assert found.mean_confidence is None
    assert len(rows_of(found.path)) == 0


class FakeRegistry:
    version: Any = None

    def __init__(self, home: object) -> None: ...

    def champion(self, as_of: str) -> Any:
        assert as_of == AS_OF
        return self.version

    def fetch(self, version: str) -> Path:
        return Path(version)


def materialize(home) -> dg.ExecuteInProcessResult:  # type: ignore[no-untyped-def]
    resources = {"evergreen": Evergreen()}
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("as_of", [AS_OF])
        return dg.materialize(
            [predictions], partition_key=AS_OF, resources=resources, instance=instance, raise_on_error=False
        )


def passed(home) -> set[str]:  # type: ignore[no-untyped-def]
    return {check.check_name for check in materialize(home).get_asset_check_evaluations() if check.passed}


def test_the_asset_says_that_there_is_no_champion(home, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("assets.registry.registry.Registry", FakeRegistry)
    result = materialize(home)
    assert result.success
    metadata = result.asset_materializations_for_node("predictions")[0].metadata
    assert "no champion yet" in str(metadata["state"].value)
    assert home.lake.tables("predictions") == []


@pytest.fixture
def registered(bundle, champion, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The champion as a registry would give it."""
    monkeypatch.setattr("assets.registry.registry.Registry", FakeRegistry)
    monkeypatch.setattr(FakeRegistry, "version", champion)
    monkeypatch.setattr("assets.training.bundle.load_bundle", lambda path: bundle)


@pytest.mark.usefixtures("registered")
def test_the_asset_stops_the_graph_when_a_record_comes_twice(home, publish_marts) -> None:  # type: ignore[no-untyped-def]
    twice = {"record_id": "1", "known_at": "2024-01-20"}
    publish_marts(twice, twice)
    assert passed(home) == {"answers_as_evaluated"}
    publish_marts(twice, version="m2")
    assert passed(home) == {"each_record_once", "answers_as_evaluated"}


@pytest.mark.usefixtures("registered")
def test_the_asset_stops_the_graph_when_answers_cannot_be_compared(home, publish_marts) -> None:  # type: ignore[no-untyped-def]
    publish_marts({"record_id": "1", "known_at": "2024-01-20"})
    shutil.rmtree(home.lake.root / "evaluation")
    (golden,) = [c for c in materialize(home).get_asset_check_evaluations() if c.check_name == "answers_as_evaluated"]
    assert (golden.passed, golden.severity, golden.blocking) == (False, dg.AssetCheckSeverity.ERROR, True)
