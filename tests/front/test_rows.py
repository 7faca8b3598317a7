"""The rows behind a number: the right ones, the worst first, a page at a time, and no text that is not allowed."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pandas as pd
import pytest

from assets.front.history import History
from assets.front.pages import Links, behind_page, rows_page
from assets.front.rows import Rows, Wanted, behind, find_rows
from assets.home import Home
from assets.settings import FrontSettings, load_domain, load_settings

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)
FRONT = FrontSettings(texts=False, text_characters=40, page_rows=20)
DRIFT = load_settings("quick").drift
LINKS = Links("/", "http://127.0.0.1:3000/", "http://127.0.0.1:5000/")


@pytest.fixture
def rows(harmed: Any) -> Callable[..., Rows | None]:
    def find(settings: FrontSettings = FRONT, **wanted: Any) -> Rows | None:
        return find_rows(harmed.home, History.of(harmed.home), Wanted(**wanted), settings, DRIFT)

    return find


def test_a_slice_has_its_rows_the_worst_first(rows: Callable[..., Rows]) -> None:
    found = rows(version="2", by="channel", value="Phone")
    assert (found.title, found.total, found.page, found.pages, len(found.rows)) == (
        "Version 2: channel Phone",
        *(30, 1, 2, 20),
    )
    assert [row.right for row in found.rows] == [False] * 12 + [True] * 8
    assert {row.values["channel"] for row in found.rows} == {"Phone"}
    assert found.rows[0].record_id == "r000"
    sure = [row.confidence for row in found.rows if row.right]
    assert sure == sorted(sure)
    second = rows(version="2", by="channel", value="Phone", page=2)
    assert len(second.rows) == 10
    assert not {row.record_id for row in second.rows} & {row.record_id for row in found.rows}


def test_a_cell_has_the_rows_of_a_label_and_an_answer(rows: Callable[..., Rows]) -> None:
    numbers = rows(version="2", label=LABELS[0])
    assert numbers.total == 80
    cell = rows(version="2", label=LABELS[0], predicted=LABELS[1])
    assert cell.total == 4
    assert {(row.label, row.predicted, row.right) for row in cell.rows} == {
        (DOMAIN.labels[LABELS[0]], DOMAIN.labels[LABELS[1]], False)
    }
    assert rows(version="2", by="label", value=LABELS[0]).total == numbers.total


def test_every_number_of_a_version_has_as_many_rows_as_it_says(harmed: Any, rows: Callable[..., Rows]) -> None:
    numbers = behind(harmed.home, History.of(harmed.home), "2")
    assert numbers is not None
    assert (numbers.window, numbers.moved) == (None, ())
    for part in numbers.slices:
        assert rows(version="2", by=part.by, value=part.value).total == part.rows
    for label, counts in zip(numbers.labels, numbers.confusion, strict=True):
        for answer, count in zip(numbers.labels, counts, strict=True):
            assert rows(version="2", label=label, predicted=answer).total == count


@pytest.mark.parametrize(
    "wanted",
    [
        {"version": "7", "label": LABELS[0]},
        {"version": "2", "label": "nonsense"},
        {"version": "2", "label": LABELS[0], "predicted": "nonsense"},
        {"version": "2", "by": "channel", "value": "nonsense"},
        {"version": "2", "by": "zip_code", "value": "94110"},
        {"version": "2", "by": "channel", "value": "Phone", "page": 3},
        {"version": "2", "by": "channel", "value": "Phone", "page": 0},
        {"as_of": "2024-01-02", "column": "state"},
        {"as_of": "../../secrets", "column": "state"},
        {},
    ],
)
def test_what_is_not_there_has_no_rows(rows: Callable[..., Rows | None], wanted: dict[str, Any]) -> None:
    assert rows(**wanted) is None


def test_texts_are_shown_by_a_setting_alone_and_without_sensitive_values(
    rows: Callable[..., Rows], harmed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, shown = {"version": "2", "by": "channel", "value": "Phone"}, FRONT.model_copy(update={"texts": True})
    sensitive = ("Texts are not shown, because they have sensitive fields: narrative.",)
    assert rows(shown, **wanted).notes == sensitive
    monkeypatch.setattr(Home, "domain", DOMAIN.model_copy(update={"sensitive": ("zip_code",)}))
    assert rows(shown, **wanted).notes == sensitive, "as they were when the training set was made"
    manifest = harmed.home.lake.current("training_set/2024-01-02") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('["narrative", "zip_code"]', '["zip_code"]'))
    assert rows(**wanted).notes == ("Texts are not shown, because configs/front.yaml has texts: false.",)
    assert {row.text for row in rows(**wanted).rows} == {None}
    assert (rows(shown, **wanted).rows[0].text, rows(shown, **wanted).notes) == ("SECRET 0 in [zip_code]", ())
    (length,) = {len(str(row.text)) for row in rows(shown.model_copy(update={"text_characters": 9}), **wanted).rows}
    assert length == 9


def test_an_id_that_is_sensitive_is_not_shown(
    rows: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch, read: Any
) -> None:
    monkeypatch.setattr(Home, "domain", DOMAIN.model_copy(update={"sensitive": (DOMAIN.id,)}))
    found = rows(version="2", label=LABELS[0])
    assert {row.record_id for row in found.rows} == {None}
    assert "r000" not in read(rows_page(DOMAIN, LINKS, Wanted("2", label=LABELS[0]), found)).text


def test_without_the_training_set_the_answers_are_left(harmed: Any, rows: Callable[..., Rows]) -> None:
    folder = harmed.home.lake.current("training_set/2024-01-02")
    folder.rename(folder.with_name("gone"))
    found = rows(version="2", label=LABELS[0])
    assert (found.total, [*found.rows[0].values]) == (80, ["known on"])
    assert "no longer in the home" in found.notes[0]
    assert rows(version="2", by="channel", value="Phone").total == 0


def test_the_pages_lead_from_each_number_to_its_rows(harmed: Any, rows: Callable[..., Rows], read: Any) -> None:
    numbers = behind(harmed.home, History.of(harmed.home), "2")
    assert numbers is not None
    page = read(behind_page(DOMAIN, LINKS, numbers))
    cells = sum(count > 0 for counts in numbers.confusion for count in counts)
    assert len([link for link in page.links if "predicted=" in link]) == cells
    assert len([link for link in page.links if "by=" in link]) == len(numbers.slices)
    wanted = Wanted("2", by="channel", value="Phone")
    page = read(rows_page(DOMAIN, LINKS, wanted, rows(**asdict(wanted))))
    assert "/rows?version=2&by=channel&value=Phone&page=2" in page.links
    assert page.text.count("(wrong)") == 12
    assert "SECRET" not in page.text


def test_values_of_rows_are_text(harmed: Any, rows: Callable[..., Rows], read: Any, hostile: str) -> None:
    for name, file in (("training_set", "test.parquet"), ("evaluation", "predictions.parquet")):
        path = harmed.home.lake.current(f"{name}/2024-01-02") / file
        frame = pd.read_parquet(path).assign(record_id=hostile)
        (frame.assign(company=hostile) if "company" in frame else frame).to_parquet(path, index=False)
    wanted = Wanted("2", label=LABELS[0])
    page = read(rows_page(DOMAIN, LINKS, wanted, rows(**asdict(wanted))))
    assert page.text.count("<script>alert(1)</script>") == 40
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]
