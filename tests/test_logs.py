"""Logs as JSON: whatever writes them, one object a line, with the run it is of and without what records say."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets import logs
from assets.exceptions import SettingsError

ROOT = Path(__file__).parent.parent
EVERGREEN = Path(sys.executable).with_name("evergreen")
SECRET = "they took my house"

Lines = list[dict[str, Any]]


def parsed(text: str) -> Lines:
    assert SECRET not in text
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def said(tmp_path: Path) -> Callable[..., Lines]:
    """What a program writes to stdout and stderr together, line by line."""

    def run(code: str, *before: str) -> Lines:
        script = tmp_path / "script.py"
        script.write_text(code)
        environment = os.environ | {"EVERGREEN_LOGS": "json", "EVERGREEN_HOME": str(tmp_path), "SECRET": SECRET}
        command = [sys.executable, *before, str(script)]
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as program:
            assert program.stdout is not None
            return parsed(program.stdout.read())

    return run


def test_everything_that_a_process_says_is_one_object_a_line(said: Callable[..., Lines]) -> None:
    lines = said("""
import logging, sys, threading, warnings
import uvicorn
from assets import logs

early = logging.StreamHandler()
early.setFormatter(logging.Formatter("%(message)s!"))
logging.getLogger("early").addHandler(early)
logs.begin()
logs.begin()
uvicorn.Config(None)  # sets up handlers and formatters of its own
logging.getLogger("early").warning("said %d\\ntimes", 2)
logging.getLogger("uvicorn.error").warning("a server says")
warnings.warn("take care")
print("printed", end="")
print(" in parts")
sys.stderr.write("half a line")
sys.stderr.flush()
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
""")
    found = {line["logger"]: line for line in lines}
    assert found["early"]["message"] == "said 2\ntimes"
    assert (found["uvicorn.error"]["level"], found["stdout"]["message"]) == ("WARNING", "printed in parts")
    assert "take care" in found["py.warnings"]["message"]
    assert found["stderr"]["message"] == "half a line"
    assert found["evergreen"]["exception"].endswith("ZeroDivisionError")
    assert [sorted(line) for line in lines if line["logger"] == "early"] == [["level", "logger", "message", "time"]]
    assert len(found["early"]["time"]) == 24
    assert found["early"]["time"].endswith("Z")


def test_an_error_of_a_library_is_told_without_what_it_quotes_and_our_own_in_full(said: Callable[..., Lines]) -> None:
    lines = said("""
import os
from assets import logs
from assets.exceptions import SettingsError

logs.begin()
try:
    try:
        int(os.environ["SECRET"])
    except ValueError as error:
        raise OSError(28, "No space left", os.environ["SECRET"]) from error
except OSError:
    raise SettingsError("gate.min_gain: set it to less")
""")
    (line,) = lines
    assert line["level"] == "CRITICAL"
    causes = [row for row in line["exception"].splitlines() if not row.startswith(" ")]
    assert causes == ["ValueError", "OSError: No space left on device", "SettingsError: gate.min_gain: set it to less"]
    assert "script.py" in line["exception"]


def test_a_run_s_lines_say_which_run_as_of_and_step_also_those_of_its_children(said: Callable[..., Lines]) -> None:
    lines = said("""
import logging, os, subprocess, sys
import dagster as dg
from assets import logs
from assets.resources import AS_OF, Evergreen

logs.begin()

@dg.asset(partitions_def=AS_OF)
def rows(context: dg.AssetExecutionContext, evergreen: Evergreen) -> None:
    context.log.info("a line of ours")
    logging.getLogger("mlflow").warning("a line of a library's")
    child = "import logging; from assets import logs; logs.begin(); logging.getLogger('child').warning('hello')"
    subprocess.run([sys.executable, "-c", child], check=True)

@dg.asset(partitions_def=AS_OF, deps=[rows])
def broken(context: dg.AssetExecutionContext) -> None:
    try:
        int(os.environ["SECRET"])
    except ValueError as error:
        raise RuntimeError(os.environ["SECRET"]) from error

with dg.DagsterInstance.ephemeral() as instance:
    instance.add_dynamic_partitions("as_of", ["2024-07-01"])
    job = dg.Definitions([rows, broken], resources={"evergreen": Evergreen()}).resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=instance, partition_key="2024-07-01", raise_on_error=False)
logging.getLogger("mlflow").warning("afterwards")
""")
    *lines, afterwards = lines
    assert len({line["run_id"] for line in lines}) == 1
    assert {line["as_of"] for line in lines} == {"2024-07-01"}
    assert sorted(afterwards) == ["level", "logger", "message", "time"]
    by_message = {line["message"]: line for line in lines}
    for message in ("a line of ours", "a line of a library's", "hello"):
        assert by_message[message]["step"] == "rows", message
    failure = by_message['Execution of step "broken" failed.']
    assert failure["step"] == "broken"
    causes = [row for row in failure["exception"].splitlines() if row and not row.startswith(" ")]
    assert causes[:2] == ["ValueError", "RuntimeError"]


def test_the_servers_and_the_workers_of_a_home_begin_so(said: Callable[..., Lines]) -> None:
    """`pipelines.tether` runs Dagster's processes and ours."""
    lines = said("import logging; logging.getLogger('a').warning('from a server')", "-m", "pipelines.tether")
    assert [line["message"] for line in lines] == ["from a server"]


def evergreen(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | environment
    return subprocess.run([EVERGREEN, *arguments], capture_output=True, text=True, check=False, env=variables)


def test_the_command_s_results_stay_as_they_are_and_what_it_says_is_json(tmp_path: Path) -> None:
    done = evergreen("ledger", "--at", "2024-01-01", EVERGREEN_HOME=str(tmp_path / "home"), EVERGREEN_LOGS="json")
    (line,) = parsed(done.stderr)
    assert (line["logger"], line["message"]) == ("evergreen", "there was no champion on 2024-01-01")
    assert (done.returncode, done.stdout) == (0, "")
    unknown = evergreen("ledger", EVERGREEN_HOME=str(tmp_path / "home"), EVERGREEN_LOGS="xml")
    said = "evergreen: EVERGREEN_LOGS: 'xml' is no format of logs; write text or json\n"
    assert (unknown.returncode, unknown.stderr) == (2, said)


def test_nothing_changes_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERGREEN_LOGS", raising=False)
    before = sys.stderr, sys.excepthook
    logs.begin()
    with logs.of_run("r1", None):
        assert "EVERGREEN_LOG_RUN" not in os.environ
    assert (sys.stderr, sys.excepthook) == before
    monkeypatch.setenv("EVERGREEN_LOGS", "yes")
    with pytest.raises(SettingsError, match="write text or json"):
        logs.are_json()


@pytest.mark.slow
def test_a_whole_run_logs_json_and_nothing_of_a_record(tmp_path: Path) -> None:
    home = {"EVERGREEN_HOME": str(tmp_path / "home")}
    period = ("--from", "2024-04-01", "--to", "2024-06-30", "--rate", "50", "--seed", "7")
    assert evergreen("simulate", "--output", str(tmp_path / "source"), *period, **home).returncode == 0
    done = evergreen(
        *("run", "--source", str(tmp_path / "source"), "--as-of", "2024-07-01", "--json"),
        **home,
        EVERGREEN_LOGS="json",
    )
    assert done.returncode == 0, done.stderr
    run_id = json.loads(done.stdout)["run_id"]
    text = (tmp_path / "home" / "logs" / f"{run_id}.log").read_text()
    lines = parsed(text)
    assert {line.get("run_id") for line in lines} == {run_id}
    assert {line["step"] for line in lines if "step" in line} > {"raw_records", "warehouse", "challenger"}
    parsed(done.stderr)
    import pandas as pd

    for path in (tmp_path / "source").glob("*.csv"):
        rows = pd.read_csv(path, dtype=str, on_bad_lines="skip", encoding_errors="replace")
        texts = rows["Consumer complaint narrative"].dropna().str[:30]
        ids = rows["Complaint ID"].dropna()
        told = [*texts[texts.str.len() == 30], *ids[ids.str.len() > 5]]
        assert len(told) > 100
        assert not [one for one in told if one in text + done.stderr]
