"""Runs Great Expectations on the files of a mart: DuckDB computes all requested metrics at once.

Great Expectations' own SQL engine does not work with DuckDB, and its pandas engine would need every row in memory. For
a row that breaks a rule it only gets the row's place, never its content.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from great_expectations.compatibility import pydantic
from great_expectations.datasource.fluent import PandasDatasource
from great_expectations.exceptions import MetricResolutionError
from great_expectations.execution_engine import PandasExecutionEngine

from assets.validation.measures import Measures, quoted

if TYPE_CHECKING:
    from great_expectations.validator.metric_configuration import MetricConfiguration

__all__ = ["MartDatasource"]

_EXAMPLES = 5
_NOT_NEEDED = (".condition", ".map", "table.column_types")
"""What Great Expectations computes figures from; here the figures come from SQL."""


class MartDatasource(PandasDatasource):  # type: ignore[misc]
    """A data source of one mart; its batches are frames without rows, as the engine reads the files."""

    type: Literal["mart"] = "mart"
    _engine: "_MartEngine" = pydantic.PrivateAttr()

    def read(self, measures: Measures) -> None:
        """Take the mart's figures from here."""
        self._engine = _MartEngine(measures)

    def get_execution_engine(self) -> "_MartEngine":
        return self._engine


class _MartEngine(PandasExecutionEngine):  # type: ignore[misc]
    def __init__(self, measures: Measures) -> None:
        super().__init__()
        self._measures = measures

    def resolve_metrics(
        self,
        metrics_to_resolve: "Iterable[MetricConfiguration]",
        metrics: dict[Any, Any] | None = None,  # noqa: ARG002 - the interface
        runtime_configuration: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> dict[Any, Any]:
        """Values by metric id.

        Raises MetricResolutionError for metrics of columns that the mart does not have, and for unknown ones.
        """
        wanted = list(metrics_to_resolve)
        columns = self._measures.columns()
        if lost := [metric for metric in wanted if not set(_columns(metric)) <= set(columns)]:
            raise MetricResolutionError(f"{lost[0].metric_name}: no such column", failed_metrics=lost)
        values = {metric.id: columns for metric in wanted if metric.metric_name == "table.columns"}
        values |= {metric.id: None for metric in wanted if metric.metric_name.endswith(_NOT_NEEDED)}
        values |= self._figures(wanted)
        values |= self._examples(wanted, values)
        if unknown := [metric for metric in wanted if metric.id not in values]:
            raise MetricResolutionError(f"{unknown[0].metric_name}: unknown", failed_metrics=unknown)
        return values

    def _figures(self, wanted: "list[MetricConfiguration]") -> dict[Any, Any]:
        aggregates = {metric: sql for metric in wanted if (sql := _aggregate(metric))}
        of_files = self._measures.by_file(aggregates.values()) if aggregates else {}
        counts = {metric.id: self._measures.repeated(_columns(metric)) for metric in wanted if _counts_repeated(metric)}
        return counts | {
            metric.id: _COMBINED.get(metric.metric_name, sum)(figure for figure in of_files[sql] if figure is not None)
            for metric, sql in aggregates.items()
        }

    def _examples(self, wanted: "list[MetricConfiguration]", values: dict[Any, Any]) -> dict[Any, Any]:
        """The places of rows that break a rule, for the rules that any row breaks."""
        rules = {m.id: _rule(m) for m in wanted if m.metric_name.endswith(".unexpected_values")}
        counts = {_rule(m): values[m.id] for m in wanted if m.metric_name.endswith(".unexpected_count")}
        return {id_: self._measures.places(rule, _EXAMPLES) if counts[rule] else [] for id_, rule in rules.items()}


def _columns(metric: "MetricConfiguration") -> list[str]:
    domain = metric.metric_domain_kwargs
    columns = [domain.get(key) for key in ("column", "column_A", "column_B")]
    return [column for column in [*columns, *domain.get("column_list", [])] if column]


def _aggregate(metric: "MetricConfiguration") -> str | None:
    """The SQL of a metric that is a figure, and of the whole made of those of files."""
    name = metric.metric_name
    if name == "table.row_count":
        return "count(*)"
    if name in _COMBINED:
        return f"epoch_us({name.removeprefix('column.')}({quoted(*_columns(metric))}))"
    if name.endswith(".unexpected_count") and not _counts_repeated(metric):
        return f"count(*) filter ({_rule(metric)})"
    if name.endswith(".filtered_row_count"):
        return f"count(*) filter ({_counted(metric)})"
    return None


def _instant(choose: Callable[..., int]) -> Callable[..., datetime | None]:
    """The first or last instant of several in microseconds."""

    def combine(figures: Iterable[int]) -> datetime | None:
        micros = choose(figures, default=None)
        return None if micros is None else datetime(1970, 1, 1) + timedelta(microseconds=micros)

    return combine


_COMBINED: dict[str, Callable[..., Any]] = {"column.min": _instant(min), "column.max": _instant(max)}
"""How the figures of files make one of the whole, where that is not their sum. These are of columns of timestamps."""


def _counts_repeated(metric: "MetricConfiguration") -> bool:
    return bool(metric.metric_name.endswith(".unique.unexpected_count"))


def _counted(metric: "MetricConfiguration") -> str:
    """SQL for the rows that count, of an expectation on several columns."""
    least = {"either_value_is_missing": " and ", "all_values_are_missing": " or "}
    filled = [f"{quoted(column)} is not null" for column in _columns(metric)]
    return least[metric.metric_domain_kwargs["ignore_row_if"]].join(filled)


def _rule(metric: "MetricConfiguration") -> str:
    """SQL that is true for a row that is not as expected; null, like false, for one that does not count."""
    kind, _, _ = metric.metric_name.rpartition(".")
    columns, values = [quoted(column) for column in _columns(metric)], metric.metric_value_kwargs
    if kind == "column_values.nonnull":
        return f"{columns[0]} is null"
    if kind == "column_values.in_set":
        return f"{columns[0]} not in ({', '.join(map(_text, values['value_set']))})"
    if kind == "column_values.between":
        return _outside(columns[0], values)
    if kind == "column_values.value_length.between":
        return _outside(f"length({columns[0]})", values)
    if kind == "column_pair_values.a_greater_than_b":
        return f"{columns[0]} {'<' if values['or_equal'] else '<='} {columns[1]}"
    if kind in ("column_values.unique", "compound_columns.unique"):
        row = f"({', '.join(columns)})"
        return f"{row} in (select {row} from read_parquet($files) group by {row} having count(*) > 1)"  # noqa: S608
    raise NotImplementedError(f"{metric.metric_name} has no SQL")


def _outside(value: str, bounds: dict[str, Any]) -> str:
    low, high = bounds["min_value"], bounds["max_value"]
    assert not any(bounds.get(side) for side in ("strict_min", "strict_max")), "bounds are inclusive"
    sides = [
        *([f"{value} < {low:g}"] if low is not None else []),
        *([f"{value} > {high:g}"] if high is not None else []),
    ]
    return " or ".join(sides)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
