"""In place of the training program: one rank of a launcher, which writes down what it was handed over."""

import json
import os
import sys
from pathlib import Path

from assets.training.program.process import take_environment

if __name__ == "__main__":
    folder = Path(sys.argv[1]).parent
    take_environment(folder)
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(dict(os.environ)))
