"""The graph is the one of the design, and each part of it tells a person what it is."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.home import Home
from pipelines.definitions import defs
from pipelines.jobs import JOBS

ROOT = Path(__file__).parents[2]
GROUPS = {
    "ingestion": {"raw_records"},
    "warehouse": {
        *("stg_records", "quarantined_records", "fct_records", "company_daily", "state_daily", "labels"),
    },
    "validation": {"mart_audit", "marts"},
    "features": {"feature_definitions", "training_set", "online_features"},
    "training": {"challenger"},
    "evaluation": {"challenger_evaluation"},
    "registry": {"registered_model", "champion", "refit"},
    "scoring": {"predictions"},
    "monitoring": {"drift_report", "performance", "retraining_decision"},
    "retention": {"retention"},
}
GRAPH = defs.resolve_asset_graph()


def specs() -> Iterator[dg.AssetSpec]:
    yield from defs.resolve_all_asset_specs()


def test_the_graph_has_the_assets_of_the_design() -> None:
    found: dict[str, set[str]] = {}
    for spec in specs():
        found.setdefault(str(spec.group_name), set()).add(spec.key.path[-1])
    for group, assets in GROUPS.items():
        assert assets <= found[group], group


@pytest.mark.parametrize("spec", sorted(specs(), key=lambda spec: spec.key), ids=lambda spec: spec.key.to_user_string())
def test_every_asset_says_what_it_is_and_whose(spec: dg.AssetSpec) -> None:
    assert spec.description
    assert len(spec.description) > 30
    assert list(spec.owners) == ["team:evergreen"]
    assert spec.kinds


def test_every_asset_but_dbt_s_and_the_refit_is_as_of_a_day() -> None:
    for spec in specs():
        of_no_day = spec.group_name == "warehouse" or spec.key == dg.AssetKey("refit")
        assert (spec.partitions_def is None) == of_no_day, spec.key


def test_no_night_waits_for_what_a_retraining_makes_of_its_day() -> None:
    """Dagster warns of a backfill whose upstream partitions were not made."""
    night = defs.resolve_job_def("observe").asset_layer.executable_asset_keys
    outside = {parent for key in night for parent in GRAPH.get(key).parent_keys} - night
    assert outside == {dg.AssetKey("refit")}
    assert not any(GRAPH.get(key).is_partitioned for key in outside)


@pytest.mark.parametrize(
    "starts", [*(defs.sensors or []), *(defs.schedules or []), *(defs.jobs or [])], ids=lambda starts: starts.name
)
def test_what_starts_or_is_started_says_what_it_does(starts: dg.SensorDefinition) -> None:
    assert starts.description
    assert len(starts.description) > 30


@pytest.mark.parametrize("job", [*(job.name for job in JOBS), "settle"])
def test_every_field_of_a_launch_is_described(job: str) -> None:
    schema = defs.resolve_job_def(job).run_config_schema.config_type.fields
    for given in (schema["ops"], schema["resources"]):
        for name, part in given.config_type.fields.items():
            config = part.config_type.fields.get("config") if hasattr(part.config_type, "fields") else None
            for field, what in getattr(config and config.config_type, "fields", {}).items():
                assert what.description, f"{name}.{field}"


FILLED_IN = """
import json, sys
from dagster._core.snap import JobSnap
from dagster._core.snap.snap_to_yaml import default_values_yaml_from_type_snap
from pipelines.definitions import defs
for name in sys.argv[1:]:
    job = JobSnap.from_job_def(defs.resolve_job_def(name))
    root = job.config_schema_snapshot.get_config_snap(job.mode_def_snaps[0].root_config_key)
    print(json.dumps(default_values_yaml_from_type_snap(job.config_schema_snapshot, root)))
"""


def test_the_launchpad_is_filled_in(home: Home) -> None:
    environment = os.environ | {"EVERGREEN_SOURCES": "s3://bucket/a /data/b", "EVERGREEN_PROFILE": "full"}
    command = [sys.executable, "-c", FILLED_IN, "observe", "settle"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    observe, settle = (yaml.safe_load(json.loads(line)) for line in done.stdout.splitlines()[-2:])
    assert observe["ops"] == {"raw_records": {"config": {"sources": ["s3://bucket/a", "/data/b"], "history": False}}}
    assert observe["resources"] == {"evergreen": {"config": {"profile": "full"}}}
    empty = {"version": "", "decision": "approve", "by": "", "reason": ""}
    assert settle["ops"] == {"settle_version": {"config": empty}}


def test_every_asset_but_the_first_has_something_upstream() -> None:
    roots = {spec.key.path[-1] for spec in specs() if not list(spec.deps)}
    assert roots == {"raw_records", "queue_by_product"}


@pytest.mark.parametrize(
    "asset",
    [
        *("raw_records", "mart_audit", "marts", "training_set", "online_features", "challenger"),
        *("challenger_evaluation", "champion", "predictions"),
    ],
)
def test_what_the_design_guards_has_a_blocking_check(asset: str) -> None:
    keys = [key for key in GRAPH.asset_check_keys if key.asset_key == dg.AssetKey(asset)]
    assert any(GRAPH.get(key).blocking for key in keys), keys


@pytest.mark.parametrize("path", sorted((ROOT / "assets").glob("*/definitions.py")), ids=lambda path: path.parent.name)
def test_every_asset_ends_by_saying_which_check_did_not_pass_and_why(path: Path) -> None:
    named = [node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
    assert "MaterializeResult" not in named, "assets.resources.concluded makes it"


@pytest.mark.parametrize("job", ["refresh", "observe", "retrain", "ingest", "score"])
def test_every_job_resolves(job: str) -> None:
    assert defs.resolve_job_def(job).asset_layer.executable_asset_keys


@pytest.mark.parametrize("job", [*(job.name for job in JOBS), "settle"])
def test_a_launch_names_a_profile_and_no_folder_to_write_to(job: str) -> None:
    resources = defs.resolve_job_def(job).run_config_schema.config_type.fields["resources"].config_type.fields
    taken = {name: field.config_type.fields["config"].config_type for name, field in resources.items()}
    assert list(taken["evergreen"].fields) == ["profile"]
    assert not hasattr(taken.get("io_manager"), "fields"), "Dagster's store for values takes a folder"


def test_the_whole_graph_is_one_job() -> None:
    everything = {spec.key for spec in specs()}
    assert defs.resolve_job_def("refresh").asset_layer.executable_asset_keys == everything


@pytest.mark.parametrize("command", [["dagster", "definitions", "validate"], ["dg", "check", "defs"]])
def test_dagster_and_dg_find_the_definitions_at_the_root(command: list[str], tmp_path: Path) -> None:
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
