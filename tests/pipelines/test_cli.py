"""The command: help that reads well, JSON alone on stdout, one clear line and the right exit code for a mistake."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from assets.lake import Home
from assets.registry.ledger import Ledger
from pipelines import cli

EVERGREEN = Path(sys.executable).with_name("evergreen")
REPLAY = ("replay", "--source", "x", "--from", "2024-01-01")


def evergreen(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([EVERGREEN, *arguments], capture_output=True, text=True, check=False)


def test_help_names_every_command() -> None:
    done = evergreen("--help")
    assert done.returncode == 0
    commands = "run score status ledger approve reject prune reproduce rebuild-registry rollback simulate ui withdraw"
    for command in commands.split():
        assert command in done.stdout


def test_the_home_of_an_earlier_evergreen_is_refused(home: Home) -> None:
    (home.lake.root / "marts").mkdir(parents=True)
    done = evergreen("status")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{home.root} is from an earlier Evergreen" in done.stderr
    (home.lake.root / "raw_records").mkdir()
    assert evergreen("status").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--source", "x", "--as-of", "2024-02-30"], 2, "'2024-02-30' is not a date; write YYYY-MM-DD"),
        (["run", "--source", "x", "--as-of", "2024-01-01", "--profile", "big"], 2, "unknown profile 'big'"),
        (["run", "--as-of", "2024-01-01"], 2, "Missing option '--source'"),
        (["simulate", "--output", "x", "--from", "2024-01-02", "--to", "2024-01-01"], 2, "2024-01-01"),
        (["score", "--input", "none.csv", "--output", "x.txt"], 2, "x.txt"),
        (["score", "--input", "none.csv", "--output", "x.csv", "--profile", "big"], 2, "unknown profile 'big'"),
        (["rollback", "9", "--reason", "why"], 1, "9"),
        (["approve", "9", "--by", "Ada", "--reason", "why"], 1, "text-classifier has no version '9'"),
        (["reject", "9", "--by", " ", "--reason", "why"], 1, "an approval needs a name and a reason"),
        (["withdraw", "a.csv", "--reason", "why"], 1, "raw_records has no publication yet"),
        (["withdraw", "a.csv", "--reason", " "], 1, "a withdrawal needs a reason"),
        (["rebuild-registry"], 1, "holds no verdict: there is nothing to rebuild"),
        (["reproduce", "9"], 1, "text-classifier has no version '9'"),
        ([*REPLAY, "--to", "2024-01-01"], 1, "--to 2024-01-01 is not after --from 2024-01-01"),
        ([*REPLAY, "--to", "2024-02-01", "--every", "week"], 2, "'week' is not a number of days; write 7d"),
        ([*REPLAY, "--to", "2024-02-01", "--policy", "often"], 2, "no policy 'often'"),
        (["ledger", "--at", "today"], 2, "'today' is not a date; write YYYY-MM-DD"),
    ],
)
def test_a_mistake_is_one_line_and_a_code(home: Home, arguments: list[str], code: int, message: str) -> None:
    done = evergreen(*arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_told_to_stop_while_it_loads_is_one_line() -> None:
    start = """
import os, signal, sys
from pipelines.command import program

class Loading:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Loading())
program()
"""
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "evergreen: stopped by SIGINT; the last publication is intact\n"


def test_a_full_disk_is_one_line(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    home.root.mkdir()
    monkeypatch.setattr("os.umask", lambda _: None)
    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(sqlite3.OperationalError):
        cli.main()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    assert cli.main() == 1
    assert f"the disk of {home.root} is full; free some space" in capsys.readouterr().err


def test_scoring_takes_the_profile_of_the_environment(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_PROFILE", "big")
    done = evergreen("score", "--input", "none.csv", "--output", "x.csv")
    assert (done.returncode, "unknown profile 'big'" in done.stderr) == (2, True)


def test_status_and_ledger_of_an_empty_home_are_json(home: Home) -> None:
    assert json.loads(evergreen("status", "--json").stdout)["champion"] is None
    assert json.loads(evergreen("ledger", "--json").stdout) == []


def test_the_home_is_private_and_its_dagster_settings_are_the_user_s(home: Home) -> None:
    assert evergreen("status").returncode == 0
    written = [home.root, *home.root.rglob("*")]
    assert len(written) > 3
    assert not [path for path in written if path.stat().st_mode & 0o077]
    settings = home.dagster / "dagster.yaml"
    settings.write_text(f"{settings.read_text()}# mine\n")
    assert evergreen("status").returncode == 0
    assert settings.read_text().endswith("# mine\n")


def test_the_ledger_tells_the_champion_of_a_day_and_finds_an_edit(home: Home) -> None:
    ledger, champion = Ledger(home.ledger), None
    for number, day in ((1, "2024-01-01"), (2, "2024-03-01")):
        about = {"version": str(number), "training_id": f"{number:0>16}"}
        ledger.append("verdict", str(number), day, about | {"decision": "promote", "champion": champion})
        previous = {"training_id": champion} if champion else None
        move = {"action": "promote", "reason": "better", "previous": previous}
        ledger.append("alias", str(number), day, about | move)
        champion = about["training_id"]
    (found,) = json.loads(evergreen("ledger", "--at", "2024-02-01", "--json").stdout)
    assert found["body"]["version"] == "1"
    assert "4 entries, each as it was appended" in evergreen("ledger", "--verify").stderr
    with sqlite3.connect(home.ledger) as connection:
        connection.execute("drop trigger entries_are_not_updated")
        connection.execute("update entries set as_of = '2024-02-02' where seq = 4")
    done = evergreen("ledger", "--verify")
    assert (done.returncode, done.stdout) == (1, "")
    assert "entry 4 is not what was appended" in done.stderr
