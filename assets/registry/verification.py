"""`evergreen ledger --verify`: whether the ledger is as it was written, and so are the evaluations it is based on."""

from collections.abc import Iterator
from dataclasses import dataclass

from assets.evaluation.report import evaluation_hash
from assets.registry.ledger import Entry
from assets.registry.registry import Registry

__all__ = ["Verification", "verify"]


@dataclass(frozen=True)
class Verification:
    """The result of the verification."""

    problem: str | None
    """The first thing that is not as it was written, in a sentence; None without one."""
    entries: int
    evaluations: int
    """Evaluations that are as they were when they were judged."""
    gone: int
    """Evaluations that are no longer in the lake, or older than their hashes."""

    @property
    def sentence(self) -> str:
        """What was verified."""
        gone = f", {self.gone} can no longer be compared" if self.gone else ""
        return (
            f"{self.entries} entries, each as it was appended, every champion following from earlier entries; "
            f"{self.evaluations} evaluations as they were judged{gone}"
        )


def verify(registry: Registry) -> Verification:
    """Verify the ledger's hashes, anchors and rules, MLflow's record of it, and its verdicts' evaluations."""
    entries = registry.ledger.entries()
    compared = list(_compared(registry, entries))
    edited = next((problem for problem in compared if problem), None)
    verdicts = sum(entry.kind == "verdict" for entry in entries)
    return Verification(registry.ledger_problem() or edited, len(entries), len(compared), verdicts - len(compared))


def _compared(registry: Registry, entries: list[Entry]) -> Iterator[str | None]:
    """For each evaluation that can be compared with the hash in its verdict: what is wrong with it, or None."""
    for entry in entries:
        if entry.kind == "verdict" and (judged := entry.body.get("evaluation_sha256")):
            digest = evaluation_hash(registry.home.lake, entry.as_of, entry.body["evaluation"])
            name = f"the evaluation {entry.body['evaluation']} of {entry.as_of}"
            if digest is not None:
                yield None if digest == judged else f"{name} is not the one that entry {entry.seq} judged"
