"""Retraining policies compared on a simulated year, in two scenarios, and on the real complaints of 2023 to mid 2025.

Weekly steps, five policies, the profile `replay` (the encoder stays as it came). Goals: the default policy, cost-aware,
within one point of accuracy of retraining at every step, at no more than a third of its cost; a year in 20 minutes.
`--world NAME` replays one of them; `--check` compares, over a few steps, how full training and the replay's training
rank the policies.
"""

import argparse
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from assets.lake import Home
from assets.replay.history import steps
from assets.replay.picture import draw
from assets.replay.replay import Replay, replay, table
from assets.settings import load_policy, load_settings
from assets.simulation import simulate
from pipelines.runs import run_worker

CFPB = Path(__file__).parents[2] / "shared" / "data" / "cfpb"
POLICIES = ("never", "every-step", "monthly", "on-drift", "cost-aware")
RATE, SEED = 40, 5
SIMULATED = (date(2023, 7, 1), date(2024, 12, 31))
YEAR, REAL, CHECK = ("2024-01-01", "2024-12-31", 7), ("2023-01-02", "2025-07-01", 7), ("2024-04-01", "2024-09-30", 45)
WORLDS = {"taxonomy-change": YEAR, "new-vocabulary": YEAR, "real": REAL}
GOALS = {"points": 1.0, "cost": 1 / 3, "minutes": 20}


def sources(world: str, folder: Path) -> list[str]:
    """The files of a world; none where the real complaints are not at hand."""
    if world == "real":
        return [str(path) for path in sorted(CFPB.glob("*.csv.gz"))]
    simulate(folder / world, *SIMULATED, RATE, SEED, world)
    return [str(folder / world)]


def go(world: str, folder: Path, span: tuple[str, str, int], profile: str, policies: tuple[str, ...]) -> Replay:
    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    chosen: dict[str, Any] = {name: load_policy(name) for name in policies}
    home, files = Home(folder / f"home-{world}"), sources(world, folder)
    return replay(home, files, steps(*span), chosen, load_settings(profile), run_worker, say)


def show(world: str, replayed: Replay, seconds: float) -> None:
    found = {one.policy: one for one in replayed.backtests}
    always, ours = found["every-step"], found["cost-aware"]
    assert always.accuracy is not None
    assert ours.accuracy is not None
    print(f"\n{world}, {replayed.days[0]} to {replayed.days[-1]}, {len(replayed.days) - 1} steps\n{table(replayed)}")
    points, cost = 100 * (always.accuracy - ours.accuracy), ours.cost / always.cost
    print(
        f"cost-aware: {points:+.2f} points below every-step (goal {GOALS['points']}), "
        f"{cost:.2f} of its cost (goal {GOALS['cost']:.2f})"
    )
    years = (date.fromisoformat(replayed.days[-1]) - date.fromisoformat(replayed.days[0])).days / 365
    print(f"{seconds / 60:.1f} minutes, {seconds / 60 / years:.1f} a year (goal {GOALS['minutes']})", flush=True)


def check(folder: Path) -> None:
    """The policies' accuracy by full training (profile quick) and by the replay's, over the same few steps."""
    policies = ("never", "every-step", "cost-aware")
    for profile in ("quick", "replay"):
        replayed = go("new-vocabulary", folder, CHECK, profile, policies)
        print(f"\nprofile {profile}, {len(replayed.days) - 1} steps\n{table(replayed)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", choices=WORLDS)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = asked.folder or Path(name)
        if asked.check:
            check(folder)
            return 0
        for world in [asked.world] if asked.world else WORLDS:
            if world == "real" and not CFPB.is_dir():
                print(f"real: skipped, the real complaints are not at {CFPB}")
                continue
            started = time.perf_counter()
            replayed = go(world, folder, WORLDS[world], "replay", POLICIES)
            show(world, replayed, time.perf_counter() - started)
            draw(replayed, folder / f"{world}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
