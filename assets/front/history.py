"""What was known and decided on each day, by the ledger alone.

The clock of a home is the newest as-of that its ledger has come to. An as-of is a text that sorts by time.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import sqrt
from statistics import NormalDist
from typing import Any

from assets.exceptions import RegistryError
from assets.home import Home
from assets.registry.ledger import Entry
from assets.registry.rules import approvable_until, awaiting, unlawful
from assets.registry.shared_ledger import ledger_of

__all__ = ["Day", "Event", "History", "Now", "Quality", "Reign", "Share", "Timeline", "Waiting"]

_CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)


@dataclass(frozen=True)
class Share:
    """A share of rows, and between what chance leaves it, with 95% confidence (Wilson 1927)."""

    value: float
    rows: int
    low: float
    high: float

    @classmethod
    def of(cls, value: float | None, rows: int) -> "Share | None":
        """None without rows."""
        if value is None or not rows:
            return None
        scale = 1 + _Z**2 / rows
        middle, half = value + _Z**2 / (2 * rows), _Z * sqrt(value * (1 - value) / rows + _Z**2 / (4 * rows**2))
        return cls(value, rows, (middle - half) / scale, (middle + half) / scale)


@dataclass(frozen=True)
class Reign:
    """A time in which a version was the champion."""

    version: str
    training_id: str
    since: str
    until: str | None
    """The as-of on which another took its place; None while it reigns."""
    title: str
    """How it came to be champion."""
    reasons: tuple[str, ...]
    judged: Share | None = None
    """Right answers on the test rows of the verdict that made it so; None after a rollback."""
    beaten: float | None = None
    """The share of them that the champion before it had right."""


@dataclass(frozen=True)
class Quality:
    """How good the champion of an as-of was, by what was known on it."""

    as_of: str
    version: str | None
    realised: Share | None
    """Right answers among those whose label had arrived lately; None where too few had."""
    estimated: float | None
    """The accuracy that was expected of the newest window, whose labels had not arrived."""
    evaluated: Share | None
    """Right answers on the test rows of its evaluation."""
    drifted: bool | None
    """None where it could not be measured."""


@dataclass(frozen=True)
class Event:
    """Something that was found, decided or done."""

    seq: int
    """Of its entry in the ledger."""
    as_of: str
    kind: str
    """The kind of the entry."""
    title: str
    reasons: tuple[str, ...]
    version: str | None = None
    mark: str | None = None
    """What it is drawn as: retraining, rejection, withdrawal, rollback, alert; None for what is not drawn."""


@dataclass(frozen=True)
class Day:
    """What was known and decided on an as-of."""

    as_of: str
    champion: Reign | None
    """At its end."""
    quality: Quality | None
    began_to_drift: bool
    events: tuple[Event, ...]

    @property
    def marks(self) -> tuple[str, ...]:
        """What is drawn of it."""
        drawn = [event.mark for event in self.events if event.mark]
        return (*(["drift"] if self.began_to_drift else []), *dict.fromkeys(drawn))


@dataclass(frozen=True)
class Timeline:
    """Every as-of that the ledger has come to, oldest first, and who reigned when."""

    days: tuple[Day, ...]
    reigns: tuple[Reign, ...]

    @property
    def newest(self) -> str:
        """The last as-of, an empty text before the first."""
        return self.days[-1].as_of if self.days else ""

    @property
    def marks(self) -> frozenset[str]:
        """All that is drawn."""
        return frozenset(mark for day in self.days for mark in day.marks)

    def day(self, as_of: str) -> Day | None:
        """What was known on an as-of; None where nothing was decided on it."""
        return next((day for day in self.days if day.as_of == as_of), None)


@dataclass(frozen=True)
class Waiting:
    """A version on which a person decides."""

    version: str
    reasons: tuple[str, ...]
    until: str
    """The last as-of on which it can be approved."""


@dataclass(frozen=True)
class Now:
    """Who is champion, how good it is, and what waits for a person."""

    as_of: str
    champion: Reign | None
    quality: Quality | None
    waiting: tuple[Waiting, ...]
    alert: Event | None
    """The newest decision on retraining, where it asks for a person."""
    former: tuple[str, ...]
    """Versions that a rollback can name, the last champion first."""


@dataclass(frozen=True)
class History:
    """A home's ledger, and what it tells."""

    entries: tuple[Entry, ...]
    problem: str | None = None
    """Why it cannot be believed: then nobody is champion by it."""

    @classmethod
    def of(cls, home: Home) -> "History":
        """As the ledger is; what MLflow and the lake remember of it is left to `Registry.ledger_problem`."""
        ledger = ledger_of(home)
        try:
            entries = tuple(ledger.entries())
            return cls(entries, ledger.problem() or unlawful(entries))
        except RegistryError as error:
            return cls((), str(error))

    @cached_property
    def timeline(self) -> Timeline:
        """What was known and decided on each as-of."""
        reigns, versions = _reigns(self.entries), _versions(self.entries)
        told: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            if entry.kind in _TITLES:
                told[entry.as_of].append(entry)
        days, before = [], None
        for as_of in sorted(told):
            quality = _quality(told[as_of], versions)
            champion = next((reign for reign in reversed(reigns) if reign.since <= as_of), None)
            days.append(Day(as_of, champion, quality, _begins(quality, before), tuple(map(_event, told[as_of]))))
            before = quality or before
        return Timeline(tuple(days), reigns)

    @cached_property
    def now(self) -> Now | None:
        """Where things stand at the end; None before the first entry."""
        days, reigns = self.timeline.days, self.timeline.reigns
        if not days:
            return None
        champion = reigns[-1] if reigns else None
        decided = [event for day in days for event in day.events if event.kind == "retraining"]
        former = dict.fromkeys(reign.version for reign in reversed(reigns))
        return Now(
            as_of=days[-1].as_of,
            champion=champion,
            quality=next((day.quality for day in reversed(days) if day.quality), None),
            waiting=tuple(_waiting(self.entries, champion)),
            alert=decided[-1] if decided and decided[-1].mark == "alert" else None,
            former=tuple(version for version in former if champion and version != champion.version),
        )


def _begins(quality: Quality | None, before: Quality | None) -> bool:
    """Whether drift is new: the window before had none, or was of another champion."""
    if quality is None or not quality.drifted:
        return False
    return before is None or not before.drifted or before.version != quality.version


def _reigns(entries: Iterable[Entry]) -> tuple[Reign, ...]:
    entries = tuple(entries)
    verdicts = {entry.key: entry for entry in entries if entry.kind == "verdict"}
    moves = [entry for entry in entries if entry.kind == "alias"]
    ends = [later.as_of for _, later in pairwise(moves)]
    return tuple(_reign(move, verdicts.get(move.key), end) for move, end in zip(moves, [*ends, None], strict=False))


def _reign(move: Entry, verdict: Entry | None, until: str | None) -> Reign:
    """verdict: the one that an alias entry follows from, None for a rollback."""
    about = (str(move.body["version"]), move.body["training_id"], move.as_of, until, _title(move))
    if verdict is None:
        return Reign(*about, _reasons(move))
    numbers = verdict.body["numbers"]
    judged = Share.of(numbers.get("challenger_accuracy"), int(numbers.get("test_rows") or 0))
    approved = move.body["action"] == "approve"
    reasons = (*(_reasons(move) if approved else ()), *_reasons(verdict))
    return Reign(*about, reasons, judged, numbers.get("champion_accuracy"))


def _versions(entries: Iterable[Entry]) -> dict[str, str]:
    """Versions by their training ids."""
    judged = (entry for entry in entries if entry.kind in ("verdict", "alias"))
    return {entry.body["training_id"]: str(entry.body["version"]) for entry in judged}


def _quality(told: Iterable[Entry], versions: dict[str, str]) -> Quality | None:
    """By the last decision on retraining of an as-of, which has the numbers that it rests on."""
    decided = [entry for entry in told if entry.kind == "retraining"]
    if not decided:
        return None
    numbers, enough = decided[-1].body["numbers"], decided[-1].body["policy"]["min_mature_rows"]
    realised = Share.of(numbers["accuracy"], numbers["mature_rows"])
    return Quality(
        as_of=decided[-1].as_of,
        version=versions.get(numbers["champion"]),
        realised=realised if realised and realised.rows >= enough else None,
        estimated=numbers["estimated_accuracy"],
        evaluated=Share.of(numbers["evaluated_accuracy"], numbers["evaluated_rows"]),
        drifted=numbers["drifted"][0] if numbers["drifted"] else None,
    )


def _waiting(entries: Sequence[Entry], champion: Reign | None) -> Iterator[Waiting]:
    """What was judged against another champion than today's cannot be approved."""
    for verdict in awaiting(entries):
        if verdict.body["champion"] == (champion.training_id if champion else None):
            yield Waiting(str(verdict.body["version"]), _reasons(verdict), approvable_until(verdict))


def _event(entry: Entry) -> Event:
    version = entry.body.get("version")
    mark = _MARKS[entry.kind](entry.body) if entry.kind in _MARKS else None
    return Event(entry.seq, entry.as_of, entry.kind, _title(entry), _reasons(entry), version and str(version), mark)


def _title(entry: Entry) -> str:
    return _TITLES[entry.kind](entry.body)


def _reasons(entry: Entry) -> tuple[str, ...]:
    """Why, by the entry: a sentence each."""
    body = entry.body
    if said := body.get("reasons"):
        return tuple(said)
    repeats = entry.kind == "attempt"  # its reason has what its title says
    why = "" if repeats else body.get("reason") or body.get("error") or ""
    return (why,) if why else ()


_Words = Callable[[dict[str, Any]], str]


def _verdict(body: dict[str, Any]) -> str:
    what = f"Version {body['version']}" + (", a refit," if body.get("refit_of") else "")
    return f"{what} {_VERDICTS[body['decision']]}"


_VERDICTS = {
    "promote": "passed the gate",
    "awaiting-approval": "awaits approval",
    "reject": "was rejected by the gate",
    "inconclusive": "could not be judged",
    "unchanged": "is the champion already",
}
_MOVES = {
    "promote": "Version {version} became champion by the gate's verdict",
    "approve": "Version {version} became champion by approval",
    "refit": "Version {version} became champion, as a refit of the one before",
    "rollback": "Version {version} became champion again, by a rollback",
    "accept": "Version {version} became champion again, by an edit by hand",
}
_DECISIONS = {
    "retrain": "A retraining was decided on",
    "retrain-when-labels-mature": "A retraining waits for labels",
    "skip": "No retraining",
    "alert-a-human": "A person is asked",
}
_SETTLED = {"approve": "approved", "reject": "rejected"}
_TITLES: dict[str, _Words] = {
    "verdict": _verdict,
    "alias": lambda body: _MOVES[body["action"]].format(version=body["version"]),
    "approval": lambda body: f"Version {body['version']} was {_SETTLED[body['decision']]} by {body['by']}",
    "alias-edit": lambda body: f"The alias was moved by hand in MLflow, and {body['decision']}",
    "lapse": lambda body: f"The promotion of version {body['version']} lapsed",
    "retraining": lambda body: _DECISIONS[body["decision"]],
    "attempt": lambda body: f"Attempt {body['attempt']} at the retraining",
    "failure": lambda body: f"A run of {body['job']} failed",
    "withdrawal": lambda body: f"{body['key']} was withdrawn",
    "forgetting": lambda body: f"Records were forgotten: {body['records']}",
}
_MARKS: dict[str, Callable[[dict[str, Any]], str | None]] = {
    "verdict": lambda body: "rejection" if body["decision"] in ("reject", "inconclusive") else None,
    "approval": lambda body: "rejection" if body["decision"] == "reject" else None,
    "alias": lambda body: "rollback" if body["action"] in ("rollback", "accept") else None,
    "retraining": lambda body: {"retrain": "retraining", "alert-a-human": "alert"}.get(body["decision"]),
    "failure": lambda _: "alert",
    "withdrawal": lambda _: "withdrawal",
}
