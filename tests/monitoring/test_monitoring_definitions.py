"""What a person sees of a drift and of a champion that is worse than it promised: a warning, with the numbers."""

from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets.home import Home
from assets.monitoring.definitions import drift_report, performance
from assets.monitoring.performance import Scores
from assets.registry.registry import Registry
from assets.resources import Evergreen

AS_OF = "2024-02-01"


@pytest.fixture
def check(home: Home, champion: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Materializes performance and drift_report; gives the check of one of them."""
    monkeypatch.setattr(Registry, "champion", lambda _, as_of: {AS_OF: champion}[as_of])

    def materialize(asset: str) -> dg.AssetCheckEvaluation:
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions("as_of", [AS_OF])
            result = dg.materialize(
                [performance, drift_report],
                partition_key=AS_OF,
                resources={"evergreen": Evergreen()},
                instance=instance,
            )
        return next(c for c in result.get_asset_check_evaluations() if c.asset_key == dg.AssetKey(asset))

    return materialize


@pytest.mark.parametrize(("first_word", "drifted"), [(0, False), (100, True)])
def test_a_drifted_window_is_not_green(
    check: Any, world: Any, train: Any, score_window: Any, home: Home, first_word: int, drifted: bool
) -> None:
    train(world(1))
    score_window(world(2, first_word=first_word))
    found = check("drift_report")
    assert (found.passed, found.severity) == (not drifted, dg.AssetCheckSeverity.WARN)
    assert ("domain_classifier" in found.description) is drifted
    assert "columns drifted" in found.description
    (picture,) = home.pictures.glob(f"drift_report/{AS_OF}/*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("swapped", [False, True])
def test_a_champion_that_errs_more_than_it_promised_is_not_green(check: Any, answer_traded: Any, swapped: bool) -> None:
    answer_traded({"cards": "bank_account"} if swapped else {})
    found = check("performance")
    assert (found.passed, found.severity) == (not swapped, dg.AssetCheckSeverity.WARN)
    assert "blind predictions" in found.description
    assert ("sure_answers" in found.description) is swapped
    assert ("in its evaluation on" in found.description) is swapped


def test_nothing_to_be_measured_is_no_warning_but_says_so(
    check: Any, world: Any, train: Any, publish_marts: Any, home: Home
) -> None:
    train(world(1))
    rows = world(2).rows(10, "2024-01-05", 25, "n").assign(known_until=pd.NaT)
    publish_marts(rows.drop(columns="confidence"), rows)
    for asset in ("performance", "drift_report"):
        found = check(asset)
        assert found.passed
        assert "cannot be measured" in found.description
    assert not home.pictures.exists()


@pytest.mark.parametrize(
    ("evaluated", "realised", "above"),
    [
        (Scores(548, 0.92, 0.9), Scores(1326, 0.787, 0.7), True),
        (Scores(548, 0.92, 0.9), Scores(100, 0.88, 0.8), False),
        (Scores(548, 0.92, 0.9), Scores(1326, 0.95, 0.9), False),
        (Scores(548, 0.92, 0.9), Scores(0, None, None), False),
        (Scores(0, None, None), Scores(1326, 0.787, 0.7), False),
    ],
)
def test_a_loss_counts_beyond_what_may_be_chance(evaluated: Scores, realised: Scores, above: bool) -> None:
    assert evaluated.surely_above(realised) is above
