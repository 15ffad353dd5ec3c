import pytest
import torch
import torch.nn.functional as F

from robustfer.functional.neighbors import cosine_neighbors
from robustfer.models import label_distribution as module
from robustfer.models.label_distribution import LabelDistributionEstimator
from robustfer.state import LabelDistributionBank
from tests.golden.conftest import assert_agrees, tensor

GOLDEN = "lanet_lde"

SPACES = {"fer": "expression_scorer", "lm": "landmark_scorer"}
LAYERS = {"fc_in": "project", "fc_out.0": "pair", "fc_out.2": "hidden", "fc_out.4": "score"}


def our_name(key):
    """``fer_score.fc_out.0.weight`` -> ``expression_scorer.pair.weight``."""
    space, _, rest = key.partition("_score.")
    layer, _, kind = rest.rpartition(".")
    return f"{SPACES[space]}.{LAYERS[layer]}.{kind}"


def is_tied(given):
    """The nearest neighbours are a matter of rounding: take those that the file has."""
    return bool((given["nbr_margin"] < 1e-9).any())


def of_the_file(given):
    """Stands in for the search: called for the expression space first, then for the other."""
    masks = iter((given["nbr_fer"], given["nbr_lm"]))

    def search(features, index, *, num_neighbors, **_):
        mask = tensor(next(masks)).bool()
        neighbors = torch.stack([row.nonzero()[:, 0] for row in mask])
        return neighbors, torch.ones_like(neighbors, dtype=torch.bool)

    return search


def estimator_of(case, dtype):
    widths = case["s0/fer"].shape[1], case["s0/lm"].shape[1]
    estimator = LabelDistributionEstimator(
        *widths, num_neighbors=int(case["K"]), variant="official"
    ).to(dtype)
    parameters = {
        our_name(key.removeprefix("param/")): tensor(case[key], dtype)
        for key in case
        if key.startswith("param/")
    }
    estimator.load_state_dict(parameters)
    return estimator


def steps(case, dtype, monkeypatch):
    """Each step: what the file has, the inputs, our targets; the bank is moved on after it."""
    estimator = estimator_of(case, dtype)
    bank = LabelDistributionBank(
        tensor(case["labels"]),
        num_classes=case["bank0"].shape[1],
        decay=float(case["momentum"]),
        dtype=dtype,
    )
    assert_agrees(bank.distribution, case["bank0"])
    step = 0
    while f"s{step}/targets" in case:
        prefix = f"s{step}/"
        given = {k.removeprefix(prefix): case[k] for k in case if k.startswith(prefix)}
        inputs = [tensor(given[name], dtype, grad=True) for name in ("fer", "lm", "logits")]
        index = tensor(given["idx"])
        if is_tied(given):
            monkeypatch.setattr(module, "cosine_neighbors", of_the_file(given))
        estimator.zero_grad()
        targets = bank(index, estimator(*inputs, index))
        monkeypatch.undo()
        yield given, estimator, inputs, targets
        bank.update(index, targets)
        if "bank_after" in given:
            assert_agrees(bank.distribution, given["bank_after"])
        step += 1


def test_targets_and_bank(case, monkeypatch):
    for given, _, _, targets in steps(case, torch.float64, monkeypatch):
        assert_agrees(targets, given["targets"])


def test_targets_in_single_precision(case, monkeypatch):
    for given, _, _, targets in steps(case, torch.float32, monkeypatch):
        assert_agrees(targets, given["targets_f32"])


def test_neighbors(case):
    step = 0
    while f"s{step}/targets" in case:
        given = {k: case[f"s{step}/{k}"] for k in ("nbr_margin", "idx", "fer", "lm")}
        for space in SPACES:
            neighbors, valid = cosine_neighbors(
                tensor(given[space]),
                tensor(given["idx"]),
                num_neighbors=int(case["K"]),
                variant="official",
            )
            mask = torch.zeros(len(neighbors), len(neighbors)).scatter(1, neighbors, 1.0)
            assert valid.all()
            theirs = tensor(case[f"s{step}/nbr_{space}"]).float()
            assert torch.equal(mask.sum(1), theirs.sum(1))
            if not is_tied(given):
                assert torch.equal(mask, theirs)
        step += 1


@pytest.mark.parametrize("kind", ["dS", "dkl"])
def test_gradients(case, kind, monkeypatch):
    compared = 0
    for given, estimator, inputs, targets in steps(case, torch.float64, monkeypatch):
        if kind == "dS":
            value = (targets * tensor(given["R"])).sum()
        else:
            value = F.kl_div(inputs[2].log_softmax(1), targets, reduction="batchmean")
            assert_agrees(value, given["kl"])
        if f"{kind}/fer" not in given:
            continue
        value.backward()
        for name, leaf in zip(("fer", "lm", "logits"), inputs, strict=True):
            assert_agrees(leaf.grad, given[f"{kind}/{name}"])
        parameters = dict(estimator.named_parameters())
        for key in given:
            if key.startswith(f"{kind}/param/"):
                ours = parameters[our_name(key.removeprefix(f"{kind}/param/"))]
                assert_agrees(ours.grad, given[key])
                compared += 1
    assert compared >= 16
