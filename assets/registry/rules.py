"""How the alias `champion` may move: what the ledger must hold before each of its alias entries."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

from assets.registry.ledger import Entry

__all__ = ["approvable_until", "interrupted", "unlawful"]

_Known = Mapping[tuple[str, str], Entry]
"""Entries by kind and key."""
_ACTS = {"verdict": "promote", "approval": "approve"}
_SUCCESSION = {"verdict", "approval", "alias", "alias-edit", "lapse"}


def approvable_until(verdict: Entry) -> date:
    """The last day, by as-of, on which a person can approve: the verdict has the policy that it was reached under."""
    days = verdict.body["numbers"].get("policy_approval_days")
    return date.max if days is None else date.fromisoformat(verdict.as_of) + timedelta(int(days))


def unlawful(entries: Sequence[Entry]) -> str | None:
    """The first alias entry that does not follow from those before it, and why; None when each does.

    A version becomes champion by a verdict to promote or an approval of its training, decided against the champion that
    it replaces (of which it is, when it is a refit); it comes back by a rollback, or by an edit by hand that was
    accepted.
    """
    known: dict[tuple[str, str], Entry] = {}
    held: dict[str, str | None] = {}
    champion: str | None = None
    for entry in entries:
        if entry.kind == "alias":
            if why := _not_allowed(entry, known, held, champion):
                return f"entry {entry.seq} makes version {entry.body.get('version')} the champion, and {why}"
            champion = str(entry.body["training_id"])
            held.setdefault(champion, entry.body.get("manifest_sha256"))
        known[entry.kind, entry.key] = entry
    return None


def interrupted(entries: Sequence[Entry]) -> tuple[Entry, Entry] | None:
    """The entry that calls for a champion, and the verdict that it is about, when a kill has kept the move from it."""
    last = next((entry for entry in reversed(entries) if entry.kind in _SUCCESSION), None)
    if last is None or last.body.get("decision") != _ACTS.get(last.kind):
        return None
    verdict = next((e for e in entries if e.kind == "verdict" and e.key == last.key), None)
    former = {entry.body["training_id"] for entry in entries if entry.kind == "alias"}
    return (last, verdict) if verdict and verdict.body["training_id"] not in former else None


def _not_allowed(move: Entry, known: _Known, held: Mapping[str, str | None], champion: str | None) -> str | None:
    training, action = str(move.body.get("training_id")), move.body.get("action")
    if (move.body.get("previous") or {}).get("training_id") != champion:
        return "the champion before it was another"
    if ("alias", move.key) in known:
        return "what made it so has acted before"
    if action in ("promote", "approve", "refit"):
        return _not_decided(move, known, held, champion)
    if action not in ("rollback", "accept"):
        return f"{action!r} makes no champion"
    edit = known.get(("alias-edit", move.key))
    if action == "accept" and (edit is None or edit.body.get("decision") != "accepted"):
        return "no edit by hand was accepted before it"
    if training not in held:
        return "it was never champion"
    return _other_files(move, held[training])


def _not_decided(move: Entry, known: _Known, held: Mapping[str, str | None], champion: str | None) -> str | None:
    verdict, approval = known.get(("verdict", move.key)), known.get(("approval", move.key))
    if verdict is None:
        return "no verdict to promote it is before it"
    wanted = "awaiting-approval" if move.body["action"] == "approve" else "promote"
    if wanted != "promote" and (approval is None or approval.body.get("decision") != "approve"):
        return "nobody has approved it"
    if verdict.body.get("decision") != wanted:
        return f"its verdict is {verdict.body.get('decision')}"
    if verdict.body.get("training_id") != move.body.get("training_id"):
        return "its verdict is of another training"
    if verdict.body.get("champion") != champion:
        return "its verdict was reached against another champion"
    if verdict.body.get("refit_of") not in (None, champion):
        return "it is a refit of another version than the champion"
    if move.body["training_id"] in held:
        return "it was champion before"
    return _other_files(move, verdict.body.get("manifest_sha256"))


def _other_files(move: Entry, judged: str | None) -> str | None:
    """Entries from before files were written down know none."""
    found = move.body.get("manifest_sha256")
    return None if None in (found, judged) or found == judged else "its files are not those that were judged"
