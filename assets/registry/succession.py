"""Decides who is champion: verdicts, approvals, rollbacks and manual edits are recorded and then acted on.

The ledger is written first, and MLflow's alias `champion` follows; a tag of the model says which entry it has followed.
If a process is killed in between, the next call restores the state of the ledger, and an alias that somebody has moved
is distinguished from one that has yet to follow. With a ledger that is not as it was written, nothing is judged and
nothing moves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from assets.as_of import shifted
from assets.evaluation.gate import Verdict, count_reign, decide, decide_refit
from assets.evaluation.live import live_answers
from assets.evaluation.report import Evaluation, evaluation_hash, read_evaluation, table
from assets.evaluation.rules import WHILE_SERVING
from assets.exceptions import BundleError, RegistryError
from assets.registry.ledger import Entry, Ledger
from assets.registry.registry import FOLLOWED, LEDGER_BROKEN, MODEL, RegisteredVersion, Registry
from assets.registry.rules import approvable_until, interrupted
from assets.settings import GatePolicy

__all__ = ["Succession"]


@dataclass(frozen=True)
class Succession:
    """Moves the alias `champion` of a registry."""

    registry: Registry

    @property
    def _ledger(self) -> Ledger:
        return self.registry.ledger

    def judge(self, version: str, evaluation: Evaluation, policy: GatePolicy) -> Verdict:
        """Judge an evaluated version by the gate, record the verdict and act on it.

        With a ledger that is not as it was written the verdict is `inconclusive`, and nothing is written. Raises
        RegistryError when MLflow lacks the champion.
        """
        domain = self.registry.home.domain
        if problem := self.registry.ledger_problem():
            return decide(evaluation, policy, domain, doubts=(f"{LEDGER_BROKEN}: {problem}",))
        self.reconcile(evaluation.as_of, policy.alias_edits)
        verdict = self._decide(evaluation, policy)
        self.enact(version, verdict)
        return verdict

    def withdraw_canary(self, verdict: Entry) -> Verdict | None:
        """Judge a version again, by the policy of its verdict and by what it has answered while serving.

        If that shows a loss beyond chance, the new verdict rejects the version, and is recorded and returned; nothing
        is ever promoted here. Raises RegistryError when the ledger is not as it was written.
        """
        self.registry.require_ledger()
        if verdict.body["decision"] == "reject":
            return None
        folder = self.registry.home.lake.path(table(verdict.as_of), verdict.body["evaluation"])
        again = self._decide(read_evaluation(folder), GatePolicy.model_validate(verdict.body["policy"]))
        worse = any(finding.rule == WHILE_SERVING and not finding.holds for finding in again.findings)
        if again.decision != "reject" or not worse:
            return None
        self.enact(self.registry.version_of(verdict).version, again)
        return again

    def _decide(self, evaluation: Evaluation, policy: GatePolicy) -> Verdict:
        now = self._reigning()
        live = live_answers(self.registry.home.lake, evaluation.training_id, now) if now else None
        return decide(
            evaluation,
            policy,
            self.registry.home.domain,
            now,
            frozenset(self._former()),
            self._withdrawn_to(),
            count_reign((entry.body for entry in self._ledger.entries("verdict")), evaluation, now),
            tuple(self._doubts(evaluation)),
            self._held(evaluation.as_of, policy.rollback_holds_days),
            self.registry.refit_of(now) if now else None,
            (live.rows, live.only_challenger, live.only_champion) if live else (0, 0, 0),
        )

    def due_refit(self) -> RegisteredVersion | None:
        """The champion, if a verdict or an approval made it champion and there is no verdict on a refit of it yet.

        A champion restored by a rollback gets no refit. Raises RegistryError as `Registry.champion` does.
        """
        with self.registry.lock():
            self._catch_up()
        champion, last = self.registry.champion(), self.registry.last_move()
        if champion is None or last is None or last.body["action"] not in ("promote", "approve"):
            return None
        refitted = {entry.body.get("refit_of") for entry in self._ledger.entries("verdict")}
        return None if champion.refit_of or champion.training_id in refitted else champion

    def judge_refit(self, version: str, evaluation: Evaluation, policy: GatePolicy) -> Verdict:
        """Decide whether a refit replaces its champion, record the verdict and act on it.

        Raises RegistryError when the champion has changed in the meantime.
        """
        refitted = next(v for v in self._ledger.entries("verdict") if v.body["training_id"] == evaluation.refit_of)
        verdict = decide_refit(evaluation, policy, self.registry.home.domain, refitted.body["trained_to"])
        self.enact(version, verdict)
        return verdict

    def enact(self, version: str, verdict: Verdict) -> RegisteredVersion | None:
        """Append a verdict to the ledger and, if it promotes, make its version the champion; returns the champion.

        A verdict acts once: repeating it changes nothing. Raises RegistryError when the verdict is not about this
        version or the champion has changed since, and BundleError when the version's files are not intact.
        """
        with self.registry.lock():
            if verdict.decision != "unchanged":
                self._enact(self.registry.version(version), verdict)
            return self.registry.champion()

    def settle(
        self, version: str, decision: Literal["approve", "reject"], by: str, reason: str
    ) -> RegisteredVersion | None:
        """Approve or reject a version whose verdict awaits approval; returns the champion.

        Repeating it changes nothing. Raises RegistryError when nothing awaits approval, when it was settled
        differently, when the verdict is too old, when the champion has changed or a version trained as late was rolled
        back since, and for an empty name or reason.
        """
        if not by.strip() or not reason.strip():
            raise RegistryError("an approval needs a name and a reason: --by WHO --reason TEXT")
        with self.registry.lock():
            self._catch_up()
            target = self.registry.version(version)
            verdict = self._awaiting(target)
            about = {"version": version, "training_id": target.training_id}
            acts = decision == "approve" and target.training_id not in self._former()
            if acts:
                self._require_in_time(target, verdict)
                self._require_current(verdict.body["champion"], verdict.body["trained_to"])
                self._require_files(target, verdict.body.get("manifest_sha256"))
            body = about | {"decision": decision, "by": by, "reason": reason}
            entry = self._ledger.append("approval", verdict.key, self._ledger.newest_day(), body)
            if entry.body["decision"] != decision:
                settled = f"{entry.body['decision']} by {entry.body['by']}: {entry.body['reason']}"
                raise RegistryError(f"version {version} is already settled: {settled}")
            if acts:
                self._move(target, verdict.key, entry.as_of, "approve", _approved(entry))
            return self.registry.champion()

    def rollback(self, version: str, reason: str) -> RegisteredVersion:
        """Make a former champion the champion again by a person's decision, dated like the ledger's newest entry.

        Raises RegistryError for an unknown or unevaluated version, for one that was never champion, for an empty
        reason and when there is no champion to replace, and BundleError for a version whose files are not intact.
        """
        if not reason.strip():
            raise RegistryError("a rollback needs a reason")
        with self.registry.lock():
            self._catch_up()
            target = self.registry.version(version)
            if self._reigning() is None:
                raise RegistryError("there is no champion yet, so there is nothing to roll back")
            self._require_former(target)
            if self._reigning() != target.training_id:
                key = f"rollback-{len(self._ledger.entries())}"
                self._move(target, key, self._ledger.newest_day(), "rollback", reason)
            return target

    def reconcile(self, as_of: str, edits: Literal["restore", "accept"]) -> None:
        """Finish an interrupted move; record an alias that was moved by hand, and restore or accept it.

        Only versions that a rollback could reach are accepted: former champions, evaluated and intact.
        """
        with self.registry.lock():
            self._catch_up()
            named, champion = self.registry.aliases().get("champion"), self.registry.champion()
            expected = champion.version if champion else None
            if named == expected:
                return
            accepted = edits == "accept" and named is not None and self._may_hold(named)
            key = f"edit-{len(self._ledger.entries())}"
            body = {"found": named, "ledger": expected, "decision": "accepted" if accepted else "restored"}
            self._ledger.append("alias-edit", key, as_of, body | {"reason": "the alias was moved by hand in MLflow"})
            if accepted:
                assert named is not None
                self._move(self.registry.version(named), key, as_of, "accept", "moved by hand in MLflow")
            elif expected is None:
                self.registry.client.delete_registered_model_alias(MODEL, "champion")
            else:
                self.registry.point("champion", expected)

    def sync_mlflow(self) -> None:
        """Make MLflow agree with the ledger: the last verdict on each version, and the champion.

        Raises RegistryError when MLflow lacks the champion.
        """
        with self.registry.lock():
            for version in self.registry.versions():
                if verdicts := self.registry.verdicts(version.training_id):
                    self._mark(version, verdicts[-1])
                elif "ledger_hash" in version.tags:
                    self.registry.client.delete_model_version_tag(MODEL, version.version, "ledger_hash")
            if last := self.registry.last_move():
                self._point(last)
            elif FOLLOWED in self.registry.tags():
                self.registry.client.delete_registered_model_tag(MODEL, FOLLOWED)

    def _enact(self, target: RegisteredVersion, verdict: Verdict) -> None:
        if target.training_id != verdict.training_id:
            raise RegistryError(
                f"the verdict is about training {verdict.training_id}, not about version {target.version}"
            )
        acts = verdict.decision == "promote" and target.training_id not in self._former()
        if acts:
            self._require_current(verdict.champion, verdict.trained_to)
            self.registry.require_servable(target)
        entry = self._append_verdict(target, verdict)
        self._mark(target, entry)
        if acts:
            self._move(target, entry.key, verdict.as_of, _action(entry), "; ".join(verdict.reasons))

    def _append_verdict(self, target: RegisteredVersion, verdict: Verdict) -> Entry:
        """The verdict as the training's last entry; appended unless it already is the last one."""
        verdicts = self.registry.verdicts(target.training_id)
        measured = self._judged_hash(target.training_id, verdict.as_of, verdict.evaluation)
        files = {"manifest_sha256": target.manifest, "evaluation_sha256": measured}
        body = {"version": target.version} | files | verdict.body()
        if verdicts and _rests_on(verdicts[-1].body) == _rests_on(body):
            return verdicts[-1]
        return self._ledger.append("verdict", f"{target.training_id}-{len(verdicts) + 1}", verdict.as_of, body)

    def _mark(self, version: RegisteredVersion, verdict: Entry) -> None:
        self.registry.describe(version, verdict.body["decision"], verdict.body["reasons"])
        for name, value in (("ledger_hash", verdict.hash), ("verdict", verdict.body["decision"])):
            if version.tags.get(name) != value:
                self.registry.client.set_model_version_tag(MODEL, version.version, name, value)

    def _require_current(self, judged_against: str | None, trained_to: str) -> None:
        """Raises RegistryError if what the verdict relies on has changed: the champion, or what rollbacks replaced."""
        if judged_against != self._reigning():
            raise RegistryError("the champion has changed since the verdict; materialize challenger_evaluation again")
        if trained_to <= (withdrawn_to := self._withdrawn_to()):
            raise RegistryError(
                f"since the verdict a version trained to {withdrawn_to} was rolled back, and this one, trained to "
                f"{trained_to}, has seen nothing newer"
            )

    def _require_in_time(self, target: RegisteredVersion, verdict: Entry) -> None:
        newest = self._ledger.newest_day()
        if newest > (until := approvable_until(verdict)):
            raise RegistryError(
                f"version {target.version} could be approved until {until}, but the ledger has reached {newest}; "
                "train a newer challenger"
            )

    def _require_files(self, target: RegisteredVersion, judged: str | None) -> None:
        """Raises RegistryError or BundleError unless the version is servable, with the files that were judged."""
        self.registry.require_servable(target)
        if judged not in (None, target.manifest):
            raise RegistryError(f"version {target.version} has other files than those that were judged")

    def _catch_up(self) -> None:
        """Finish what a kill has interrupted: the move after a verdict or an approval, and MLflow's alias."""
        self.registry.require_ledger()
        if pending := interrupted(self._ledger.entries()):
            self._finish(*pending)
        last = self.registry.last_move()
        if last and self.registry.tags().get(FOLLOWED, "").split(" ")[0] != str(last.seq):
            self._point(last)

    def _finish(self, decision: Entry, verdict: Entry) -> None:
        """Make an interrupted move; when that is no longer possible, record why, once."""
        target = self.registry.version_of(verdict)
        try:
            self._require_current(verdict.body["champion"], verdict.body["trained_to"])
            self.registry.require_servable(target)
        except (RegistryError, BundleError) as error:
            body = {"version": target.version, "training_id": target.training_id, "decision": "lapsed"}
            why = f"its promotion was interrupted and can no longer be finished: {error}"
            self._ledger.append("lapse", decision.key, decision.as_of, body | {"reason": why})
            return
        self._mark(target, verdict)
        if decision.kind == "approval":
            self._move(target, decision.key, decision.as_of, "approve", _approved(decision))
        else:
            self._move(target, decision.key, decision.as_of, _action(decision), "; ".join(verdict.body["reasons"]))

    def _move(self, target: RegisteredVersion, key: str, as_of: str, action: str, reason: str) -> None:
        last = self.registry.last_move()
        previous = {name: last.body[name] for name in ("version", "training_id")} if last else None
        body: dict[str, Any] = {"alias": "champion", "action": action, "reason": reason, "previous": previous}
        about = {"version": target.version, "training_id": target.training_id, "manifest_sha256": target.manifest}
        self._point(self._ledger.append("alias", key, as_of, body | about))

    def _point(self, move: Entry) -> None:
        """Point MLflow's alias where an alias entry says, and record that it has followed."""
        self.registry.point("champion", self.registry.version_of(move).version)
        followed = f"{move.seq} {move.hash}"
        if self.registry.tags().get(FOLLOWED) != followed:
            self.registry.client.set_registered_model_tag(MODEL, FOLLOWED, followed)

    def _awaiting(self, target: RegisteredVersion) -> Entry:
        verdicts = self.registry.verdicts(target.training_id)
        if not verdicts or verdicts[-1].body["decision"] != "awaiting-approval":
            state = f"its last verdict is {verdicts[-1].body['decision']!r}" if verdicts else "it has no verdict yet"
            raise RegistryError(f"version {target.version} does not await approval: {state}")
        return verdicts[-1]

    def _doubts(self, evaluation: Evaluation) -> list[str]:
        """Reasons why an evaluation cannot count, whatever its numbers."""
        doubts, last = [], self.registry.last_move()
        if last and last.as_of > evaluation.as_of:
            doubts.append(
                f"it is a backfill as of {evaluation.as_of}, and version {last.body['version']} has been champion "
                f"since {last.as_of}: it may have learned from these test rows, and an older model does not replace it"
            )
        judged = self._judged_hash(evaluation.training_id, evaluation.as_of, evaluation.id)
        if judged != evaluation_hash(self.registry.home.lake, evaluation.as_of, evaluation.id):
            doubts.append(f"its evaluation {evaluation.id} is not the one that was judged before")
        return doubts

    def _judged_hash(self, training: str, as_of: str, evaluation: str) -> str | None:
        """The hash of an evaluation's file when a verdict was first based on it."""
        bodies = (entry.body for entry in self.registry.verdicts(training) if entry.body["evaluation"] == evaluation)
        known = (body.get("evaluation_sha256") for body in bodies)
        return next(filter(None, known), None) or evaluation_hash(self.registry.home.lake, as_of, evaluation)

    def _held(self, as_of: str, days: int) -> str | None:
        """Why a version that passes needs approval: there was a recent rollback."""
        last = self.registry.last_move()
        if last is None or last.body["action"] not in ("rollback", "accept"):
            return None
        until = shifted(last.as_of, days)
        return f"the rollback of {last.as_of} holds until {until}: a person decides" if as_of < until else None

    def _withdrawn_to(self) -> str:
        """The last training day of any champion that a rollback replaced; empty for none."""
        moves = self._ledger.entries("alias")
        withdrawn = {move.body["previous"]["training_id"] for move in moves if move.body["action"] == "rollback"}
        verdicts = self._ledger.entries("verdict")
        return max((v.body["trained_to"] for v in verdicts if v.body["training_id"] in withdrawn), default="")

    def _reigning(self) -> str | None:
        """The training id of the champion, whether MLflow has it or not."""
        last = self.registry.last_move()
        return str(last.body["training_id"]) if last else None

    def _former(self) -> dict[str, str | None]:
        """The trainings of the current and all former champions, with the hash of their files if known."""
        moves = self._ledger.entries("alias")
        return {str(move.body["training_id"]): move.body.get("manifest_sha256") for move in moves}

    def _require_former(self, target: RegisteredVersion) -> None:
        former = self._former()
        self._require_files(target, former.get(target.training_id))
        if target.training_id not in former:
            raise RegistryError(f"version {target.version} was never champion: only a verdict or an approval makes one")

    def _may_hold(self, version: str) -> bool:
        try:
            self._require_former(self.registry.version(version))
        except (RegistryError, BundleError):
            return False
        return True


_WORDED = ("rules", "policy", "context")
"""What a verdict says besides its numbers, which have all that decides of it."""


def _rests_on(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict without its words, which a domain may change; one that could not measure says no more than them."""
    words = _WORDED if verdict["decision"] == "inconclusive" else (*_WORDED, "reasons")
    return {name: value for name, value in verdict.items() if name not in words}


def _action(verdict: Entry) -> str:
    return "refit" if verdict.body.get("refit_of") else "promote"


def _approved(approval: Entry) -> str:
    return f"approved by {approval.body['by']}: {approval.body['reason']}"
