import numpy as np
import pytest
import torch

from assets.training.tasks.classification.objective import TEMPERATURES, losses_by_temperature


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.4])
def test_the_temperature_of_logits_is_found(temperature: float) -> None:
    """Labels drawn by the probabilities of logits that are then made more or less sure of them."""
    random = np.random.default_rng(0)
    right = torch.from_numpy(random.normal(size=(20_000, 9)) * 2)
    labels = torch.distributions.Categorical(logits=right).sample()
    losses = torch.stack(losses_by_temperature(right * temperature, labels))
    assert TEMPERATURES[int(losses.argmin())] == pytest.approx(temperature, abs=0.051)


def test_sums_add_up_over_batches() -> None:
    logits, labels = torch.randn(10, 9), torch.arange(10) % 9
    whole = torch.stack(losses_by_temperature(logits, labels))
    parts = [torch.stack(losses_by_temperature(logits[rows], labels[rows])) for rows in (slice(3), slice(3, None))]
    assert torch.allclose(sum(parts, torch.zeros(len(TEMPERATURES))), whole, rtol=1e-5)
