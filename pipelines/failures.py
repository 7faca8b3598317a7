"""Why a run failed, in one line for a person."""

from collections.abc import Sequence

import dagster as dg

import assets.exceptions
from assets.display import plain

__all__ = ["say_why_interrupted", "shortfall", "stopped"]

_LONG = 500
"""Characters of a reason, at most."""
_SPEAK_FOR_THEMSELVES = {"Failure", "DagsterExecutionInterruptedError", *assets.exceptions.__all__}
"""Errors whose text is for a person."""
_LAID_OUT = (dg.MarkdownMetadataValue, dg.JsonMetadataValue, dg.TableMetadataValue)


def stopped(event: dg.DagsterEvent, failed_checks: Sequence[str] = ()) -> str:
    """Where a run stopped, and why, in one line. `failed_checks`: what the checks said that did not pass before."""
    why = _cause(event)
    if why.startswith("DagsterAssetCheckFailedError") and failed_checks:
        why = "; ".join(failed_checks)
    return f"stopped at {event.step_key or 'the start'}: {why}"


def say_why_interrupted() -> None:
    """Give Dagster's interruption of a run a text: it raises it without one, and shows no more than its class."""
    text = "this run was told to stop; what was published is intact"
    dg.DagsterExecutionInterruptedError.__str__ = lambda _: text  # type: ignore[method-assign]


def _cause(event: dg.DagsterEvent) -> str:
    """The innermost error, never empty: what it says, after its class unless that speaks for itself."""
    error = getattr(event.event_specific_data, "error", None)
    if error is None:
        return plain(event.message or event.event_type_value, _LONG)
    while error.cause is not None:
        error = error.cause
    kind, _, said = error.message.partition(":")
    name = kind.strip().rpartition(".")[2]
    return plain(said if said.strip() and name in _SPEAK_FOR_THEMSELVES else f"{name}: {said}".strip(": \n"), _LONG)


def shortfall(check: dg.AssetCheckEvaluation) -> str:
    """What a failed check says, or else the numbers that it was decided by."""
    numbers = [f"{name} {value.value}" for name, value in check.metadata.items() if not isinstance(value, _LAID_OUT)]
    return plain(f"check {check.check_name} failed: {check.description or ', '.join(numbers)}".rstrip(": "), _LONG)
