"""The challenger as an asset: streamed, checked, and not trained twice."""

import re
from pathlib import Path

import dagster as dg
import pytest

from assets.lake import Lake
from assets.resources import Evergreen
from assets.settings import load_settings
from assets.training.definitions import TrainingOverrides, challenger

AS_OF = "2024-01-01"

# Dagster's Pipes client uses a preview of its own.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.PreviewWarning")


@pytest.fixture
def evergreen(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Evergreen:
    monkeypatch.setenv("EVERGREEN_HOME", str(lake.root.parent))
    return Evergreen(profile="quick")


def materialize(evergreen: Evergreen, **config: object) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("as_of", [AS_OF])
        return dg.materialize(
            [challenger],
            partition_key=AS_OF,
            resources={"evergreen": evergreen},
            run_config={"ops": {"challenger": {"config": config}}},
            instance=instance,
            raise_on_error=False,
        )


def test_the_challenger_is_trained_once_and_checked(
    evergreen: Evergreen, encoder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = {"base_model": str(encoder), "epochs": 1.0, "trainable_layers": 1, "seed": 5}
    first, second = materialize(evergreen, **config), materialize(evergreen, **config)
    assert first.success
    assert second.success
    trained, reused = (r.asset_materializations_for_node("challenger")[0].metadata for r in (first, second))
    assert trained["training_id"] == reused["training_id"]
    assert not trained["reused"].value
    assert reused["reused"].value
    shown = re.fullmatch(r"!\[training loss\]\(/pictures/(challenger/[-\d]+/\w{16}\.png)\)", str(trained["loss"].value))
    assert shown
    assert (evergreen.home.pictures / shown[1]).read_bytes().startswith(b"\x89PNG")
    checks = {e.check_name: e.passed for e in first.get_asset_check_evaluations()}
    assert checks == {"finite_loss": True, "bundle_complete": True}
    printed = capfd.readouterr()
    assert "tokens/s" in printed.err
    assert "tokens/s" not in printed.out


def test_the_launchpad_offers_every_setting() -> None:
    offered = dict(TrainingOverrides.to_fields_dict())
    settings = load_settings("quick").training.model_dump()
    assert set(offered) == {name for group in settings.values() for name in group}
    assert offered["epochs"].description == "Passes over the training rows."
    assert TrainingOverrides(epochs=2.0, schedule="cosine").changes() == {"epochs": 2.0, "schedule": "cosine"}


def test_a_mistake_in_the_config_is_the_run_s_error(evergreen: Evergreen) -> None:
    result = materialize(evergreen, base_model="no/such-model")
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert "'no/such-model' is neither a local folder" in str(failure.step_failure_data.error)
