"""The training program without dropout, so that runs on any number of ranks differ by rounding alone."""

import sys
from pathlib import Path

from assets.training.program.process import lean_imports, leave, use_cores

if __name__ == "__main__":
    use_cores()
    lean_imports()
    from assets.training.program import worker
    from assets.training.tasks.classification import model

    model._DROPOUT = 0.0
    leave(worker.main(Path(sys.argv[1])))
