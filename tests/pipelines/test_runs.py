"""What a person is told when a run stops: always where, and always why."""

import os
import signal
import uuid

import dagster as dg
import pytest

from assets.exceptions import SettingsError
from assets.home import Home
from assets.registry.ledger import Ledger
from assets.resources import Concluded, Evergreen, concluded
from pipelines.failures import say_why_interrupted, stopped
from pipelines.instance import open_instance
from pipelines.progress import Lines
from pipelines.runs import _Watcher
from pipelines.sensors import failed_run


def failure_of(asset: dg.AssetsDefinition) -> str:
    """The last line of a run of one asset that fails."""
    watcher, run_id = _Watcher(Lines(lambda _: None)), str(uuid.uuid4())
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_event_listener(run_id, watcher)
        job = dg.Definitions([asset]).resolve_implicit_global_asset_job_def()
        assert not job.execute_in_process(instance=instance, run_id=run_id, raise_on_error=False).success
    assert watcher.failure is not None
    return watcher.failure


def noted(asset: dg.AssetsDefinition) -> tuple[dg.ExecuteInProcessResult, list[str]]:
    """A run of one asset that fails, and what the sensor writes into the ledger of it."""
    home, job = Home.from_environment(), dg.Definitions([asset]).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        (failure,) = (event for event in result.all_events if event.event_type_value == "PIPELINE_FAILURE")
        found, resources = result.dagster_run, {"evergreen": Evergreen()}
        context = dg.build_run_status_sensor_context("failed_run", failure, instance, found, resources=resources)
        with context.for_run_failure() as opened:
            failed_run(opened)
    return result, [entry.body["error"] for entry in Ledger(home.ledger).entries("failure")]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (AssertionError(), "AssertionError"),
        (ValueError(""), "ValueError"),
        (
            ValueError(" \n$\\frac{$\n ^\nParseFatalException: Expected end"),
            "ValueError: $\\frac{$ ^ ParseFatalException: Exp",
        ),
        (KeyError("company"), "KeyError: 'company'"),
        (OSError(28, "No space left on device", "/home/x"), "OSError: [Errno 28] No space left on device: '/home/x'"),
        (RuntimeError("\x1b[31mred\x00"), "RuntimeError: \ufffd[31mred\ufffd"),
        (Exception("a: b: c"), "Exception: a: b: c"),
        (SettingsError("gate.alpha: set it to less"), "gate.alpha: set it to less"),
        (dg.Failure("no source: set one"), "no source: set one"),
        (RuntimeError("x" * 10_000), "RuntimeError: xxx"),
    ],
)
def test_an_error_is_one_line_that_says_where_what_and_why(error: Exception, line: str) -> None:
    @dg.asset
    def breaks() -> None:
        raise error

    failure = failure_of(breaks)
    assert failure.startswith(f"stopped at breaks: {line}")
    assert "\n" not in failure
    assert len(failure) < 600


def test_the_innermost_error_is_the_reason() -> None:
    @dg.asset
    def breaks() -> None:
        try:
            raise KeyError("company")
        except KeyError as error:
            raise RuntimeError("cannot go on") from error

    assert failure_of(breaks) == "stopped at breaks: KeyError: 'company'"


def test_a_run_that_is_told_to_stop_says_so_in_its_events() -> None:
    @dg.asset
    def waits() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    say_why_interrupted()
    job = dg.Definitions([waits]).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(instance=instance, raise_on_error=False)
        (run,) = instance.get_runs()
        events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
    ended = [event for event in events if event.is_failure]
    said = [event.event_specific_data.error.message.strip().partition(": ")[2] for event in ended]
    assert said == ["this run was asked to stop; the last publication is intact"] * 2
    assert stopped(ended[0]) == f"stopped at waits: {said[0]}"


@pytest.mark.parametrize(
    ("result", "line"),
    [
        ({"metadata": {"examined": 100, "faults": 3, "rows": dg.MetadataValue.md("| |")}}, "examined 100, faults 3"),
        ({"metadata": {"AUC": 0.8907451338538245, "loss": 1.23456e-6}}, "AUC 0.8907, loss 1.235e-06"),
        ({"description": "the alias points elsewhere", "metadata": {"n": 1}}, "the alias points elsewhere"),
        ({}, ""),
    ],
)
def test_a_blocking_check_that_does_not_pass_is_named_with_its_cause_wherever_it_is_met(
    result: dict[str, object], line: str, home: Home
) -> None:
    @dg.asset(check_specs=[dg.AssetCheckSpec("conserved", asset="breaks", blocking=True)])
    def breaks(context: dg.AssetExecutionContext) -> Concluded:
        yield from concluded(context, {}, [dg.AssetCheckResult(check_name="conserved", passed=False, **result)])

    failed, lines = noted(breaks)
    (check,) = failed.get_asset_check_evaluations()
    assert check.description == line
    said = f"check conserved did not pass: {line}".rstrip()
    errors = {
        event.event_type_value: event.event_specific_data.error.message.strip()
        for event in failed.all_events
        if event.is_failure
    }
    assert errors == dict.fromkeys(
        ("STEP_FAILURE", "PIPELINE_FAILURE"), f"dagster._core.definitions.events.Failure: {said}"
    )
    assert failure_of(breaks) == f"stopped at breaks: {said}"
    assert lines == [f"stopped at breaks: {said}"]


def test_a_warning_is_shown_and_counted_and_stops_nothing() -> None:
    @dg.asset(check_specs=[dg.AssetCheckSpec(name, asset="calm", blocking=True) for name in ("drift", "conserved")])
    def calm(context: dg.AssetExecutionContext) -> Concluded:
        drift = dg.AssetCheckResult(
            check_name="drift", passed=False, severity=dg.AssetCheckSeverity.WARN, metadata={"share": 0.123456789}
        )
        yield from concluded(context, {}, [drift, dg.AssetCheckResult(check_name="conserved", passed=True)])

    shown: list[str] = []
    watcher, run_id = _Watcher(Lines(shown.append)), str(uuid.uuid4())
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_event_listener(run_id, watcher)
        job = dg.Definitions([calm]).resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, run_id=run_id).success
    assert (watcher.passed, watcher.warnings) == (1, ["calm: drift: share 0.1235"])
    assert "     warning  calm: drift: share 0.1235" in shown


def launched(instance: dg.DagsterInstance, **tags: str) -> dg.DagsterRun:
    @dg.asset
    def works(evergreen: Evergreen) -> None: ...

    job = dg.Definitions([works], resources={"evergreen": Evergreen(profile="full")})
    graph = job.resolve_implicit_global_asset_job_def()
    result = graph.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    return instance.get_runs(dg.RunsFilter(run_ids=[result.run_id]))[0]


@pytest.mark.parametrize(
    ("partition", "why"),
    [
        ("2999-01-01", "the partition 2999-01-01 is still to come"),
        ("../../home", "the partition '../../home' is not a date; write YYYY-MM-DD"),
    ],
)
def test_a_run_of_no_as_of_or_of_a_future_one_stops_at_the_start(home: Home, partition: str, why: str) -> None:
    with open_instance(home) as instance:
        run = launched(instance, **{"dagster/partition": partition})
        (failed,) = (
            e.dagster_event for e in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.PIPELINE_FAILURE)
        )
        assert stopped(failed) == f"stopped at the start: {why}"
        assert instance.get_dynamic_partitions("as_of") == []


def test_a_run_says_its_profile_and_its_as_of_is_one_of_the_home_s(home: Home) -> None:
    with open_instance(home) as instance:
        run = launched(instance, **{"dagster/partition": "2024-07-01"})
        assert run.status is dg.DagsterRunStatus.SUCCESS
        assert run.tags["evergreen/profile"] == "full"
        assert instance.get_dynamic_partitions("as_of") == ["2024-07-01"]


def test_the_ledger_says_why_a_run_failed(home: Home) -> None:
    @dg.asset
    def breaks() -> None:
        raise KeyError("company")

    assert noted(breaks)[1] == ["stopped at breaks: KeyError: 'company'"]
