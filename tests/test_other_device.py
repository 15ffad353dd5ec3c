"""Nothing needs float64 or the CPU on the user's device, with values checked or not."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from robustfer.losses import check_values
from robustfer.metrics import accuracy, calibration_error, confusion_matrix, mean_class_accuracy
from robustfer.noise.matrices import transition_matrix, without_diagonal
from robustfer.noise.models import class_noise
from robustfer.state import LabelStore, ModelEMA, Relabeler
from tests.losses import test_conformance
from tests.other_device import DEVICE, OtherDevice

CASES = {
    name: case
    for name, case in vars(test_conformance).items()
    if inspect.isclass(case) and name.startswith("Test")
}


def test_the_imitation():
    with OtherDevice():
        rows = torch.rand(2, 3).to(DEVICE)
        assert rows.device == torch.ones(2, device=DEVICE).device == DEVICE
        assert rows.cpu().double().dtype == torch.float64
        with pytest.raises(TypeError, match=r"float64 on a device that has none"):
            rows.double()
        with pytest.raises(RuntimeError, match="two devices"):
            rows + torch.ones(3)


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_losses(name, checked):
    case, generator = CASES[name](), torch.Generator().manual_seed(0)
    loss = case.make_loss()
    given = case.make_inputs(
        batch=6, classes=case.classes, dtype=torch.float32, generator=generator
    )
    with OtherDevice(), check_values(checked):
        moved = {name: tensor.to(DEVICE) for name, tensor in given.items()}
        moved = {n: t.requires_grad_() if t.is_floating_point() else t for n, t in moved.items()}
        result = loss.to(DEVICE)(**moved)
        result.sum().backward()
        assert result.device == DEVICE
        torch.testing.assert_close(result.detach().cpu(), loss.to("cpu")(**given).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_metrics(dtype):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(7, (40,), generator=generator)
    probability = torch.randn(40, 7, generator=generator).softmax(dim=1).to(dtype)

    def measured(probability, target):
        matrix = confusion_matrix(probability.argmax(dim=1), target, num_classes=7)
        error = calibration_error(probability, target)
        return accuracy(matrix), mean_class_accuracy(matrix), error

    with OtherDevice():
        assert measured(probability.to(DEVICE), target.to(DEVICE)) == measured(probability, target)


def test_noise_by_classes():
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 20, (3, 3), generator=generator)
    targets = torch.randint(3, (50,), generator=generator)
    ids = [f"face{row}" for row in range(50)]

    def noisy(counts, targets):
        matrix = without_diagonal(transition_matrix(counts)).float().to(targets.device)
        return class_noise(targets, ids, confusions=matrix, rate=0.5, seed=1)

    with OtherDevice():
        found = noisy(counts.to(DEVICE), targets.to(DEVICE))
        assert found.device == DEVICE
        assert found.tolist() == noisy(counts, targets).tolist()


@pytest.mark.parametrize("checked", [False, True])
def test_labels_and_teacher(checked):
    generator = torch.Generator().manual_seed(0)
    with OtherDevice(), check_values(checked):
        labels = LabelStore(torch.tensor([0, 1, 2, 1]), num_classes=3, soft_targets=True).to(DEVICE)
        relabeler = Relabeler(labels, scope="all", weighting="none", margin=0.0, start_epoch=0)
        index, logits = torch.tensor([3, 0]), torch.randn(2, 3, generator=generator)
        relabeler.update(index.to(DEVICE), logits.to(DEVICE), step=1, epoch=1)
        found, soft = labels().cpu(), labels.soft_target().cpu()
        teacher = ModelEMA(nn.Linear(3, 2).to(DEVICE))
        teacher.update(nn.Linear(3, 2).to(DEVICE))
        assert teacher(logits.to(DEVICE)).device == DEVICE
    assert found[index].tolist() == logits.argmax(dim=1).tolist()
    assert soft.sum(dim=1).tolist() == [1.0] * 4


def test_decisions_on_the_cpu_about_another_store():
    given = torch.tensor([0, 1, 2, 1])
    decisions = SimpleNamespace(index=torch.tensor([1, 3]), label=given[:2], given=given[1:3])
    with OtherDevice():
        labels = LabelStore(given, num_classes=3).to(DEVICE)
        with pytest.raises(ValueError, match="1 of 2 differ, the first at index 3; apply"):
            labels.apply_decisions(decisions)
