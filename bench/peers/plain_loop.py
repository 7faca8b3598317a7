"""What a person would write: the plan's precision, float32 masters, clipping, fused AdamW, the same schedule."""

from collections.abc import Callable

import torch

from assets.training.plan import TrainingPlan
from assets.training.program.batches import Sampler
from assets.training.program.optimization import schedule
from assets.training.tasks.classification.data import TrainingData
from assets.training.tasks.classification.groups import parameter_groups
from assets.training.tasks.classification.model import TextClassifier
from assets.training.tasks.classification.objective import CrossEntropy

__all__ = ["plain_loop"]


def plain_loop(classifier: TextClassifier, plan: TrainingPlan, data: TrainingData) -> Callable[[int], None]:
    """What makes step number n, over the same rows as ours."""
    settings, device = plan.settings, next(classifier.parameters()).device
    classifier.to(torch.bfloat16 if settings.hardware.precision == "bf16" else torch.float32).train()
    groups = parameter_groups(classifier, settings)
    low = [parameter for group in groups for parameter in group["params"]]
    for group in groups:
        group["params"] = [parameter.detach().float() for parameter in group["params"]]
    masters = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)
    sampler = Sampler.of(data, settings, 1)
    loss = CrossEntropy(data.class_weights).to(device)
    rates = schedule(optimizer, sampler.steps, settings)

    def step(number: int) -> None:
        rows = sampler.rows(number)
        batch = data.batch(rows, classifier.padding)
        logits = classifier(**{name: tensor.to(device) for name, tensor in batch.inputs.items()})
        (loss(logits, batch.targets.to(device)) / data.weight(rows)).backward()
        for weight, master in zip(low, masters, strict=True):
            master.grad, weight.grad = weight.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, settings.optimizer.gradient_clipping)
        optimizer.step()
        rates.step()
        with torch.no_grad():
            torch._foreach_copy_(low, masters)

    return step
