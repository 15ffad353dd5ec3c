"""Two gloo processes of uneven batches against one process on the joined batch."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from robustfer_elr.losses import EarlyLearningLoss

SAMPLES, CLASSES, WIDTH = 9, 5, 6
# How many rows of the joined batch each process has, step by step.
STEPS = ((4, 3), (1, 5), (3, 3))


def joined(step):
    """Inputs, labels and samples: some come twice, in one process and across both."""
    generator, size = torch.Generator().manual_seed(step), sum(STEPS[step])
    inputs = torch.randn(size, WIDTH, generator=generator, dtype=torch.float64)
    target = torch.randint(CLASSES, (size,), generator=generator)
    return inputs, target, torch.randint(SAMPLES, (size,), generator=generator)


def train(rows_of, gradient):
    """Steps of gradient descent on a linear model, each on some rows of the joined batch."""
    criterion = EarlyLearningLoss(num_samples=SAMPLES, num_classes=CLASSES).double()
    generator = torch.Generator().manual_seed(10)
    weight = torch.randn(WIDTH, CLASSES, generator=generator, dtype=torch.float64)
    for step in range(len(STEPS)):
        inputs, target, index = (tensor[rows_of(step)] for tensor in joined(step))
        weight.requires_grad_()
        logits = inputs @ weight
        early_target = criterion.propose(logits=logits, index=index)
        loss = criterion(logits, target, early_target)
        share = len(inputs) / sum(STEPS[step])
        [slope] = torch.autograd.grad(share * loss, weight)
        weight = weight.detach() - 0.5 * gradient(slope)
        criterion.update(index, early_target)
    return {"weight": weight, "early_targets": criterion.early_targets}


def summed(slope):
    dist.all_reduce(slope)
    return slope


def in_a_process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)

    def own(step):
        first = STEPS[step][0]
        return slice(first, None) if rank else slice(None, first)

    torch.save(train(own, summed), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    mp.spawn(in_a_process, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_each_ends_where_one_process_ends(found):
    expected = train(lambda step: slice(None), lambda slope: slope)
    assert (expected["early_targets"].sum(dim=1) > 0).sum() > 5
    for result in found:
        for name, value in expected.items():
            torch.testing.assert_close(result[name], value, rtol=1e-10, atol=1e-12)
    assert torch.equal(found[0]["early_targets"], found[1]["early_targets"])
