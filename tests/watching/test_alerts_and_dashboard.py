"""Prometheus' rules fire when they should, and the rules and the dashboard name only what a home exports."""

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "configs" / "prometheus" / "alerts.yaml"
TESTS = Path(__file__).with_name("alerts.yaml")
DASHBOARD = json.loads((ROOT / "configs" / "grafana" / "evergreen.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SHOWN = [panel for panel in PANELS if panel["type"] != "row"]
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
QUERIES = [target["expr"] for panel in SHOWN for target in panel["targets"]]
ELSEWHERE = {"up"}
"""What Prometheus itself knows."""


def named(query: str) -> set[str]:
    """The metrics of a query."""
    return set(re.findall(r"\b(?:evergreen_[a-z_]+|up)\b", re.sub(r'"[^"]*"', "", query)))


@pytest.fixture
def promtool() -> str:
    return shutil.which("promtool") or pytest.skip("there is no promtool on the PATH (Debian: prometheus)")


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_rules_are_valid_and_each_fires_on_what_is_planted(promtool: str) -> None:
    assert run(promtool, "check", "rules", str(RULES)) == ""
    assert run(promtool, "test", "rules", str(TESTS)) == ""


def test_each_alert_is_planted_and_kept_calm(promtool: str, tmp_path: Path) -> None:
    calm, *planted = yaml.safe_load(TESTS.read_text())["tests"]
    fired = {
        alert for test in planted for alert in re.findall('alertname="(\\w+)"', test["promql_expr_test"][0]["expr"])
    }
    assert fired == {rule["alert"] for rule in ALERTS}
    series = " ".join(one["series"] for one in calm["input_series"])
    assert not {name for rule in ALERTS for name in named(rule["expr"])} - named(series)
    # A test that expects something else would fail.
    calm["promql_expr_test"][0]["expr"] = "up"
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": [calm]}))
    assert "FAILED" in run(promtool, "test", "rules", str(tmp_path / "wrong.yaml"))


def test_an_alert_says_what_is_wrong_and_what_to_do() -> None:
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]


def test_the_example_of_a_scrape_is_valid(promtool: str) -> None:
    example = str(ROOT / "configs" / "prometheus" / "prometheus.yaml")
    assert run(promtool, "check", "config", "--syntax-only", example) == ""


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_dashboard_is_valid(promtool: str, query: str, tmp_path: Path) -> None:
    rule = {"groups": [{"name": "a", "rules": [{"record": "a", "expr": query}]}]}
    (tmp_path / "rule.yaml").write_text(yaml.safe_dump(rule))
    assert run(promtool, "check", "rules", str(tmp_path / "rule.yaml")) == ""
    assert named(query)
    assert query.count('instance=~"$instance"') == len(re.findall(r"\bevergreen_", query)), "of the chosen homes alone"


def test_the_dashboard_has_what_grafana_asks_for() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert "id" not in DASHBOARD, "Grafana gives it one when it is imported"
    assert DASHBOARD["uid"] == "evergreen"
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({(panel["type"], panel["title"], str(panel.get("targets"))) for panel in PANELS}) == len(PANELS)
    for panel in SHOWN:
        assert panel["datasource"]["uid"] == "${datasource}"
        letters = [target["refId"] for target in panel["targets"]]
        assert letters, panel["title"]
        assert len(set(letters)) == len(letters)
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_no_panels_lie_on_one_another() -> None:
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        assert one["x"] + one["w"] <= 24
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


def test_what_serving_exports_is_in_one_row_of_its_own() -> None:
    rows = [panel["gridPos"]["y"] for panel in PANELS if panel["type"] == "row"]
    serving = {p["gridPos"]["y"] for p in SHOWN if any("evergreen_serving_" in t["expr"] for t in p["targets"])}
    assert serving
    assert min(serving) > max(rows)
