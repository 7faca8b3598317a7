"""The commands by which a person decides: `approve`, `reject`, `rollback`, `withdraw`."""

from typing import Annotated, Literal

import typer

from assets.lake import Home
from assets.settings import load_domain
from pipelines.output import show

__all__ = ["approve", "reject", "rollback", "withdraw"]


By = Annotated[str, typer.Option(help="Who decides; recorded in the ledger.")]
Reason = Annotated[str, typer.Option(help="Why; recorded in the ledger.")]


def approve(
    version: Annotated[str, typer.Argument(help="A version that awaits approval.")], by: By, reason: Reason
) -> None:
    """Approve a version that awaits approval: it becomes the champion."""
    _settle(version, "approve", by, reason)


def reject(
    version: Annotated[str, typer.Argument(help="A version that awaits approval.")], by: By, reason: Reason
) -> None:
    """Reject a version that awaits approval: the champion stays."""
    _settle(version, "reject", by, reason)


def _settle(version: str, decision: Literal["approve", "reject"], by: str, reason: str) -> None:
    from assets.registry.registry import Registry
    from assets.registry.succession import Succession

    champion = Succession(Registry(Home.from_environment())).settle(version, decision, by, reason)
    show(f"version {champion.version} is the champion" if champion else "there is no champion yet")


def rollback(
    version: Annotated[str, typer.Argument(help="A version that was champion before.")],
    reason: Reason,
) -> None:
    """Make an earlier version the champion again."""
    from assets.registry.registry import Registry
    from assets.registry.succession import Succession

    Succession(Registry(Home.from_environment())).rollback(version, reason)
    show(f"version {version} is the champion")


def withdraw(
    name: Annotated[str, typer.Argument(metavar="OBJECT", help="A source object, by key or id.")],
    reason: Reason,
) -> None:
    """Remove a source object and all its records from the next marts and training sets."""
    from pipelines.withdrawal import withdraw as take_out

    done = take_out(Home.from_environment(), name, reason)
    show(
        f"{done.object.key}: {done.object.landed:,} {load_domain().record.many} are withdrawn: {done.object.withdrawn}"
    )
    if done.published:
        show("the published marts contain them until the next run")
    if done.snapshots:
        show(f"built from it, and left as they are: {', '.join(done.snapshots)}")
    if done.versions:
        show(f"trained on those: version {', '.join(done.versions)}")
    if done.unknown:
        gone = "its training set was removed (reproducible in configs/retention.yaml)"
        show(f"unknown for version {', '.join(done.unknown)}: {gone}")
