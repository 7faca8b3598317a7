"""One of two ranks: reads the encoder of a folder under ZeRO-3, and tells by how many bytes its peak has grown."""

import os
import resource
import sys
from pathlib import Path

from assets.training.program.process import lean_imports, use_cores

if __name__ == "__main__":
    threads = use_cores()
    lean_imports()
    import torch
    from deepspeed import zero  # noqa: F401 - before memory is looked at
    from transformers.models.bert import modeling_bert  # noqa: F401 - likewise

    from assets.training.program.engine import join_processes
    from assets.training.program.sharding import sharded_reader
    from assets.training.tasks.classification.model import load_encoder

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    join_processes(2, threads)
    torch.distributed.barrier()
    before, folder = peak(), Path(sys.argv[1])
    config = {"train_batch_size": 2, "bf16": {"enabled": True}, "zero_optimization": {"stage": 3}}
    read = sharded_reader(config) if sys.argv[2] == "in parts" else None
    encoder = load_encoder(folder, 32, read)
    for weight in encoder.parameters():  # as a step would: what is mapped from a file costs nothing before
        weight.sum()
    rank = int(os.environ["RANK"])
    (folder / f"grown-{rank}").write_text(str(peak() - before))
