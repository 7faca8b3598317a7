"""MLflow's server for a team, on PostgreSQL and S3, with users (pipelines/tracking_server.py)."""

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import requests

from assets.exceptions import BundleError, RegistryError
from assets.home import Home
from assets.registry.registry import MODEL, RegisteredVersion, Registry
from assets.settings import EMBEDDED
from pipelines.stack import DATABASE, Tracking
from tests.registry.conftest import make_bundle, make_evaluation
from tests.stack.conftest import postgres

A, B = "a" * 16, "b" * 16


@pytest.fixture(scope="module")
def server(seaweed_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    """A server that answers, on databases of its own, which are removed afterwards."""
    name, keys = f"evergreen_test_{secrets.token_hex(6)}", seaweed_server.keys
    (keys.folder / "mlflow" / "reader").write_text("a-password-of-a-reader\n")
    files, folder = f"s3://{name.replace('_', '-')}", tmp_path_factory.mktemp("mlflow-server")
    seaweed_server.client().create_bucket(Bucket=files.removeprefix("s3://"))
    about = {"files": f"{files}/mlflow", "objects": seaweed_server.variables}
    server = Tracking(folder, keys=keys, database=f"{DATABASE}/{name}", **about)
    with postgres() as databases:
        try:
            with server.running():
                yield server
        finally:
            for each in (name, f"{name}_users"):
                databases.execute(f"drop database if exists {each} with (force)")


@pytest.fixture
def log_in(server: Tracking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    monkeypatch.setenv("HOME", str(tmp_path))  # a person's ~/.mlflow/credentials

    def set_user(name: str, password: str | None = None) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password or password_of(server, name))

    set_user("evergreen")
    return set_user


def password_of(server: Tracking, name: str) -> str:
    return str(server.keys.password(f"mlflow/{name}")).strip()


@pytest.fixture
def home(tmp_path: Path, server: Tracking, log_in: object) -> Home:
    return Home(tmp_path / "home", EMBEDDED.model_copy(update={"mlflow": server.url}))


def elsewhere(home: Home, tmp_path: Path) -> Home:
    """The same environment on another machine, without the lake's copies."""
    return Home(tmp_path / "elsewhere", home.environment)


def register(home: Home, training: str) -> RegisteredVersion:
    return Registry(home).register(make_bundle(home, training), make_evaluation(home, training))


def test_a_version_is_registered_and_fetched_on_another_machine(home: Home, tmp_path: Path) -> None:
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


def test_a_loader_that_was_changed_is_a_problem(home: Home, server: Tracking, seaweed_server: Any) -> None:
    version, client = register(home, "e" * 16), seaweed_server.client()
    bucket = server.files.removeprefix("s3://").partition("/")[0]
    found = [each["Key"] for each in client.list_objects_v2(Bucket=bucket)["Contents"]]
    (key,) = [each for each in found if each.endswith(f"{version.tags['model_id']}/artifacts/MLmodel")]
    client.put_object(Bucket=bucket, Key=key, Body=b"flavors: {python_function: {loader_module: os}}")
    with pytest.raises(BundleError, match="MLmodel, by which MLflow loads it, is not the file that was written"):
        Registry(home)._require_loader(version)


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
def test_other_hosts_and_origins_are_refused_with_the_right_password(server: Tracking, headers: dict[str, str]) -> None:
    login = ("evergreen", password_of(server, "evergreen"))
    address = f"{server.url}/api/2.0/mlflow/experiments/create"
    assert requests.post(address, json={"name": "x"}, headers=headers, auth=login, timeout=30).status_code == 403
    assert requests.post(address, json={"name": "x"}, timeout=30).status_code == 401


def test_the_page_is_ours_and_has_no_assistant(server: Tracking) -> None:
    login = ("reader", password_of(server, "reader"))
    assert requests.get(server.url, timeout=30).status_code == 401
    assert "data-assistant-ui" in requests.get(server.url, auth=login, timeout=30).text
    assert requests.get(f"{server.url}/ajax-api/3.0/mlflow/assistant/config", auth=login, timeout=30).status_code == 404


def test_a_file_that_the_server_keeps_is_written_again(home: Home, tmp_path: Path) -> None:
    version, tracking = register(home, "e" * 16), Registry(home).tracking
    run = Registry(home).client.get_model_version(MODEL, version.version).run_id
    (tmp_path / "golden.parquet").write_bytes(b"hers and his")
    tracking.client.log_artifact(run, str(tmp_path / "golden.parquet"), "evaluation")
    address = f"mlflow-artifacts:/{run}/evaluation/golden.parquet"
    assert address in tracking.files(".parquet")
    with tracking.opened(address) as copy:
        assert copy.read_bytes() == b"hers and his"
        copy.write_bytes(b"his")
        tracking.replace(address, copy)
    with Registry(elsewhere(home, tmp_path)).tracking.opened(address) as copy:
        assert copy.read_bytes() == b"his"
