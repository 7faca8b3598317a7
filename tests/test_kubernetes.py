"""deploy/: what each pod may do, that the parts fit each other, and that the charts have the fields that are set."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

from assets.settings import Environment, load_serving_settings
from pipelines.cli import app

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")
OBJECTS: list[dict[str, Any]] = [thing for path in FILES for thing in yaml.safe_load_all(path.read_text())]
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
DAGSTER = yaml.safe_load((ROOT / "deploy" / "helm" / "dagster.yaml").read_text())
RAY = yaml.safe_load((ROOT / "deploy" / "helm" / "ray.yaml").read_text())
DEPLOYMENTS = {thing["metadata"]["name"]: thing["spec"] for thing in OBJECTS if thing["kind"] == "Deployment"}
PODS = {name: spec["template"]["spec"] for name, spec in DEPLOYMENTS.items()}
(CODE,) = DAGSTER["dagster-user-deployments"]["deployments"]
OF_CHARTS = {"daemon": DAGSTER["dagsterDaemon"], "code": CODE, "ray head": RAY["head"], "ray worker": RAY["worker"]}
every_pod = pytest.mark.parametrize("pod", PODS.values(), ids=PODS)

_IMAGE = {"repository", "tag", "pullPolicy"}
_PROBE = {"enabled", "periodSeconds", "timeoutSeconds", "failureThreshold"}
_POD = dict.fromkeys(("podSecurityContext", "securityContext", "resources", "volumes", "volumeMounts", "labels"))
# Fields of helm/dagster/schema in dagster-io/dagster, as of 1.13; None has fields of Kubernetes, or free ones.
_DAGSTER = {
    "global": {"postgresqlSecretName": None, "dagsterHome": None},
    "rbacEnabled": None,
    "generatePostgresqlPasswordSecret": None,
    "postgresql": {
        **dict.fromkeys(("enabled", "postgresqlHost", "postgresqlUsername", "postgresqlDatabase", "postgresqlParams")),
        "service": {"port": None},
    },
    "telemetry": {"enabled": None},
    "dagsterWebserver": {"replicaCount": None},
    "dagsterDaemon": {
        **_POD,
        **dict.fromkeys(("enabled", "env")),
        "image": dict.fromkeys(_IMAGE),
        "runCoordinator": {
            **dict.fromkeys(("enabled", "type")),
            "config": {"customRunCoordinator": {"module": None, "class": None, "config": None}},
        },
        "runMonitoring": dict.fromkeys(("enabled", "startTimeoutSeconds", "pollIntervalSeconds")),
        "runRetries": dict.fromkeys(("enabled", "maxRetries", "retryOnAssetOrOpFailure")),
    },
    "runLauncher": {"type": None, "config": {"customRunLauncher": {"module": None, "class": None, "config": None}}},
    "pythonLogs": {"managedPythonLoggers": None},
    "additionalInstanceConfig": None,
    "dagster-user-deployments": {"enabled": None, "enableSubchart": None, "deployments": None},
}
_CODE = {
    **_POD,
    **dict.fromkeys(("name", "dagsterApiGrpcArgs", "port", "env", "envConfigMaps", "envSecrets", "deploymentStrategy")),
    "image": dict.fromkeys(_IMAGE),
    "startupProbe": dict.fromkeys(_PROBE),
}
# Fields of helm-chart/ray-cluster (values.yaml and templates) in ray-project/kuberay-helm, as of its Ray 2.41.
_NODE = {**_POD, **dict.fromkeys(("rayStartParams", "envFrom", "tolerations", "lifecycle"))}
_RAY = {
    "fullnameOverride": None,
    "image": dict.fromkeys(_IMAGE),
    "common": {"containerEnv": None},
    "head": {
        **_NODE,
        **dict.fromkeys(("rayVersion", "enableInTreeAutoscaling")),
        "autoscalerOptions": dict.fromkeys(("idleTimeoutSeconds", "securityContext", "resources")),
    },
    "worker": {**_NODE, **dict.fromkeys(("groupName", "replicas", "minReplicas", "maxReplicas"))},
}


def unknown(values: dict[str, Any], known: dict[str, Any], at: str = "") -> list[str]:
    """The fields that a chart does not have."""
    found = [f"{at}{name}" for name in values if name not in known]
    for name, inner in known.items():
        if inner is not None and isinstance(values.get(name), dict):
            found += unknown(values[name], inner, f"{at}{name}.")
    return found


def data(name: str) -> dict[str, str]:
    """The content of a ConfigMap."""
    (found,) = [one["data"] for one in OBJECTS if one["kind"] == "ConfigMap" and one["metadata"]["name"] == name]
    return dict(found)


def inside(value: Any) -> Iterator[dict[str, Any]]:
    """All mappings in a value."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from inside(inner)


def secrets_of(value: Any) -> set[str]:
    """The Secrets that something names."""
    refs = [one[kind] for one in inside(value) for kind in ("secretKeyRef", "secretRef") if kind in one]
    mounted = {one["secretName"] for one in inside(value) if "secretName" in one}
    listed = {one["name"] for deployment in inside(value) for one in deployment.get("envSecrets", ())}
    return {ref["name"] for ref in refs} | mounted | listed


def is_hardened(pod: dict[str, Any], container: dict[str, Any]) -> bool:
    held = pod["runAsNonRoot"] is True and pod["runAsUser"] >= 1000
    held = held and pod["seccompProfile"] == {"type": "RuntimeDefault"}
    return held and container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_each_file_is_applied() -> None:
    assert sorted(KUSTOMIZATION["resources"]) == [path.name for path in FILES]


@every_pod
def test_a_pod_runs_as_a_user_with_no_powers_on_a_file_system_that_it_cannot_write(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in pod["containers"]:
        assert is_hardened(pod["securityContext"], container["securityContext"])
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert container["resources"]["limits"]["memory"]
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


@pytest.mark.parametrize("values", OF_CHARTS.values(), ids=OF_CHARTS)
def test_so_do_those_of_the_charts(values: dict[str, Any]) -> None:
    assert is_hardened(values["podSecurityContext"], values["securityContext"])
    assert {"cpu", "memory"} <= set(values["resources"]["requests"])
    mounted = {mount["mountPath"] for mount in values["volumeMounts"]}
    assert {"/tmp", "/home/evergreen/.cache"} <= mounted
    assert {mount["name"] for mount in values["volumeMounts"]} <= {volume["name"] for volume in values["volumes"]}


def test_what_the_autoscaler_may_is_no_more() -> None:
    assert is_hardened(RAY["head"]["podSecurityContext"], RAY["head"]["autoscalerOptions"]["securityContext"])
    (namespace,) = [thing for thing in OBJECTS if thing["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}


@every_pod
def test_a_pod_starts_a_command_of_ours_with_files_that_it_has(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    words = container["command"]
    if words[0] == "evergreen":
        group = typer.main.get_command(app)
        assert isinstance(group, TyperGroup)
        assert group.commands[words[1]].make_context(words[1], words[2:])
    folders = {mount["mountPath"] for mount in container["volumeMounts"]}
    files = [word.partition("=")[2] or word for word in words if "/run/secrets/" in word]
    assert [file for file in files if not {file, str(Path(file).parent)} & folders] == []
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_each_secret_is_made_by_a_command_of_the_docs_and_none_has_its_value_here() -> None:
    used = secrets_of(OBJECTS) | secrets_of([DAGSTER, RAY]) | {DAGSTER["global"]["postgresqlSecretName"]}
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert set(re.findall(r"create secret generic ([\w-]+)", page)) == used
    assert "Secret" not in {thing["kind"] for thing in OBJECTS}
    for one in [*inside(OBJECTS), *inside([DAGSTER, RAY])]:
        named = [name for name in one if re.search("PASSWORD$|SECRET|_KEY$|TOKEN$", str(name)) and one[name]]
        assert named == [], named
        if re.search("PASSWORD|SECRET|_KEY|TOKEN", str(one.get("name", ""))):
            assert "value" not in one
    assert not re.search(r"://[^/@\s]*:[^/@\s]*@", yaml.safe_dump_all([*OBJECTS, DAGSTER, RAY]))


def test_the_addresses_are_those_of_the_pods() -> None:
    values = data("evergreen")
    environment = Environment.model_validate(
        {name: values.get(f"EVERGREEN_{name.upper()}") for name in Environment.model_fields}
    )
    assert environment.is_shared
    assert environment.code == f"{CODE['name']}:{CODE['port']}"
    assert environment.ray == f"http://{RAY['fullnameOverride']}-head-svc:8265"
    (port,) = [
        thing["spec"]["ports"][0]["port"]
        for thing in OBJECTS
        if thing["kind"] == "Service" and thing["metadata"]["name"] == "mlflow"
    ]
    assert environment.mlflow == f"http://mlflow:{port}"
    assert f"--name=mlflow:{port}" in PODS["mlflow"]["containers"][0]["command"]
    database = DAGSTER["postgresql"]
    where = "{postgresqlUsername}@{postgresqlHost}:{service[port]}/{postgresqlDatabase}".format(**database)
    assert environment.database == f"postgresql://{where}"
    assert environment.database.rpartition("/")[0] in " ".join(PODS["mlflow"]["containers"][0]["command"])
    assert database["postgresqlParams"]["sslmode"] == values["PGSSLMODE"]
    assert DAGSTER["global"]["dagsterHome"] == f"{values['EVERGREEN_HOME']}/dagster"


def test_all_have_one_image_and_the_versions_of_the_lock_file() -> None:
    (image,) = KUSTOMIZATION["images"]
    ours = {"repository": image["newName"], "tag": image["newTag"]}
    for values in (DAGSTER["dagsterDaemon"]["image"], CODE["image"]):
        assert values.items() >= ours.items()
    assert RAY["image"]["repository"] == image["newName"]
    assert RAY["image"]["tag"].startswith(image["newTag"])
    assert {container["image"] for pod in PODS.values() for container in pod["containers"]} == {image["name"]}
    locked = dict(
        re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==([\d.]+)", (ROOT / "requirements-stack.lock").read_text(), re.M)
    )
    assert RAY["head"]["rayVersion"] == locked["ray"]
    assert f"version {locked['dagster']}," in (ROOT / "deploy" / "helm" / "dagster.yaml").read_text()


def test_the_instance_is_that_of_other_shared_homes() -> None:
    configs = ROOT / "configs"
    ours = yaml.safe_load((configs / "dagster.yaml").read_text())
    ours |= yaml.safe_load((configs / "dagster-shared.yaml").read_text())
    daemon, extra = DAGSTER["dagsterDaemon"], DAGSTER["additionalInstanceConfig"]
    assert daemon["runCoordinator"]["config"]["customRunCoordinator"] == ours.pop("run_coordinator")
    assert {re.sub("([A-Z])", r"_\1", name).lower(): value for name, value in daemon["runMonitoring"].items()} == (
        ours.pop("run_monitoring")
    )
    assert {re.sub("([A-Z])", r"_\1", name).lower(): value for name, value in daemon["runRetries"].items()} == {
        ("retry_on_asset_or_op_failure" if "retry" in name else name): value
        for name, value in ours.pop("run_retries").items()
    }
    assert {"managed_python_loggers": DAGSTER["pythonLogs"]["managedPythonLoggers"]} == ours.pop("python_logs")
    assert DAGSTER["telemetry"] == ours.pop("telemetry")
    assert extra == ours


def test_the_charts_have_the_fields_that_are_set() -> None:
    assert unknown(DAGSTER, _DAGSTER) + unknown(CODE, _CODE) == []
    assert unknown(RAY, _RAY) == []
    assert unknown({"head": {"replica": 1}, "x": 2}, _RAY) == ["x", "head.replica"]


def test_a_server_of_answers_is_replaced_without_a_gap_and_loses_nothing() -> None:
    spec, (container,) = DEPLOYMENTS["serve"], PODS["serve"]["containers"]
    assert spec["replicas"] >= 2
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    (budget,) = [thing["spec"] for thing in OBJECTS if thing["kind"] == "PodDisruptionBudget"]
    assert budget["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    leaving = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert PODS["serve"]["terminationGracePeriodSeconds"] > leaving + load_serving_settings().drain_seconds
    shared = {"name": "served", "mountPath": f"{data('evergreen')['EVERGREEN_HOME']}/served"}
    assert shared in container["volumeMounts"]
    assert shared in CODE["volumeMounts"]
    (claim,) = [thing for thing in OBJECTS if thing["kind"] == "PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_nothing_is_reached_but_by_whom_it_is_for() -> None:
    policies = {thing["metadata"]["name"]: thing["spec"] for thing in OBJECTS if thing["kind"] == "NetworkPolicy"}
    default = policies["nothing-by-default"]
    assert (default["podSelector"], default["policyTypes"]) == ({}, ["Ingress", "Egress"])
    assert "ingress" not in default
    labelled = {*PODS, "code", "daemon", "ray"}
    assert {values["labels"]["app"] for values in OF_CHARTS.values()} == {"code", "daemon", "ray"}
    named = [one["app"] for one in inside([*policies.values()]) if isinstance(one.get("app"), str)]
    listed = [value for one in inside([*policies.values()]) if one.get("key") == "app" for value in one["values"]]
    assert {*named, *listed} <= labelled
    allowed = {
        (spec["podSelector"]["matchLabels"]["app"], port["port"])
        for spec in policies.values()
        for rule in spec.get("ingress", ())
        for port in rule.get("ports", ())
    }
    services = {
        (thing["spec"]["selector"]["app"], thing["spec"]["ports"][0]["port"])
        for thing in OBJECTS
        if thing["kind"] == "Service"
    }
    assert allowed == services | {("code", CODE["port"]), ("ray", 8265)}


def test_a_preempted_machine_tells_the_ranks_in_time() -> None:
    worker, command = RAY["worker"], RAY["worker"]["lifecycle"]["preStop"]["exec"]["command"][2]
    assert 0 <= worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]
    program = re.search(r"if '([\w.]+)' in", command)
    assert program
    assert f'"-m", "{program[1]}"' in (ROOT / "assets/training/launchers/rank.py").read_text()
    source = re.search(r'python -c "(.*)"$', command)
    assert source
    compile(source[1], "preStop", "exec")


@pytest.mark.stack
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_files_are_valid_by_kubernetes_own_schema(path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="make stack-test installs it")
    for thing in yaml.safe_load_all(path.read_text()):
        validate.validate(thing, "1.37", strict=True)
        with pytest.raises(validate.ValidationError):
            validate.validate(thing | {"perhaps": 1}, "1.37", strict=True)
