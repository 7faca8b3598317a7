"""A night as a letter: short when calm, with what is for a person first otherwise, and every name as text."""

from typing import Any

import pytest
from markdown_it import MarkdownIt

from assets.front.history import History
from assets.front.letter import Letter, as_html, as_markdown, compose
from assets.front.night import Finding, Run, measured, night
from assets.front.pages import Links
from assets.front.why import why
from assets.settings import load_domain

DOMAIN = load_domain()
LINKS = Links("http://127.0.0.1:3001/", "http://127.0.0.1:3000/", "http://127.0.0.1:5000/")


def letter(story: Any, **parts: Any) -> Letter:
    history = History.of(story.home)
    assert history.now is not None
    day = history.timeline.days[-1]
    found = night(story.home, day.as_of, history.timeline, parts.get("runs", ()), parts.get("checks", ()))
    judged = {event.version: why(story.home, history, str(event.version)) for event in day.events if event.version}
    stories = {str(version): told.story for version, told in judged.items() if told}
    return compose(DOMAIN, LINKS, history.now, day, found, measured(story.home.lake, day.as_of), stories)


def land(story: Any, error: str | None = None) -> None:
    about = {"object_id": "a", "key": "a.csv", "landed": 900, "rejects": 3, "seq": 0, "landed_on": story.day}
    story.land(
        [about | {"error": error}], [{"object_key": "a.csv", "reason": "broken-quote", "raw_text": "SECRET"}] * 3
    )


@pytest.fixture
def calm(story: Any) -> Any:
    story.promote("1")
    story.night(1).decide()
    land(story)
    story.measure()
    return story


def test_a_calm_night_is_a_few_sentences(calm: Any) -> None:
    found = letter(calm)
    assert (found.calm, found.headline) == (True, "Complaint routing, 2024-01-02: calm")
    assert as_markdown(found) == (
        "**Complaint routing, 2024-01-02: calm**\n\n"
        "Version 1 has been the champion since 2024-01-01.\n"
        "It was right on 88.0% of 800 complaints whose queue became known lately "
        "(85.6% to 90.1% with 95% confidence).\n"
        "Its estimated accuracy on the newest window is 89.0% (86.0% to 89.0% by two estimators).\n"
        "900 complaints landed; 3 were quarantined (broken-quote 3).\n"
        "No check warned or failed, nothing was decided, and nothing waits for a person.\n\n"
        "[The night's page](http://127.0.0.1:3001/nights?as_of=2024-01-02)\n"
    )


def test_what_is_for_a_person_comes_first(harmed: Any) -> None:
    found = letter(harmed, runs=(Run("r", "observe", "failure", 1.0, "stopped at marts: the disk is full"),))
    assert found.headline == "Complaint routing, 2024-01-02: The last run failed"
    parts = {part.title: part.sentences for part in found.parts}
    assert [*parts] == ["For you", "Decided", "Quality", "Landed"]
    assert parts["For you"][0] == "The last run failed: stopped at marts: the disk is full."
    assert parts["For you"][1] == "Version 2 awaits approval, until 2024-02-01."
    assert parts["Decided"][0].startswith(
        "Version 2 awaits approval. 15 of 16 rules hold; these do not: harms no part."
    )
    assert "The nearest change: with" in parts["Decided"][0]


@pytest.mark.parametrize(
    ("happens", "headline", "sentence"),
    [
        (
            lambda story: story.decide("retrain", reason="it is worth it"),
            *("A retraining was decided on", "A retraining was decided on. It is worth it."),
        ),
        (
            lambda story: story.decide("alert-a-human", reason="no budget"),
            *("A person is asked", "A person is asked. No budget."),
        ),
        (
            lambda story: story.night(2).decide(drifted=True),
            *("Drift began", "Drift began: the newest window is unlike the champion's training."),
        ),
        (
            lambda story: story.tell("withdrawal", "o", key="bad.csv", reason="cut"),
            *("bad.csv was withdrawn", "bad.csv was withdrawn. Cut."),
        ),
        (
            lambda story: land(story, "not UTF-8"),
            *("not everything that landed could be read", "a.csv could not be read: not UTF-8."),
        ),
    ],
)
def test_a_night_on_which_something_happened_is_not_calm(calm: Any, happens: Any, headline: str, sentence: str) -> None:
    happens(calm)
    found = letter(calm)
    assert (found.calm, found.headline) == (False, f"Complaint routing, {calm.day}: {headline}")
    assert sentence in [sentence for part in found.parts for sentence in part.sentences]


def test_of_many_checks_the_first_few_are_named(calm: Any) -> None:
    checks = [Finding(f"check_{number}", "warning", "it is odd", "marts") for number in range(9)]
    found = letter(calm, checks=checks)
    assert found.headline.endswith(": 9 checks warned or failed")
    (listed,) = [part.sentences for part in found.parts if part.title == "Checks"]
    assert (listed[0], listed[-1], len(listed)) == ("Warning: check_0 of marts: it is odd", "And 4 more.", 6)


def test_names_are_text_in_both_forms_and_no_record_is_in_them(calm: Any, read: Any, hostile: str) -> None:
    calm.tell("withdrawal", "o", key=hostile, reason=hostile)
    found = letter(calm, checks=[Finding(hostile, "error", hostile, hostile)])
    page = read(as_html(found, DOMAIN, LINKS))
    assert page.text.count("<script>alert(1)</script> $x$ {{ 7 * 7 }} [a](javascript:b)") > 4
    assert [tag for tag, _ in page.tags if tag in ("script", "img", "link")] == []
    assert page.links == ["http://127.0.0.1:3001/nights?as_of=2024-01-02"]
    shown = MarkdownIt().render(as_markdown(found))
    assert "<script>" not in shown
    assert read(shown).links == page.links
    assert read(shown).text.count("{{ 7 * 7 }}") > 4
    assert "SECRET" not in shown + page.text
