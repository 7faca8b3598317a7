"""The speed of the complaint simulator, compared with only writing the same bytes.

python bench/simulate.py [--records N]
"""

import argparse
import resource
import tempfile
import time
from datetime import date
from pathlib import Path

from complaints.simulation import simulate

START, END = date(2023, 1, 1), date(2024, 12, 31)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    rate = max(1, parser.parse_args().records // ((END - START).days + 1))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        simulated = simulate(Path(folder) / "simulated", START, END, rate, seed=0, scenario="calm")
        seconds = time.perf_counter() - started
        size, limit = rewrite(simulated.files, Path(folder) / "limit")
    megabytes, records = size / 1e6, simulated.records
    print(f"records          {records:,} in {len(simulated.files)} files, {megabytes:,.0f} MB")
    print(f"simulate         {seconds:.1f} s, {records / seconds:,.0f} records/s, {megabytes / seconds:.0f} MB/s")
    print(f"write alone      {limit:.2f} s, {megabytes / limit:,.0f} MB/s")
    print(f"simulate / write {seconds / limit:.0f}x")
    own, worker = peak(resource.RUSAGE_SELF), peak(resource.RUSAGE_CHILDREN)
    print(f"peak memory      {own:.0f} MB here, {worker:.0f} MB in the largest worker")


def rewrite(files: tuple[Path, ...], target: Path) -> tuple[int, float]:
    """Bytes of the files, and the seconds it takes to write those bytes again, one file at a time."""
    size, seconds = 0, 0.0
    target.mkdir()
    for file in files:
        content = file.read_bytes()
        started = time.perf_counter()
        (target / file.name).write_bytes(content)
        seconds += time.perf_counter() - started
        size += len(content)
    return size, seconds


def peak(who: int) -> float:
    """Peak resident memory in MB, of this process or of its largest worker."""
    return resource.getrusage(who).ru_maxrss / 1024


if __name__ == "__main__":
    main()
