"""The expectations on the marts, as Great Expectations suites.

A failed expectation of severity critical stops the publication, one of severity warning is only reported. Each has one
sentence that says what it means; it is the expectation's name in the audit and in Data Docs.
"""

from datetime import date, datetime, time
from typing import TYPE_CHECKING

from assets.settings import Domain, WarehouseSettings
from assets.validation.objects import Problems, named
from assets.warehouse.composing import END_OF_TIME

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation
    from great_expectations.expectations.metadata_types import FailureSeverity

__all__ = ["columns", "suites"]


def _statistics(entity: str, domain: Domain) -> tuple[str, ...]:
    counts = [f"{entity}_records_{days}d" for days in (7, 30, 90)]
    shares = [f"{entity}_share_{label}" for label in domain.labels]
    return (entity, "event_timestamp", *counts, f"{entity}_text_share", f"{entity}_labels", *shares)


def columns(domain: Domain) -> dict[str, tuple[str, ...]]:
    """The columns of each mart."""
    return {
        "fct_records": (
            *("record_id", "known_at", "known_until", "received_at", "text", *domain.known),
            *("label", "label_known_at", "label_reason", "object_id", "line"),
        ),
        "labels": ("record_id", "known_at", "known_until", "label", "label_known_at"),
        **{f"{entity}_daily": _statistics(entity, domain) for entity in domain.entities},
        "quarantined_records": ("object_key", "line", "reason", "raw_text", "known_from"),
        "record_counts": (
            *("object_id", "object_key", "error"),
            *("landed", "valid", "quarantined", "duplicate", "withdrawn"),
        ),
    }


def suites(
    domain: Domain, policy: WarehouseSettings, problems: Problems, compared: bool
) -> dict[str, list["Expectation"]]:
    """Expectations by the name of what they are about: a mart, or `publication` for the figures of the whole.

    `problems` are those of new objects, which the sentences name; `compared` says whether there is a previous
    publication to compare the label mix with.
    """
    return {
        "publication": _publication(domain, policy)
        + _objects(policy, problems)
        + (_comparison(policy) if compared else []),
        "fct_records": _records(domain),
        "labels": _labels(domain),
        **{f"{entity}_daily": _daily(entity, domain) for entity in domain.entities},
        "quarantined_records": [_schema("quarantined_records", domain), _filled("reason")],
        "record_counts": [_schema("record_counts", domain), _filled("object_id"), _unique("object_id")],
    }


def _publication(domain: Domain, policy: WarehouseSettings) -> list["Expectation"]:
    days, share = policy.max_staleness_days, policy.max_quarantined_share
    return [
        _figure("records", 1, None, "There are records"),
        _figure("known", 1, None, "At least one record is known as of the as-of date"),
        _figure("staleness_days", 0, days, f"The newest known record is at most {days} days old"),
        _figure("unbalanced_objects", 0, 0, "Of each object, landed = valid + quarantined + duplicate"),
        _figure("quarantined_share", 0, share, f"At most {share:.0%} of what landed is quarantined"),
        _figure("unmapped_share", 0, policy.max_unmapped_share, _UNMAPPED.format("all", policy.max_unmapped_share)),
        _figure("labels", len(domain.labels), len(domain.labels), "Every label occurs", critical=False),
    ]


_UNMAPPED = "Of {} records with a value for the label at most {:.0%} have one that is no label's"


def _objects(policy: WarehouseSettings, problems: Problems) -> list["Expectation"]:
    """Bounds on each new object, and on the night's together."""
    sentences = {
        "refused": "No new object is refused as a whole",
        "quarantined": f"Of no new object more than {policy.max_quarantined_share:.0%} is quarantined",
        "unmapped": _UNMAPPED.format("each new object's", policy.max_unmapped_share),
        "shifted": f"No new object's label mix is further than {policy.max_mix_shift:g} from what is published",
        "cut_short": "No new object is cut short",
        "of_one_label": "No new object has one label alone",
    }
    expectations = []
    for rule, sentence in sentences.items():
        objects = getattr(problems, rule)
        full = f"{sentence}: {named(objects)}" if objects else sentence
        expectations.append(_figure(f"{rule}_objects", 0, 0, full, critical=rule not in _TOLERATED))
    return expectations


_TOLERATED = ("cut_short", "of_one_label")


def _comparison(policy: WarehouseSettings) -> list["Expectation"]:
    limit = policy.max_mix_shift
    sentence = f"The label mix is at most {limit:g} from the previous publication's (total variation distance)"
    return [_figure("mix_shift", 0, limit, sentence)]


def _records(domain: Domain) -> list["Expectation"]:
    return [
        _schema("fct_records", domain),
        *(_filled(column) for column in ("record_id", "known_at", *domain.entities)),
        _unique("record_id", "known_at"),
        _first_known_after(domain.received.not_before),
        _last_known_before(END_OF_TIME),
        _ordered("known_until", "known_at", "A version is replaced after it became known", strictly=True),
        _ordered("known_at", "received_at", "No record is known before it was received"),
        _ordered("label_known_at", "known_at", "No label is known before its record"),
        _among("label", tuple(domain.labels), "A label is one of the known ones"),
        *(
            _among(column, values, f"{column} is one of the expected values", critical=False)
            for column, values in domain.expected.items()
        ),
        _long("text", 1, 100_000, "A text has between 1 and 100,000 characters", critical=False),
    ]


def _labels(domain: Domain) -> list["Expectation"]:
    return [
        _schema("labels", domain),
        *(_filled(column) for column in ("record_id", "known_at", "label", "label_known_at")),
        _unique("record_id", "known_at"),
        _among("label", tuple(domain.labels), "A label is one of the known ones"),
        _ordered("label_known_at", "known_at", "No label is known before its record"),
    ]


def _daily(entity: str, domain: Domain) -> list["Expectation"]:
    week, month, quarter = (f"{entity}_records_{days}d" for days in (7, 30, 90))
    shares = [f"{entity}_text_share", *(f"{entity}_share_{label}" for label in domain.labels)]
    return [
        _schema(f"{entity}_daily", domain),
        _filled(entity),
        _filled("event_timestamp"),
        _unique(entity, "event_timestamp"),
        _between(week, 0, None, "No count is negative"),
        _ordered(month, week, "30 days hold at least the records of 7"),
        _ordered(quarter, month, "90 days hold at least the records of 30"),
        _between(f"{entity}_labels", 0, None, "No number of labels is negative"),
        *(_between(column, 0, 1, f"{column} is a share") for column in shares),
    ]


def _schema(mart: str, domain: Domain) -> "Expectation":
    from great_expectations.expectations.core.expect_table_columns_to_match_set import ExpectTableColumnsToMatchSet

    return ExpectTableColumnsToMatchSet(
        column_set=list(columns(domain)[mart]),
        exact_match=True,
        description="The columns are the agreed ones, and no others",
    )


def _filled(column: str, sentence: str = "") -> "Expectation":
    from great_expectations.expectations.core.expect_column_values_to_not_be_null import ExpectColumnValuesToNotBeNull

    return ExpectColumnValuesToNotBeNull(column=column, description=sentence or f"{column} is always filled")


def _unique(*columns: str) -> "Expectation":
    from great_expectations.expectations.core.expect_column_values_to_be_unique import ExpectColumnValuesToBeUnique
    from great_expectations.expectations.core.expect_compound_columns_to_be_unique import (
        ExpectCompoundColumnsToBeUnique,
    )

    sentence = f"One row per {' and '.join(columns)}"
    if len(columns) == 1:
        return ExpectColumnValuesToBeUnique(column=columns[0], description=sentence)
    return ExpectCompoundColumnsToBeUnique(column_list=list(columns), description=sentence)


def _between(column: str, low: float | None, high: float | None, sentence: str, critical: bool = True) -> "Expectation":
    from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween

    return ExpectColumnValuesToBeBetween(
        column=column, min_value=low, max_value=high, description=sentence, severity=_severity(critical)
    )


def _long(column: str, low: int, high: int, sentence: str, critical: bool = True) -> "Expectation":
    from great_expectations.expectations.core.expect_column_value_lengths_to_be_between import (
        ExpectColumnValueLengthsToBeBetween,
    )

    return ExpectColumnValueLengthsToBeBetween(
        column=column, min_value=low, max_value=high, description=sentence, severity=_severity(critical)
    )


def _figure(name: str, low: float | None, high: float | None, sentence: str, critical: bool = True) -> "Expectation":
    """A bound on a number of the whole publication; one that could not be measured does not hold."""
    from great_expectations.expectations.core.expect_column_max_to_be_between import ExpectColumnMaxToBeBetween

    return ExpectColumnMaxToBeBetween(
        column=name, min_value=low, max_value=high, description=sentence, severity=_severity(critical)
    )


def _first_known_after(day: date) -> "Expectation":
    from great_expectations.expectations.core.expect_column_min_to_be_between import ExpectColumnMinToBeBetween

    sentence = f"No record is older than {day}"
    return ExpectColumnMinToBeBetween(column="known_at", min_value=datetime.combine(day, time()), description=sentence)


def _last_known_before(day: str) -> "Expectation":
    from great_expectations.expectations.core.expect_column_max_to_be_between import ExpectColumnMaxToBeBetween

    sentence = "No record is of a day that timestamps cannot hold"
    return ExpectColumnMaxToBeBetween(column="known_at", max_value=datetime.fromisoformat(day), description=sentence)


def _among(column: str, values: tuple[str, ...], sentence: str, critical: bool = True) -> "Expectation":
    from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet

    return ExpectColumnValuesToBeInSet(
        column=column, value_set=list(values), description=sentence, severity=_severity(critical)
    )


def _ordered(later: str, earlier: str, sentence: str, strictly: bool = False) -> "Expectation":
    from great_expectations.expectations.core.expect_column_pair_values_a_to_be_greater_than_b import (
        ExpectColumnPairValuesAToBeGreaterThanB,
    )

    return ExpectColumnPairValuesAToBeGreaterThanB(
        column_A=later,
        column_B=earlier,
        or_equal=not strictly,
        ignore_row_if="either_value_is_missing",
        description=sentence,
    )


def _severity(critical: bool) -> "FailureSeverity":
    from great_expectations.expectations.metadata_types import FailureSeverity

    return FailureSeverity.CRITICAL if critical else FailureSeverity.WARNING
