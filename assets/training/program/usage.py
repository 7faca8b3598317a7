"""What a run costs and has used: seconds, money, memory, and the share of what the machine can do."""

import resource
import time
from collections.abc import Sequence

__all__ = ["cost", "expected", "matmul_peak", "peak_memory"]

_WIDTHS = {"cuda": 8192, "cpu": 1024}
"""Of the matrices that a device multiplies at its best."""


def expected(seconds_of_first_steps: Sequence[float], steps: int) -> float:
    """Seconds that `steps` steps take, after the first few: the first one also allocates, so it counts once."""
    first, *rest = seconds_of_first_steps
    return first + (sum(rest) / len(rest) if rest else first) * (steps - 1)


def cost(seconds: float, ranks: int, price_per_hour: float) -> float:
    """What `ranks` ranks cost for so long, in the currency of the price of one rank's hour."""
    return seconds / 3600 * ranks * price_per_hour


def matmul_peak(precision: str, seconds: float = 0.1) -> float:
    """Floating-point operations per second of this rank's device at its best: large square products, for `seconds`.

    They are of the kind that layers make, one side transposed: where bf16 is computed in software, others are slower.
    The first product loads the library, for longer than many take, and does not count. Of ones instead of random
    numbers, an H100 would make 877e12 for 787e12. Call before anything else is on a GPU: what the products take there
    is not counted in `peak_memory`.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    width = _WIDTHS["cuda" if on_gpu else "cpu"]
    place = torch.device("cuda" if on_gpu else "cpu")
    left, right = (torch.rand(width, width, dtype=dtype, device=place) for _ in "ab")

    def product() -> float:
        started = time.perf_counter()
        torch.mm(left, right.t())
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    product()
    best, until = product(), time.perf_counter() + seconds
    while time.perf_counter() < until:
        best = min(best, product())
    if on_gpu:
        del left, right
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return 2 * width**3 / best


def peak_memory() -> dict[str, int]:
    """The most bytes that this process has held: in main memory, and on its GPU when torch uses one."""
    import torch

    used = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    return used | ({"device": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {})
