"""DeepSpeed around a model: processes, precision, partitioning, optimizer and schedule."""

import inspect
import math
import os
from collections.abc import Callable
from typing import Any

import deepspeed
import torch
from deepspeed import DeepSpeedEngine
from deepspeed.runtime import compiler
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.utils import is_invalid_grad_norm
from deepspeed.runtime.zero import stage_1_and_2
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed import init_process_group
from torch.optim import Adam, Optimizer

from assets.exceptions import TrainingError
from assets.training.plan import TrainingPlan
from assets.training.program.batches import count_steps
from assets.training.program.optimization import schedule
from assets.training.program.sharding import deal_out_rest, sharded_reader
from assets.training.task import Data, Task

__all__ = [
    "Agreement",
    "consolidated_weights",
    "engine_config",
    "join_processes",
    "make_model",
    "seed_everything",
    "start_engine",
    "tell_all",
]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def join_processes(world_size: int, threads: int) -> None:
    """Join the run's other ranks, over NCCL with GPUs and over gloo without.

    The launcher's environment names the other ranks; one process alone needs no address and no port.
    """
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, products may differ from run to run
    _leave_compiler_out()
    # DeepSpeed would compile this operator at the first start, which takes a minute; only tensor-parallel inference
    # uses it.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend, device = "gloo", None
    if torch.cuda.is_available():
        backend, device = "nccl", torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        init_process_group(backend, store=HashStore(), rank=0, world_size=1, device_id=device)
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    if (started := torch.distributed.get_world_size()) != world_size:
        raise TrainingError(
            f"{started} ranks were started for a plan of {world_size}; mend training.hardware.hostfile or ranks"
        )


def tell_all(first: int, second: int) -> tuple[int, int]:
    """Rank 0's two integers, each below 2**63; all ranks call it."""
    values = torch.tensor([first, second], device="cuda" if torch.cuda.is_available() else "cpu")
    torch.distributed.broadcast(values, 0)
    first, second = values.tolist()
    return first, second


def seed_everything(seed: int) -> None:
    """Make weights and dropout a function of the seed; dropout differs between ranks.

    On a GPU torch's default attention adds up its gradients in any order: two runs ended 0.02 apart.
    """
    torch.manual_seed(seed + torch.distributed.get_rank())
    if torch.cuda.is_available():
        torch.set_deterministic_debug_mode("error")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def make_model(task: Task[Any, Any], plan: TrainingPlan, data: Data) -> nn.Module:
    """The model before its training: sharded across the ranks under ZeRO-3, otherwise complete on each.

    Raises BaseModelError and SettingsError as `Task.model` does.
    """
    config = engine_config(plan)
    in_parts = config.get("zero_optimization", {}).get("stage", 0) == 3
    model: nn.Module = task.model(plan, data, sharded_reader(config) if in_parts else None)
    if in_parts:
        deal_out_rest(model, _DTYPES[plan.settings.hardware.precision])
    return model


def start_engine(task: Task[Any, Any], model: nn.Module, plan: TrainingPlan, rows: int) -> DeepSpeedEngine:
    """Wrap the model in DeepSpeed's engine: ZeRO stage and offload come from the file in configs/deepspeed.

    Weights start from those of rank 0; `rows`: the number of rows trained on.
    """
    settings = plan.settings
    steps = count_steps(rows, settings.optimizer.epochs, settings.optimizer.batch_rows)
    _look_at_norms(settings.hardware.precision == "fp16")
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=task.groups(model, settings),
        lr_scheduler=lambda optimizer: schedule(optimizer, steps, settings),
        config=engine_config(plan),
    )
    assert isinstance(engine, DeepSpeedEngine)
    if isinstance(engine.optimizer, FP16_UnfusedOptimizer):
        _undo_first_step(engine.optimizer)
    return engine


def engine_config(plan: TrainingPlan) -> dict[str, Any]:
    """DeepSpeed's configuration: the plan's file, and the settings of configs/training.yaml."""
    settings = plan.settings
    return plan.deepspeed | {
        "bf16": {"enabled": settings.hardware.precision == "bf16", "check_grad_overflow": False},  # Agreement looks
        "fp16": {"enabled": settings.hardware.precision == "fp16"},
        "data_types": {"grad_accum_dtype": settings.hardware.gradient_precision},
        "gradient_clipping": settings.optimizer.gradient_clipping,
        "train_batch_size": settings.optimizer.batch_rows,
        "train_micro_batch_size_per_gpu": settings.optimizer.batch_rows // plan.world_size,
    }


def consolidated_weights(engine: DeepSpeedEngine, trained: bool = False) -> dict[str, Tensor]:
    """The complete weights of the model, on the CPU, in the precision of the forward pass: all, or those it trains.

    All ranks must call it: under ZeRO-3 each parameter is gathered from them, one at a time. Rank 0 gets the result.
    """
    weights = {name: buffer.detach().cpu() for name, buffer in engine.module.named_buffers()}
    persistent = set(engine.module.state_dict())
    weights = {name: buffer for name, buffer in weights.items() if name in persistent}
    for name, parameter in engine.module.named_parameters():
        if trained and not parameter.requires_grad:
            continue
        with deepspeed.zero.GatheredParameters([parameter], enabled=engine.zero_optimization_partition_weights()):
            if torch.distributed.get_rank() == 0:
                weights[name] = parameter.detach().cpu().clone().contiguous()
    return weights


class Agreement:
    """Sums over the ranks after every step, known one step later: no rank waits for another, or for its device.

    All ranks call the same methods in the same order.
    """

    def __init__(self, engine: DeepSpeedEngine, votes: int) -> None:
        self._engine = engine
        self._nobody = [0.0] * votes
        self._asked: tuple[int, Tensor, Callable[[], object]] | None = None

    def ask(self, loss: Tensor, votes: list[float]) -> None:
        """Start to sum over the ranks their losses of the last step and their votes."""
        engine = self._engine
        norm = None if engine.fp16_enabled() else engine.get_global_grad_norm()  # fp16 skips steps that overflow
        sums = torch.tensor([0.0, 0.0, *votes], dtype=torch.float64)
        if engine.device.type == "cuda":
            sums = sums.pin_memory().to(engine.device, non_blocking=True)
        sums[0] = loss.detach()
        if norm is not None:
            sums[1] = norm
        work = torch.distributed.all_reduce(sums, async_op=True)
        wait: Callable[[], object] = work.wait
        if sums.is_cuda:
            work.wait()  # this delays later work on the device, not this process
            sums = sums.to("cpu", non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
            wait = copied.synchronize
        self._asked = engine.global_steps, sums, wait

    def answer(self) -> tuple[list[float], list[float]]:
        """The mean loss of the step of the last `ask`, and the sums of the votes; at first no loss, and zeros.

        Raises TrainingError when the loss or the norm of the gradients is not a number.
        """
        if self._asked is None:
            return [], self._nobody
        (step, sums, wait), self._asked = self._asked, None
        wait()
        loss, norm, *votes = sums.tolist()
        loss, norm = loss / self._engine.world_size, norm / self._engine.world_size
        for name, value in (("loss", loss), ("norm of the gradients", norm)):
            if not math.isfinite(value):
                at = f"training stopped at step {step}"
                raise TrainingError(f"{at}: the {name} is {value}; lower training.optimizer.learning_rate")
        return [loss], votes


def _leave_compiler_out() -> None:
    """Avoid importing torch._dynamo and sympy, which takes a second, except under stage 3, whose hooks need them.

    torch's optimizers import them to hide from a compiler, and DeepSpeed to compile the kernels of Muon and, on a GPU,
    for DeepCompile: neither is used. The compilation of the encoder (training.hardware.compile) is not affected.
    """
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        setattr(Optimizer, name, inspect.unwrap(getattr(Optimizer, name)))
    Adam.step = torch.no_grad()(inspect.unwrap(Adam.step))  # type: ignore[method-assign]
    compiler.compile = lambda: compiler.dummy_decorator
    deepspeed.runtime.engine.is_deepcompile_supported = lambda: False


def _look_at_norms(look: bool) -> None:
    """Let ZeRO 1 and 2 check their norms, or leave that to `Agreement`.

    Each check makes the processor wait for its GPU: 14 times a step, with four groups of parameters. fp16 must check,
    because it skips a step that overflows.
    """
    stage_1_and_2.is_invalid_grad_norm = is_invalid_grad_norm if look else lambda _: False
    stage_1_and_2.mask_nan_or_inf_with_val_inplace = _mark_invalid


def _mark_invalid(norm: Tensor, device: object = None) -> None:  # noqa: ARG001 - DeepSpeed's interface
    """Like DeepSpeed's own function, which copies the mark from main memory, and waits for it."""
    norm.masked_fill_(~norm.isfinite(), -1.0)


def _undo_first_step(optimizer: FP16_UnfusedOptimizer) -> None:
    """Restore weights and states to those before the step without gradients of DeepSpeed's stage 0.

    That step decays the weights, and Adam counts it: its first real update would be 0.74 of the right one.
    """
    optimizer.optimizer.state.clear()
    with torch.no_grad():
        for own, used in zip(optimizer.fp32_groups, optimizer.fp16_groups, strict=True):
            for weight, source in zip(own, used, strict=True):
                weight.copy_(source)
