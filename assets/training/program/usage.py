"""The cost and usage of a run: seconds, money, memory, and the share of the machine's peak speed."""

import resource
import time
from collections.abc import Sequence

__all__ = ["cost", "expected", "matmul_peak", "peak_memory"]

_WIDTHS = {"cuda": 8192, "cpu": 1024}
"""The widths of the matrices that a device multiplies fastest."""


def expected(seconds_of_first_steps: Sequence[float], steps: int) -> float:
    """The expected seconds of `steps` steps, from the first few: the first one also allocates, so it counts once."""
    first, *rest = seconds_of_first_steps
    return first + (sum(rest) / len(rest) if rest else first) * (steps - 1)


def cost(seconds: float, ranks: int, price_per_hour: float) -> float:
    """The cost of `ranks` ranks for some seconds, in the currency of `price_per_hour`, the price of one rank."""
    return seconds / 3600 * ranks * price_per_hour


def matmul_peak(precision: str, seconds: float = 0.1) -> float:
    """The peak floating-point operations per second of this rank's device: large square products, for `seconds`.

    They are like those of layers, with one side transposed: where bf16 is computed in software, others are slower. The
    first product loads the library, which takes longer than many products, and does not count. With ones instead of
    random numbers an H100 reaches 877e12 instead of 787e12. Call before anything else is on a GPU: the memory of the
    products is not counted in `peak_memory`.
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
    """The peak memory of this process in bytes: main memory, and its GPU's if torch uses one."""
    import torch

    used = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    return used | ({"device": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {})
