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


LONGEST = ["test_graph.py", "test_worker.py", "test_replay.py", "test_mirror.py", "test_cli.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest go first, so that none runs on alone at the end."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def cfpb() -> Path:
    if not CFPB.is_dir():
        pytest.skip(f"the real complaints are not at {CFPB}")
    return CFPB
