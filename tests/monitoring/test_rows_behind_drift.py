"""From a column that has drifted to the rows behind it: those of the kinds that have become more frequent."""

from collections.abc import Callable
from typing import Any

import pytest

from assets.front.history import History
from assets.front.rows import Row, Rows, Wanted, behind, find_rows
from assets.home import Home
from assets.monitoring.drift import measure_drift
from assets.registry.shared_ledger import ledger_of
from assets.settings import FrontSettings, load_settings

AS_OF = "2024-02-01"
DRIFT = load_settings("quick").drift
FRONT = FrontSettings(texts=True, text_characters=100, page_rows=1000)


@pytest.fixture
def rows(home: Home, champion: Any, world: Any, train: Any, score_window: Any) -> Callable[..., Rows | None]:
    """In the window a feature is always zero, and a part of the words is new."""
    train(world(1))
    score_window(world(2, first_word=60, broken=("company_share_cards",)))
    measure_drift(home, AS_OF, champion, DRIFT)
    body = {
        "version": "3",
        "training_id": champion.training_id,
        "evaluation": "e1",
        "decision": "promote",
        "reasons": [],
    }
    ledger_of(home).append("verdict", "v", AS_OF, body | {"champion": None, "numbers": {}})

    def find(**wanted: Any) -> Rows | None:
        return find_rows(home, History.of(home), Wanted(as_of=AS_OF, **wanted), FRONT, DRIFT)

    return find


def share(row: Row, side: str) -> float:
    return float(row.values[f"share of the {side}"].removesuffix("%"))


def test_a_number_that_broke_leads_to_the_rows_of_its_new_kind(rows: Callable[..., Rows]) -> None:
    found = rows(column="company_share_cards")
    assert found.total == 1500
    kinds = {(row.values["company_share_cards"], row.values["share of the window"]) for row in found.rows}
    assert kinds == {("0", "100.0%")}
    assert share(found.rows[0], "training") < 20
    sure = [row.confidence for row in found.rows]
    assert sure == sorted(sure)


def test_texts_lead_to_those_with_unknown_words_first(rows: Callable[..., Rows]) -> None:
    found = rows(column="text_unknown_share")
    assert 0 < found.total <= 1500
    assert all(share(row, "window") >= share(row, "training") for row in found.rows)
    assert share(found.rows[0], "window") > share(found.rows[0], "training")
    assert float(found.rows[0].values["text_unknown_share"]) > 0
    assert "zanzibarian" not in str(found), "the text is sensitive, whatever the setting"


def test_labels_are_those_that_have_arrived(rows: Callable[..., Rows]) -> None:
    assert {row.right for row in rows(column="label").rows} == {True}


@pytest.mark.parametrize("column", ["domain_classifier", "zip_code", "nonsense"])
def test_a_column_without_a_value_for_each_row_has_none(rows: Callable[..., Rows | None], column: str) -> None:
    assert rows(column=column) is None


def test_when_the_window_is_gone_that_is_said(rows: Callable[..., Rows], home: Home) -> None:
    folder = home.lake.path("marts", "p1")
    folder.rename(folder.with_name("gone"))
    found = rows(column="company_share_cards")
    assert (found.total, found.notes[0]) == (0, "The window, or what it was compared with, is no longer in the home.")


def test_what_has_drifted_is_named_beside_the_version_s_numbers(
    rows: Callable[..., Rows], home: Home, champion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Evaluation:
        training_id, as_of, labels, confusion, slices = champion.training_id, AS_OF, (), (), ()

    monkeypatch.setattr("assets.front.rows._evaluation", lambda *_: Evaluation)
    numbers = behind(home, History.of(home), "3")
    assert numbers is not None
    assert numbers.window == AS_OF
    assert {"company_share_cards", "text_unknown_share"} <= {column.column for column in numbers.moved}
    assert all(rows(column=column.column) for column in numbers.moved)
