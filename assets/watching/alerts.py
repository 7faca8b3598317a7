"""What people are told without asking: the entries of the ledger that want their attention, in words and numbers.

The words are those of the domain's settings, never those of a record: nothing of an error's message, of a verdict's
reasons (which name values of columns) or of an object's key is told.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from assets.registry.ledger import Entry
from assets.settings import Domain

__all__ = ["Alert", "alerts"]

_STEP = re.compile(r"stopped at ([a-z_]+):")


@dataclass(frozen=True)
class Alert:
    """What an entry of the ledger tells."""

    entry: int
    """Its number."""
    key: str
    """Its hash: two alerts with the same one are the same alert."""
    as_of: str
    kinds: tuple[str, ...]
    text: str
    run_id: str | None = None
    """Of a failed run."""

    def body(self) -> bytes:
        """As JSON; chat programs show `text`."""
        about = {"entry": self.entry, "as_of": self.as_of, "kinds": self.kinds, "run_id": self.run_id}
        return json.dumps({"text": self.text, **about}).encode()


def alerts(entries: Iterable[Entry], domain: Domain, kinds: Iterable[str]) -> Iterator[Alert]:
    """The alerts of a ledger, oldest first. Drift is told when it begins, a spent budget once a month."""
    before = _Before()
    for entry in entries:
        told = {kind: words for kind, words in _told(entry, domain, before) if kind in set(kinds)}
        if told:
            text = f"{domain.title}, as of {entry.as_of}: {' '.join(dict.fromkeys(told.values()))}"
            yield Alert(entry.seq, entry.hash, entry.as_of, tuple(told), text, entry.body.get("run_id"))


@dataclass
class _Before:
    """What has been told before."""

    drifting: str | None = None
    """The training id of the champion that drifted in the newest window."""
    month: str = ""
    """The last in which the budget was spent."""


def _told(entry: Entry, domain: Domain, before: _Before) -> Iterator[tuple[str, str]]:
    """By kind, in a sentence or two."""
    tell = _TELL.get(entry.kind)
    yield from tell(entry, domain, before) if tell else ()


def _failure(entry: Entry, domain: Domain, before: _Before) -> Iterator[tuple[str, str]]:
    del domain, before
    step = _STEP.match(str(entry.body.get("error", "")))
    where = f" at {step.group(1)}" if step else ""
    yield "failure", f"A run of {entry.body['job']} failed{where}; `evergreen ledger` says why."


def _verdict(entry: Entry, domain: Domain, before: _Before) -> Iterator[tuple[str, str]]:
    del domain, before
    if entry.body["decision"] == "awaiting-approval":
        version, numbers = entry.body["version"], entry.body["numbers"]
        shares = {"challenger_accuracy": "its accuracy is", "champion_accuracy": "the champion's is"}
        measured = [f"{words} {numbers[name]:.1%}" for name, words in shares.items() if numbers.get(name) is not None]
        yield "person", f"Version {version} awaits a person's approval{''.join(f'; {one}' for one in measured)}."


def _retraining(entry: Entry, domain: Domain, before: _Before) -> Iterator[tuple[str, str]]:
    numbers, champion = entry.body["numbers"], entry.body["numbers"].get("champion")
    drifting = champion if (numbers.get("drifted") or [None])[0] else None
    if drifting and drifting != before.drifting:
        yield "drift", f"The newest {domain.record.many} are not like those that the champion was trained on."
    before.drifting = drifting
    if entry.body["decision"] == "alert-a-human":
        yield "person", f"A person is needed: {entry.body['reason']}."
    if entry.as_of[:7] > before.month and (words := _budget(numbers, entry.body["policy"])):
        before.month = entry.as_of[:7]
        yield "budget", words


def _budget(numbers: Mapping[str, Any], policy: Mapping[str, Any]) -> str | None:
    spent, cost, most = numbers.get("spent", 0.0), numbers.get("cost", 0.0), policy.get("budget_per_month")
    if most is None or not spent or spent + cost <= most:
        return None
    return f"{spent:.2f} of the month's {most:.2f} for retrainings are spent, and another costs {cost:.2f}."


_TELL: dict[str, Callable[[Entry, Domain, _Before], Iterator[tuple[str, str]]]] = {
    "failure": _failure,
    "verdict": _verdict,
    "retraining": _retraining,
}
