"""The command: results on stdout, progress on stderr, one clear line and the right exit code for a mistake."""

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner, Result

from assets.exceptions import SettingsError, SourceError
from assets.home import Home
from assets.registry.ledger import Ledger
from assets.settings import domain_folder
from pipelines import cli
from pipelines.examples import EXAMPLES

EVERGREEN = Path(sys.executable).with_name("evergreen")
ROOT = Path(__file__).parents[2]
GROUP = typer.main.get_group(cli.app)
REPLAY = ("replay", "--source", "x", "--from", "2024-01-01")


def evergreen(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([EVERGREEN, *arguments], capture_output=True, text=True, check=False)


def inside(*arguments: str) -> Result:
    """The same in this process, which has its imports already."""
    return CliRunner().invoke(cli.app, [*arguments])


def test_help_names_every_command() -> None:
    done = evergreen("--help")
    assert done.returncode == 0
    assert "--install-completion" in done.stdout
    for command in GROUP.commands:
        assert command in done.stdout


def test_the_version_is_that_of_the_package(home: Home) -> None:
    done = inside("--version")
    assert (done.exit_code, done.stdout) == (0, f"evergreen {version('evergreen')}\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands(home: Home, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"COMP_WORDS": "evergreen le", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "evergreen le"}
    asked |= {"_EVERGREEN_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run([EVERGREEN], env=os.environ | asked, capture_output=True, text=True, check=False)
    assert "ledger" in done.stdout
    assert not home.root.exists()


@pytest.mark.parametrize(("name", "command"), GROUP.commands.items(), ids=GROUP.commands)
def test_every_help_has_examples_that_can_be_run(name: str, command: typer.core.TyperCommand) -> None:
    for example in EXAMPLES[name]:
        words = shlex.split(example.partition("|")[0])
        words = words[2:] if words[0] == "--domain" else words
        assert words[0] == name
        command.make_context(name, words[1:])
        assert f"  evergreen {example}\n" in f"{command.epilog}\n"


def test_results_are_on_stdout_and_nothing_else_is(home: Home) -> None:
    Ledger(home.ledger).append("verdict", "1", "2024-01-01", {"decision": "reject", "version": "1", "reasons": ["so"]})
    lines = {"ledger": "    1  2024-01-01  verdict     reject version 1: so\n", "status": "champion      none yet"}
    for command, line in lines.items():
        done = inside(command)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.startswith(line)
        done = inside(command, "--json")
        assert (done.exit_code, done.stderr) == (0, "")
        json.loads(done.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        *(["status"], ["ledger"], ["ledger", "--verify"], ["doctor"], ["prune", "--dry-run"]),
        *(["check", "--help"], ["replay", "--help"], ["score", "--help"], ["run", "--help"]),
        *(["score", "--input", "none.csv", "--output", "x.csv"], ["check", "--source", "none.csv"]),
        *(["reproduce", "1"], ["why", "1"], ["letter"], ["export-site", "site"]),
    ],
    ids=" ".join,
)
def test_who_only_reads_makes_no_home(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = inside(*arguments)
    assert done.exit_code == 0 or done.exception is not None
    assert not home.root.exists()


@pytest.mark.parametrize("value", ["", None])
def test_without_a_home_it_is_that_of_the_domain(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_HOME", value) if value is not None else monkeypatch.delenv("EVERGREEN_HOME", False)
    assert Home.from_environment().root == domain_folder() / ".evergreen"


def test_a_home_that_is_a_file_is_one_line_but_help_is_shown(home: Home) -> None:
    home.root.write_text("")
    done = evergreen("status")
    said = f"evergreen: EVERGREEN_HOME: {home.root} is no folder: {home.root} is a file; choose another\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
    assert inside("status", "--help").exit_code == 0
    with pytest.raises(SettingsError, match=f"{home.root}/in/it is no folder: {home.root} is a file"):
        Home(home.root / "in" / "it").require_known()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "none.csv: there is no such file"),
        ("a.txt", "", r"a.txt: the name of a file to score ends in \.csv, "),
        ("a.csv", "id,text\n1,hello\n", "a.csv: there is no .*; found id, text"),
    ],
)
def test_what_is_to_be_scored_is_looked_at_before_anything_is_loaded(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    monkeypatch.setitem(sys.modules, "assets.scoring.files", None)  # who imports it gets an error
    done = inside("score", "--input", str(tmp_path / name), "--output", str(tmp_path / "out.csv"))
    assert isinstance(done.exception, SourceError)
    assert re.search(message, str(done.exception))


PROGRESS = """
from pipelines.progress import progress_on_stderr
with progress_on_stderr() as progress:
    progress.started("first", 1, 2)
    progress("a warning [of one]")
    progress.ended("first", 1.25)
    progress.started("second", 2, 2)
"""


def test_progress_is_plain_lines_in_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRESS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        *("      1 of 2  first", "a warning [of one]", "       1.2 s  first", "      2 of 2  second")
    ]


def test_progress_is_live_on_a_terminal() -> None:
    ours, theirs = os.openpty()
    environment = os.environ | {"TERM": "xterm-256color"}
    subprocess.run([sys.executable, "-c", PROGRESS], cwd=ROOT, stderr=theirs, env=environment, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "first (1 of 2)" in shown
    assert "\x1b[2K" in shown  # the last line is drawn again
    assert "a warning [of one]\r\n" in shown
    assert "       1.2 s  first\r\n" in shown


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
        (["forget", "nobody"], 1, "has the id 'nobody'; nothing was forgotten"),
        (["forget"], 1, "name the records to forget by their ids"),
        (["forget", "--from", "none.txt"], 2, "--from none.txt: FileNotFoundError"),
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
    assert done.stderr == "evergreen: stopped; the last publication is intact\n"


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
    done = evergreen("run", "--source", "none.csv", "--as-of", "2024-01-01")
    assert (done.returncode, done.stdout) == (1, "")
    assert "`evergreen doctor` looks for more" in done.stderr
    written = [path for path in (home.root, *home.root.rglob("*")) if not path.is_symlink()]
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
    assert "4 entries, each as it was appended" in evergreen("ledger", "--verify").stdout
    with sqlite3.connect(home.ledger) as connection:
        connection.execute("drop trigger entries_are_not_updated")
        connection.execute("update entries set as_of = '2024-02-02' where seq = 4")
    done = evergreen("ledger", "--verify")
    assert (done.returncode, done.stdout) == (1, "")
    assert "entry 4 is not what was appended" in done.stderr
