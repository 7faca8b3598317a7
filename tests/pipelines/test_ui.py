"""The processes of `evergreen ui`: they end when they are told to, and with the one that started them."""

import signal
import subprocess
import sys
from pathlib import Path
from socket import socket

import psutil
import pytest

from assets.lake import Home
from pipelines import ui
from pipelines.stopping import Stopped, listen

ROOT = Path(__file__).parents[2]

STARTS_ANOTHER = """
import subprocess, sys
another = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print(another.pid, flush=True)
another.wait()
"""
PARENT = """
import os, signal, subprocess, sys
command = [sys.executable, "-m", "pipelines.tether", sys.argv[1]]
child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
print(child.pid, child.stdout.readline(), flush=True)
signal.pause()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_is_tethered_ends_with_its_parent_and_all_that_it_started(how: signal.Signals, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(STARTS_ANOTHER)
    command = [sys.executable, "-c", PARENT, str(program)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        started = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(started) == 2
        parent.send_signal(how)
    psutil.wait_procs(started)


AS_DAGSTER = """
import os, signal
signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
os.kill(os.getpid(), signal.SIGTERM)
print("it went on")
"""


def test_what_a_script_has_started_with_an_ampersand_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """A shell without a terminal has it ignore SIGINT."""
    program = tmp_path / "program.py"
    program.write_text(AS_DAGSTER)
    command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-m", "pipelines.tether", str(program)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.read() == ""
        assert process.wait() == -signal.SIGINT


ENDS_IN_ITS_TIME = """
import signal
signal.signal(signal.SIGTERM, lambda *_: exit(7))
print("ready", flush=True)
signal.pause()
"""


@pytest.mark.parametrize(("listens", "code"), [(True, 7), (False, -signal.SIGKILL)])
def test_a_server_is_told_to_end_once_it_serves_and_ended_before(
    listens: bool, code: int, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", ENDS_IN_ITS_TIME]
    with socket() as server, subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        server.bind((ui.HOST, 0))
        monkeypatch.setattr(ui, "PORTS", {"mlflow": server.getsockname()[1]})
        if listens:
            server.listen()
        assert process.stdout is not None
        process.stdout.readline()
        ui._stop(home, {"mlflow": process})
        assert process.returncode == code


STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getppid(), signal.SIGTERM))
print("ready", flush=True)
while True:
    signal.pause()
"""


def test_who_does_not_end_is_waited_for_until_a_second_signal(home: Home) -> None:
    """The process tells us to stop in its turn, when it is told to, and goes on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    listen()
    try:
        command = [sys.executable, "-c", STUBBORN]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                with pytest.raises(Stopped):
                    ui._stop(home, {"daemon": process})
                process.wait()
            finally:
                process.kill()
        assert process.returncode == -signal.SIGKILL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_a_killed_ui_has_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("evergreen-a-1", "evergreen-b-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "code.sock").touch()
    assert ui._swept("evergreen-a-") == "evergreen-a-"
    assert [path.name for path in tmp_path.iterdir()] == ["evergreen-b-1"]
