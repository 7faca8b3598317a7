"""Who is champion, and who was: verdicts, approvals, rollbacks and edits by hand, written down and then acted on.

The ledger is written first, and MLflow's alias `champion` follows it; a tag of the model says which entry it has
followed. Whatever is killed between the two, the next call ends in the state that the ledger tells, and an alias that
somebody has moved is told from one that has yet to follow.
"""

from dataclasses import dataclass
from typing import Any, Literal

from assets.evaluation.gate import Verdict, count_reign, decide
from assets.evaluation.report import Evaluation
from assets.exceptions import BundleError, RegistryError
from assets.registry.ledger import Entry, Ledger
from assets.registry.registry import MODEL, RegisteredVersion, Registry
from assets.settings import GatePolicy

__all__ = ["Succession"]

_FOLLOWED = "ledger_entry"
"""The model's tag that names the alias entry which MLflow's alias has followed."""


@dataclass(frozen=True)
class Succession:
    """What moves the alias `champion` of a registry."""

    registry: Registry

    @property
    def _ledger(self) -> Ledger:
        return self.registry.ledger

    def judge(self, version: str, evaluation: Evaluation, policy: GatePolicy) -> Verdict:
        """Let the gate decide on an evaluated version, write its verdict down and act on it."""
        self.reconcile(evaluation.as_of, policy.alias_edits)
        champion = self.registry.champion()
        now = champion.training_id if champion else None
        nth = count_reign((entry.body for entry in self._ledger.entries("verdict")), evaluation, now)
        verdict = decide(evaluation, policy, now, self._former(), self._withdrawn_to(), nth)
        self.enact(version, verdict)
        return verdict

    def enact(self, version: str, verdict: Verdict) -> RegisteredVersion | None:
        """Append a verdict to the ledger and, if it promotes, make its version the champion; the champion it leaves.

        A verdict acts once: the same one again changes nothing. Raises RegistryError when the verdict is not about
        this version or the champion has changed since, and BundleError when the version's files are not intact.
        """
        with self.registry.lock():
            if verdict.decision != "unchanged":
                self._enact(self.registry.version(version), verdict)
            return self.registry.champion()

    def settle(
        self, version: str, decision: Literal["approve", "reject"], by: str, reason: str
    ) -> RegisteredVersion | None:
        """Approve or reject a version whose verdict awaits it; the champion that this leaves.

        Said again, it changes nothing. Raises RegistryError when nothing awaits approval, when it was settled
        otherwise, when the champion has changed or a twin was rolled back since the verdict, and for an empty name or
        reason.
        """
        if not by.strip() or not reason.strip():
            raise RegistryError("an approval needs a name and a reason: --by WHO --reason TEXT")
        with self.registry.lock():
            self._follow()
            target, verdict = self.registry.version(version), self._awaiting(version)
            body = {"version": version, "decision": decision, "by": by, "reason": reason}
            acts = decision == "approve" and target.training_id not in self._former()
            if acts:
                self._require_current(verdict.body["champion"], verdict.body["trained_to"])
                self.registry.require_servable(target)
            entry = self._ledger.append("approval", verdict.key, self._latest(), body)
            if entry.body["decision"] != decision:
                said = f"{entry.body['decision']} by {entry.body['by']}: {entry.body['reason']}"
                raise RegistryError(f"version {version} was settled before: {said}")
            if acts:
                self._move(target, verdict.key, entry.as_of, "approve", f"approved by {by}: {reason}")
            return self.registry.champion()

    def rollback(self, version: str, reason: str) -> RegisteredVersion:
        """Make a former champion the champion again by a person's decision, dated as the ledger's last entry.

        Raises RegistryError for an unknown or unevaluated version, for one that was never champion, for an empty
        reason and when there is no champion to replace, and BundleError for a version whose files are not intact.
        """
        if not reason.strip():
            raise RegistryError("a rollback needs a reason")
        with self.registry.lock():
            self._follow()
            target, champion = self.registry.version(version), self.registry.champion()
            if champion is None:
                raise RegistryError("there is no champion yet, so there is nothing to roll back")
            self._require_former(target)
            if champion.version != version:
                self._move(target, f"rollback-{len(self._ledger.entries())}", self._latest(), "rollback", reason)
            return target

    def reconcile(self, as_of: str, edits: Literal["restore", "accept"]) -> None:
        """Finish a move that was interrupted; write down an alias that was moved by hand, and put it back or accept it.

        Accepted is only what a rollback would be: a former champion, evaluated and intact.
        """
        with self.registry.lock():
            self._follow()
            named, champion = self.registry.aliases().get("champion"), self.registry.champion()
            told = champion.version if champion else None
            if named == told:
                return
            accepted = edits == "accept" and named is not None and self._may_hold(named)
            key = f"edit-{len(self._ledger.entries())}"
            body = {"found": named, "ledger": told, "decision": "accepted" if accepted else "restored"}
            self._ledger.append("alias-edit", key, as_of, body | {"reason": "the alias was moved by hand in MLflow"})
            if accepted:
                assert named is not None
                self._move(self.registry.version(named), key, as_of, "accept", "moved by hand in MLflow")
            elif told is None:
                self.registry.client.delete_registered_model_alias(MODEL, "champion")
            else:
                self.registry.point("champion", told)

    def _enact(self, target: RegisteredVersion, verdict: Verdict) -> None:
        if target.training_id != verdict.training_id:
            raise RegistryError(
                f"the verdict is about training {verdict.training_id}, not about version {target.version}"
            )
        acts = verdict.decision == "promote" and target.training_id not in self._former()
        if acts:
            self._require_current(verdict.champion, verdict.trained_to)
            self.registry.require_servable(target)
        entry = self._append_verdict(target.version, verdict)
        for name, value in (("ledger_hash", entry.hash), ("verdict", verdict.decision)):
            self.registry.client.set_model_version_tag(MODEL, target.version, name, value)
        if acts:
            self._move(target, entry.key, verdict.as_of, "promote", "; ".join(verdict.reasons))

    def _append_verdict(self, version: str, verdict: Verdict) -> Entry:
        """The verdict as the version's last entry: written unless it is that already."""
        said, body = self._verdicts(version), {"version": version} | verdict.body()
        if said and said[-1].body == body:
            return said[-1]
        return self._ledger.append("verdict", f"v{version}-{len(said) + 1}", verdict.as_of, body)

    def _require_current(self, judged_beside: str | None, trained_to: str) -> None:
        """Nothing that the verdict rests on has changed: the champion, and what rollbacks have replaced."""
        champion = self.registry.champion()
        if judged_beside != (champion.training_id if champion else None):
            raise RegistryError("the champion has changed since the verdict; materialize challenger_evaluation again")
        if trained_to <= (withdrawn_to := self._withdrawn_to()):
            raise RegistryError(
                f"since the verdict a version trained to {withdrawn_to} was rolled back, and this one, trained to "
                f"{trained_to}, has seen nothing newer"
            )

    def _move(self, target: RegisteredVersion, key: str, as_of: str, action: str, reason: str) -> None:
        champion = self.registry.champion()
        previous = {"version": champion.version, "training_id": champion.training_id} if champion else None
        body: dict[str, Any] = {"alias": "champion", "action": action, "reason": reason, "previous": previous}
        about = {"version": target.version, "training_id": target.training_id}
        self._ledger.append("alias", key, as_of, body | about)
        self._follow()

    def _follow(self) -> None:
        """Point MLflow's alias where the ledger's last move says, unless it has been there already."""
        last = self.registry.last_move()
        if last and self.registry.tags().get(_FOLLOWED) != str(last.seq):
            self.registry.point("champion", last.body["version"])
            self.registry.client.set_registered_model_tag(MODEL, _FOLLOWED, str(last.seq))

    def _awaiting(self, version: str) -> Entry:
        verdicts = self._verdicts(version)
        if not verdicts or verdicts[-1].body["decision"] != "awaiting-approval":
            told = f"its last verdict is {verdicts[-1].body['decision']!r}" if verdicts else "it has no verdict yet"
            raise RegistryError(f"version {version} does not await approval: {told}")
        return verdicts[-1]

    def _verdicts(self, version: str) -> list[Entry]:
        return [entry for entry in self._ledger.entries("verdict") if entry.body["version"] == version]

    def _withdrawn_to(self) -> str:
        """The last day that any champion which a rollback replaced was trained on; an empty text for none."""
        moves = self._ledger.entries("alias")
        withdrawn = {move.body["previous"]["training_id"] for move in moves if move.body["action"] == "rollback"}
        verdicts = self._ledger.entries("verdict")
        return max((v.body["trained_to"] for v in verdicts if v.body["training_id"] in withdrawn), default="")

    def _latest(self) -> str:
        return self._ledger.entries()[-1].as_of

    def _former(self) -> frozenset[str]:
        """The training ids of the champion and of every one before it."""
        return frozenset(str(move.body["training_id"]) for move in self._ledger.entries("alias"))

    def _require_former(self, target: RegisteredVersion) -> None:
        self.registry.require_servable(target)
        if target.training_id not in self._former():
            raise RegistryError(f"version {target.version} was never champion: only a verdict or an approval makes one")

    def _may_hold(self, version: str) -> bool:
        try:
            self._require_former(self.registry.version(version))
        except (RegistryError, BundleError):
            return False
        return True
