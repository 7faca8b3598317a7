"""`evergreen doctor`: each look finds what is wrong, and says what to do."""

import json
import socket
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from assets.home import Home
from assets.objects import Objects
from assets.registry.ledger import Ledger
from assets.settings import EMBEDDED, load_domain
from pipelines import cli
from pipelines.doctor import Finding, examine
from tests.conftest import reach_objects

OUTSIDE = ("settings", "home", "disk", "memory", "GPU", "ports", "sources")
INSIDE = ("databases", "ledger", "registry", "clocks")
HEADER = [load_domain().source.names(name)[0] for name in load_domain().source.fields]


def found(home: Home, name: str, sources: Sequence[str] = (), profile: str = "quick") -> Finding:
    (finding,) = (each for each in examine(lambda: home, sources, profile) if each.name == name)
    return finding


def write_source(path: Path, day: str) -> str:
    domain, record = load_domain(), dict.fromkeys(HEADER, "1")
    record[domain.source.names(domain.received.field)[0]] = day
    path.write_text(f"{','.join(HEADER)}\n{','.join(record.values())}\n")
    return str(path)


def test_where_nothing_is_wrong_nothing_fails(home: Home) -> None:
    findings = list(examine(lambda: home, [], "quick"))
    assert [finding.name for finding in findings] == [*OUTSIDE, *INSIDE]
    assert not [finding for finding in findings if finding.state == "fail"]
    assert not home.root.exists()


def test_the_command_ends_with_1_when_something_fails(home: Home, tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(cli.app, ["doctor"]).exit_code == 0
    done = runner.invoke(cli.app, ["doctor", "--source", str(tmp_path / "none.csv")])
    assert done.exit_code == 1
    assert f"fail  sources    {tmp_path / 'none.csv'}: there is no such file or folder\n" in done.stdout
    assert "\x1b" not in done.stdout
    done = runner.invoke(cli.app, ["doctor", "--json", "--source", str(tmp_path / "none.csv")])
    assert done.exit_code == 1
    (failed,) = (each for each in json.loads(done.stdout) if each["state"] == "fail")
    assert failed["name"] == "sources"


def test_a_home_of_another_domain_fails_and_is_not_looked_into(home: Home) -> None:
    home.root.mkdir(mode=0o700)
    (home.root / "DOMAIN").write_text("other")
    findings = {finding.name: finding for finding in examine(lambda: home, [], "quick")}
    assert findings["home"].state == "fail"
    assert "is the home of the domain other" in findings["home"].line
    assert not set(INSIDE) & set(findings)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home on S3, by the environment."""
    monkeypatch.setenv("EVERGREEN_OBJECTS", "s3://doctor/team")
    monkeypatch.setenv("EVERGREEN_DATABASE", "postgresql://127.0.0.1/none")
    monkeypatch.setenv("EVERGREEN_MLFLOW", "http://127.0.0.1:1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    reach_objects("http://{}:{}".format(*server.get_host_and_port()), monkeypatch)
    boto3.client("s3").create_bucket(Bucket="doctor")
    yield Home(tmp_path / "home", EMBEDDED.model_copy(update={"objects": "s3://doctor/team"}))
    server.stop()


def test_a_prefix_is_read_and_written_on_condition(shared: Home) -> None:
    looked = found(shared, "objects")
    assert looked.state == "ok"
    assert looked.found == "s3://doctor/team can be read, and written on condition"
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket="doctor")


def test_a_prefix_that_cannot_be_used_fails_and_the_home_is_not_looked_into(
    shared: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_OBJECTS", "s3://doctors/team")
    *_, last = examine(lambda: shared, [], "quick")
    assert (last.name, last.state) == ("objects", "fail")
    assert last.found.startswith("s3://doctors/team/.probe-")
    assert "The specified bucket does not exist (S3 endpoint http://127.0.0.1:" in last.found


def test_a_server_that_ignores_conditions_is_found(shared: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Objects.create

    def overwrite(self: Objects, name: str, content: bytes) -> bool:
        self.remove([name])
        return write(self, name, content)

    monkeypatch.setattr(Objects, "create", overwrite)
    looked = found(shared, "objects")
    assert looked.state == "fail"
    assert looked.line.endswith(
        "a write on condition overwrites what is there; use a server that honours If-Match and If-None-Match"
    )


def test_a_home_that_others_may_read_is_warned_of(home: Home) -> None:
    home.root.mkdir()
    home.root.chmod(0o755)
    assert found(home, "home").line.endswith(f"chmod -R go= {home.root}")
    home.root.chmod(0o700)
    assert found(home, "home").state == "ok"


def test_a_disk_and_a_memory_that_are_full_are_found(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.root.mkdir(mode=0o700)
    for free, state in ((1000, "fail"), (10**9, "warn"), (10**12, "ok")):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        assert found(home, "disk").state == state
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10**9))
    assert found(home, "memory").state == "warn"


def test_a_gpu_that_torch_cannot_use_is_found(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.doctor._GPU", tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert found(home, "GPU").state == "warn"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "A100")
    assert (found(home, "GPU").state, found(home, "GPU").found) == ("ok", "A100")


def test_a_port_in_use_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr("pipelines.doctor.PORTS", {"one": port})
        assert (found(home, "ports").state, found(home, "ports").found) == ("warn", f"in use: {port}")
    assert found(home, "ports").state == "ok"


def test_settings_that_cannot_be_loaded_are_found(home: Home) -> None:
    assert "unknown profile 'big'" in found(home, "settings", profile="big").line
    assert found(home, "settings", profile="big").state == "fail"


@pytest.mark.parametrize(
    ("content", "message"),
    [("x,y\n1,2\n", "there is no"), ("", "no record can be read"), (f"{','.join(HEADER)}\n", "no record can be read")],
)
def test_a_source_without_its_fields_or_records_is_found(
    home: Home, tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "a.csv").write_text(content)
    finding = found(home, "sources", [str(tmp_path)])
    assert finding.state == "fail"
    assert finding.line.startswith(f"sources    a.csv: {message}")


def test_the_sources_are_compared_with_the_home_s_days(home: Home, tmp_path: Path) -> None:
    source = [write_source(tmp_path / "a.csv", "2024-07-01")]
    assert found(home, "sources", source).state == "ok"
    assert found(home, "clocks", source).found == "no run yet"
    Ledger(home.ledger).append("retraining", "1", "2024-06-30", {"decision": "skip"})
    assert found(home, "clocks", source).to_do == "run with --as-of 2024-07-02 to learn from it"
    Ledger(home.ledger).append("retraining", "2", "2024-07-02", {"decision": "skip"})
    assert found(home, "clocks", source).state == "ok"
    Ledger(home.ledger).append("retraining", "3", "2024-12-01", {"decision": "skip"})
    assert found(home, "clocks", source).to_do.startswith("add newer files")
    Ledger(home.ledger).append("retraining", "4", "2199-01-01", {"decision": "skip"})
    assert "is after this machine's" in found(home, "clocks").line


def test_a_damaged_database_and_an_edited_ledger_are_found(home: Home) -> None:
    Ledger(home.ledger).append("retraining", "1", "2024-06-30", {"decision": "skip"})
    assert found(home, "ledger").found == "1 entries as they were written"
    with sqlite3.connect(home.ledger) as connection:
        connection.execute("drop trigger entries_are_not_updated")
        connection.execute("update entries set as_of = '2024-06-29'")
    assert "entry 1 is not what was appended" in found(home, "ledger").line
    assert found(home, "registry").state == "fail"
    home.mlflow.mkdir()
    (home.mlflow / "mlflow.db").write_bytes(b"no database at all" * 100)
    assert "file is not a database" in found(home, "databases").line
