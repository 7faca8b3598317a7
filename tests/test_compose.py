"""docker-compose.yml: what each container may do, and that its secrets and addresses are those that it is given."""

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

from assets.serving.keys import Keys
from assets.settings import Environment
from pipelines.cli import app
from pipelines.stack import Secrets

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
RAY = {name: service for name, service in OURS.items() if name.startswith("ray-")}
STATEFUL = {name: service for name, service in OURS.items() if name not in RAY}
every_one_of_ours = pytest.mark.parametrize("service", OURS.values(), ids=OURS)
every_one_in_the_environment = pytest.mark.parametrize("service", STATEFUL.values(), ids=STATEFUL)


def secrets_of(service: dict[str, Any]) -> dict[str, str]:
    """Where each secret is in the container."""
    return {
        entry if isinstance(entry, str) else entry["source"]: f"/run/secrets/{entry}"
        if isinstance(entry, str)
        else entry["target"]
        for entry in service.get("secrets", [])
    }


def filled_in(value: str | None) -> str | None:
    """A value as it is without variables."""
    return re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) or None if value else None


@every_service
def test_a_container_runs_as_a_user_with_no_powers_on_a_file_system_that_it_cannot_write(
    service: dict[str, Any],
) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]


@every_service
def test_a_container_is_watched_and_started_again(service: dict[str, Any]) -> None:
    needed = {name: how["condition"] for name, how in service.get("depends_on", {}).items()}
    assert needed.pop("bucket", "service_completed_successfully") == "service_completed_successfully"
    assert set(needed.values()) <= {"service_healthy"}
    if service != SERVICES["bucket"]:
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert service["restart"] == "unless-stopped"


@every_service
def test_an_image_has_a_version(service: dict[str, Any]) -> None:
    if "build" not in service:
        assert re.search(r":\d+(\.\d+)+(-\w+)?(@sha256:[0-9a-f]{64})?$", service["image"])


@every_service
def test_ports_are_published_to_this_machine_alone(service: dict[str, Any]) -> None:
    assert [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")] == []
    assert "network_mode" not in service


def test_people_reach_the_pages_where_links_lead() -> None:
    published = {port for service in SERVICES.values() for port in service.get("ports", [])}
    assert published == {f"127.0.0.1:{port}:{port}" for port in (3000, 3001, 5000, 8265, 8400, 9464)}


@every_service
def test_what_is_written_outlives_the_container(service: dict[str, Any]) -> None:
    folders = [volume.partition(":") for volume in service.get("volumes", [])]
    assert {name for name, _, _ in folders} <= set(COMPOSE["volumes"])
    if home := service.get("environment", {}).get("EVERGREEN_HOME"):
        assert home in {path for _, _, path in folders} or service["command"][0] == "python"


def test_a_run_finds_what_was_asked_and_its_progress_is_found() -> None:
    assert len({tuple(SERVICES[name]["volumes"]) for name in ("code", "code-gpu", "serve", "metrics")}) == 1


@every_service
def test_no_secret_is_in_the_file(service: dict[str, Any]) -> None:
    values = {**service.get("environment", {}), **service.get("build", {}).get("args", {})}
    named = {name: value for name, value in values.items() if re.search("PASS|SECRET|KEY|TOKEN|CREDENTIAL", name)}
    assert [name for name, value in named.items() if not value.startswith("/run/secrets/")] == []
    assert not re.search(r"://[^/@\s]*:[^/@\s]*@", yaml.safe_dump(service))


def test_the_secrets_are_those_that_make_secrets_writes(tmp_path: Path) -> None:
    Secrets.in_folder(tmp_path)
    written = {f"secrets/{path.relative_to(tmp_path)}": path for path in tmp_path.rglob("*") if path.is_file()}
    assert {secret["file"] for secret in COMPOSE["secrets"].values()} == set(written) - {"secrets/serving_key"}
    assert {name for service in SERVICES.values() for name in secrets_of(service)} == set(COMPOSE["secrets"])
    assert oct(tmp_path.stat().st_mode)[-3:] == "700"
    assert {oct(written[f"secrets/{name}"].stat().st_mode)[-3:] for name in ("pgpass", "serving_key")} == {"600"}
    keys = Keys.read(written["secrets/serving_keys"])
    assert keys.name(written["secrets/serving_key"].read_text()) == "local"
    before = {name: path.read_text() for name, path in written.items()}
    Secrets.in_folder(tmp_path)
    assert {name: path.read_text() for name, path in written.items()} == before


def test_what_a_secret_is_for_alone_has_it() -> None:
    having = {name: {of for of, one in SERVICES.items() if name in secrets_of(one)} for name in COMPOSE["secrets"]}
    assert having["serving_keys"] == {"serve"}
    assert having["metrics_token"] == {"metrics"}
    assert having["postgres_password"] == {"postgres"}


@pytest.mark.parametrize("name", [name for name, service in OURS.items() if service["command"][0] == "evergreen"])
def test_each_command_is_one_of_ours(name: str) -> None:
    words = OURS[name]["command"]
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    assert group.commands[words[1]].make_context(words[1], words[2:])
    files = {word for word in words if word.startswith("/run/secrets/")}
    assert files <= set(secrets_of(OURS[name]).values())


@pytest.mark.parametrize("name", sorted({"serve", "metrics", "ui", "mlflow", "code"}))
def test_a_server_is_watched_on_the_ports_that_it_has(name: str) -> None:
    watched = set(re.findall(r"\b\d{4}\b", " ".join(SERVICES[name]["healthcheck"]["test"])))
    assert {port.rpartition(":")[2] for port in SERVICES[name].get("ports", [])} <= watched


@every_one_in_the_environment
def test_our_containers_are_in_the_environment_of_the_stack(service: dict[str, Any]) -> None:
    variables = service["environment"]
    values = {name: filled_in(variables.get(f"EVERGREEN_{name.upper()}")) for name in Environment.model_fields}
    assert Environment.model_validate(values).is_shared
    addresses = (str(value) for value in (*values.values(), variables["AWS_ENDPOINT_URL"]) if "s3:" not in str(value))
    hosts = {match.group(1) for value in addresses if (match := re.search(r"(?:@|//|^)([a-z]+):\d+", value))}
    assert hosts <= set(SERVICES)
    assert {"postgres", "objects", "mlflow", "redis", "code"} <= hosts


def test_only_the_profile_for_gpus_reserves_them() -> None:
    reserving = {name: service["profiles"] for name, service in SERVICES.items() if "deploy" in service}
    assert reserving == {"code-gpu": ["gpu"]}
    assert SERVICES["code"]["profiles"] == ["cpu"]
    example = (ROOT / ".env.example").read_text()
    assert "COMPOSE_PROFILES=cpu" in example.splitlines()


def test_every_variable_of_the_file_is_explained_by_the_example() -> None:
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    explained = set(re.findall(r"^#? ?(\w+)=", (ROOT / ".env.example").read_text(), re.M))
    assert used | {"COMPOSE_PROFILES"} == explained


def test_only_the_profile_for_ray_starts_its_nodes_and_nothing_trains_there_without_the_setting() -> None:
    assert {name for name, service in SERVICES.items() if service.get("profiles") == ["ray"]} == set(RAY)
    assert {service["environment"]["EVERGREEN_RAY"] for service in STATEFUL.values()} == {"${EVERGREEN_RAY:-}"}
    example = (ROOT / ".env.example").read_text()
    assert "EVERGREEN_RAY=" in example.splitlines()
    (address,) = set(re.findall(r"http://[\w:-]+", example))
    host, port = address.removeprefix("http://").split(":")
    assert f"--dashboard-port={port}" in SERVICES[host]["command"]
    assert {service["environment"]["RAY_USAGE_STATS_ENABLED"] for service in RAY.values()} == {"0"}
    assert {tuple(secrets_of(service)) for service in RAY.values()} == {("aws_credentials",)}


@pytest.mark.stack
@pytest.mark.parametrize("profile", ["cpu", "gpu", "ray"])
def test_the_file_is_valid_by_composes_own_schema(tmp_path: Path, profile: str) -> None:
    program = shutil.which("docker-compose", path=sysconfig.get_path("scripts"))
    if program is None:
        pytest.skip("there is no docker-compose: make stack-test installs it")
    command = [program, "--file", str(ROOT / "docker-compose.yml"), "--env-file", "/dev/null", "--profile", profile]
    subprocess.run([*command, "config", "--quiet"], check=True)
    broken = tmp_path / "docker-compose.yml"
    broken.write_text((ROOT / "docker-compose.yml").read_text().replace("read_only: true", "read_only: perhaps"))
    command[2] = str(broken)
    assert subprocess.run([*command, "config", "--quiet"], check=False, capture_output=True).returncode


@every_one_of_ours
def test_what_is_compiled_at_run_time_can_be_loaded(service: dict[str, Any]) -> None:
    """A tmpfs of Docker's is mounted without exec unless it is asked for: the operators of torch would not load."""
    executable = {
        path for path, _, options in (entry.partition(":") for entry in service["tmpfs"]) if "exec" in options
    }
    folders = re.findall(r"_DIR=(/home/\S+)", (ROOT / "Dockerfile").read_text())
    assert len(folders) == 3
    assert {str(Path(folder).parent) for folder in folders} == executable


def test_the_image_has_no_more_than_the_project_and_no_secret() -> None:
    ignored = set((ROOT / ".dockerignore").read_text().split())
    assert ignored >= {".git", ".venv", ".env", "secrets", ".evergreen*"}
