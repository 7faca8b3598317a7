"""The processes of `evergreen ui`: they end when they are told to, and with the one that started them."""

import errno
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from threading import Thread
from uuid import uuid4

import dagster as dg
import psutil
import pytest

from assets.addresses import HOST, address, set_ports
from assets.exceptions import EvergreenError
from assets.home import Home
from assets.registry.registry import version_url
from pipelines import ui
from pipelines.guard import token_of
from pipelines.instance import COMMAND_TAG, open_instance
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


class Silent(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize(("answers", "code"), [(True, 7), (False, -signal.SIGKILL)])
def test_a_server_is_told_to_end_once_it_serves_and_ended_before(answers: bool, code: int, home: Home) -> None:
    """A socket listens for it from the start."""
    command = [sys.executable, "-c", ENDS_IN_ITS_TIME]
    with (
        ThreadingHTTPServer((HOST, 0), Silent) as server,
        subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process,
    ):
        set_ports(home, {"mlflow": server.server_port})
        if answers:
            Thread(target=server.serve_forever, daemon=True).start()
        assert process.stdout is not None
        process.stdout.readline()
        ui._stop(home, {"mlflow": process})
        assert process.returncode == code
        if answers:
            server.shutdown()


def test_a_port_that_is_taken_is_told_and_another_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    with socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with ui._listening("front", HOST, port, said.append) as found:
            another = found.getsockname()[1]
            assert another != port
            assert said == [f"Port {port} is in use; The front door has {another}"]
            with ui._listening("front", HOST, another, said.append) as third:
                assert third.getsockname()[1] not in (port, another)
        with ui._listening("front", HOST, another, said.append) as again:
            assert again.getsockname()[1] == another
    assert len(said) == 2


def test_a_home_is_served_once(home: Home) -> None:
    set_ports(home, {"front": 4001})
    with (
        ui.serving(home),
        pytest.raises(EvergreenError, match=r"served already, at http://127\.0\.0\.1:4001/; stop that"),
    ):
        ui.serving(home).__enter__()
    with ui.serving(home):
        pass


def test_a_port_that_may_not_be_used_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("socket.create_server", refuse)
    with pytest.raises(EvergreenError, match=r"port 80 on 127\.0\.0\.1 cannot be used: Permission denied"):
        ui._listening("front", HOST, 80, print)


def test_links_follow_the_ports_in_use(home: Home) -> None:
    assert address(home, "front", "drift/x.html") == "http://127.0.0.1:3001/drift/x.html"
    set_ports(home, {"front": 4001, "mlflow": 4002})
    assert address(home, "front", "drift/x.html") == "http://127.0.0.1:4001/drift/x.html"
    assert address(home, "dagster") == "http://127.0.0.1:3000/"
    assert version_url(home, "3").startswith("http://127.0.0.1:4002/#/models/text-classifier/versions/3")


class Runs:
    """What goes on, look by look; the last stays."""

    def __init__(self, *looks: list[str]) -> None:
        self._looks = list(looks)

    def __call__(self, _: Home) -> list[str]:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


@pytest.mark.parametrize(
    ("looks", "asks", "answer", "stops", "told"),
    [
        ([[]], True, None, True, ""),
        ([["observe 2024-07-01 (run abc)"]], False, None, True, "told to end"),
        ([["observe 2024-07-01 (run abc)"]], True, "y", True, "End them?"),
        ([["observe 2024-07-01 (run abc)"]], True, "", False, "End them?"),
        ([["observe 2024-07-01 (run abc)"]], True, "no", False, "End them?"),
        ([["observe 2024-07-01 (run abc)"], ["observe"], []], True, " W", True, "End them?"),
    ],
)
def test_who_stops_servers_is_told_what_runs_and_asked_on_a_terminal(
    looks: list[list[str]],
    asks: bool,
    answer: str | None,
    stops: bool,
    told: str,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs, said = Runs(*looks), []
    monkeypatch.setattr(ui, "_under_way", runs)
    monkeypatch.setattr("builtins.input", lambda: answer)
    monkeypatch.setattr(ui, "_LOOKS", 0.0)
    assert ui._may_stop(home, {}, said.append, asks=asks) is stops
    assert (told in " ".join(said)) if told else not said
    assert runs(home) == ([] if answer == " W" else looks[-1])


def test_a_second_signal_at_the_question_stops(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> str:
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(ui, "_under_way", Runs(["observe"]))
    monkeypatch.setattr("builtins.input", interrupted)
    assert ui._may_stop(home, {}, print, asks=True)


def test_runs_of_the_command_are_none_of_the_servers(home: Home) -> None:
    home.root.mkdir()
    with open_instance(home) as instance:
        for job, tags in (("refresh", {COMMAND_TAG: "run"}), ("observe", {"dagster/partition": "2024-07-01"})):
            started = {"status": dg.DagsterRunStatus.STARTED, "tags": tags}
            instance.add_run(dg.DagsterRun(job_name=job, run_id=str(uuid4()), **started))
    (line,) = ui._under_way(home)
    assert line.startswith("observe 2024-07-01 (run ")


def test_a_browser_is_led_in_by_a_file_of_the_owner(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: bool(opened.append(url)))
    set_ports(home, {"front": 4001})
    assert not ui._open(home)
    (url,) = opened
    assert token_of(home) not in url
    file = Path(url.removeprefix("file://"))
    assert file.stat().st_mode & 0o777 == 0o600
    assert f"url=http://127.0.0.1:4001/?token={token_of(home)}" in file.read_text()


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
