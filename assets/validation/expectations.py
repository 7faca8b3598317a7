"""Runs the suites with Great Expectations, which never sees a narrative and keeps no value of a row."""

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd

from assets.lake import locked
from assets.settings import WarehouseSettings
from assets.validation.data_docs import finish_site
from assets.validation.figures import Figures
from assets.validation.objects import Problems
from assets.validation.suites import suites
from assets.warehouse.marts import mart

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext

__all__ = ["Outcome", "validate"]


@dataclass(frozen=True)
class Outcome:
    """How the expectations went."""

    checked: dict[str, int]
    """Expectations by suite."""
    failed: list[tuple[str, str, str]]
    """Suite, sentence and severity of each expectation that was not met or could not be measured."""


def validate(
    folder: Path, figures: Figures, problems: Problems, as_of: str, policy: WarehouseSettings, site: Path
) -> Outcome:
    """Validate the marts in a folder and build Data Docs at `site`, replacing the site of the last audit.

    One mart is in memory at a time, texts as their lengths; a million complaints take about a gigabyte.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    site.parent.mkdir(parents=True, exist_ok=True)
    lock = locked(site.parent / f".{site.name}", "Data Docs")
    with lock, tempfile.TemporaryDirectory(prefix=".data-docs-", dir=site.parent) as beside:
        outcome = _validate(folder, figures, problems, as_of, policy, Path(beside))
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(beside, site)
    return outcome


def _validate(
    folder: Path, figures: Figures, problems: Problems, as_of: str, policy: WarehouseSettings, site: Path
) -> Outcome:
    context = _context(site)
    checked, failed = {}, []
    for suite, expectations in suites(policy, problems, compared=figures.mix_shift is not None).items():
        frame = _figures_frame(figures, problems) if suite == "publication" else _frame(folder, suite)
        result = _run(context, suite, expectations, frame, as_of)
        checked[suite] = len(result.results)
        failed += [_failure(suite, item) for item in result.results if not item.success]
    context.build_data_docs()
    outcome = Outcome(checked, failed)
    finish_site(site, as_of, outcome.checked, outcome.failed, figures)
    return outcome


def _context(site: Path) -> "EphemeralDataContext":
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    docs = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site)},
    }
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        data_docs_sites={"marts": docs},
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _run(
    context: "EphemeralDataContext", suite: str, expectations: list[Any], frame: pd.DataFrame, as_of: str
) -> "ExpectationSuiteValidationResult":
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier

    source = context.data_sources.add_pandas(suite)
    batch = source.add_dataframe_asset(suite).add_batch_definition_whole_dataframe("staged")
    stored = context.suites.add(gx.ExpectationSuite(suite, expectations=expectations))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=suite, data=batch, suite=stored))
    return definition.run(
        batch_parameters={"dataframe": frame},
        result_format="BASIC" if suite == "publication" else "BOOLEAN_ONLY",
        run_id=RunIdentifier(run_name=as_of, run_time=datetime.fromisoformat(as_of).replace(tzinfo=UTC)),
    )


def _failure(suite: str, item: Any) -> tuple[str, str, str]:
    config = item.expectation_config
    unmeasured = " (could not be measured)" if _raised(item.exception_info) else ""
    return suite, config.description + unmeasured, config.severity.value


def _raised(info: dict[str, Any]) -> bool:
    """Whether an expectation could not be measured: reported flat, or once per metric."""
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(metric["raised_exception"] for metric in info.values())


_ROWS = {
    "fct_complaints": "select * replace (length(narrative) as narrative) from read_parquet($1)",
    "quarantined_complaints": "select * replace (length(raw_text) as raw_text) from read_parquet($1)",
}
_ALL = "select * from read_parquet($1)"
_REPEATED = {"company", "state", "zip_code", "tags", "channel", "queue", "label_reason", "object_id"}


def _frame(folder: Path, name: str) -> pd.DataFrame:
    """A mart's rows; of what people wrote only the length, and what is repeated is stored once."""
    with duckdb.connect() as connection:
        table = connection.sql(_ROWS.get(name, _ALL), params=[mart(folder, name)]).to_arrow_table()
    categories = [name for name in table.column_names if name in _REPEATED]
    frame: pd.DataFrame = table.to_pandas(categories=categories)
    return frame


def _figures_frame(figures: Figures, problems: Problems) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "unbalanced_objects": [figures.unbalanced_objects],
            "known": [figures.known],
            "staleness_days": [figures.staleness_days],
            "quarantined_share": [figures.quarantined / max(figures.landed, 1)],
            "unmapped_share": [figures.unmapped / max(figures.rows["fct_complaints"], 1)],
            "mix_shift": [figures.mix_shift],
            "labelled_queues": [len(figures.queue_mix)],
            "complaints": [figures.rows["fct_complaints"]],
            **{f"{rule}_objects": [len(found)] for rule, found in asdict(problems).items()},
        }
    ).astype(float)
