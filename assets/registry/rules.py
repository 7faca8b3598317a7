"""The rules for moving the alias `champion`: what the ledger must hold before each alias entry."""

from collections.abc import Mapping, Sequence
from datetime import date

from assets.as_of import shifted
from assets.registry.ledger import Entry

__all__ = ["approvable_until", "awaiting", "interrupted", "unlawful"]

_Known = Mapping[tuple[str, str], Entry]
"""Entries by kind and key."""
_ACTS = {"verdict": "promote", "approval": "approve"}
_SUCCESSION = {"verdict", "approval", "alias", "alias-edit", "lapse"}


def approvable_until(verdict: Entry) -> str:
    """The last as-of at which a person can approve, by the policy recorded in the verdict."""
    days = verdict.body["numbers"].get("policy_approval_days")
    return date.max.isoformat() if days is None else shifted(verdict.as_of, int(days))


def awaiting(entries: Sequence[Entry]) -> list[Entry]:
    """The verdicts that a person can still settle, as of the newest entry."""
    today = max((entry.as_of for entry in entries), default="")
    settled = {entry.key for entry in entries if entry.kind == "approval"}
    last = {entry.body["training_id"]: entry for entry in entries if entry.kind == "verdict"}
    return [
        verdict
        for verdict in last.values()
        if verdict.body["decision"] == "awaiting-approval"
        and verdict.key not in settled
        and today <= approvable_until(verdict)
    ]


def may_replace(entries: Sequence[Entry], champion: str) -> list[Entry]:
    """The last verdicts on versions that were judged against a champion, a training, and may yet replace it."""
    last = {entry.body["training_id"]: entry for entry in entries if entry.kind == "verdict"}
    former = {entry.body["training_id"] for entry in entries if entry.kind == "alias"}
    open_ = {entry.seq for entry in awaiting(entries)}
    return [
        entry
        for training, entry in last.items()
        if training not in former
        and entry.body["champion"] == champion
        and (entry.body["decision"] == "inconclusive" or entry.seq in open_)
    ]


def unlawful(entries: Sequence[Entry]) -> str | None:
    """The first alias entry that does not follow from the entries before it, and why; None when all do.

    A version becomes champion by a verdict to promote or an approval of its training, decided against the champion it
    replaces (or, if it is a refit, is a refit of); it comes back by a rollback, or by an accepted manual edit.
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
    """The entry that makes a champion and the verdict it is about, when a kill has prevented the move."""
    last = next((entry for entry in reversed(entries) if entry.kind in _SUCCESSION), None)
    if last is None or last.body.get("decision") != _ACTS.get(last.kind):
        return None
    verdict = next((e for e in entries if e.kind == "verdict" and e.key == last.key), None)
    former = {entry.body["training_id"] for entry in entries if entry.kind == "alias"}
    return (last, verdict) if verdict and verdict.body["training_id"] not in former else None


def _not_allowed(move: Entry, known: _Known, held: Mapping[str, str | None], champion: str | None) -> str | None:
    training, action = str(move.body.get("training_id")), move.body.get("action")
    if (move.body.get("previous") or {}).get("training_id") != champion:
        return "the champion before it was a different one"
    if ("alias", move.key) in known:
        return "the decision behind it has already acted"
    if action in ("promote", "approve", "refit"):
        return _not_decided(move, known, held, champion)
    if action not in ("rollback", "accept"):
        return f"{action!r} cannot make a champion"
    edit = known.get(("alias-edit", move.key))
    if action == "accept" and (edit is None or edit.body.get("decision") != "accepted"):
        return "no manual edit was accepted before it"
    if training not in held:
        return "it was never champion"
    return _other_files(move, held[training])


def _not_decided(move: Entry, known: _Known, held: Mapping[str, str | None], champion: str | None) -> str | None:
    verdict, approval = known.get(("verdict", move.key)), known.get(("approval", move.key))
    if verdict is None:
        return "no verdict to promote it comes before it"
    wanted = "awaiting-approval" if move.body["action"] == "approve" else "promote"
    if wanted != "promote" and (approval is None or approval.body.get("decision") != "approve"):
        return "nobody has approved it"
    if verdict.body.get("decision") != wanted:
        return f"its verdict is {verdict.body.get('decision')}"
    if verdict.body.get("training_id") != move.body.get("training_id"):
        return "its verdict is about another training"
    if verdict.body.get("champion") != champion:
        return "its verdict was reached against another champion"
    if verdict.body.get("refit_of") not in (None, champion):
        return "it is a refit of another version than the champion"
    if move.body["training_id"] in held:
        return "it was champion before"
    return _other_files(move, verdict.body.get("manifest_sha256"))


def _other_files(move: Entry, judged: str | None) -> str | None:
    """Older entries do not record the hash of the files."""
    recorded = move.body.get("manifest_sha256")
    return None if None in (recorded, judged) or recorded == judged else "its files are not those that were judged"
