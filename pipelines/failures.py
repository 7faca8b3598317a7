"""Why a run failed, on one line."""

import dagster as dg

import assets.exceptions
from assets.display import plain
from assets.resources import numbers_of

__all__ = ["say_why_interrupted", "stopped", "told", "words_of"]

_LONG = 500
"""The most characters of a reason."""
_SPEAK_FOR_THEMSELVES = {"Failure", "DagsterExecutionInterruptedError", *assets.exceptions.__all__}
"""Errors whose message needs no class name."""


def stopped(event: dg.DagsterEvent) -> str:
    """Where a run stopped, and why, on one line without a full stop: sentences of pages and letters go on from it."""
    return f"stopped at {event.step_key or 'the start'}: {_cause(event)}".rstrip(".")


def told(check: dg.AssetCheckEvaluation) -> str:
    """What a check of an asset says, on one line."""
    parts = (check.asset_key.to_user_string(), check.check_name, words_of(check))
    return plain(": ".join(filter(None, parts)), _LONG)


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


def words_of(check: dg.AssetCheckEvaluation) -> str:
    """What a check says of its evaluation, or else the numbers that it was decided by."""
    return plain(check.description or numbers_of(check.metadata), _LONG)
