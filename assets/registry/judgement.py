"""The verdict on the challenger of an as-of date: reached, acted on, and published."""

import json
from dataclasses import dataclass
from typing import Any

from assets.evaluation.gate import Verdict
from assets.evaluation.report import load_evaluation
from assets.hashing import hash_json
from assets.home import Home
from assets.lake import Lake
from assets.registry.registry import RegisteredVersion, Registry
from assets.registry.succession import Succession
from assets.registry.verification import verify
from assets.settings import GatePolicy

__all__ = ["Judgement", "judge_challenger", "load_verdict"]

_FILE = "verdict.json"


@dataclass(frozen=True)
class Judgement:
    """A verdict, the version it is about, the champion afterwards, and what is wrong with that champion, if anything.

    `ledger_problem` is how the ledger, or an evaluation that it refers to, has been altered since it was written. With
    an altered ledger there is no champion.
    """

    verdict: Verdict
    challenger: RegisteredVersion
    champion: RegisteredVersion | None
    problem: str | None
    ledger_problem: str | None


def judge_challenger(home: Home, as_of: str, policy: GatePolicy) -> Judgement:
    """Judge the registered and evaluated challenger of an as-of date by the gate, and act on the verdict.

    The ledger has every decision; the lake table `verdict/<as_of>` has the latest answer, including `unchanged`.
    Raises NotPublished without an evaluation, RegistryError when it was not registered or MLflow lacks the champion.
    """
    registry, evaluation = Registry(home), load_evaluation(home.lake, as_of)
    challenger = registry.of_training(evaluation.training_id)
    verdict = Succession(registry).judge(challenger.version, evaluation, policy)
    _publish(home.lake, as_of, {"version": challenger.version} | verdict.body())
    champion = None if registry.ledger_problem() else registry.champion()
    return Judgement(verdict, challenger, champion, registry.problem(), verify(registry).problem)


def load_verdict(lake: Lake, as_of: str) -> dict[str, Any]:
    """The latest verdict of an as-of date: version, decision, reasons, numbers, training_id, evaluation, champion.

    Raises NotPublished.
    """
    content: dict[str, Any] = json.loads((lake.current(_table(as_of)) / _FILE).read_text())
    return content


def _table(as_of: str) -> str:
    return f"verdict/{as_of}"


def _publish(lake: Lake, as_of: str, body: dict[str, Any]) -> None:
    with lake.staging(_table(as_of)) as staged:
        (staged / _FILE).write_text(json.dumps(body, indent=1))
        lake.publish(_table(as_of), hash_json(body)[:16], staged)
