import json
import time
from html import escape
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assets.monitoring.comparison import Column, Side, judge, measure_columns, shares
from assets.monitoring.distributions import bin_columns
from assets.monitoring.widgets import by_evidently
from assets.settings import load_domain, load_settings

SETTINGS = load_settings("quick").drift


def test_evidentlys_numbers_are_ours(world: Any) -> None:
    frames = [world(seed).rows(rows, "2024-01-01", 30, "a") for seed, rows in ((1, 900), (2, 400))]
    columns = ["company_records_30d", "company", "tags"]
    sides = [Side({"features": f[columns], "predictions": f[["label"]].head(300)}) for f in frames]
    measured = measure_columns(*sides, SETTINGS)
    assert [(c.name, c.group) for c in measured] == [
        *((name, "features") for name in columns),
        ("label", "predictions"),
    ]
    binned = bin_columns(measured, *sides, load_domain(), SETTINGS)
    seen, page = by_evidently(measured, binned, SETTINGS.share_threshold)
    for ours, theirs in zip(measured, seen, strict=True):
        assert theirs.value == pytest.approx(ours.value, rel=1e-9)
        assert theirs.drifted == ours.drifted
    assert all(column.name in page for column in measured)


class Scripts(HTMLParser):
    """What a browser takes for scripts, and for anything else."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.others = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.others += tag != "script"
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script":
            self.scripts[-1] += data


def test_names_cannot_leave_the_script_of_evidentlys_page(world: Any) -> None:
    name = "</script><script>alert(1)</script><body><!-- $x$"

    def read(name: str) -> Scripts:
        frames = [world(seed).rows(400, "2024-01-01", 30, "a")[["company"]].assign(channel=name) for seed in (1, 2)]
        sides = [Side({"features": frame.rename(columns={"company": f"of {name}"})}) for frame in frames]
        measured = measure_columns(*sides, SETTINGS)
        binned = bin_columns(measured, *sides, load_domain(), SETTINGS)
        return Scripts(by_evidently(measured, binned, SETTINGS.share_threshold)[1])

    calm, hostile = read("Web"), read(name)
    assert (len(hostile.scripts), hostile.others) == (len(calm.scripts), calm.others)
    data = json.loads(hostile.scripts[0].split(" = ", 1)[1].split(";\n", 1)[0])
    assert f"of {name}" in str(data)
    assert escape(name) in hostile.scripts[0]


def test_ten_times_the_rows_cost_at_most_twenty_times_as_much() -> None:
    rng = np.random.default_rng(0)

    def seconds(rows: int) -> float:
        numbers = {f"n{number}": rng.lognormal(1, 2, rows) for number in range(20)}
        frame = pd.DataFrame(numbers | {"company": rng.choice([f"Company {n}" for n in range(100)], rows)})
        started = time.process_time()
        assert len(measure_columns(Side({"features": frame}), Side({"features": frame}), SETTINGS)) == 21
        return time.process_time() - started

    assert min(seconds(20_000) for _ in range(3)) < 20 * min(seconds(2_000) for _ in range(3))


@pytest.mark.parametrize("rows", [200, 2_000, 20_000])
def test_the_false_alarm_rate_does_not_grow_with_the_rows(rows: int) -> None:
    rng = np.random.default_rng(rows)

    def side(size: int) -> Side:
        heavy = {f"heavy{n}": rng.pareto(0.9, size) for n in range(5)}
        other = {"company": rng.zipf(1.5, size).astype(str), "few": rng.random(size) < 0.02}
        one = {"predicted_label": rng.choice(list("abcdefghi"), size)}
        return Side({"features": pd.DataFrame(heavy | other), "predictions": pd.DataFrame(one)})

    verdicts = [judge(measure_columns(side(2000), side(rows), SETTINGS), SETTINGS).detected for _ in range(40)]
    assert sum(map(bool, verdicts)) <= 1


@pytest.mark.parametrize("rows", [300, 2_000, 20_000])
def test_a_shift_is_seen_at_any_size(rows: int) -> None:
    rng = np.random.default_rng(rows)
    sides = [
        Side({"features": pd.DataFrame({"a": rng.pareto(0.9, size) * scale, "b": rng.random(size)})})
        for size, scale in ((2000, 1), (rows, 3))
    ]
    columns = measure_columns(*sides, SETTINGS)
    assert [c.drifted for c in columns] == [True, False]
    assert judge(columns, SETTINGS).detected is True


def test_what_the_champion_answers_is_held_to_a_wider_bound() -> None:
    """Its evaluation is one small draw: a part of it that is unlucky would alarm in every window."""
    rng = np.random.default_rng(0)
    evaluated, window = (
        pd.DataFrame({"label": rng.choice(list("abc"), 2000, p=mix)}) for mix in ((0.4, 0.4, 0.2), (0.3, 0.4, 0.3))
    )
    found = {
        group: measure_columns(Side({group: evaluated}), Side({group: window}), SETTINGS)[0].drifted
        for group in ("labels", "predictions")
    }
    assert found == {"labels": True, "predictions": False}


def test_a_group_with_too_few_rows_is_not_measured() -> None:
    few, many = pd.DataFrame({"label": ["a"] * 99}), pd.DataFrame({"f": np.arange(200.0)})
    sides = [Side({"features": many, "labels": frame}) for frame in (pd.concat([few] * 3), few)]
    assert [c.group for c in measure_columns(*sides, SETTINGS)] == ["features"]
    assert [c.group for c in measure_columns(*reversed(sides), SETTINGS)] == ["features"]
    assert measure_columns(sides[0], Side({"labels": few}), SETTINGS) == ()


def column(name: str, group: str, value: float, statistic: Any = "psi", threshold: float = 0.25) -> Column:
    return Column(name, group, statistic, value, 0.0, threshold, value >= threshold)


def test_what_is_judged_is_the_share_of_a_group() -> None:
    features = tuple(column(f"f{n}", "features", 0.9 if n < 3 else 0.0) for n in range(10))
    assert judge(features, SETTINGS).detected is False
    assert judge((*features, column("g", "features", 0.9)), SETTINGS).detected is True
    found = judge((*features, column("label", "labels", 0.3)), SETTINGS, {"wording": "no text"})
    assert (found.detected, found.share) == (True, 1.0)
    assert "4 of 11 columns drifted (f0, f1, f2, ...): features 30%; labels 100%" in found.reason
    assert "wording not measured: no text" in found.reason
    assert shares(features) == {"features": 0.3}


def test_one_broken_promise_is_enough() -> None:
    kept = tuple(column(f"true_{n}", "answers", 0.5, "evidence", 3.0) for n in range(18))
    assert judge(kept, SETTINGS).detected is False
    found = judge((*kept, column("answers", "answers", 2.0, "evidence", 1.9)), SETTINGS)
    assert (found.detected, found.share) == (True, 1 / 19)
    assert "(answers)" in found.reason


def test_nothing_measured_is_no_sign_of_calm() -> None:
    found = judge((), SETTINGS)
    assert (found.detected, found.share) == (None, None)


def test_how_far_is_measured_from_no_difference() -> None:
    assert column("a", "wording", 0.5, "auc", 0.65).times == 0.0
    assert column("a", "wording", 0.8, "auc", 0.65).times == pytest.approx(2.0)
    assert column("a", "features", 0.5).times == 2.0
