"""Time updates of state with a batch of 64. Rows with NaN must not enter a memory.

The plain forms select finite rows by a boolean index, which synchronises host and GPU.
"""

import pytest
import torch
import torch.nn.functional as F

from robustfer.state import FeatureQueue, LabelDistributionBank, LabelStore, Relabeler

BATCH, CLASSES, SAMPLES, DIM = 64, 7, 12_271, 64


def drawn(device):
    generator = torch.Generator().manual_seed(0)
    index = torch.randperm(SAMPLES, generator=generator)[:BATCH]
    label = torch.randint(CLASSES, (BATCH,), generator=generator)
    keys = F.normalize(torch.randn(2, BATCH, DIM, generator=generator), dim=2)
    logits = torch.randn(BATCH, CLASSES, generator=generator)
    importance = torch.rand(BATCH, generator=generator)
    return [tensor.to(device) for tensor in (index, label, *keys, logits, importance)]


def queue(column, device):
    _, label, expression, landmark, *_ = drawn(device)
    ours = FeatureQueue(DIM).to(device)
    if column == "ours":
        return lambda: ours.update(expression, landmark, label)

    @torch.no_grad()
    def plain():
        finite = expression.isfinite().all(dim=1) & landmark.isfinite().all(dim=1)
        number = int(finite.sum())
        slots = (ours.cursor + torch.arange(number, device=device)) % ours.capacity
        ours.expression[slots], ours.landmark[slots] = expression[finite], landmark[finite]
        ours.label[slots] = label[finite]
        ours.cursor.add_(number).remainder_(ours.capacity)
        ours.count.add_(number).clamp_(max=ours.capacity)

    return plain


def bank(column, device):
    index, _, _, _, logits, _ = drawn(device)
    ours = LabelDistributionBank(torch.zeros(SAMPLES, dtype=torch.int64), num_classes=CLASSES)
    ours, rows = ours.to(device), logits.softmax(dim=1)

    @torch.no_grad()
    def plain():
        finite = rows.isfinite().all(dim=1)
        ours.distribution[index[finite]] = rows[finite]

    return plain if column == "plain" else lambda: ours.update(index, rows)


def relabeler(column, device):
    index, _, _, _, logits, importance = drawn(device)
    labels = LabelStore(torch.zeros(SAMPLES, dtype=torch.int64), num_classes=CLASSES).to(device)
    ours, given = Relabeler(labels, start_epoch=0), labels().clone()

    @torch.no_grad()
    def plain():
        probability = (importance[:, None] * logits).softmax(dim=1)
        confidence, label = probability.max(dim=1)
        doubted = confidence - probability.gather(1, given[index][:, None])[:, 0] > 0.2
        doubted &= importance.isfinite()
        doubted[importance.argsort(descending=True)[: int(0.7 * BATCH)]] = False
        given[index] = torch.where(doubted, label, given[index])
        return int(doubted.sum())

    if column == "plain":
        return plain
    return lambda: ours.update(index, logits, importance, step=1, epoch=1)


@pytest.mark.parametrize("column", ["plain", "ours"])
@pytest.mark.parametrize("update", [queue, bank, relabeler], ids=lambda made: made.__name__)
def test_state_update(compare, device, update, column):
    compare(update(column, device), group=f"update of the {update.__name__}", column=column)
