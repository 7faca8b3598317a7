"""Domains that are not complaints: instants and entities, and neither; each is checked as complaints are."""

import dataclasses
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from assets.exceptions import SettingsError
from assets.features import checks, offline_store
from assets.features.checks import check_columns, check_landed, check_online, check_training_set
from assets.features.definitions import training_set_checks
from assets.features.landed import open_landed
from assets.features.serving import materialize, online_features, online_store
from assets.features.snapshot import Snapshot, build_training_set, with_features
from assets.features.store import apply_definitions, definitions, digest
from assets.home import Home
from assets.settings import SnapshotSettings, load_domain

AS_OF, INSTANT = "2020-03-15", datetime(2020, 3, 15)
Records = list[dict[str, Any]]
Publish = Callable[..., Path]

TICKETS = """
name: tickets
title: Ticket routing
purpose: Routes tickets.
record: {one: ticket, many: tickets}
source:
  fields:
    ticket: {}
    opened: {type: instant}
    title: {}
    body: {required: false}
    product: {required: false}
    product_line: {required: false}
    priority: {required: false}
    channel: {required: false}
    area: {outcome: true, required: false}
    kind: {outcome: true, required: false}
    bug: {outcome: true, required: false}
    resolved: {type: instant, outcome: true, required: false}
id: ticket
received: {field: opened}
label: {one: team, many: teams, fields: [area, kind], known: {field: resolved}}
labels: {billing_bug: Billing bugs, billing_wish: Billing wishes, login_bug: Login bugs}
entities: [product, product_line]
request: [priority, channel]
text: {fields: [title, body]}
"""
NOTES = """
name: notes
title: Notes
purpose: Sorts notes.
record: {one: note, many: notes}
source:
  delimiter: ";"
  fields:
    number: {type: number}
    written: {type: day, formats: ['%d.%m.%Y']}
    body: {}
    sort: {names: [label], outcome: true}
id: number
received: {field: written, not_before: 1950-01-01}
label: {one: kind, many: kinds, fields: [sort], known: {after_days: 0}}
labels: {idea: An idea, task: A task}
text: {fields: [body]}
"""
VIEWS = """
import pandas as pd
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, String

asked = RequestSource(name="asked", schema=[Field(name="priority", dtype=String)])

@on_demand_feature_view(sources=[asked], schema=[Field(name="is_urgent", dtype=Float64)], mode="pandas")
def urgency(inputs: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({"is_urgent": inputs["priority"].eq("high").astype(float)})
"""
FACTS = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Int64

product, channel = (
    Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in ("product", "channel")
)
sources = [
    FileSource(name=f"{key}_facts", path=f"{key}_facts/*.parquet", timestamp_field="since")
    for key in ("product", "channel")
]
of_product, of_channel = (
    FeatureView(
        name=f"{key.name}_facts", entities=[key], schema=[Field(name=f"{key.name}_size", dtype=Int64)], source=source,
        ttl=timedelta(0),
    )
    for key, source in zip((product, channel), sources)
)
"""
OF_OTHER_ROWS = VIEWS.replace('inputs["priority"].eq("high").astype(float)', 'inputs["priority"].eq("high").rank()')
MAPPED = "select distinct area, kind, received_at, area || '_' || kind as label from versions -- as said"


@pytest.fixture
def tickets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return declared(tmp_path / "tickets", TICKETS, monkeypatch, {
        # A name that a module of Python has, too.
        "feature_repo/statistics.py": VIEWS,
        "dbt/models/mapped_labels.sql": "select 1",
        "dbt/checks/mapped_labels.sql": MAPPED,
    })  # fmt: skip


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return declared(tmp_path / "notes", NOTES, monkeypatch, {})


def declared(folder: Path, domain: str, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> Path:
    for name, content in (files | {"configs/domain.yaml": domain}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    monkeypatch.setenv("EVERGREEN_DOMAIN", str(folder))
    return folder


def records(days: int = 90, per_day: int = 6, seed: int = 0) -> Records:
    """Of the domain at hand; of instants at any second of their days, with labels known hours to days after them."""
    rng, domain = random.Random(seed), load_domain()
    of_days = domain.source.fields[domain.received.field].type == "day"
    rows = []
    for number in range(days * per_day):
        second = timedelta() if of_days else timedelta(seconds=rng.randrange(86_400))
        known_at = datetime(2020, 1, 1) + timedelta(days=number // per_day) + second
        words = [rng.choice(("late", "bill", "page", "blank", "slow")) + rng.choice("abcdefgh") for _ in range(20)]
        after = timedelta() if of_days else timedelta(hours=rng.choice([0, 1, 30, 200]))
        row = {
            "record_id": f"{number:05}",
            "known_at": known_at,
            "known_until": None,
            "text": "\n".join([" ".join(words[:8]), " ".join(words[8:])][: len(domain.text.fields)]),
            "label": rng.choice(list(domain.labels)),
            "label_known_at": known_at + after,
            "label_reason": None,
            "object_id": "0" * 16,
            "line": number + 2,
        }
        rows.append(row | {name: rng.choice(["A", "B", "unknown"]) for name in domain.entities}
                    | {name: rng.choice(["high", None]) for name in domain.request})  # fmt: skip
    return rows


@pytest.fixture
def of_tickets(tickets: Path, home: Home, publish: Publish, settings: SnapshotSettings) -> Snapshot:
    publish(home, records())
    return build_training_set(home, AS_OF, settings)


@pytest.fixture
def of_notes(notes: Path, home: Home, publish: Publish, settings: SnapshotSettings) -> Snapshot:
    publish(home, records())
    return build_training_set(home, AS_OF, settings)


def faults(home: Home, made: Snapshot) -> dict[str, int]:
    return {found.name: found.faults for found in check_training_set(home, made) if not found.passed}


def test_statistics_of_entities_come_first_then_what_the_domain_adds(of_tickets: Snapshot, home: Home) -> None:
    labels = ("billing_bug", "billing_wish", "login_bug")
    names = ("records_7d", "records_30d", "records_90d", "text_share", "labels", *(f"share_{n}" for n in labels))
    entities = ("product", "product_line")
    assert of_tickets.features == (*(f"{entity}_{name}" for entity in entities for name in names), "is_urgent")
    applied = definitions(home)
    assert applied.views == ("product_statistics", "product_line_statistics", "urgency")
    assert (applied.entities, applied.request) == (entities, ("priority",))
    assert set(of_tickets.train()["is_urgent"]) == {0.0, 1.0}


def test_a_module_of_the_domain_does_not_stand_in_for_another_of_its_name(of_tickets: Snapshot) -> None:
    import statistics

    assert statistics.mean([1, 3]) == 2
    assert "is_urgent" in of_tickets.features


def test_a_domain_without_entities_and_views_has_the_features_of_its_text(of_notes: Snapshot) -> None:
    assert of_notes.features == ("words_log", "characters_log")
    text = of_notes.train()["text"]
    assert of_notes.train()["words_log"].tolist() == [round(float(np.log(9)), 4)] * len(text)
    assert of_notes.train()["characters_log"].tolist() == np.round(np.log1p(text.str.len()), 4).tolist()


@pytest.mark.parametrize("made", ["of_tickets", "of_notes"])
def test_an_untouched_training_set_passes(made: str, home: Home, request: pytest.FixtureRequest) -> None:
    snapshot = request.getfixturevalue(made)
    found = check_training_set(home, snapshot)
    assert [finding for finding in found if not finding.passed] == []
    assert [finding.name for finding in found] == list(training_set_checks(home.domain))
    assert ("point_in_time" in training_set_checks(home.domain)) == bool(home.domain.entities)


@pytest.mark.parametrize("made", ["of_tickets", "of_notes"])
def test_what_is_served_is_what_a_training_row_of_that_midnight_gets(
    made: str, home: Home, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(made)
    filled = materialize(home, AS_OF)
    assert set(filled.keys) == {f"{entity}_statistics" for entity in home.domain.entities}
    assert check_online(home, AS_OF).passed
    marts, names = home.lake.current("marts"), list(definitions(home).features)
    rows = checks.rows_at(marts, INSTANT, home.domain.known)
    served = online_features(home, rows)[names]
    for later in (timedelta(), timedelta(hours=15)):
        table = pa.Table.from_pandas(rows.assign(known_at=INSTANT + later), preserve_index=False)
        trained = with_features(home, marts, table, tuple(names)).to_pandas()[names]
        pd.testing.assert_frame_equal(served, trained, check_exact=True)
    assert online_store(home.features) == filled


def test_test_rows_are_of_later_days_than_train_rows(of_tickets: Snapshot, home: Home) -> None:
    test_day = of_tickets.test()["known_at"].min().normalize()
    assert of_tickets.test()["known_at"].min() > test_day > of_tickets.train()["known_at"].max()
    path = of_tickets.path / "train.parquet"
    rows = pd.read_parquet(path)
    rows.loc[0, ["known_at", "label_known_at"]] = test_day
    rows.to_parquet(path)
    assert checks.check_labels(of_tickets).faults == 1


def test_a_row_sees_nothing_of_its_own_day(tickets: Path, home: Home, publish: Publish) -> None:
    day, base = datetime(2020, 1, 9), records(1)[0] | {"product": "A", "label": "login_bug"}
    hours = (3, 8, 20)
    rows = [
        base
        | {
            "record_id": str(hour),
            "known_at": day + timedelta(hours=hour),
            "label_known_at": day + timedelta(hours=hour),
        }
        for hour in hours
    ]
    marts = publish(home, rows)
    apply_definitions(home)
    asked = [timedelta(hours=23, minutes=59), timedelta(days=1), timedelta(days=8), timedelta(days=8, hours=1)]
    table = pd.DataFrame({"record_id": list("abcd"), "known_at": [day + after for after in asked], "product": "A"})
    table = pa.Table.from_pandas(table.assign(product_line="A", priority=None), preserve_index=False)
    table = table.set_column(4, "priority", pa.array([None] * 4, pa.string()))
    names = ("product_records_7d", "product_labels", "product_share_login_bug")
    seen = with_features(home, marts, table, names).to_pandas()[list(names)]
    assert seen.iloc[0].isna().all()
    assert seen.iloc[1:].to_numpy().tolist() == [[3, 3, 1], [0, 3, 1], [0, 3, 1]]


@pytest.mark.parametrize("made", ["of_tickets", "of_notes"])
@pytest.mark.parametrize("column", ["label", "text", "known_at", "label_known_at"])
def test_a_row_that_had_not_landed_like_this_is_found(
    made: str, column: str, home: Home, request: pytest.FixtureRequest
) -> None:
    snapshot = request.getfixturevalue(made)
    assert check_landed(home, snapshot).passed
    path = snapshot.path / "train.parquet"
    rows = pd.read_parquet(path)
    other = next(name for name in snapshot.labels if name != rows.loc[0, "label"])
    second = rows.loc[0, "known_at"] - timedelta(seconds=1)
    rows.loc[0, column] = {"label": other, "text": "other"}.get(column, second)
    rows.to_parquet(path)
    assert check_landed(home, snapshot).faults == 1


def test_labels_are_not_compared_where_only_dbt_maps_them(of_tickets: Snapshot, home: Home, tickets: Path) -> None:
    path = of_tickets.path / "train.parquet"
    rows = pd.read_parquet(path)
    rows.loc[0, "label"] = next(name for name in of_tickets.labels if name != rows.loc[0, "label"])
    rows.to_parquet(path)
    assert check_landed(home, of_tickets).faults == 1
    (tickets / "dbt/checks/mapped_labels.sql").unlink()
    assert check_landed(home, of_tickets).passed
    rows.assign(product="C").to_parquet(path)
    assert check_landed(home, of_tickets).faults >= len(rows)


def test_a_query_of_labels_that_cannot_be_run_is_named(of_tickets: Snapshot, home: Home, tickets: Path) -> None:
    path = tickets / "dbt/checks/mapped_labels.sql"
    path.write_text("select nothing from versions")
    with pytest.raises(SettingsError, match=rf"{path}: .*nothing"):
        check_landed(home, of_tickets)


def test_a_record_counts_as_first_known_and_its_label_as_first_given(
    of_tickets: Snapshot, home: Home, publish: Publish
) -> None:
    """A day without a time zone, one label corrected, one that came with a later version, and one that never came."""
    day, first = timedelta(days=1), records(1)
    for row in first:
        row |= {"product": "A", "label": "login_bug", "label_known_at": row["known_at"]}
    first[2] |= {"label": None, "label_known_at": None}
    first[3] |= {"label": None, "label_known_at": None}
    second = [row | {"label": "billing_bug", "label_known_at": row["known_at"] + day} for row in (first[1], first[2])]
    publish(home, first, "two", landed=[("a", None, first), ("b", "2020-02-01", second)])
    of_two = build_of(of_tickets, "two")
    asked = pd.DataFrame({"known_at": [datetime(2020, 1, 2, 9), datetime(2020, 2, 1, 9), datetime(2020, 2, 2)]})
    with open_landed(home, of_two) as landed:
        found = landed.statistics("product", asked.assign(product="A"))
    assert found["product_records_90d"].tolist() == [6, 6, 6]
    assert found["product_labels"].tolist() == [4, 4, 5]
    assert found["product_share_billing_bug"].tolist() == [0, 0, 0.2]
    assert found["product_share_login_bug"].tolist() == [1, 1, 0.8]


def test_a_label_of_a_version_that_was_never_seen_does_not_count(
    of_tickets: Snapshot, home: Home, publish: Publish
) -> None:
    """It lands before the other version, and is said to be known only after it."""
    labelled = [row | {"product": "A", "label_known_at": row["known_at"]} for row in records(1)]
    others = [row | {"label": None, "label_known_at": None} for row in labelled]
    publish(home, others, "odd", landed=[("a", "2020-02-01", labelled), ("b", None, others)])
    asked = pd.DataFrame({"known_at": [datetime(2020, 3, 1)], "product": "A"})
    with open_landed(home, build_of(of_tickets, "odd")) as landed:
        found = landed.statistics("product", asked)
    assert found["product_records_90d"].tolist() == [6]
    assert found["product_labels"].tolist() == [0]


def build_of(made: Snapshot, marts: str) -> Snapshot:
    made.manifest["marts"] = marts
    return made


def test_an_unlikely_time_and_an_empty_id_do_not_count(of_notes: Snapshot, home: Home, publish: Publish) -> None:
    rows = records(1)
    rows[0] |= {"record_id": " "}
    for place, then in enumerate((datetime(1949, 12, 31), datetime(2200, 1, 1), datetime(1950, 1, 1)), start=1):
        rows[place] |= {"known_at": then, "label_known_at": then}
    publish(home, rows, "odd")
    with open_landed(home, build_of(of_notes, "odd")) as landed:
        found = landed.other_rows(pd.DataFrame(rows)[list(home.domain.columns)], "2201-01-01")
    assert found == 3


def test_a_label_of_an_impossible_time_does_not_count(of_tickets: Snapshot, home: Home, publish: Publish) -> None:
    rows = records(1)
    rows[0] |= {"label_known_at": datetime(1969, 12, 31)}
    publish(home, rows, "odd")
    with open_landed(home, build_of(of_tickets, "odd")) as landed:
        found = landed.statistics("product", pd.DataFrame({"known_at": [INSTANT], "product": [rows[0]["product"]]}))
    assert found["product_records_90d"].tolist() == [sum(row["product"] == rows[0]["product"] for row in rows) - 1]


def test_a_store_that_ignores_when_a_value_was_known_is_found(
    of_notes: Snapshot, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline_store._Source, "created", property(lambda source: source.event))
    assert faults(home, of_notes) == {
        "future_canary_is_null": of_notes.train_rows + of_notes.test_rows + of_notes.reference_rows
    }


def test_a_view_of_the_domain_is_joined_checked_and_served(
    tickets: Path, home: Home, publish: Publish, settings: SnapshotSettings
) -> None:
    (tickets / "feature_repo/facts.py").write_text(FACTS)
    marts = publish(home, records())
    for key, name in (("product", "A"), ("channel", "high")):
        facts = pd.DataFrame({key: [name] * 2, "since": [datetime(2020, 1, 1), INSTANT], f"{key}_size": [1, 2]})
        (marts / f"{key}_facts").mkdir()
        facts.to_parquet(marts / f"{key}_facts" / "all.parquet")
    made = build_training_set(home, AS_OF, settings)
    assert made.features[-3:] == ("product_size", "channel_size", "is_urgent")
    assert faults(home, made) == {}
    rows = made.train()
    assert rows["product_size"].notna().equals(rows["product"] == "A")
    assert rows["channel_size"].notna().equals(rows["channel"] == "high")
    assert set(rows["product_size"].dropna()) == {1}
    materialize(home, AS_OF)
    assert check_online(home, AS_OF).passed
    served = online_features(home, rows[list(home.domain.columns)])
    assert set(served["product_size"].dropna()) == {2}


def test_what_was_known_before_1970_is_served(tickets: Path, home: Home, publish: Publish) -> None:
    then = datetime(1960, 5, 1, 10)
    publish(home, [row | {"known_at": then, "label_known_at": then} for row in records(1)])
    assert min(materialize(home, "1960-05-03").keys.values()) > 0


def test_a_request_feature_that_depends_on_other_rows_is_found(
    of_tickets: Snapshot, home: Home, tickets: Path, settings: SnapshotSettings
) -> None:
    (tickets / "feature_repo/statistics.py").write_text(OF_OTHER_ROWS)
    made = build_training_set(home, AS_OF, settings)
    path = made.path / "train.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    assert checks.check_shift(home, made).faults > 100


def test_an_outcome_is_no_feature_but_may_be_called_like_a_label(of_tickets: Snapshot, tickets: Path) -> None:
    assert check_columns(of_tickets).passed
    path = of_tickets.path / "train.parquet"
    rows = pd.read_parquet(path)
    for name in ("kind", "kind_share", "first_area"):
        leaky = [*of_tickets.features, name]
        rows.assign(**{name: 0.0}).to_parquet(path)
        made = dataclasses.replace(of_tickets, features=tuple(leaky))
        assert check_columns(made).faults == 1


def test_definitions_change_with_what_they_are_made_of(tickets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {digest()}
    for name, content in {
        "fewer": TICKETS.replace("entities: [product, product_line]", "entities: [product]"),
        "other": TICKETS.replace("login_bug: Login bugs", "login_bugs: Login bugs"),
    }.items():
        declared(tickets.parent / name, content, monkeypatch, {"feature_repo/statistics.py": VIEWS})
        digests.add(digest())
    (tickets.parent / "other/feature_repo/statistics.py").write_text(OF_OTHER_ROWS)
    digests.add(digest())
    assert len(digests) == 4


def test_a_module_that_cannot_be_run_is_named(tickets: Path, home: Home) -> None:
    path = tickets / "feature_repo/statistics.py"
    path.write_text("from sources import asked")
    with pytest.raises(SettingsError, match=rf"{path}: ModuleNotFoundError: No module named 'sources'"):
        apply_definitions(home)


def test_the_graph_has_no_check_that_would_examine_nothing(notes: Path) -> None:
    code = (
        "from assets.features.definitions import training_set; print(*sorted(k.name for k in training_set.check_keys))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "point_in_time" not in done.stdout
    assert "as_it_had_landed" in done.stdout
