"""Sets up a worker's process before it imports anything large."""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from assets.lean import hide, look_for_garbage_rarely

__all__ = [
    "die_with_parent",
    "hand_over_environment",
    "keep_memory",
    "lean_imports",
    "leave",
    "notice",
    "silence_stdout",
    "take_environment",
    "use_cores",
]

_HANDED_OVER = ("AWS_", "DAGSTER_PIPES_", "EVERGREEN_LOG")
_ENVIRONMENT = "environment.json"

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt(3)


def die_with_parent(how: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when its parent ends, however it ends (Linux only).

    An interrupt ends it at once, too: there is nothing to clean up, because nothing counts before it is published.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, how)
    if os.getppid() != parent:  # it ended before this call
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def notice() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM and SIGINT end nothing; yields a function that says whether one has come. Main thread only."""
    come: list[int] = []
    stops = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(stop, lambda number, _: come.append(number)) for stop in stops]
    try:
        yield lambda: bool(come)
    finally:
        for stop, handler in zip(stops, before, strict=True):
            signal.signal(stop, handler)


def silence_stdout() -> None:
    """Send what libraries print to stderr: stdout belongs to the command that started the run."""
    os.dup2(2, 1)


def hand_over_environment(folder: Path) -> None:
    """Save environment variables for ranks on other machines: credentials, where to report and how to log.

    The file is private to its owner, on storage that the machines share: anybody can read a command line, or a log.
    """
    file = folder / _ENVIRONMENT
    file.touch(mode=0o600, exist_ok=False)
    file.write_text(json.dumps({name: value for name, value in os.environ.items() if name.startswith(_HANDED_OVER)}))


def take_environment(folder: Path) -> None:
    """Set the environment variables that a launcher on another machine has saved, if any."""
    if (folder / _ENVIRONMENT).is_file():
        os.environ |= json.loads((folder / _ENVIRONMENT).read_text())


def keep_memory() -> None:
    """Keep freed memory, and allocate it in huge pages (Linux only); keep few kernels. Call before torch is imported.

    A training step frees and allocates gigabytes; getting them from the kernel each time, page by page, took up to half
    of the step. oneDNN and torch's layer around it keep the last 1,024 kernels each, with their buffers, one per shape
    of a product: with batches of ever new lengths these grew to two gigabytes in 465 steps.
    """
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # the second is ideep's, inside torch
        os.environ.setdefault(cache, "64")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's own name for huge pages
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def use_cores() -> int:
    """Share this machine's cores among the ranks on it; returns this rank's threads. Call before torch is imported.

    A cluster, whose machines have other work, too, says how many (EVERGREEN_THREADS).
    """
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)
    threads = int(os.environ.get("EVERGREEN_THREADS") or max(1, len(os.sched_getaffinity(0)) // local_ranks))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads make a busy machine several times slower
    os.environ |= {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
    return threads


def lean_imports() -> None:
    """Skip imports of DeepSpeed and transformers for features that are not used here: half of the start.

    mlflow serves DeepSpeed's autotuner, scipy and scikit-learn serve losses and decoding of other tasks. Without
    torch.compile, the Muon optimizer does not compile kernels that nothing uses (TORCHDYNAMO_DISABLE=0 brings it back).
    Garbage is collected rarely, because imports produce none: another second.
    """
    look_for_garbage_rarely()
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    hide(("accelerate", "mlflow", "scipy", "sklearn"))


def leave(status: int) -> NoReturn:
    """End this process without the seconds that Python needs to shut down its libraries."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
