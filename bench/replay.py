"""The net value of retraining policies on random simulated worlds and on the real records of 2023 to mid 2025.

`--draw N` draws N worlds, each a scenario and a seed, so that no setting was tuned on them; `--world SCENARIO:SEED`
repeats one, and `--world real` replays the real records. Net value is the number of right answers times
`value_per_answer`, minus all costs. Steps are one week apart (`--every`), with the profile `replay` (frozen encoder);
`--cheap` reads 32 tokens of a text and trains for three epochs. Results are written to `--folder` one by one, and
`--sum-up` summarizes those in it. `--check` compares, over a few steps, how full training and the replay's training
rank the policies.
"""

import argparse
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from assets.home import Home
from assets.replay.history import steps
from assets.replay.replay import Replay, replay, table
from assets.settings import Settings, load_domain, load_policy, load_settings
from assets.training.launchers.launch import override
from complaints.simulation import simulate
from pipelines.runs import run_worker

CFPB = Path(__file__).parents[2] / "shared" / "data" / "cfpb"
POLICIES = ("never", "every-step", "monthly", "on-drift", "cost-aware", "probe")
SCENARIOS = (
    *("new-vocabulary", "mix-shift", "calm", "slow", "season"),
    *("one-label", "swapped-labels", "one-company", "taxonomy-change", "schema-change"),
)
RATE = 40
SIMULATED = (date(2023, 7, 1), date(2024, 12, 31))
YEAR, REAL, CHECK = ("2024-01-01", "2024-12-31"), ("2023-01-02", "2025-07-01"), ("2024-04-01", "2024-09-30")


def sources(world: str, folder: Path) -> list[str]:
    """The files of a world."""
    if world == "real":
        return [str(path) for path in sorted(CFPB.glob("*.csv.gz"))]
    scenario, seed = world.split(":")
    simulate(folder / world, *SIMULATED, RATE, int(seed), scenario)
    return [str(folder / world)]


def go(world: str, folder: Path, days: tuple[str, ...], settings: Settings, policies: Sequence[str]) -> Replay:
    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    chosen: dict[str, Any] = {Path(name).stem: load_policy(name) for name in policies}
    home = Home(folder / f"home-{world.replace(':', '-')}")
    return replay(home, sources(world, folder), days, chosen, settings, run_worker, say)


def show(world: str, replayed: Replay, seconds: float, folder: Path) -> None:
    print(f"\n{world}, {replayed.days[0]} to {replayed.days[-1]}, {len(replayed.days) - 1} steps")
    print(table(replayed, load_domain()))
    print(f"{seconds / 60:.1f} minutes", flush=True)
    found = {one.policy: {**asdict(one), "steps": len(one.steps)} for one in replayed.backtests}
    (folder / f"{world.replace(':', '-')}.json").write_text(json.dumps(found, indent=1))


def sum_up(folder: Path) -> None:
    """Each policy over the simulated worlds of a folder: worth beside every-step's, with the error over worlds."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) if path.stem != "real"]
    worlds = [world for world in found if "every-step" in world]
    print(f"\n{len(worlds)} worlds: means, and worth beside every-step's with its standard error over worlds")
    print(
        f"{'policy':<14}{'accuracy':>10}{'trainings':>11}{'promoted':>10}{'cost':>9}{'of every-step':>15}{'worth':>20}"
    )
    for policy in dict.fromkeys(name for world in worlds for name in world):
        own = [(world[policy], world["every-step"]) for world in worlds if policy in world]
        mean = {name: fmean(ours[name] for ours, _ in own) for name in ("accuracy", "trainings", "promotions", "cost")}
        share, more = mean["cost"] / fmean(a["cost"] for _, a in own), [ours["worth"] - a["worth"] for ours, a in own]
        error = stdev(more) / len(more) ** 0.5 if len(more) > 1 else float("nan")
        counts = f"{mean['trainings']:>11.1f}{mean['promotions']:>10.1f}{mean['cost']:>9.2f}{share:>15.2f}"
        print(f"{policy:<14}{mean['accuracy']:>10.4f}{counts}{fmean(more):>+12.1f} ± {error:.1f}", flush=True)


def check(folder: Path) -> None:
    """The policies' accuracy by full training (profile quick) and by the replay's, over the same few steps."""
    for profile in ("quick", "replay"):
        policies = ("never", "every-step", "cost-aware")
        settings = load_settings(profile)
        alike = settings.model_copy(update={"training": override(settings.training, {"refit": False})})
        replayed = go("new-vocabulary:5", folder, steps(*CHECK, 45), alike, policies)
        print(f"\nprofile {profile}, {len(replayed.days) - 1} steps\n{table(replayed, load_domain())}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", action="append", default=[], help="SCENARIO:SEED, or real")
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--every", type=int, default=7)
    parser.add_argument("--policy", action="append", help="of configs/policies, or a file")
    parser.add_argument("--cheap", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--sum-up", action="store_true")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    settings = load_settings("replay")
    if asked.cheap:
        less = override(settings.training, {"max_tokens": 32, "epochs": 3.0})
        settings = settings.model_copy(update={"training": less})
    drawn = [f"{SCENARIOS[place % len(SCENARIOS)]}:{secrets.randbelow(10**6)}" for place in range(asked.draw)]
    if drawn:
        print(f"drawn: {' '.join(drawn)}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = asked.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        if asked.check:
            check(folder)
        for world in [*asked.world, *drawn]:
            if world == "real" and not CFPB.is_dir():
                print(f"real: skipped, the real records are not at {CFPB}")
                continue
            started, span = time.perf_counter(), REAL if world == "real" else YEAR
            replayed = go(world, folder, steps(*span, asked.every), settings, asked.policy or POLICIES)
            show(world, replayed, time.perf_counter() - started, folder)
        if asked.sum_up or len(drawn) > 1:
            sum_up(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
