"""The gate: whether a challenger becomes the champion, by rules alone.

Against the champion it asks for proof, on the rows that both have answered: that one of the metrics that decide is
better beyond chance, and that none of them is worse by more than is allowed. A part of the rows on which it likely
loses more than it may stands against it; when nothing else does, a person decides.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from assets.evaluation.live import chance_of_no_loss
from assets.evaluation.report import Evaluation
from assets.evaluation.rules import Context, Finding, Measured, find
from assets.settings import Domain, GatePolicy

__all__ = ["Decision", "Verdict", "conclude", "count_reign", "decide", "decide_refit", "met"]

Decision = Literal["promote", "awaiting-approval", "reject", "inconclusive", "unchanged"]
"""`inconclusive` means that the gate cannot measure; only `promote` moves the alias automatically."""


@dataclass(frozen=True)
class Verdict:
    """The gate's decision, its reasons, and every number it is based on."""

    decision: Decision
    reasons: tuple[str, ...]
    numbers: dict[str, float] = field(repr=False)
    as_of: str
    evaluation: str
    training_id: str
    champion: str | None
    """The training id of the champion that the challenger was judged against."""
    trained_to: str
    """The last day of the training rows of the challenger, or of the version it is a refit of."""
    refit_of: str | None = None
    """The training id of the evaluated version, when the verdict is about a refit of it."""
    findings: tuple[Finding, ...] = field(default=(), repr=False)
    """The result of every rule, in order; empty for `unchanged`."""
    basis: dict[str, Any] = field(default_factory=dict, repr=False)
    """The policy and the context, as JSON: with them and the evaluation, the rules give the same findings again."""

    def body(self) -> dict[str, Any]:
        """The verdict as JSON; a number that is not finite becomes null."""
        numbers = {name: value if math.isfinite(value) else None for name, value in self.numbers.items()}
        return {
            "decision": self.decision,
            "reasons": list(self.reasons),
            "training_id": self.training_id,
            "evaluation": self.evaluation,
            "champion": self.champion,
            "trained_to": self.trained_to,
            "numbers": numbers,
            "rules": [finding.body() for finding in self.findings],
            **self.basis,
            **({"refit_of": self.refit_of} if self.refit_of else {}),
        }


_ITSELF = "the challenger is the champion already: nothing it is made of has changed"


def decide(
    evaluation: Evaluation,
    policy: GatePolicy,
    domain: Domain,
    champion: str | None = None,
    former: frozenset[str] = frozenset(),
    withdrawn_to: str = "",
    nth: int = 1,
    doubts: tuple[str, ...] = (),
    held: str | None = None,
    refit_of: str | None = None,
    live: tuple[int, int, int] = (0, 0, 0),
) -> Verdict:
    """The verdict on an evaluated challenger, its reasons in the domain's words.

    `champion` is the training id of the version that has the alias now, or None; if it is a refit, `refit_of` is that
    of the version it refits, with which the challenger is compared: neither has learned from the rows it is judged by,
    and the challenger may get a refit, too. `former` are the training ids of former champions; `withdrawn_to` is the
    last training day of any version that a rollback has replaced; `nth` counts the challengers of the champion's reign
    including this one; `doubts` are other reasons why it cannot be measured, and `held` is why a person decides if it
    passes, whatever the policy's approval. `live` are the records that it and the champion have answered while serving
    (`Context.live`). What cannot be measured is never promoted.
    """
    replaced = evaluation.training_id in former
    context = Context(refit_of or champion, replaced, withdrawn_to, nth, doubts, held, live)
    return _judge(evaluation, policy, domain, context, champion, evaluation.snapshot.period["train"][1])


def decide_refit(evaluation: Evaluation, policy: GatePolicy, domain: Domain, trained_to: str) -> Verdict:
    """The verdict on a refit, evaluated on the reference rows against the version it is to replace.

    It has learned from that version's test rows, so they say nothing about it. `trained_to` is that version's.
    """
    champion = evaluation.champion.training_id if evaluation.champion else None
    return _judge(evaluation, policy, domain, Context(evaluation.refit_of), champion, trained_to)


def conclude(findings: Sequence[Finding], policy: GatePolicy, context: Context) -> tuple[Decision, tuple[str, ...]]:
    """The decision that follows from the findings, and its reasons."""
    failed = [finding for finding in findings if not finding.holds]
    if unknown := [finding for finding in failed if finding.measures]:
        return "inconclusive", tuple(f"cannot measure: {finding.sentence}" for finding in unknown)
    if not all(finding.waivable for finding in failed):
        return "reject", tuple(finding.sentence for finding in failed)
    # Findings against it come first, then those in favour, for the person who weighs them.
    weighed = [*failed, *(finding for finding in findings if finding.holds and not finding.quiet)]
    reasons = tuple(finding.sentence for finding in weighed)
    if failed:
        return "awaiting-approval", reasons
    decision: Decision = "promote" if policy.approval == "automatic" and not context.held else "awaiting-approval"
    return decision, (*([context.held] if context.held else []), *reasons)


def _judge(
    evaluation: Evaluation,
    policy: GatePolicy,
    domain: Domain,
    context: Context,
    champion: str | None,
    trained_to: str,
) -> Verdict:
    measured, itself = Measured.of(evaluation, domain, policy), context.champion == evaluation.training_id
    findings = () if itself else find(measured, policy, context)
    decision, reasons = ("unchanged", (_ITSELF,)) if itself else conclude(findings, policy, context)
    return Verdict(
        decision=decision,
        reasons=reasons,
        numbers=_numbers(measured, policy, context),
        as_of=evaluation.as_of,
        evaluation=evaluation.id,
        training_id=evaluation.training_id,
        champion=champion,
        trained_to=trained_to,
        refit_of=evaluation.refit_of,
        findings=findings,
        basis={"policy": policy.model_dump(mode="json"), "context": asdict(context)},
    )


def count_reign(verdicts: Iterable[Mapping[str, Any]], evaluation: Evaluation, champion: str | None) -> int:
    """The number of this evaluation among those against a champion, from 1, by the bodies of the verdicts so far."""
    return len(met(verdicts, champion) - {evaluation.id}) + 1


def met(verdicts: Iterable[Mapping[str, Any]], champion: str | None) -> set[str]:
    """The evaluations against a champion, by the bodies of the verdicts so far, oldest first.

    What could not be measured does not count, since it could not have replaced the champion. Nor does a refit: it needs
    no gain, so it spends no chance of a false one. Nor does a former champion: only a person brings it back.
    """
    evaluations, reigned = set[str](), set[str | None]()
    for verdict in verdicts:
        reigned.add(verdict["champion"])
        against = verdict["champion"] == champion and not verdict.get("refit_of")
        if against and verdict["decision"] != "inconclusive" and verdict["training_id"] not in reigned:
            evaluations.add(verdict["evaluation"])
    return evaluations


def _numbers(measured: Measured, policy: GatePolicy, context: Context) -> dict[str, float]:
    limits = {f"policy_{name}": value for name, value in policy.model_dump().items() if isinstance(value, int | float)}
    judged = () if measured.evaluation.refit_of else measured.parts
    by_part = {f"gain/{part.name}": part.gain for part in judged}
    by_part |= {f"chance/{part.name}": part.chance(policy) for part in judged}
    counted = {"test_rows": float(measured.evaluation.challenger.rows), "nth_of_the_reign": float(context.nth)}
    if context.live[0]:
        rows, ours, theirs = context.live
        counted |= {"live_rows": float(rows), "live_only_challenger": float(ours), "live_only_champion": float(theirs)}
        counted["live_chance"] = chance_of_no_loss(ours, theirs)
    return counted | measured.numbers | by_part | limits
