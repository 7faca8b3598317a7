"""The pages, as a browser reads them: what data says is text in them, and every control has its name."""

import json
from html.parser import HTMLParser
from typing import Any

import pytest

from assets.front.history import History
from assets.front.night import Finding, Run, measured, night, pictures
from assets.front.pages import STATIC, Links, chart, front_page, message_page, night_page

HOSTILE = "<script>alert(1)</script> $x$ {{ 7 * 7 }} [a](javascript:b) \"'><img src=x onerror=b>"
LINKS = Links("/", "http://127.0.0.1:3000/", "http://127.0.0.1:5000/")
VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """Elements with their attributes and texts, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.unlabelled: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.found.append((tag, given))
        if tag in ("input", "select") and "label" not in self._open and given.get("type") != "hidden":
            self.unlabelled.append(str(given))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [given for name, given in self.found if name == tag]


def page(story: Any, links: Links = LINKS, **parts: Any) -> Page:
    history = History.of(story.home)
    as_of = history.timeline.days[-1].as_of
    found = night(story.home, as_of, history.timeline, parts.get("runs", ()), parts.get("checks", ()))
    return Page(
        front_page(story.home.domain, links, history, measured(story.home.lake, as_of), found, pictures(story.home))
    )


def test_the_first_page_says_who_is_champion_how_good_it_is_and_what_waits(told: Any) -> None:
    text = page(told).text
    for words in (
        "Version 1 Since 2024-01-15. Version 1 became champion again, by a rollback.",
        "Version 3 misroutes.",
        "88.0%",
        "85.6% to 90.1% with 95% confidence, on 800 complaints whose queue has become known lately; macro-F1 0.800",
        "89.0% 86.0% to 89.0% by two estimators, on 1,000 complaints of the newest window",
        "Version 4 awaits approval , until 2024-02-15.",
        "It harms a part.",
    ):
        assert words in text


@pytest.mark.parametrize("live", [True, False])
def test_a_decision_asks_for_a_reason_and_is_offered_by_a_server_alone(told: Any, live: bool) -> None:
    found = page(told, Links("/", LINKS.dagster, LINKS.mlflow, live))
    forms = [given for given in found.all("form") if given.get("method") == "post"]
    assert len(forms) == (2 if live else 0)
    named = [given["name"] for given in found.all("input") if "required" in given]
    assert named == (["by", "reason", "reason"] if live else [])
    assert [given["value"] for given in found.all("button") if given.get("name")] == (
        ["approve", "reject"] if live else []
    )


def test_every_control_has_a_label_and_every_table_a_place_in_the_keyboard_s_order(told: Any) -> None:
    found = page(told)
    assert len(found.all("input")) > 3
    assert found.unlabelled == []
    assert not [given for _, given in found.found if given.get("tabindex") not in (None, "0")]
    assert all(given.get("aria-label") for _, given in found.found if "tabindex" in given)


def test_nothing_in_a_page_is_a_script_or_a_style_of_its_own_or_from_elsewhere(told: Any) -> None:
    found = page(told)
    for tag, given in found.found:
        assert "style" not in given, tag
        assert not [name for name in given if name.startswith("on")], tag
        assert tag != "style"
        for address in (given.get("href"), given.get("src"), given.get("action")):
            assert address is None or address.startswith(("/", "#", "http://127.0.0.1:", "data:,")), address
    own = [given for given in found.all("script") if given.get("type") != "application/json"]
    assert all(given["src"] for given in own)
    assert all((STATIC / str(given["src"]).removeprefix("/static/")).is_file() for given in own)


def test_what_data_says_is_text(story: Any) -> None:
    story.promote("1")
    story.judge("2", "awaiting-approval", reasons=(HOSTILE, HOSTILE))
    story.tell("withdrawal", "o", key=HOSTILE, reason=HOSTILE)
    story.tell("failure", "f", job=HOSTILE, run_id="r", error=HOSTILE)
    story.land(
        [{"object_id": "a", "key": HOSTILE, "landed": 9, "rejects": 1, "seq": 0, "landed_on": story.day}],
        [{"object_key": HOSTILE, "reason": HOSTILE, "raw_text": "secret"}],
    )
    story.decide(reason=HOSTILE)
    found = page(
        story,
        runs=(Run("r", HOSTILE, "failure", 1.0, HOSTILE),),
        checks=(Finding(HOSTILE, "error", HOSTILE, HOSTILE),),
    )
    assert found.text.count("<script>alert(1)</script> $x$ {{ 7 * 7 }} [a](javascript:b)") > 8
    assert not found.all("img")
    assert len(found.all("script")) == 3


def test_no_text_of_a_record_is_in_a_page(story: Any) -> None:
    story.promote("1")
    story.land(
        [{"object_id": "a", "key": "a.csv", "landed": 9, "rejects": 1, "seq": 0, "landed_on": story.day}],
        [{"object_key": "a.csv", "reason": "broken-quote", "raw_text": "SECRET"}],
    )
    found = page(story)
    assert "broken-quote: 1" in found.text
    assert "SECRET" not in found.text


def test_the_chart_s_columns_are_of_one_length_and_the_table_says_the_same(told: Any) -> None:
    found = page(told)
    (data,) = [text for text in found.texts if text.startswith('{"as_of"')]
    drawn = json.loads(data)
    days = History.of(told.home).timeline.days
    assert {len(column) for name, column in drawn.items() if name != "reigns"} == {len(days)}
    assert drawn["seconds"][1] - drawn["seconds"][0] == 86400
    assert [reign["version"] for reign in drawn["reigns"]] == ["1", "3", "1"]
    links = [str(given["href"]) for given in found.all("a")]
    assert [f"/nights?as_of={day.as_of}" for day in reversed(days)] == [one for one in links if "/nights?" in one]


def test_an_hour_has_its_place_on_the_chart(story: Any) -> None:
    story.promote("1")
    for hour in ("2024-01-02T09", "2024-01-02T13"):
        story.day = hour
        story.decide()
    seconds = chart(History.of(story.home).timeline)["seconds"]
    assert (seconds[2] - seconds[1], seconds[1] - seconds[0]) == (4 * 3600, (24 + 9) * 3600)


def test_a_night_s_page_says_what_was_known_then(told: Any) -> None:
    known = History.of(told.home).timeline
    day = known.day("2024-01-13")
    assert day is not None
    found = Page(night_page(told.home.domain, LINKS, known, day, night(told.home, day.as_of, known, (), ())))
    assert "Version 3 was champion, since 2024-01-13." in found.text
    assert "Version 3 was approved by Ada." in found.text
    assert "The night before, 2024-01-12 The night after, 2024-01-14" in found.text
    assert "rollback" not in found.text


def test_a_home_without_a_night_says_what_to_do(home: Any) -> None:
    found = Page(front_page(home.domain, LINKS, History(()), None, None, {}))
    assert "Nothing yet" in found.text
    assert "evergreen run --source" in found.text


def test_a_night_of_which_the_ledger_knows_nothing_is_shown(told: Any) -> None:
    """A run that failed before it decided anything."""
    history, failed = (
        History.of(told.home),
        Run("r", "observe", "failure", 3.0, "stopped at raw_records: no such folder"),
    )
    last = night(told.home, "2024-02-01", history.timeline, (failed,), ())
    text = Page(front_page(told.home.domain, LINKS, history, None, last, {})).text
    assert "Last night, as of 2024-02-01" in text
    assert "The last run has failed : stopped at raw_records: no such folder." in text
    alone = Page(front_page(told.home.domain, LINKS, History(()), None, last, {})).text
    assert "Nothing yet" in alone
    assert "stopped at raw_records" in alone


def test_a_ledger_that_is_not_believed_has_no_champion(told: Any) -> None:
    history = History(History.of(told.home).entries, "entry 3 was removed")
    known = history.timeline
    last = night(told.home, known.days[-1].as_of, known, (), ())
    found = Page(front_page(told.home.domain, LINKS, history, None, last, {}))
    assert "The ledger is not as it was written: entry 3 was removed." in found.text
    assert "Champion None The ledger cannot say." in found.text
    assert not [given for given in found.all("form") if given.get("method") == "post"]


def test_a_message_is_text(home: Any) -> None:
    found = Page(message_page(home.domain, LINKS, "That was not done", HOSTILE))
    assert "{{ 7 * 7 }}" in found.text
    assert not found.all("script")


def test_pictures_that_commands_have_left_are_linked(told: Any) -> None:
    for path in ("demonstration.png", "replay/2024-01-01_2024-02-01.png"):
        (told.home.reports / path).parent.mkdir(parents=True, exist_ok=True)
        (told.home.reports / path).touch()
    found = page(told)
    assert "Pictures: demonstration , replay 2024-01-01_2024-02-01" in found.text
    assert "/replay/2024-01-01_2024-02-01.png" in [given["href"] for given in found.all("a")]
