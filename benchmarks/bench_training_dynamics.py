"""Time the record of training for a batch of a data set that is a hundred times larger."""

import pytest
import torch

from robustfer.state import TrainingDynamics

BATCH, CLASSES, ROUNDS = 1024, 7, 300
SIZES = {"10 thousand": 10_000, "1 million": 1_000_000}


@pytest.mark.parametrize("column", SIZES)
def test_update(compare, device, column):
    size = SIZES[column]
    generator = torch.Generator().manual_seed(0)
    given = torch.randint(CLASSES, (size,), generator=generator)
    dynamics = TrainingDynamics(size, num_classes=CLASSES, given=given.to(device))
    logits = torch.randn(BATCH, CLASSES, generator=generator).to(device)
    # New rows for each call, so that no call has a warm cache.
    index = torch.randint(size, (ROUNDS + 10, BATCH), generator=generator).to(device)
    supply = iter(index)
    compare(
        lambda: dynamics.update(next(supply), logits),
        group=f"training dynamics, update of {BATCH:,}",
        column=column,
        min_rounds=ROUNDS,
    )
