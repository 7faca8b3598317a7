"""MLflow's server for a team, on PostgreSQL and S3, with users (pipelines/tracking_server.py)."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from http.client import HTTPConnection
from pathlib import Path
from threading import Barrier

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

from assets.exceptions import BundleError, RegistryError
from assets.lake import Home
from assets.registry.registry import MODEL, RegisteredVersion, Registry
from assets.settings import EMBEDDED
from tests.registry.conftest import make_bundle, make_evaluation

psycopg = pytest.importorskip("psycopg", reason="the extra `stack` is not installed")
pytest.importorskip("flask_wtf", reason="the extra `stack` is not installed")

ROOT = Path(__file__).parents[2]
POSTGRES = "postgresql://postgres@127.0.0.1:5432"
STARTS_WITHIN = 180
A, B = "a" * 16, "b" * 16
PASSWORDS = {name: secrets.token_hex(12) for name in ("admin", "evergreen", "reader")}


@pytest.fixture(scope="module")
def databases() -> Iterator[list[str]]:
    """Two databases that do not exist yet, and are removed afterwards."""
    name = f"evergreen_test_{secrets.token_hex(6)}"
    names = [name, f"{name}_users"]
    try:
        connection = psycopg.connect(f"{POSTGRES}/postgres", autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        pytest.skip(f"no PostgreSQL on 127.0.0.1:5432: {error}")
    with connection:
        yield [f"{POSTGRES}/{each}" for each in names]
        for each in names:
            connection.execute(f'drop database if exists "{each}" with (force)')


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[str, dict[str, str]]]:
    """An S3 address, and the variables that point at its server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    variables = {**keys, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    client = boto3.client(
        "s3", aws_access_key_id="test", aws_secret_access_key="test", endpoint_url=variables["AWS_ENDPOINT_URL"]
    )
    client.create_bucket(Bucket="files")
    yield "s3://files/mlflow", variables
    server.stop()


@pytest.fixture(scope="module")
def server(
    databases: list[str], bucket: tuple[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a server that answers."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    (folder / "passwords").mkdir()
    for name, password in PASSWORDS.items():
        (folder / "passwords" / name).write_text(f"{password}\n")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    files, variables = bucket
    command = [
        *(sys.executable, "-m", "pipelines.tracking_server", "--database", databases[0], "--users", databases[1]),
        *("--files", files, "--passwords", str(folder / "passwords"), "--port", str(port)),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=os.environ | variables)
    try:
        until = time.monotonic() + STARTS_WITHIN
        while not answers(port):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail((folder / "log").read_text()[-3000:])
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture
def log_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str | None], None]:
    monkeypatch.setenv("HOME", str(tmp_path))  # a person's ~/.mlflow/credentials

    def set_user(name: str, password: str | None = None) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password or PASSWORDS[name])

    set_user("evergreen")
    return set_user


@pytest.fixture
def home(tmp_path: Path, server: str, log_in: object) -> Home:
    return Home(tmp_path / "home", EMBEDDED.model_copy(update={"mlflow": server}))


def elsewhere(home: Home, tmp_path: Path) -> Home:
    """The same environment on another machine, without the lake's copies."""
    return Home(tmp_path / "elsewhere", home.environment)


def register(home: Home, training: str) -> RegisteredVersion:
    return Registry(home).register(make_bundle(home, training), make_evaluation(home, training))


def test_a_version_is_registered_and_fetched_on_another_machine(
    home: Home, tmp_path: Path, bucket: tuple[str, dict[str, str]]
) -> None:
    version = register(home, A)
    assert version.location.startswith("mlflow-artifacts:/")
    other = Registry(elsewhere(home, tmp_path))
    assert other.challenger() == other.of_training(A) == version
    fetched = other.fetch(version.version)
    assert fetched.is_relative_to(other.home.mlflow)
    assert {file.name: file.read_bytes() for file in fetched.iterdir()} == {
        file.name: file.read_bytes() for file in home.lake.path("challenger/2024-06-01", A).iterdir()
    }
    (fetched / "config.json").write_text("cut short")
    assert (other.fetch(version.version) / "config.json").read_text() != "cut short"
    other._require_loader(version)


def test_two_that_register_one_training_at_once_end_with_one_version(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the lock, as when one of them was thought dead."""
    monkeypatch.setattr(Registry, "lock", lambda _: nullcontext())
    bundle, evaluation, start = make_bundle(home, B), make_evaluation(home, B), Barrier(2)

    def at_once(registry: Registry) -> RegisteredVersion:
        start.wait()
        return registry.register(bundle, evaluation)

    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.map(at_once, [Registry(home), Registry(home)])
    assert [version for version in Registry(home).versions() if version.training_id == B] == [ours]
    assert ours.version == theirs.version == Registry(home).aliases()["challenger"]
    assert Registry(elsewhere(home, tmp_path)).fetch(ours.version)


def test_what_a_reader_may_do(home: Home, log_in: Callable[..., None]) -> None:
    version = register(home, "c" * 16)
    log_in("reader")
    registry = Registry(home)
    assert registry.version(version.version) == version
    for refused in (
        lambda: registry.client.create_experiment("mine"),
        lambda: registry.client.create_registered_model("mine"),
        lambda: registry.client.set_registered_model_alias(MODEL, "champion", version.version),
        lambda: registry.client.delete_model_version(MODEL, version.version),
        lambda: registry.client.log_metric(registry.client.get_model_version(MODEL, version.version).run_id, "x", 1.0),
    ):
        with pytest.raises(RegistryError, match="reader may only read"):
            refused()
    assert register_fails(home, "d" * 16)


def register_fails(home: Home, training: str) -> bool:
    with pytest.raises(RegistryError, match="may only read"):
        register(home, training)
    return True


def test_a_wrong_password_says_what_to_set(home: Home, log_in: Callable[..., None]) -> None:
    log_in("evergreen", "not-the-password")
    with pytest.raises(RegistryError, match="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as raised:
        Registry(home).versions()
    assert "\n" not in str(raised.value)
    assert "not-the-password" not in str(raised.value)


def test_a_server_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    nowhere = EMBEDDED.model_copy(update={"mlflow": "http://127.0.0.1:9"})
    with pytest.raises(RegistryError, match=r"MLflow at http://127\.0\.0\.1:9: .*; start it, or set EVERGREEN_MLFLOW"):
        Registry(Home(tmp_path, nowhere)).versions()


def test_a_loader_that_was_changed_is_a_problem(home: Home, bucket: tuple[str, dict[str, str]]) -> None:
    version, (_, variables) = register(home, "e" * 16), bucket
    client = boto3.client(
        "s3", aws_access_key_id="test", aws_secret_access_key="test", endpoint_url=variables["AWS_ENDPOINT_URL"]
    )
    found = client.list_objects_v2(Bucket="files")["Contents"]
    (key,) = [
        each["Key"] for each in found if each["Key"].endswith("MLmodel") and version.tags["model_id"] in each["Key"]
    ]
    client.put_object(Bucket="files", Key=key, Body=b"flavors: {python_function: {loader_module: os}}")
    with pytest.raises(BundleError, match="MLmodel, by which MLflow loads it, is not the file that was written"):
        Registry(home)._require_loader(version)


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
def test_other_hosts_and_origins_are_refused_with_the_right_password(server: str, headers: dict[str, str]) -> None:
    login = ("evergreen", PASSWORDS["evergreen"])
    address = f"{server}/api/2.0/mlflow/experiments/create"
    assert requests.post(address, json={"name": "x"}, headers=headers, auth=login, timeout=30).status_code == 403
    assert requests.post(address, json={"name": "x"}, timeout=30).status_code == 401


def test_the_page_is_ours_and_has_no_assistant(server: str) -> None:
    login = ("reader", PASSWORDS["reader"])
    assert requests.get(server, timeout=30).status_code == 401
    assert "data-assistant-ui" in requests.get(server, auth=login, timeout=30).text
    assert requests.get(f"{server}/ajax-api/3.0/mlflow/assistant/config", auth=login, timeout=30).status_code == 404
