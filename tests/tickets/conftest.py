"""The domain of examples/tickets, in place of the project's own."""

from pathlib import Path

import pytest

from assets.settings import load_domain
from pipelines.simulating import Simulate, simulator

TICKETS = Path(__file__).parents[2] / "examples" / "tickets"


@pytest.fixture
def tickets(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVERGREEN_DOMAIN", str(TICKETS))
    return TICKETS


@pytest.fixture
def simulate(tickets: Path) -> Simulate:
    return simulator(load_domain())
