"""CPU seconds and peak memory of each step of the graph, on simulated records, as shares of the whole run.

python bench/stages.py [--records N] [--profile NAME]
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

AS_OF, DAYS = "2024-07-01", 182
EVERGREEN = Path(sys.executable).with_name("evergreen")


def used(process: int) -> tuple[float, int]:
    """CPU seconds of a process and its children that have ended, and its own peak memory in MB."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    (peak,) = re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK"), int(peak) // 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=9_100)
    parser.add_argument("--profile", default="quick")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        days = ["--from", "2024-01-01", "--to", "2024-06-30", "--rate", str(options.records // DAYS), "--seed", "7"]
        subprocess.run([EVERGREEN, "simulate", "--output", f"{name}/source", *days], check=True)
        command = [EVERGREEN, "run", "--source", f"{name}/source", "--as-of", AS_OF, "--profile", options.profile]
        environment, steps, before = os.environ | {"EVERGREEN_HOME": f"{name}/home"}, [], 0.0
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as run:
            assert run.stderr is not None
            for line in run.stderr:
                if ended := re.match(r" +([\d.]+) s  (\S+)", line):
                    cpu, peak = used(run.pid)
                    steps.append((ended[2], float(ended[1]), cpu - before, peak))
                    before = cpu
    for step, seconds, cpu, peak in steps:
        print(f"{step:<32}{seconds:>8.1f} s {cpu:>8.1f} CPU s {cpu / before:>7.1%} of the run {peak:>8,} MB so far")


if __name__ == "__main__":
    main()
