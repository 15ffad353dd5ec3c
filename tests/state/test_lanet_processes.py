"""LA-Net in two gloo processes of uneven batches against one process on the joined batch."""

from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from robustfer.losses import ExpressionLandmarkContrastiveLoss, LANetLoss
from robustfer.models import CAMClassifier, LandmarkCoordinates, LANetModel
from robustfer.models.label_distribution import LabelDistributionEstimator
from robustfer.state import FeatureQueue, LabelDistributionBank
from tests.state.processes import run_in_processes

WIDTH, CLASSES, DIM, CAPACITY, SAMPLES = 6, 5, 8, 10, 9
# Rows of the joined batch that each process has; batch 2 goes round the queue more than once, and
# from batch 3 on one process has none, or both.
STEPS = ((4, 8), (5, 1), (9, 12), (0, 3), (0, 0), (2, 0))


class Network(nn.Module):
    """Two embeddings and logits, each of one linear layer, and the estimator."""

    def __init__(self):
        super().__init__()
        self.face = nn.Linear(WIDTH, DIM)
        self.points = nn.Linear(WIDTH, DIM)
        self.classifier = nn.Linear(WIDTH, CLASSES)
        self.estimator = LabelDistributionEstimator(DIM, DIM, num_neighbors=3)

    def forward(self, inputs):
        embeddings = self.face(inputs), self.points(inputs)
        return *(F.normalize(one, dim=1) for one in embeddings), self.classifier(inputs)


def make_network():
    torch.manual_seed(0)
    return Network().double()


def make_queue(unfilled):
    generator = torch.Generator().manual_seed(1)
    queue = FeatureQueue(DIM, capacity=CAPACITY, dtype=torch.float64, generator=generator)
    queue.label[unfilled:] = torch.randint(CLASSES, (CAPACITY - unfilled,), generator=generator)
    return queue


def data(step, own=slice(None)):
    """Inputs, keys, pseudo labels and sample indices: some samples twice, also over processes."""
    generator, size = torch.Generator().manual_seed(10 + step), sum(STEPS[step])
    inputs = torch.randn(size, WIDTH, generator=generator, dtype=torch.float64)
    keys = torch.randn(2, size, DIM, generator=generator, dtype=torch.float64)
    label = torch.randint(-2, CLASSES, (size,), generator=generator)
    index = torch.randint(SAMPLES, (size,), generator=generator)
    return inputs[own], *F.normalize(keys, dim=2)[:, own], label[own], index[own]


def own_rows(rank, step):
    first = STEPS[step][0]
    return slice(None, first) if rank == 0 else slice(first, None)


def contrast(own, *, variant="paper"):
    """Value and gradients, the average over processes of which is to be that of one process."""
    network, queue = make_network(), make_queue(2)
    inputs, expression_key, landmark_key, pseudo_label, _ = data(0, own)
    expression_query, landmark_query, _ = network(inputs)
    loss = ExpressionLandmarkContrastiveLoss(temperature=0.5, variant=variant)(
        expression_query=expression_query,
        landmark_query=landmark_query,
        expression_key=expression_key,
        landmark_key=landmark_key,
        pseudo_label=pseudo_label,
        **queue.negatives(),
    )
    loss.backward()
    return {"loss": loss.detach(), **gradients(network)}


def estimate(own):
    """A sum over samples and its gradients, the sum over processes of which is to be one's."""
    network = make_network()
    inputs, _, _, _, index = data(0, own)
    embeddings, landmark_embeddings, logits = network(inputs)
    estimated = network.estimator(embeddings, landmark_embeddings, logits, index)
    (estimated * torch.arange(CLASSES)).square().sum().backward()
    return {"estimate": estimated.detach(), **gradients(network)}


class Waiting(TorchFunctionMode):
    """Counts copies to the host, for which it would wait on a GPU."""

    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += function in (Tensor.tolist, Tensor.item, Tensor.cpu, Tensor.__bool__)
        return function(*args, **(kwargs or {}))


def traffic(own):
    """Tensors that the processes exchange in one forward, and for how many the host waits."""
    with patch.object(dist, "all_reduce", wraps=dist.all_reduce) as reduced, Waiting() as waiting:
        inputs, *keys, label, index = data(0, own)
        network, queue = make_network(), make_queue(2)
        *queries, logits = network(inputs)
        network.estimator(*queries, logits, index)
        ExpressionLandmarkContrastiveLoss()(*queries, *keys, label, **queue.negatives())
    return {"exchanged": reduced.call_count, "waits": waiting.count}


def refusal(own):
    """What is said of a batch that does not fit, in each process before any waits for others."""
    _, *keys, label, _ = data(0, own)
    queue = make_queue(2)
    with pytest.raises(ValueError, match="pseudo_label has B=") as raised:
        ExpressionLandmarkContrastiveLoss()(*keys, *keys, label[1:], **queue.negatives())
    return str(raised.value)


def whole_network(own, wrap):
    """One step's loss and gradients of LANetModel; batch norm in eval mode, so rows are alone."""
    torch.manual_seed(0)
    options = {"channels": (4, 8, 12, 16), "stem_width": 4}
    classifier = CAMClassifier("resnet10t", num_classes=CLASSES, model_options=options)
    points = 32 * torch.rand(8, 5, 2, dtype=torch.float64)
    space = LandmarkCoordinates(points, swap=(1, 0, 2, 4, 3))
    model = LANetModel(classifier, space, dim=DIM, num_neighbors=3).double().eval()
    images = torch.rand(8, 3, 32, 32, dtype=torch.float64)[own]
    target = (torch.arange(8) % CLASSES)[own]
    bank = LabelDistributionBank(torch.arange(SAMPLES) % CLASSES, num_classes=CLASSES).double()
    index, queue = torch.tensor([3, 0, 8, 3, 5, 1, 2, 7])[own], make_queue(2)
    wrapped = wrap(model)
    output = wrapped(images, points[own], index)
    soft_target = bank(index, output.estimate, known=output.known)
    loss = LANetLoss(image_size=None, temperature=0.5, contrast_weight=1.0)(
        logits=output.logits,
        target=target,
        soft_target=soft_target,
        expression_query=output.expression_query,
        landmark_query=output.landmark_query,
        expression_key=output.expression_query.flip(1).detach(),
        landmark_key=output.landmark_query.flip(1).detach(),
        pseudo_label=target,
        **queue.negatives(),
    )
    loss.backward()
    return {"loss": loss.detach(), **gradients(model)}


def gradients(network):
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def state_after_the_steps(rows_of):
    queue = make_queue(CAPACITY)
    bank = LabelDistributionBank(torch.arange(SAMPLES) % CLASSES, num_classes=CLASSES).double()
    for step in range(len(STEPS)):
        _, expression_key, landmark_key, label, index = data(step, rows_of(step))
        queue.update(expression_key, landmark_key, label)
        bank.update(index, bank(index, expression_key[:, :CLASSES].softmax(dim=1)))
    return {**queue.state_dict(), **bank.state_dict()}


def in_each_process(rank):
    own = own_rows(rank, 0)
    return {
        "contrast": contrast(own),
        "official": contrast(own, variant="official"),
        "estimate": estimate(own),
        "traffic": traffic(own),
        "refusal": refusal(own),
        "state": state_after_the_steps(lambda step: own_rows(rank, step)),
        "whole": whole_network(slice(4 * rank, 4 * rank + 4), DistributedDataParallel),
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_in_processes(in_each_process, tmp_path_factory.mktemp("gloo"))


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_contrast_has_the_value_and_gradient_of_one_process(results):
    first, second = (result["contrast"] for result in results)
    expected = contrast(slice(None))
    assert expected["loss"] > 0.1
    assert len(expected) == 5
    for name, value in expected.items():
        assert_close((first[name] + second[name]) / 2, value)


def test_official_positives_are_those_of_the_process(results):
    for rank, result in enumerate(results):
        expected = contrast(own_rows(rank, 0), variant="official")
        for name, value in expected.items():
            assert_close(result["official"][name], value)


def test_estimates_and_their_gradient_are_those_of_one_process(results):
    first, second = (result["estimate"] for result in results)
    expected = estimate(slice(None))
    assert_close(torch.cat([first["estimate"], second["estimate"]]), expected.pop("estimate"))
    assert len(expected) == 22
    for name, value in expected.items():
        assert_close(first[name] + second[name], value)


def test_a_step_of_the_whole_network_is_that_of_one_process(results):
    expected = whole_network(slice(None), lambda model: model)
    loss = expected.pop("loss")
    assert_close((results[0]["whole"]["loss"] + results[1]["whole"]["loss"]) / 2, loss)
    for result in results:
        for name, gradient in expected.items():
            assert_close(result["whole"][name], gradient)


def test_the_host_waits_once_for_each_of_the_two(results):
    for result in results:
        # Four tensors for the estimates and five for the contrast, the lengths before each.
        assert result["traffic"] == {"exchanged": 11, "waits": 2}


def test_a_batch_that_does_not_fit_is_named(results):
    for rank, sizes in enumerate(
        ("B=3 but expression_query has B=4", "B=7 but expression_query has B=8")
    ):
        assert f"pseudo_label has {sizes}" in results[rank]["refusal"]


def test_queue_and_bank_are_those_of_one_process(results):
    expected = state_after_the_steps(lambda step: slice(None))
    for result in results:
        assert result["state"].keys() == expected.keys()
        for name, value in expected.items():
            assert_close(result["state"][name], value)
