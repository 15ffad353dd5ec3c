"""Time the label store for a batch of a data set that is a thousand times larger."""

import pytest
import torch

from robustfer.state import LabelStore

BATCH, CLASSES, ROUNDS = 1024, 7, 300
SIZES = {"10 thousand": 10_000, "10 million": 10_000_000}


def batches(size, device):
    """Return new rows and labels for each call, so that no call has a warm cache."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(ROUNDS + 10):
        index = torch.randint(size, (BATCH,), generator=generator)
        target = torch.randint(CLASSES, (BATCH,), generator=generator)
        yield index.to(device), target.to(device)


@pytest.mark.filterwarnings("ignore:the journal of label changes is full")
@pytest.mark.parametrize("what", ["look-up", "update"])
@pytest.mark.parametrize("column", SIZES)
def test_label_store(compare, device, what, column):
    size = SIZES[column]
    given = torch.randint(CLASSES, (size,), generator=torch.Generator().manual_seed(1))
    store = LabelStore(given.to(device), num_classes=CLASSES)
    supply = iter(list(batches(size, device)))

    def look_up():
        return store(next(supply)[0])

    def update():
        return store.update(*next(supply), step=1, epoch=1)

    compare(
        look_up if what == "look-up" else update,
        group=f"label store, {what} of {BATCH:,}",
        column=column,
        min_rounds=ROUNDS,
    )
