"""From a measured window to its page: since when, at what cost, and in the domain's words."""

from typing import Any

import pytest

from assets.front.drift import Drift, drift
from assets.front.pages import Links, drift_page
from assets.home import Home
from assets.monitoring.drift import measure_drift
from assets.monitoring.performance import measure_performance
from assets.settings import load_domain, load_settings
from assets.settings.domain import Words

AS_OF = "2024-02-01"
SETTINGS = load_settings("quick").drift
POLICY = load_settings("quick").retraining
LINKS = Links("/", "http://d/", "http://m/")


def found(home: Home, as_of: str = AS_OF) -> Drift:
    made = drift(home, as_of)
    assert made is not None
    return made


def test_it_says_since_when_and_at_what_cost(
    home: Home, champion: Any, world: Any, train: Any, score_window: Any
) -> None:
    train(world(1), wrong_below=0.5)
    days = {"2024-01-30": world(2), "2024-01-31": world(3, first_word=100), AS_OF: world(4, first_word=120)}
    mature = SETTINGS.model_copy(update={"min_maturity": 0.5})
    for as_of, moved in days.items():
        score_window(moved, version=f"p-{as_of}", as_of=as_of)
        performance = measure_performance(home, as_of, champion, POLICY, mature)
        report = measure_drift(home, as_of, champion, SETTINGS)
    assert {report.since[name] for name in ("text_unknown_share", "domain_classifier")} == {"2024-01-31"}
    assert [window.as_of for window in performance.windows] == list(days)
    page = found(home)
    drifted = [one for group in page.groups for one in group.columns if one.state == "drifted"]
    assert {(one.column, one.statistic, one.since) for one in drifted} >= {
        ("domain_classifier", "AUC", "2024-01-31"),
        ("text_unknown_share", "PSI", "2024-01-31"),
    }
    assert [window.quality.as_of for window in page.windows] == list(days)[::-1]
    assert (page.windows[-1].drifted, page.windows[0].drifted) == (0, len(drifted))
    assert performance.evaluated.accuracy is not None
    assert performance.estimated_accuracy is not None
    more = round((performance.evaluated.accuracy - performance.estimated_accuracy) * 1500)
    assert page.more_wrong == more
    shown = drift_page(home.domain, LINKS, page)
    for number in (f"{performance.evaluated.accuracy:.1%}", f"{performance.estimated_accuracy:.1%}", f"{more:+,}"):
        assert f'<p class="figure">{number}</p>' in shown


def test_rows_are_counted_once_and_by_name(
    home: Home, champion: Any, world: Any, train: Any, score_window: Any
) -> None:
    train(world(1))
    score_window(world(2), labels=700)
    performance = measure_performance(home, AS_OF, champion, POLICY, SETTINGS)
    report = measure_drift(home, AS_OF, champion, SETTINGS)
    counts = {count.name: (count.rows, count.labels) for count in found(home).counts}
    assert list(counts) == ["window", "blind", "sample", "training sample", "realised", "test rows"]
    assert counts["window"] == (1500, performance.window_labels)
    assert counts["blind"] == (performance.windows[-1].rows, performance.windows[-1].labels)
    assert counts["sample"] == (report.current_rows, performance.window_labels)
    assert counts["training sample"] == (report.reference_rows, report.reference_rows)
    labels = next(group for group in found(home).groups if group.name == "labels")
    assert labels.rows is not None
    assert labels.rows[0] == performance.window_labels


def test_it_calls_things_as_the_domain_does_and_shows_no_text(
    home: Home, champion: Any, world: Any, train: Any, score_window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(world(1))
    score_window(world(2))
    measure_drift(home, AS_OF, champion, SETTINGS)
    page = found(home)
    assert "Predicted queue" in drift_page(home.domain, LINKS, page)
    assert "zanzibarian" not in drift_page(home.domain, LINKS, page)
    assert page.evidently == f"evidently/{AS_OF}.html"
    label = load_domain().label.model_copy(update={"one": "<i>team", "many": "<u>teams"})
    words = {"record": Words(one="ticket", many="<b>tickets"), "label": label}
    monkeypatch.setattr(Home, "domain", load_domain().model_copy(update=words))
    shown = drift_page(home.domain, LINKS, found(home))
    assert "Predicted &lt;i&gt;team" in shown
    assert not {"<b>", "<i>", "<u>"} & {shown[at : at + 3] for at in range(len(shown))}
