"""Why a run failed, on one line."""

from collections.abc import Sequence

import dagster as dg

import assets.exceptions
from assets.display import plain

__all__ = ["say_why_interrupted", "shortfall", "stopped", "words_of"]

_LONG = 500
"""The most characters of a reason."""
_SPEAK_FOR_THEMSELVES = {"Failure", "DagsterExecutionInterruptedError", *assets.exceptions.__all__}
"""Errors whose message needs no class name."""
_LAID_OUT = (dg.MarkdownMetadataValue, dg.JsonMetadataValue, dg.TableMetadataValue)


def stopped(event: dg.DagsterEvent, failed_checks: Sequence[str] = ()) -> str:
    """Where a run stopped, and why, on one line. `failed_checks`: the messages of the checks that failed before."""
    why = _cause(event)
    if why.startswith("DagsterAssetCheckFailedError") and failed_checks:
        why = "; ".join(failed_checks)
    return f"stopped at {event.step_key or 'the start'}: {why}"


def say_why_interrupted() -> None:
    """Give Dagster's interruption of a run a message: it has none, so only its class would be shown."""
    text = "this run was asked to stop; the last publication is intact"
    dg.DagsterExecutionInterruptedError.__str__ = lambda _: text  # type: ignore[method-assign]


def _cause(event: dg.DagsterEvent) -> str:
    """The innermost error, never empty: its message, after its class unless the message is enough."""
    error = getattr(event.event_specific_data, "error", None)
    if error is None:
        return plain(event.message or event.event_type_value, _LONG)
    while error.cause is not None:
        error = error.cause
    kind, _, message = error.message.partition(":")
    name = kind.strip().rpartition(".")[2]
    is_enough = message.strip() and name in _SPEAK_FOR_THEMSELVES
    return plain(message if is_enough else f"{name}: {message}".strip(": \n"), _LONG)


def shortfall(check: dg.AssetCheckEvaluation) -> str:
    """What a failed check says, after its name."""
    return plain(f"check {check.check_name} failed: {words_of(check)}".rstrip(": "), _LONG)


def words_of(check: dg.AssetCheckEvaluation) -> str:
    """What a check says of its evaluation, or else the numbers that it was decided by."""
    numbers = [
        f"{name} {value.value:.4g}" if isinstance(value, dg.FloatMetadataValue) else f"{name} {value.value}"
        for name, value in check.metadata.items()
        if not isinstance(value, _LAID_OUT)
    ]
    return plain(check.description or ", ".join(numbers), _LONG)
