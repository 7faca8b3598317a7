"""Alerts by webhook, against a receiver that fails, hangs, redirects or is not who it says, and a sender that dies."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Thread

import dagster as dg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from assets.exceptions import EvergreenError, SettingsError
from assets.home import Home
from assets.locks import claimed
from assets.registry.shared_ledger import ledger_of
from assets.resources import Evergreen
from assets.settings import EMBEDDED, AlertSettings, load_alert_settings
from assets.watching import delivery
from assets.watching.delivery import Sent, send_due
from pipelines import sensors

ROOT = Path(__file__).parents[2]
NOW = datetime(2024, 7, 2, 3, tzinfo=UTC)
SECRET = "T0K3N"
ERROR = "stopped at raw_records: ValueError: they took my house"


class Receiver(ThreadingHTTPServer):
    """Answers with the next of `answers`, then with 200; 0 is no answer until it is released."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.answers: list[int] = []
        self.got: list[tuple[str, str, dict[str, str]]] = []
        """The paths, the keys and the bodies."""
        self.released = Event()

    @property
    def keys(self) -> list[str]:
        return [key for _, key, _ in self.got]

    def url(self, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.server_port}/hook/{SECRET}?a=1"


class Answering(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.path, self.headers["Idempotency-Key"], body))
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status == 0:
            self.server.released.wait(60)
            return
        self.send_response(status)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def served(receiver: Receiver) -> Iterator[Receiver]:
    thread = Thread(target=receiver.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        receiver.shutdown()
        thread.join()
        receiver.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with served(Receiver()) as receiver:
        yield receiver


@pytest.fixture
def settings(receiver: Receiver, tmp_path: Path) -> AlertSettings:
    (tmp_path / "url").write_text(f"{receiver.url()}\n")
    return load_alert_settings().model_copy(update={"url_file": tmp_path / "url", "timeout_seconds": 5.0})


@pytest.fixture
def fail(home: Home, settings: AlertSettings) -> Callable[[int], None]:
    """Have runs fail, after the first call has said where alerts begin."""
    ledger_of(home).append("failure", "before", "2024-06-30", {"job": "observe", "run_id": "r0", "error": ERROR})
    assert send_due(home, settings, NOW) == "alerts begin after entry 1 of the ledger"

    def fail(number: int) -> None:
        body = {"job": "observe", "run_id": f"r{number}", "error": ERROR}
        ledger_of(home).append("failure", f"r{number}", "2024-07-01", body)

    return fail


def test_each_entry_is_sent_once_with_its_key(
    home: Home, receiver: Receiver, settings: AlertSettings, fail: Callable[[int], None]
) -> None:
    assert send_due(home, settings, NOW) == "nothing to send"
    for number in range(1, 8):
        fail(number)
    said = [send_due(home, settings, NOW) for _ in range(4)]
    assert said == ["5 of 7 alerts sent", "2 of 2 alerts sent", "nothing to send", "nothing to send"]
    assert receiver.keys == [entry.hash for entry in ledger_of(home).entries()][1:]
    path, _, body = receiver.got[0]
    assert path == f"/hook/{SECRET}?a=1"
    about = {"entry": 2, "as_of": "2024-07-01", "kinds": ["failure"], "run_id": "r1"}
    title = home.domain.title
    text = f"{title}, as of 2024-07-01: A run of observe failed at raw_records; `evergreen ledger` says why."
    assert body == about | {"text": text}


@pytest.mark.parametrize(("status", "words"), [(500, "answered 500"), (302, "answered 302"), (400, "answered 400")])
def test_what_is_refused_is_tried_again_after_growing_waits_and_is_no_redirect_s_to_follow(
    home: Home,
    receiver: Receiver,
    settings: AlertSettings,
    fail: Callable[[int], None],
    status: int,
    words: str,
) -> None:
    receiver.answers, now, waits = [status] * 3, NOW, []
    fail(1)
    fail(2)
    for attempt in (1, 2, 3):
        said = send_due(home, settings, now)
        assert said.startswith(f"attempt {attempt} at entry 2 failed: the receiver {words}; the next is due at")
        again = datetime.fromisoformat((Sent.of(home) or Sent(0)).again)
        assert send_due(home, settings, again - timedelta(seconds=1)).startswith(f"attempt {attempt} has failed")
        waits.append((again - now) / timedelta(minutes=1))
        now = again
    assert waits == [1, 2, 4]
    assert send_due(home, settings, now) == "2 of 2 alerts sent"
    first, second = [entry.hash for entry in ledger_of(home).entries()][1:]
    assert receiver.keys == [first] * 4 + [second]


def test_an_alert_that_nobody_takes_is_given_up_and_does_not_hold_up_the_next(
    home: Home,
    receiver: Receiver,
    settings: AlertSettings,
    fail: Callable[[int], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings, receiver.answers, now = settings.model_copy(update={"attempts": 3}), [500] * 3, NOW
    fail(1)
    fail(2)
    for _ in range(3):
        said, now = send_due(home, settings, now), now + timedelta(hours=1)
    assert said == "entry 2 is given up after 3 attempts: the receiver answered 500"
    assert caplog.messages == ["the alert of entry 2 is given up after 3 attempts: the receiver answered 500"]
    assert send_due(home, settings, now) == "1 of 1 alerts sent"
    assert Sent.of(home) == Sent(3, given_up=1)


def test_a_receiver_that_hangs_or_is_gone_costs_no_more_than_the_timeout(
    home: Home, receiver: Receiver, settings: AlertSettings, fail: Callable[[int], None], tmp_path: Path
) -> None:
    receiver.answers = [0]
    fail(1)
    hasty = settings.model_copy(update={"timeout_seconds": 0.2})
    assert "failed: no answer within 0.2 s" in send_due(home, hasty, NOW)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "url").write_text(f"http://127.0.0.1:{port}/{SECRET}")
    assert "failed: ConnectionRefusedError" in send_due(home, settings, NOW + timedelta(hours=1))
    (tmp_path / "url").write_text(receiver.url())
    assert send_due(home, settings, NOW + timedelta(hours=3)) == "1 of 1 alerts sent"


def test_a_sender_that_is_killed_before_it_could_note_it_sends_again_with_the_same_key(
    home: Home, receiver: Receiver, settings: AlertSettings, fail: Callable[[int], None]
) -> None:
    fail(1)
    code = f"""
import os, signal
from datetime import UTC, datetime
from pathlib import Path
from assets.home import Home
from assets.settings import load_alert_settings
from assets.watching import delivery
delivery.write_atomically = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
settings = load_alert_settings().model_copy(update={{"url_file": Path({str(settings.url_file)!r})}})
delivery.send_due(Home.from_environment(), settings, datetime.now(UTC))
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert send_due(home, settings, NOW) == "1 of 1 alerts sent"
    assert send_due(home, settings, NOW) == "nothing to send"
    assert receiver.keys == [ledger_of(home).entries()[-1].hash] * 2


def test_two_senders_send_nothing_twice(
    home: Home, receiver: Receiver, settings: AlertSettings, fail: Callable[[int], None]
) -> None:
    fail(1)
    with claimed(home.root / ".alerts.lock", wait=False):
        assert send_due(home, settings, NOW) == "another process is sending"
    threads = [Thread(target=send_due, args=(home, settings, NOW)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receiver.got) == 1


def test_a_clock_that_was_set_back_does_not_put_an_alert_off(
    home: Home, receiver: Receiver, settings: AlertSettings, fail: Callable[[int], None]
) -> None:
    receiver.answers = [500]
    fail(1)
    send_due(home, settings, NOW)
    assert send_due(home, settings, NOW - timedelta(days=1)) == "1 of 1 alerts sent"


def test_a_damaged_state_is_said(home: Home, settings: AlertSettings, fail: Callable[[int], None]) -> None:
    (home.root / "alerts.json").write_text('{"entry": 1')
    with pytest.raises(EvergreenError, match=r"alerts\.json is damaged .* delete it: alerts then begin"):
        send_due(home, settings, NOW)


@pytest.mark.usefixtures("bucket")
def test_a_sender_on_another_machine_goes_on_from_there(tmp_path: Path) -> None:
    shared = EMBEDDED.model_copy(update={"objects": "s3://lake/home"})
    one, another = Home(tmp_path / "one", shared), Home(tmp_path / "another", shared)
    assert Sent.of(another) is None
    Sent(7, failed=1, again=NOW.isoformat()).keep(one)
    assert Sent.of(another) == Sent(7, failed=1, again=NOW.isoformat())
    another.shared.write("alerts.json", b"{")
    with pytest.raises(EvergreenError, match=r"^s3://lake/home/alerts\.json is damaged .* delete it"):
        Sent.of(one)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate for 127.0.0.1 that signs itself."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    day = timedelta(days=1)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - day)
        .not_valid_after(datetime.now(UTC) + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "certificate").write_bytes(signed.public_bytes(pem))
    return folder / "key", folder / "certificate"


def test_a_receiver_must_prove_who_it_is(
    home: Home,
    settings: AlertSettings,
    fail: Callable[[int], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key, known = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(known, key)
    receiver = Receiver()
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    (tmp_path / "url").write_text(receiver.url("https"))
    fail(1)
    with served(receiver):
        said = send_due(home, settings, NOW)
        assert "failed: its certificate is not trusted: self-signed certificate" in said
        assert receiver.got == []
        monkeypatch.setenv("SSL_CERT_FILE", str(known))
        assert send_due(home, settings, NOW + timedelta(hours=1)) == "1 of 1 alerts sent"


@pytest.mark.parametrize(
    "url",
    [
        f"http://example.org/{SECRET}",
        f"ftp://127.0.0.1/{SECRET}",
        f"https://user:{SECRET}@example.org/",
        f"https://example.org:99999/{SECRET}",
        f"https://[{SECRET}/",
        f"https:///{SECRET}",
        f"https://example.org/{SECRET}\r\nHost: other",
        f"{SECRET}",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_not_told(
    home: Home, settings: AlertSettings, tmp_path: Path, url: str
) -> None:
    (tmp_path / "url").write_text(url)
    with pytest.raises(SettingsError, match="alerts: url_file: ") as refused:
        send_due(home, settings, NOW)
    assert SECRET not in str(refused.value)
    (tmp_path / "url").unlink()
    with pytest.raises(SettingsError, match=r"url_file: .*: No such file"):
        send_due(home, settings, NOW)


def test_the_sensor_sends_what_is_due(
    home: Home, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home.claim()
    monkeypatch.delenv("EVERGREEN_ALERTS_URL", raising=False)

    def tick() -> str:
        resources = {"evergreen": Evergreen()}
        with (
            dg.DagsterInstance.ephemeral() as instance,
            dg.build_sensor_context(instance=instance, resources=resources) as context,
        ):
            return str(sensors.alerts.evaluate_tick(context).skip_message)

    assert tick() == "no address: set url_file in configs/alerts.yaml, or EVERGREEN_ALERTS_URL"
    assert not (home.root / "alerts.json").exists()
    monkeypatch.setenv("EVERGREEN_ALERTS_URL", receiver.url())
    assert tick() == "alerts begin after entry 0 of the ledger"
    ledger_of(home).append("failure", "r1", "2024-07-01", {"job": "observe", "run_id": "r1", "error": ERROR})
    receiver.answers = [500]
    said = [tick()]
    monkeypatch.setattr(delivery, "_FIRST_WAIT", timedelta())
    said.append(tick())
    assert said[1] == "1 of 1 alerts sent"
    assert SECRET not in " ".join([*said, *caplog.messages, (home.root / "alerts.json").read_text()])
    assert os.environ["EVERGREEN_ALERTS_URL"] == receiver.url()
