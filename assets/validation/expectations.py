"""Runs the suites with Great Expectations, which sees figures and places of rows, never their content."""

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from assets.as_of import instant
from assets.home import Home
from assets.lean import lean
from assets.locks import locked
from assets.settings import WarehouseSettings
from assets.validation.figures import Figures
from assets.validation.measures import Measures, Memory
from assets.validation.objects import Problems
from assets.validation.suites import suites

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.core.batch_definition import BatchDefinition
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext

__all__ = ["Outcome", "validate"]


@dataclass(frozen=True)
class Outcome:
    """The results of the expectations."""

    checked: dict[str, int]
    """Expectations by suite."""
    failed: list[tuple[str, str, str]]
    """Suite, sentence and severity of each expectation that was not met or could not be measured."""


def validate(
    home: Home, folder: Path, figures: Figures, problems: Problems, as_of: str, policy: WarehouseSettings
) -> Outcome:
    """Validate the marts in a folder and build Data Docs in the home's reports, replacing those of the last audit.

    Files whose content was measured before, by the same queries, are not read again.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    site = home.reports / "data-docs"
    site.parent.mkdir(parents=True, exist_ok=True)
    lock = locked(site.parent / f".{site.name}", "Data Docs")
    with lock, tempfile.TemporaryDirectory(prefix=".data-docs-", dir=site.parent) as temporary:
        memory = Memory.of(home.root / "cache" / "measures.json")
        pages = Path(temporary) / site.name
        context = _context(pages)
        from assets.validation.data_docs import write_index  # not before: it imports Great Expectations

        results = {
            suite: _run(context, suite, expectations, _batch(context, suite, folder, figures, problems, memory), as_of)
            for suite, expectations in suites(
                home.domain, policy, problems, compared=figures.mix_shift is not None
            ).items()
        }
        context.build_data_docs()
        outcome = _outcome(results)
        write_index(pages, as_of, outcome.checked, outcome.failed, figures, home.domain)
        memory.save()
        shutil.rmtree(site, ignore_errors=True)
        pages.rename(site)
        home.pages.put(site)
    return outcome


def _outcome(results: "dict[str, ExpectationSuiteValidationResult]") -> Outcome:
    checked = {suite: len(result.results) for suite, result in results.items()}
    failed = [_failure(suite, item) for suite, result in results.items() for item in result.results if not item.success]
    return Outcome(checked, failed)


_GOOGLE = ("google.api_core", "google.auth", "google.cloud", "google.oauth2")
_ABSENT = ("sqlalchemy", "boto3", "botocore", "psycopg2", "pyspark", *_GOOGLE)
_LATE = ("altair", "jsonschema", "scipy.stats")
"""Half of Great Expectations' start: databases, clouds and expectations that are not used here."""


def _context(site: Path) -> "EphemeralDataContext":
    with lean(absent=_ABSENT, late=_LATE):
        import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    docs = {
        **_ours("PageBuilder"),
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site)},
        "site_section_builders": {
            "expectations": {"view": _ours("PageView")},
            "validations": {"view": _ours("PageView"), "renderer": _ours("PageRenderer")},
        },
    }
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        data_docs_sites={"marts": docs},
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _ours(name: str) -> dict[str, str]:
    return {"module_name": "assets.validation.data_docs", "class_name": name}


def _batch(
    context: "EphemeralDataContext", suite: str, folder: Path, figures: Figures, problems: Problems, memory: Memory
) -> tuple["BatchDefinition[Any]", pd.DataFrame]:
    """What a suite is about: the figures of the whole, or the files of a mart."""
    import assets.validation.engine  # noqa: F401 - gives data sources of the kind `mart`

    if suite == "publication":
        source, frame = context.data_sources.add_pandas(suite), _figures_frame(figures, problems)
    else:
        source, frame = context.data_sources.add_mart(suite), pd.DataFrame()
        source.read(Measures(folder, suite, memory))
    return source.add_dataframe_asset(suite).add_batch_definition_whole_dataframe("staged"), frame


def _run(
    context: "EphemeralDataContext",
    suite: str,
    expectations: list[Any],
    batch: tuple["BatchDefinition[Any]", pd.DataFrame],
    as_of: str,
) -> "ExpectationSuiteValidationResult":
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier

    data, frame = batch
    stored = context.suites.add(gx.ExpectationSuite(suite, expectations=expectations))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=suite, data=data, suite=stored))
    return definition.run(
        batch_parameters={"dataframe": frame},
        result_format="BASIC",
        run_id=RunIdentifier(run_name=as_of, run_time=instant(as_of).replace(tzinfo=UTC)),
    )


def _failure(suite: str, item: Any) -> tuple[str, str, str]:
    config = item.expectation_config
    return suite, config.description + _found(item), config.severity.value


def _found(item: Any) -> str:
    """The number of rows that break a rule, and the place of one, in words; empty where the sentence says it."""
    if _raised(item.exception_info):
        return " (could not be measured)"
    if not item.result.get("unexpected_count"):
        return ""
    broken, rows, places = (
        item.result[key] for key in ("unexpected_count", "element_count", "partial_unexpected_list")
    )
    return f" ({broken:,} of {rows:,} rows, as {places[0]})"


def _raised(info: dict[str, Any]) -> bool:
    """Whether an expectation could not be measured: reported flat, or once per metric."""
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(metric["raised_exception"] for metric in info.values())


def _figures_frame(figures: Figures, problems: Problems) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "unbalanced_objects": [figures.unbalanced_objects],
            "known": [figures.known],
            "staleness_days": [figures.staleness_days],
            "quarantined_share": [figures.quarantined / max(figures.landed, 1)],
            "unmapped_share": [figures.unmapped / max(figures.label_values, 1)],
            "mix_shift": [figures.mix_shift],
            "labels": [len(figures.label_mix)],
            "records": [figures.rows["fct_records"]],
            **{f"{rule}_objects": [len(objects)] for rule, objects in asdict(problems).items()},
        }
    ).astype(float)
