"""The drift page of reports made by hand: what it says never contradicts what it shows, and data is text in it."""

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import pytest

from assets.front.drift import Drift, drift
from assets.front.pages import Links, drift_page
from assets.monitoring.comparison import Column
from assets.monitoring.report import DriftReport

LIVE, FILES = Links("/", "http://d/", "http://m/"), Links("../", "", "", live=False)
CALM = Column("state", "features", "psi", 0.01, 0.02, 0.02, drifted=False)
MOVED = Column("tags", "features", "psi", 0.015, 0.008, 0.02, drifted=False)
DRIFTED = Column("channel", "features", "psi", 2.2, 0.1, 0.2, drifted=True)
WORDING = Column("domain_classifier", "wording", "auc", 0.7, 0.53, 0.55, drifted=True, note="90 texts")
SURE = Column("true_cards", "answers", "evidence", -0.4, 0.0, 3.2, drifted=False, note="3% of 90 wrong")
KINDS = {"names": ["Web", "Phone"], "reference": [80, 20], "current": [30, 70]}


@pytest.fixture
def publish(story: Any) -> Callable[..., Drift]:
    def put(*columns: Column, kinds: dict[str, Any] | None = None, **about: Any) -> Drift:
        found = {"detected": any(column.drifted for column in columns), "share": 0.0, "reason": "so it is"}
        found |= {"share_threshold": 0.3, "since": {"channel": "2023-12-30"}} | about
        report = DriftReport(story.day, "1", reference_rows=100, current_rows=90, columns=columns, **found)
        story.publish("drift", "drift.json", asdict(report), **({} if kinds is None else {"distributions": kinds}))
        made = drift(story.home, story.day)
        assert made is not None
        return made

    return put


def numbers(said: str) -> tuple[float, ...]:
    """Value, calm and threshold as a page says them."""
    found = re.fullmatch(r"\w+ (-?[\d.]+), calm up to ([\d.]+), threshold ([\d.]+)", said)
    assert found, said
    return tuple(map(float, found.groups()))


def test_the_first_sentence_says_whether_and_what_moved(publish: Callable[..., Drift], story: Any) -> None:
    found = publish(CALM, MOVED, DRIFTED, WORDING)
    assert found.sentence == (
        "The window is not like what version 1 was trained on: 2 of 4 columns drifted, furthest “Channel” at 11 times "
        "its threshold, since 2023-12-30. Drift is in features and wording."
    )
    assert [group.name for group in found.groups] == ["features", "wording"]
    assert [column.column for column in found.groups[0].columns] == ["channel", "tags", "state"]
    story.night(1)
    assert publish(CALM, SURE).sentence == (
        "The window is like what version 1 was trained on: none of 2 columns drifted."
    )
    story.night(2)
    few = publish(CALM, MOVED, replace(CALM, name="zip"), DRIFTED, detected=False)
    assert few.sentence.endswith("since 2023-12-30, which is too little of any group to count as drift.")
    assert not few.groups[0].is_drift


@pytest.mark.parametrize("value", [0.01, 0.019999, 0.0199999999, 0.02, 0.0200000001, 0.020001, 2.2])
def test_what_is_drifted_is_shown_from_its_threshold_on(
    publish: Callable[..., Drift], story: Any, read: Any, value: float
) -> None:
    found = publish(replace(CALM, value=value, drifted=value >= 0.02))
    page = read(drift_page(story.home.domain, LIVE, found))
    (said,) = [str(given["aria-label"]) for tag, given in page.tags if tag == "svg" and "PSI" in given["aria-label"]]
    shown, _, threshold = numbers(said)
    assert (shown >= threshold) is (value >= 0.02)
    (dot,) = [float(given["cx"]) for tag, given in page.tags if tag == "circle"]
    line = {float(given["x1"]) for tag, given in page.tags if tag == "line" and given["class"] == "threshold"}
    assert line == {120.0}
    assert (dot >= 120.0) is (value >= 0.0199)
    assert ("Drifted" in page.text) is (value >= 0.02)


@pytest.mark.parametrize(
    ("column", "state"), [(CALM, "calm"), (MOVED, "moved"), (DRIFTED, "drifted"), (SURE, "calm"), (WORDING, "drifted")]
)
def test_between_calm_and_threshold_is_neither(publish: Callable[..., Drift], column: Column, state: str) -> None:
    (measure,) = publish(column).groups[0].columns
    assert measure.state == state
    assert (measure.place >= 0.5) is column.drifted
    assert 0 <= measure.calm_place <= 0.5


def test_both_sides_are_drawn_over_one_another_and_are_a_table(
    publish: Callable[..., Drift], story: Any, read: Any
) -> None:
    found = publish(DRIFTED, CALM, kinds={"channel": KINDS})
    assert found.groups[0].rows == (100, 100)
    assert found.groups[0].columns[0].grown == ("Phone", 0.2, 0.7)
    page = read(drift_page(story.home.domain, LIVE, found))
    heights = {
        side: [float(given["height"]) for tag, given in page.tags if tag == "rect" and given["class"] == side]
        for side in ("reference", "window")
    }
    assert heights == {"reference": [60.0, 15.0], "window": [22.5, 52.5]}
    assert "Web 80.0% 30.0% Phone 20.0% 70.0%" in page.text
    assert "Grown most: Phone, 20.0% to 70.0%" in page.text
    assert "/rows?as_of=2024-01-01&column=channel" in page.links
    assert not [link for link in read(drift_page(story.home.domain, FILES, found)).links if "column" in link]


def test_kinds_of_a_sensitive_column_are_not_shown(publish: Callable[..., Drift], story: Any) -> None:
    hidden = replace(DRIFTED, name=story.home.domain.sensitive[0])
    found = publish(hidden, kinds={hidden.name: KINDS})
    assert "Phone" not in drift_page(story.home.domain, LIVE, found)


def test_names_from_data_are_text(publish: Callable[..., Drift], story: Any, read: Any, hostile: str) -> None:
    pages = []
    for nth, name in enumerate((hostile, "harmless")):
        kinds = {name: KINDS | {"names": [name, "Phone"]}}
        about = {"reason": name, "since": {name: name}, "left_out": {"labels": name}}
        story.night(nth)
        found = publish(replace(DRIFTED, name=name), replace(WORDING, note=name), kinds=kinds, **about)
        pages.append(read(drift_page(story.home.domain, LIVE, found)))
    assert pages[0].text.count("<script>alert(1)</script>") > 5
    assert [tag for tag, _ in pages[0].tags] == [tag for tag, _ in pages[1].tags]
    assert not [given for _, given in pages[0].tags if {"onerror", "style"} & set(given)]


def test_what_was_not_measured_says_why(publish: Callable[..., Drift], story: Any, read: Any) -> None:
    found = publish(detected=None, share=None, reason="drift cannot be measured: <b>no champion", share_threshold=None)
    page = read(drift_page(story.home.domain, LIVE, found))
    assert page.text.startswith("Drift not measured as of 2024-01-01")
    assert "Drift cannot be measured: <b>no champion." in page.text
    assert "Evidently" not in page.text


def test_a_report_from_before_there_were_distributions_has_none(publish: Callable[..., Drift]) -> None:
    found = publish(DRIFTED, share_threshold=None)
    assert (found.groups[0].columns[0].distribution, found.groups[0].rows) == (None, None)
    assert found.groups[0].is_drift


@pytest.mark.parametrize("as_of", ["2023-01-01", "..", "", "."])
def test_a_day_without_a_report_has_no_page(publish: Callable[..., Drift], story: Any, as_of: str) -> None:
    publish(CALM)
    assert drift(story.home, as_of) is None


def test_a_reader_of_the_screen_and_the_keyboard_get_everywhere(
    publish: Callable[..., Drift], story: Any, read: Any
) -> None:
    page = read(drift_page(story.home.domain, LIVE, publish(CALM, DRIFTED, SURE, kinds={"channel": KINDS})))
    drawn = [given for tag, given in page.tags if tag == "svg"]
    assert len(drawn) == 5
    assert all(given["role"] == "img" and given["aria-label"] for given in drawn)
    assert all(given.get("scope") for tag, given in page.tags if tag == "th")
    ids = [given["id"] for _, given in page.tags if "id" in given]
    assert len(ids) == len(set(ids))
    assert {str(given["aria-labelledby"]) for _, given in page.tags if "aria-labelledby" in given} <= set(ids)
    assert all(given.get("tabindex") == "0" for tag, given in page.tags if "scroll" in str(given.get("class")).split())
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
