"""`make drift`: the world changes, a sensor fires, a retraining is decided, the gate promotes, quality recovers.

The graph does all of it, in a separate home and Dagster instance: the daemon evaluates the sensor and launches the
retraining; everything printed and plotted is read from the ledger, the run storage and the predictions.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
from dagster._core.scheduler.instigation import InstigatorType, TickStatus  # dagster does not export these

from assets.as_of import at
from assets.duck import connect
from assets.exceptions import EvergreenError, SettingsError
from assets.home import Home
from assets.registry.ledger import Entry
from assets.registry.shared_ledger import ledger_of
from assets.warehouse.marts import mart
from pipelines.instance import LOCATION, open_instance
from pipelines.progress import progress_on_stderr
from pipelines.runs import run_graph
from pipelines.servers import WORKSPACE
from pipelines.simulating import simulator
from pipelines.ui import Processes, await_servers, require_alive, serving

__all__ = ["demonstrate"]

_START, _END = date(2024, 1, 1), date(2024, 6, 30)
_RATE, _SEED, _SCENARIO, _PROFILE = 80, 11, "new-vocabulary", "quick"
_LOOKS = (28, 35, 41)
"""Days after the change on which to observe, until a retraining is decided."""
_RECOVERY = 30
"""Days after that until the last look."""

_BY_WEEK = """
    with answers as (
        select record_id, arg_min(predicted, as_of) as predicted from read_parquet($predictions) scored
        where scored.predicted is not null group by record_id
    )
    select time_bucket(interval 7 day, known_at, $change::timestamp)::date as week, count(*) as rows,
           avg((predicted = records.label)::int) as accuracy
    from answers join read_parquet($records) records using (record_id)
    where records.label is not null and known_until is null
      and record_id not in (select record_id from read_parquet($trained))
    group by week having rows >= 30 order by week
"""


def demonstrate(outer: Home, say: Callable[[str], None], show: Callable[[str], None]) -> None:
    """Run it in a home inside another, which is emptied first. Raises EvergreenError when it does not succeed.

    `say` gets its progress, and `show` its result.
    """
    if outer.objects is not None:
        raise SettingsError("the demonstration is for one machine: unset EVERGREEN_ENVIRONMENT and EVERGREEN_OBJECTS")
    home, say = Home(outer.root / "demonstration"), _clock(say)
    shutil.rmtree(home.root, ignore_errors=True)
    for anchor in ledger_of(home).anchors:
        anchor.remove()
    os.environ["EVERGREEN_HOME"] = str(home.root)
    source = home.source
    say(f"Simulating {_RATE} {home.domain.record.many} a day, in scenario {_SCENARIO}")
    change = simulator(home.domain)(source, _START, _END, _RATE, _SEED, _SCENARIO).change
    if change is None:
        raise EvergreenError(f"scenario {_SCENARIO} of the domain's simulator has no change from {_START} to {_END}")
    say(f"From {change} on, people write in new words")
    with serving(home, "code", "daemon") as processes, ThreadPoolExecutor(1) as pool:
        switched_on = pool.submit(_switch_on, home, processes, "retraining_due")
        _graph(home, source, change, "refresh", say)
        switched_on.result()
        looks = (change + timedelta(days) for days in _LOOKS)
        decided = next((day for day in looks if _decides(home, source, day, say)), None)
        if decided is None:
            raise EvergreenError(f"no retraining was decided; EVERGREEN_HOME={home.root} evergreen ledger says why")
        _await_retraining(home, processes, say)
    _graph(home, source, decided + timedelta(_RECOVERY), "observe", say)
    weeks = _by_week(home, change)
    show("\n".join(["The timeline", *_timeline(home, weeks, change, decided)]))
    verdict = ledger_of(home).entries("verdict")[-1].body["decision"]
    marks = {f"new words, {change}": change, f"retrained, verdict {verdict}, {decided}": decided}
    picture = _draw(weeks, marks, home.reports / "demonstration.png")
    domain = os.environ.get("EVERGREEN_DOMAIN")
    show(f"Open next: {picture}, or EVERGREEN_HOME={home.root} make ui{f' DOMAIN={domain}' if domain else ''}")


def _clock(say: Callable[[str], None]) -> Callable[[str], None]:
    started = time.monotonic()
    return lambda text: say(f"{time.monotonic() - started:6.0f} s  {text}")


def _switch_on(home: Home, processes: Processes, sensor: str) -> None:
    """Switch the sensor on, like the switch in Dagster's UI, once the definitions are served."""
    await_servers(home, processes)
    command = [str(Path(sys.executable).with_name("dagster")), "sensor", "start", sensor, "--location", LOCATION]
    workspace = ["--workspace", str(home.dagster / WORKSPACE)]
    subprocess.run([*command, *workspace], check=True, capture_output=True, cwd=Path(__file__).parents[1])


def _graph(home: Home, source: Path, day: date, job: str, say: Callable[[str], None]) -> None:
    as_of = at(day, home.domain.cadence)
    say(f"as of {as_of}: {job}")
    with progress_on_stderr() as progress:
        done = run_graph(home, [str(source)], as_of, _PROFILE, progress, job)
    if done.failure:
        raise EvergreenError(f"{job} as of {as_of}: {done.failure}")


def _decides(home: Home, source: Path, day: date, say: Callable[[str], None]) -> bool:
    """Observe the world as of a day; whether that calls for a retraining."""
    _graph(home, source, day, "observe", say)
    body = ledger_of(home).entries("retraining")[-1].body
    say(f"as of {day}: {body['decision']}: {body['reason']}")
    return bool(body["decision"] == "retrain")


def _await_retraining(home: Home, processes: Processes, say: Callable[[str], None]) -> None:
    """Follow the sensor and the run it launches until the run has succeeded.

    Raises EvergreenError when the run or an evaluation of the sensor fails, or one of the processes ends.
    """
    say("waiting for the sensor `retraining_due` and the run that it launches")
    status = None
    with open_instance(home) as instance:
        while status != dg.DagsterRunStatus.SUCCESS:
            require_alive(processes)
            _require_evaluation(instance)
            runs = instance.get_runs(dg.RunsFilter(job_name="retrain"))
            if runs and runs[0].status != status:
                status = runs[0].status
                say(f"run {runs[0].run_id[:8]} of `retrain`, launched by the sensor: {status.value.lower()}")
            if status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED):
                raise EvergreenError(f"the retraining did not succeed; its run is in {home.dagster}")
            time.sleep(1)


def _require_evaluation(instance: dg.DagsterInstance) -> None:
    """Raise EvergreenError if the sensor's last evaluation failed, unless it just could not reach the definitions."""
    for sensor in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        for tick in instance.get_ticks(sensor.instigator_origin_id, sensor.selector_id, limit=1):
            if tick.status is TickStatus.FAILURE and tick.error and "Unreachable" not in (tick.error.cls_name or ""):
                raise EvergreenError(f"sensor {sensor.name}: {tick.error.message.strip().splitlines()[0]}")


def _by_week(home: Home, change: date) -> pd.DataFrame:
    """The accuracy of the first answers to each week's untrained records: week, rows and accuracy."""
    tables = [home.lake.current(table) / "predictions.parquet" for table in home.lake.tables("predictions")]
    trained = home.lake.current(f"training_set/{at(change, home.domain.cadence)}") / "train.parquet"
    files = {"predictions": [str(table) for table in tables], "trained": str(trained), "change": change.isoformat()}
    with connect() as connection:
        records = mart(home.lake.current("marts"), "fct_records")
        return connection.execute(_BY_WEEK, files | {"records": records}).df()


def _timeline(home: Home, weeks: pd.DataFrame, change: date, decided: date) -> Iterator[str]:
    """The ledger's entries and the weekly quality in order of time, and a summary."""
    events = [(entry.as_of, _line(entry)) for entry in ledger_of(home).entries()]
    events += [(str(row.week)[:10], f"           {row.accuracy:.1%} of {row.rows} right") for row in weeks.itertuples()]
    events.append((change.isoformat(), "world      people begin to write in new words"))
    yield from (f"  {day}  {text}" for day, text in sorted(events))
    begun = pd.to_datetime(weeks["week"]).dt.date
    before, since = begun < change, begun >= decided
    for name, part in (("before the change", before), ("after it", ~before & ~since), ("since the retraining", since)):
        yield f"  {np.average(weeks.accuracy[part], weights=weeks.rows[part]):.1%} right {name}"


def _line(entry: Entry) -> str:
    body = entry.body
    what = body.get("decision") or body.get("action", "")
    why = body.get("reason") or "; ".join(body.get("reasons", []))
    return f"{entry.kind:<11}{what}: {why[:110]}"


def _draw(weeks: pd.DataFrame, marks: Mapping[str, date], path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    middle = pd.to_datetime(weeks["week"]).to_numpy() + np.timedelta64(84, "h")
    axes.plot(middle, weeks["accuracy"].to_numpy(), "o-", label="right, by week of arrival")
    for place, (text, day) in enumerate(marks.items()):
        axes.axvline(np.datetime64(day), color=f"C{3 - place}", linestyle="--", label=text)  # type: ignore[arg-type]
    axes.set_ylabel("accuracy of the champion's answers")
    axes.legend(loc="upper center")
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
