"""`evergreen ledger --verify`: whether the ledger is as it was written, and rests on what it says that it rests on."""

from collections.abc import Iterator
from dataclasses import dataclass

from assets.evaluation.report import evaluation_hash
from assets.registry.ledger import Entry
from assets.registry.registry import Registry

__all__ = ["Verification", "verify"]


@dataclass(frozen=True)
class Verification:
    """What was found."""

    problem: str | None
    """The first thing that is not as it was written, in a sentence; None for nothing."""
    entries: int
    evaluations: int
    """Of the verdicts: as they were when they were decided on."""
    gone: int
    """Of the verdicts: no longer in the lake, or from before they were hashed."""

    @property
    def sentence(self) -> str:
        """What was looked at."""
        gone = f", {self.gone} cannot be compared any more" if self.gone else ""
        return (
            f"{self.entries} entries, each as it was appended and each champion made by what is before it; "
            f"{self.evaluations} evaluations as they were decided on{gone}"
        )


def verify(registry: Registry) -> Verification:
    """Look at the ledger's hashes, anchors and rules, what MLflow remembers of it, and its verdicts' evaluations."""
    entries = registry.ledger.entries()
    compared = list(_compared(registry, entries))
    edited = next((problem for problem in compared if problem), None)
    verdicts = sum(entry.kind == "verdict" for entry in entries)
    return Verification(registry.ledger_problem() or edited, len(entries), len(compared), verdicts - len(compared))


def _compared(registry: Registry, entries: list[Entry]) -> Iterator[str | None]:
    """What is wrong with each evaluation that is there to be compared with the hash in its verdict."""
    for entry in entries:
        if entry.kind == "verdict" and (judged := entry.body.get("evaluation_sha256")):
            found = evaluation_hash(registry.home.lake, entry.as_of, entry.body["evaluation"])
            name = f"the evaluation {entry.body['evaluation']} of {entry.as_of}"
            if found is not None:
                yield None if found == judged else f"{name} is not the one that entry {entry.seq} was decided on"
