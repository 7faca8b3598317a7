"""The dbt project's models as assets, and its tests as asset checks."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from threading import TIMEOUT_MAX
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliResource, DbtProject, dbt_assets
from packaging.version import Version

from assets.home import Home
from assets.resources import Evergreen
from assets.warehouse.composing import ENGINE, project_folder
from assets.warehouse.project import DBT, building, explain_failure, manifest_path

__all__ = ["Dbt", "warehouse"]


class Dbt(DbtCliResource):
    """dbt's command and nothing else.

    dagster-dbt would also start a second dbt process to ask for its version, and open the warehouse itself to describe
    columns; that costs seconds, and only dbt may open the warehouse.
    """

    @cached_property
    def _cli_version(self) -> Version:
        return Version(version("dbt-core"))

    def _initialize_dbt_core_adapter(self, args: Any) -> Any:  # noqa: ARG002 - dagster-dbt's signature
        return None


class Translator(DagsterDbtTranslator):
    """Places dbt's nodes in the graph."""

    def __init__(self) -> None:
        super().__init__(DagsterDbtTranslatorSettings(enable_duplicate_source_asset_keys=True))

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        spec = super().get_asset_spec(manifest, unique_id, project)
        return spec.replace_attributes(group_name="warehouse", owners=["team:evergreen"])


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for the process started inside: dagster-dbt passes on its own environment."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dbt_assets(
    manifest=manifest_path(Home.from_environment()),
    dagster_dbt_translator=Translator(),
    name="warehouse",
    pool="ingestion",
)
def warehouse(context: dg.AssetExecutionContext, evergreen: Evergreen) -> Iterator[Any]:
    """Typed, deduplicated records, their labels, and what was known about each entity on each day."""
    home, (python, *module) = evergreen.home, DBT
    with building(home) as variables:
        dbt = Dbt(
            project_dir=str(project_folder(home)),
            profiles_dir=str(ENGINE),
            dbt_executable=python,
            global_config_flags=module,
        )
        with _environment(variables):
            build = dbt.cli(["build"], context=context, target_path=home.warehouse / "target", raise_on_error=False)
        build.termination_timeout_seconds = TIMEOUT_MAX  # dbt stops when asked to, though later on a busy machine
        yield from build.stream()
        if error := build.get_error():
            raise explain_failure(home, str(error))
