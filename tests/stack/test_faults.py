"""A night on the team's servers while every part of them is struck once; all of it, often, is in bench/faults.py."""

from pathlib import Path

import pytest

from assets.home import Home
from bench.faults import FAULTS, RAY_WORKER
from tests.stack.nights import Team, embedded, live, simulate, state
from tests.stack.servers import OwnPostgres

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.usefixtures("redis_server"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]


def test_a_night_in_which_every_part_is_struck_once_ends_as_one_in_which_none_is(tmp_path: Path) -> None:
    if not OwnPostgres.is_installed():
        pytest.skip("PostgreSQL's server programs are not installed")
    simulate(tmp_path / "records", 1)
    embedded(tmp_path / "embedded", "refresh", 0, tmp_path / "records")
    undisturbed = state(Home(tmp_path / "embedded"), 0)
    assert undisturbed["champion"] == "1"
    strikes = [(5.0 + 8 * number, strike) for number, (name, strike) in enumerate(FAULTS.items()) if name != RAY_WORKER]
    with Team.running(tmp_path / "team") as team:
        lived = live(team, tmp_path / "records", 0, strikes)
    assert lived.struck == len(strikes)
    assert lived.retried, "Dagster has launched no killed run again"
    assert lived.state == undisturbed
