"""What the machine refuses, and what is damaged in a home, is one line that names it."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from assets.exceptions import BundleError, EvergreenError, SourceError
from assets.home import Home
from pipelines.faults import damaged_database, explain, explain_run
from pipelines.instance import open_instance
from pipelines.runs import output_to

EVERGREEN = Path(sys.executable).with_name("evergreen")
DATABASES = ["ledger.db", "mlflow/mlflow.db", "features/online.db", "dagster/history/runs.db"]


def write(home: Home) -> None:
    for name in DATABASES:
        (home.root / name).parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(home.root / name) as connection:
            connection.execute("create table kept (text)")
            connection.executemany("insert into kept values (?)", [("x" * 1000,)] * 50)
    (home.features / "registry.db").write_bytes(b"Feast's, which is no database")


@pytest.mark.parametrize("name", DATABASES)
@pytest.mark.parametrize("from_byte", [0, 4096, 20_000])
def test_a_damaged_database_is_found_wherever_it_is_damaged(home: Home, name: str, from_byte: int) -> None:
    write(home)
    assert damaged_database(home) is None
    with (home.root / name).open("r+b") as file:
        file.seek(from_byte)
        file.write(b"\xff" * 5000)
    found = damaged_database(home)
    assert found is not None
    assert found.startswith(f"{home.root / name}: ")
    assert explain(sqlite3.DatabaseError("from inside a library")) == f"{found}; `evergreen doctor` looks for more"


def test_a_full_disk_is_named_that_of_temporary_files_too(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    for full in (home.root, tmp_path / "temporary"):
        full.mkdir()
        usage = {full: SimpleNamespace(free=1000)}
        monkeypatch.setattr(
            "shutil.disk_usage", lambda path, usage=usage: usage.get(path, SimpleNamespace(free=10**12))
        )
        assert str(explain(RuntimeError("short write"))).startswith(f"the disk of {full} is full; free some space")


def test_our_output_comes_back_though_a_full_disk_refuses_the_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refused = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space left"), output_to(tmp_path / "log"):
        monkeypatch.setattr("sys.stdout", SimpleNamespace(flush=Mock(side_effect=refused)))
    os.write(2, b"ours")
    assert capfd.readouterr().err == "ours"


def test_a_home_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "/proc/none/home"
    monkeypatch.setenv("EVERGREEN_HOME", place)
    with pytest.raises(OSError) as raised:  # noqa: PT011 - which one is the machine's choice
        Home(Path(place)).lake.root.mkdir(parents=True)
    assert f"EVERGREEN_HOME: {place} cannot be made: " in str(explain(raised.value))


def test_the_doctor_is_named_where_it_could_explain_a_failure(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    doctor = "; `evergreen doctor` looks for more"
    for failure in ("stopped at raw_records: x: there is no such file or folder", "stopped at challenger: killed"):
        assert explain_run(failure, home) == f"{failure}{doctor}"
    assert explain_run("stopped at mart_audit: check x failed", home) == "stopped at mart_audit: check x failed"
    assert explain(BundleError("model.safetensors is not intact")) == f"model.safetensors is not intact{doctor}"
    assert explain(SourceError("x.csv: there is no such file")) == "x.csv: there is no such file"
    write(home)
    (home.root / "ledger.db").write_bytes(b"no database at all" * 100)
    assert explain_run("stopped at champion: x", home).endswith(f"restore it from a copy{doctor}")


def test_what_is_no_fault_of_the_machine_is_not_explained(home: Home) -> None:
    write(home)
    for error in (ValueError("ours"), FileNotFoundError(2, "No such file", "x"), sqlite3.OperationalError("locked")):
        assert explain(error) is None


def test_the_command_names_a_damaged_database(home: Home) -> None:
    home.mlflow.mkdir(parents=True)
    (home.mlflow / "mlflow.db").write_bytes(b"no database at all" * 100)
    done = subprocess.run([EVERGREEN, "status"], capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, line.startswith(f"evergreen: {home.mlflow / 'mlflow.db'}: file is not a database")) == (
        1,
        True,
    )


def test_another_user_is_told_whose_home_it_is(home: Home) -> None:
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can make a home that is another user's")
    home.root.mkdir()
    (home.root / "ledger.db").touch()
    for path in (home.root / "ledger.db", home.root):
        os.chown(path, 65534, 65534)
        path.chmod(0o700)
    as_user = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
    done = subprocess.run([*as_user, EVERGREEN, "ledger"], capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert f"Permission denied; run as the owner of {home.root}, or set EVERGREEN_HOME; `evergreen doctor`" in line


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: [", b"run_launcher: 3", b"unknown: {}"])
def test_dagster_settings_that_cannot_be_read_are_named(home: Home, content: bytes) -> None:
    home.dagster.mkdir(parents=True)
    (home.dagster / "dagster.yaml").write_bytes(content)
    with pytest.raises(EvergreenError, match=r"dagster.yaml: .* correct it, or delete it"), open_instance(home):
        pass
