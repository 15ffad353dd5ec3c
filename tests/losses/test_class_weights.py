"""Class weights of the four whole methods are torch's: its weighted cross entropy is the judge."""

import pytest
import torch
from torch import nn

from robustfer.losses import EACLoss, GSMCLoss, LANetLoss, SCNLoss, check_values
from tests.losses import test_eac, test_gsmc, test_lanet, test_scn
from tests.reference.importance import weighted_logits

METHODS = {
    "eac": (EACLoss, {"consistency_weight": 2.0}, test_eac.inputs, 1.0),
    "gsmc": (GSMCLoss, {}, test_gsmc.inputs, 1.0),
    "lanet": (LANetLoss, {"image_size": 32}, test_lanet.inputs, 1.0),
    "scn": (SCNLoss, {"rank_weight": 0.2}, test_scn.inputs, 0.8),
}
WEIGHTS = torch.tensor([0.5, 3.0, 0.0, 1.0, 2.0, 0.25, 7.0])

methods = pytest.mark.parametrize("name", METHODS)


def made(name, class_weights, **options):
    kind, usual, _, _ = METHODS[name]
    return kind(**{**usual, **options}, class_weights=class_weights)


def drawn(name, *, soft, classes=7):
    given = METHODS[name][2](6, classes)
    given["target"] = (torch.arange(6) * 5 + 1) % classes
    if soft:
        generator = torch.Generator().manual_seed(3)
        rows = torch.rand(6, classes, dtype=torch.float64, generator=generator)
        given["target"] = rows / rows.sum(1, keepdim=True)
    return {key: value.detach() for key, value in given.items()}


def expected(name, given, class_weights, label_smoothing=0.0):
    logits = given["logits"]
    if name == "scn":
        logits = weighted_logits(logits, given["importance"], given["bias"])
    judge = nn.CrossEntropyLoss(weight=class_weights.double(), label_smoothing=label_smoothing)
    return METHODS[name][3] * judge(logits, given["target"])


@methods
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("classes", [7, 200])
def test_the_cross_entropy_is_torchs_and_the_other_terms_stay(name, soft, classes):
    class_weights = WEIGHTS.repeat(29)[:classes]
    given = drawn(name, soft=soft, classes=classes)
    criterion = made(name, class_weights).double()
    first, *others = (terms := criterion.terms(**given))
    torch.testing.assert_close(terms[first], expected(name, given, class_weights))
    unweighted = made(name, None).terms(**given)
    for other in others:
        assert torch.equal(terms[other], unweighted[other])
    assert terms[first] != unweighted[first]


@methods
@pytest.mark.parametrize("soft", [False, True])
def test_equal_weights_change_nothing(name, soft):
    given = drawn(name, soft=soft)
    weighted = made(name, torch.ones(7)).double()(**given)
    torch.testing.assert_close(weighted, made(name, None)(**given))


def test_beside_label_smoothing_they_are_torchs():
    given = drawn("eac", soft=False)
    criterion = made("eac", WEIGHTS, label_smoothing=0.2).double()
    wanted = expected("eac", given, WEIGHTS, label_smoothing=0.2)
    torch.testing.assert_close(criterion.terms(**given)["cross_entropy"], wanted)


@methods
def test_they_move_with_the_loss_and_are_not_saved(name):
    class_weights = WEIGHTS.clone()
    criterion = made(name, class_weights)
    class_weights.zero_()
    assert torch.equal(criterion.class_weights, WEIGHTS)
    assert not criterion.state_dict()
    assert criterion.double().class_weights.dtype == torch.float64
    assert made(name, None).class_weights is None


@methods
def test_half_logits_are_weighted_in_single(name):
    given = {
        key: value.bfloat16() if value.is_floating_point() else value
        for key, value in drawn(name, soft=False).items()
    }
    single = {
        key: value.float() if value.is_floating_point() else value for key, value in given.items()
    }
    criterion = made(name, WEIGHTS)
    result = criterion(**given)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, criterion(**single))


@methods
@pytest.mark.parametrize(
    ("class_weights", "message"),
    [
        (torch.ones(7, 1), r"class_weights must have shape \(C\), got \(7, 1\)"),
        (torch.ones(7).long(), "class_weights must have a floating-point dtype"),
        (torch.tensor([1.0, -1.0]), r"class_weights must lie in \[0, inf\), got -1 at position 1"),
        (torch.tensor([1.0, float("nan")]), "class_weights must be finite"),
        (1 / torch.arange(7.0), "class_weights must be finite"),
    ],
)
def test_refuses_weights_that_are_none(name, class_weights, message):
    with pytest.raises(ValueError, match=message):
        made(name, class_weights)


@methods
def test_refuses_another_number_of_classes(name):
    criterion, given = made(name, torch.ones(6)), drawn(name, soft=False)
    with pytest.raises(ValueError, match="class_weights has C=6 but logits has C=7"):
        criterion(**given)
    with check_values(), pytest.raises(ValueError, match="class_weights has C=6"):
        criterion(**given)
