"""Drivers: programs of ours that a cluster runs as jobs, each with the address of an exchange as its only argument.

<exchange>/failure.txt    a line that says why there is no result
"""

import os
import traceback
from collections.abc import Callable
from contextlib import suppress

from assets.cluster.exchange import Exchange
from assets.cluster.jobs import Job, RunJob
from assets.exceptions import ClusterError, EvergreenError, ObjectsError
from assets.hashing import hash_bytes

__all__ = ["FAILURE", "driven", "require_code", "run_driver"]

FAILURE = "failure.txt"


def run_driver(module: str, name: str, exchange: Exchange, cluster: str, run: RunJob) -> None:
    """Run a driver as the job of a name. Raises ClusterError, with the line that it has left if there is one."""
    # The address tells homes apart: what one asks for does not come to the other.
    own = f"{name}-{hash_bytes(exchange.address.encode())[:8]}"
    try:
        run(Job(own, cluster, ["python", "-m", module, exchange.address]))
    except ClusterError:
        if why := exchange.read(FAILURE):
            raise ClusterError(why) from None
        raise


def driven(exchange: Exchange, say: Callable[[str], None], work: Callable[[], None]) -> int:
    """Do a driver's work. Returns 0 when it is done; otherwise the exchange has a line that says why not.

    When the head of the cluster is gone, the process ends at once: Ray's hooks at its end would wait for the head.
    """
    try:
        exchange.remove(FAILURE)
        work()
    except EvergreenError as error:
        say(str(error))
        with suppress(ObjectsError):
            exchange.write(FAILURE, str(error))
        return 1
    except Exception:
        traceback.print_exc()
        os._exit(1)
    return 0


def require_code(theirs: str, ours: str) -> None:
    """Raises ClusterError unless the machine of the run has this cluster's code, by their hashes."""
    if theirs != ours:
        raise ClusterError("the cluster has another version of Evergreen than the machine that the run is on")
