"""What every test gets: a home of its own, no network, no telemetry."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from assets.lake import Home

os.environ |= {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"}

# The same examples every time and everywhere; how long one takes says more about the machine than about the code.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.load_profile("same")

CFPB = Path(__file__).parents[2] / "shared" / "data" / "cfpb"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest goes first, so that it does not run on alone at the end."""
    items.sort(key=lambda item: item.path.name != "test_graph.py")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def cfpb() -> Path:
    if not CFPB.is_dir():
        pytest.skip(f"the real complaints are not at {CFPB}")
    return CFPB
