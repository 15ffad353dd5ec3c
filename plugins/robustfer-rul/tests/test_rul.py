"""The loss against the paper's equations, what must not change it, and robustfer's checks."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustfer.losses import CompositeLoss, Term, check_values, param_groups
from robustfer.testing import ParametricLossConformance
from robustfer_rul.functional import (
    log_uncertainty,
    mix_by_uncertainty,
    relative_uncertainty,
    relative_uncertainty_weights,
)
from robustfer_rul.losses import RelativeUncertaintyLoss

FEATURES = 6


class TestRelativeUncertainty(ParametricLossConformance):
    # Partners are positions in the batch; test_the_order_of_the_batch moves them along.
    test_order_of_the_batch_does_not_matter = None

    def make_loss(self):
        return RelativeUncertaintyLoss(num_features=FEATURES)

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "embeddings": torch.randn(batch, FEATURES, dtype=dtype, generator=generator),
            "target": torch.randint(classes, (batch,), generator=generator),
            "classifier_weight": torch.randn(classes, FEATURES, dtype=dtype, generator=generator),
            "permutation": torch.randperm(batch, generator=generator),
            "bias": torch.randn(classes, dtype=dtype, generator=generator),
        }


class TestWithoutBiasAndWithProbabilities(TestRelativeUncertainty):
    def make_inputs(self, **sizes):
        inputs = super().make_inputs(**sizes)
        del inputs["bias"]
        scores = torch.randn(
            sizes["batch"], sizes["classes"], dtype=sizes["dtype"], generator=sizes["generator"]
        )
        return {**inputs, "target": scores.softmax(dim=1)}


def sample(batch=6, classes=7, *, dtype=torch.float64, seed=0):
    """A loss whose uncertainties differ widely, and what it takes."""
    generator = torch.Generator().manual_seed(seed)
    criterion = RelativeUncertaintyLoss(num_features=FEATURES).to(dtype)
    with torch.no_grad():
        criterion.log_variance.weight.normal_(generator=generator)
        criterion.log_variance.bias.normal_(generator=generator)
    maker = TestRelativeUncertainty()
    return criterion, maker.make_inputs(
        batch=batch, classes=classes, dtype=dtype, generator=generator
    )


def written_out(criterion, embeddings, target, classifier_weight, permutation, bias=None):
    """The equations, number by number, in Python's own."""
    layer = criterion.log_variance
    rows, shift = layer.weight.tolist(), layer.bias.tolist()
    mu, y, pi = embeddings.tolist(), target.tolist(), permutation.tolist()
    weights = classifier_weight.tolist()
    biases = [0.0] * len(weights) if bias is None else bias.tolist()
    a = []
    for face in mu:
        variances = []
        for row, b in zip(rows, shift, strict=True):
            variances.append(math.exp(sum(u * x for u, x in zip(row, face, strict=True)) + b))
        a.append(sum(variances) / len(variances))
    total = 0.0
    for i in range(len(mu)):
        j = pi[i]
        own, other = a[i] / (a[i] + a[j]), a[j] / (a[i] + a[j])
        mixed = [own * x + other * z for x, z in zip(mu[i], mu[j], strict=True)]
        scores = []
        for row, b in zip(weights, biases, strict=True):
            scores.append(sum(w * x for w, x in zip(row, mixed, strict=True)) + b)
        norm = math.log(sum(math.exp(score) for score in scores))
        total += 0.5 * (norm - scores[y[i]]) + 0.5 * (norm - scores[y[j]])
    return a, total / len(mu)


@pytest.mark.parametrize(("batch", "classes"), [(1, 7), (2, 2), (6, 7), (9, 200)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_it_is_the_equations(batch, classes, with_bias):
    criterion, given = sample(batch, classes)
    if not with_bias:
        del given["bias"]
    a, expected = written_out(criterion, **given)
    assert criterion(**given).item() == pytest.approx(expected, rel=1e-12)
    assert criterion.uncertainty(given["embeddings"]).tolist() == pytest.approx(a, rel=1e-12)


def test_labels_may_be_probabilities():
    criterion, given = sample()
    votes = torch.randn(6, 7, dtype=torch.float64).softmax(dim=1)
    mixed = mix_by_uncertainty(
        given["embeddings"],
        log_uncertainty(criterion.log_variance(given["embeddings"])),
        given["permutation"],
    )
    log_p = F.linear(mixed, given["classifier_weight"], given["bias"]).log_softmax(dim=1)
    label = 0.5 * votes + 0.5 * votes[given["permutation"]]
    expected = -(label * log_p).sum(dim=1).mean()
    torch.testing.assert_close(criterion(**{**given, "target": votes}), expected)


def test_all_faces_are_nearly_equally_uncertain_at_first():
    branch = RelativeUncertaintyLoss(num_features=512).log_variance
    assert not branch.bias.any()
    assert 0.005 < branch.weight.std() < 0.02


def test_by_hand():
    """Uncertainties 3 and 1: three quarters of the first, on each side of the pair."""
    embeddings, a = torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([3.0, 1.0])
    permutation, target = torch.tensor([1, 0]), torch.tensor([0, 1])
    weights = relative_uncertainty_weights(a.log(), permutation)
    torch.testing.assert_close(weights, torch.tensor([0.75, 0.25]))
    mixed = mix_by_uncertainty(embeddings, a.log(), permutation)
    torch.testing.assert_close(mixed, torch.tensor([[3.0, 1.0], [3.0, 1.0]]))
    loss = relative_uncertainty(embeddings, a.log(), target, torch.eye(2), permutation)
    assert loss.item() == pytest.approx(math.log(math.e**3 + math.e) - 2.0)


def test_the_harder_face_gets_the_larger_share():
    """What the uncertainty is learnt from, on two faces one of which is half as long."""
    embeddings = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    log_a = torch.zeros(2, requires_grad=True)
    target, permutation = torch.tensor([0, 1]), torch.tensor([1, 0])
    relative_uncertainty(embeddings, log_a, target, torch.eye(2), permutation).backward()
    easy, hard = (-log_a.grad).tolist()  # where a step of training goes
    assert hard > 0 > easy
    assert hard == pytest.approx(-easy)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(2, 30), st.integers(0, 2**31))
def test_a_face_with_itself_is_plain_cross_entropy(batch, classes, seed):
    criterion, given = sample(batch, classes, seed=seed)
    given["permutation"] = torch.arange(batch)
    logits = F.linear(given["embeddings"], given["classifier_weight"], given["bias"])
    torch.testing.assert_close(criterion(**given), F.cross_entropy(logits, given["target"]))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.floats(-50, 50), st.integers(0, 2**31))
def test_equal_uncertainties_give_the_mean(batch, level, seed):
    _, given = sample(batch, seed=seed)
    embeddings, permutation = given["embeddings"], given["permutation"]
    level = torch.full((batch,), level, dtype=torch.float64)
    mixed = mix_by_uncertainty(embeddings, level, permutation)
    torch.testing.assert_close(mixed, (embeddings + embeddings[permutation]) / 2)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.floats(0.1, 300), st.integers(0, 2**31))
def test_shares_of_a_pair_sum_to_one(batch, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    log_a = spread * torch.randn(batch, dtype=torch.float64, generator=generator)
    permutation = torch.randperm(batch, generator=generator)
    own = relative_uncertainty_weights(log_a, permutation)
    inverse = permutation.argsort()
    other = relative_uncertainty_weights(log_a, inverse)[permutation]  # the partner's, of the pair
    torch.testing.assert_close(own + other, torch.ones_like(own))
    assert ((own >= 0.5) == (log_a >= log_a[permutation])).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(0, 2**31))
def test_the_order_of_the_batch(batch, seed):
    criterion, given = sample(batch, seed=seed)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    position = order.argsort()  # where a sample has gone
    shuffled = {
        **given,
        "embeddings": given["embeddings"][order],
        "target": given["target"][order],
        "permutation": position[given["permutation"][order]],
    }
    torch.testing.assert_close(criterion(**shuffled), criterion(**given))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(0, 2**31))
def test_who_is_whose_partner_does_not_matter(batch, seed):
    criterion, given = sample(batch, seed=seed)
    turned = {**given, "permutation": given["permutation"].argsort()}
    torch.testing.assert_close(criterion(**turned), criterion(**given))


@settings(deadline=None, max_examples=25)
@given(st.floats(-200, 200), st.integers(0, 2**31))
def test_only_ratios_of_uncertainties_count(shift, seed):
    criterion, given = sample(seed=seed)
    before = criterion(**given)
    with torch.no_grad():
        criterion.log_variance.bias.add_(shift)
    torch.testing.assert_close(criterion(**given), before)


def test_probabilities_that_are_certain_are_classes():
    criterion, given = sample()
    hot = {**given, "target": F.one_hot(given["target"], 7).double()}
    torch.testing.assert_close(criterion(**hot), criterion(**given))


def test_no_variance_is_too_large_or_too_small():
    """Where the equations as they stand would divide infinity by infinity, or zero by zero."""
    for level in (-500.0, 500.0):
        log_variance = torch.tensor([[level, level], [level, level + 1]], requires_grad=True)
        log_a = log_uncertainty(log_variance)
        weights = relative_uncertainty_weights(log_a, torch.tensor([1, 0]))
        expected = 2 / (3 + math.e)
        torch.testing.assert_close(weights, torch.tensor([expected, 1 - expected]))
        weights[0].backward()
        assert log_variance.grad.isfinite().all()


def test_the_mean_variance():
    variance = torch.rand(5, 8, dtype=torch.float64) + 0.1
    torch.testing.assert_close(log_uncertainty(variance.log()), variance.mean(dim=1).log())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_embeddings_beside_a_classifier_in_single(dtype):
    """What a network under autocast hands over."""
    criterion, given = sample(dtype=torch.float32)
    given["embeddings"] = given["embeddings"].to(dtype)
    single = {**given, "embeddings": given["embeddings"].float()}
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(criterion(**given), criterion(**single))
    assert criterion(**given).dtype == torch.float32
    assert criterion.uncertainty(given["embeddings"]).dtype == torch.float32


def test_double_embeddings_beside_a_loss_in_single():
    criterion, given = sample()
    expected = criterion(**given)
    torch.testing.assert_close(criterion.float()(**given), expected, rtol=1e-6, atol=1e-6)


def test_shapes_on_the_meta_device():
    """torch.autocast knows no such device."""
    criterion, given = sample(dtype=torch.float32)
    result = criterion.to("meta")(**{name: tensor.to("meta") for name, tensor in given.items()})
    assert (result.device.type, result.shape) == ("meta", ())


def test_uncertainties_begin_nearly_equal_but_no_two_rows_alike():
    criterion = RelativeUncertaintyLoss(num_features=512)
    uncertainty = criterion.uncertainty(torch.rand(64, 512))
    assert (uncertainty / uncertainty.mean() - 1).abs().max() < 0.1
    assert len(criterion.log_variance.weight.unique(dim=0)) == 512


def test_training_finds_the_blurred_faces():
    """Half the faces carry little of their class; their uncertainty grows beyond the others'."""
    torch.manual_seed(0)
    target = torch.arange(4).repeat(8)
    blurred = torch.arange(32) % 8 >= 4
    strength = torch.where(blurred, 1.0, 4.0)
    embeddings = F.pad(strength[:, None] * F.one_hot(target, 4), (0, 1), value=1.0)
    criterion, classifier = RelativeUncertaintyLoss(num_features=5), nn.Linear(5, 4)
    optimizer = torch.optim.Adam(param_groups(classifier, criterion), lr=0.1)
    for _ in range(40):
        permutation = torch.randperm(32)
        optimizer.zero_grad()
        criterion(embeddings, target, classifier.weight, permutation, classifier.bias).backward()
        optimizer.step()
    uncertainty = criterion.uncertainty(embeddings).detach()
    assert uncertainty[blurred].min() > 1.5 * uncertainty[~blurred].max()


def test_it_composes_and_is_watched_over():
    torch.manual_seed(0)
    model, (_, given) = nn.Linear(FEATURES, 7), sample(dtype=torch.float32)
    criterion = CompositeLoss(
        Term("plain", nn.CrossEntropyLoss(), inputs={"input": "logits"}),
        Term("relative", RelativeUncertaintyLoss(num_features=FEATURES), weight=0.5),
    )
    tensors = {name: given[name] for name in ("embeddings", "target", "permutation")}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # forgets the loss
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            logits = model(given["embeddings"])
            criterion(
                **tensors, logits=logits, classifier_weight=model.weight, bias=model.bias
            ).backward()
            optimizer.step()
    [message] = [str(warning.message) for warning in caught]
    assert "losses.1.log_variance.weight of CompositeLoss" in message


ERRORS = {
    "embeddings of another width": (
        {"embeddings": torch.zeros(6, 5)},
        r"embeddings must have shape \(B, 6\), got \(6, 5\)",
    ),
    "embeddings as maps": (
        {"embeddings": torch.zeros(6, 6, 2, 2)},
        r"embeddings must have shape \(B, 6\), got \(6, 6, 2, 2\)",
    ),
    "embeddings of integers": (
        {"embeddings": torch.zeros(6, 6, dtype=torch.int64)},
        "embeddings must have a floating-point dtype, got torch.int64",
    ),
    "too few targets": ({"target": torch.zeros(5).long()}, "target has B=5 but embeddings has B=6"),
    "targets of another dtype": (
        {"target": torch.zeros(6, dtype=torch.int32)},
        "target must be int64 class indices",
    ),
    "probabilities of other classes": (
        {"target": torch.zeros(6, 5)},
        "classifier_weight has C=7 but target has C=5",
    ),
    "a classifier of another width": (
        {"classifier_weight": torch.zeros(7, 5)},
        "classifier_weight has D=5 but embeddings has D=6",
    ),
    "a classifier of integers": (
        {"classifier_weight": torch.zeros(7, 6).long()},
        "classifier_weight must have a floating-point dtype",
    ),
    "too few partners": (
        {"permutation": torch.arange(5)},
        "permutation has B=5 but embeddings has B=6",
    ),
    "partners as numbers": (
        {"permutation": torch.arange(6.0)},
        "permutation must be int64, got torch.float32",
    ),
    "a bias of other classes": (
        {"bias": torch.zeros(5)},
        "bias has C=5 but classifier_weight has C=7",
    ),
    "a bias of integers": (
        {"bias": torch.zeros(7).long()},
        "bias must have a floating-point dtype",
    ),
    "a classifier elsewhere": (
        {"classifier_weight": torch.zeros(7, 6, device="meta")},
        "classifier_weight is on meta but embeddings is on cpu",
    ),
}


@pytest.mark.parametrize(("change", "message"), ERRORS.values(), ids=ERRORS)
def test_arguments_that_do_not_fit(change, message):
    criterion, given = sample()
    with pytest.raises(ValueError, match=message):
        criterion(**{**given, **change})


def test_targets_that_are_no_tensor():
    criterion, given = sample(2)
    with pytest.raises(TypeError, match=r"target must be a torch.Tensor, got list"):
        criterion(**{**given, "target": [0, 1]})


def test_the_functions_check_for_themselves():
    embeddings, log_a, permutation = torch.zeros(3, 2), torch.zeros(3), torch.arange(3)
    with pytest.raises(ValueError, match="log_uncertainty has B=2 but embeddings has B=3"):
        mix_by_uncertainty(embeddings, log_a[:2], permutation)
    with pytest.raises(ValueError, match="embeddings must have a floating-point dtype"):
        mix_by_uncertainty(embeddings.long(), log_a, permutation)
    with pytest.raises(ValueError, match="log_uncertainty must have a floating-point dtype"):
        relative_uncertainty_weights(log_a.long(), permutation)
    with pytest.raises(ValueError, match=r"log_variance must have shape \(B, D\), got \(3\)"):
        log_uncertainty(log_a)
    with pytest.raises(ValueError, match="log_variance must have a floating-point dtype"):
        log_uncertainty(embeddings.long())


def test_values_are_looked_at_where_asked_for():
    criterion, given = sample(3)
    twice = {**given, "permutation": torch.tensor([0, 2, 2])}
    assert criterion(**twice).isfinite()
    with check_values():
        assert criterion(**given).isfinite()
        with pytest.raises(ValueError, match=r"hold each of 0 to 2 once.* got \[0, 2, 2\]"):
            criterion(**twice)
        with pytest.raises(ValueError, match="class indices from 0 to 6, got 7"):
            criterion(**{**given, "target": torch.tensor([0, 7, 1])})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_every_tensor_is_looked_at_where_asked_for(bad):
    criterion, given = sample(3)
    given = {"bias": torch.zeros(7), **given}
    for name in ("embeddings", "classifier_weight", "bias"):
        broken = given[name].clone()
        broken.view(-1)[0] = bad
        with check_values(), pytest.raises(ValueError, match=f"{name} must be finite"):
            criterion(**{**given, name: broken})
    values, permutation = torch.tensor([0.0, bad]), torch.tensor([1, 0])
    for call, name in (
        (lambda: log_uncertainty(values[:, None]), "log_variance"),
        (lambda: relative_uncertainty_weights(values, permutation), "log_uncertainty"),
        (lambda: mix_by_uncertainty(values[:, None], torch.zeros(2), permutation), "embeddings"),
        (lambda: criterion.uncertainty(torch.full((2, 6), bad)), "embeddings"),
    ):
        with check_values(), pytest.raises(ValueError, match=f"{name} must be finite"):
            call()


@pytest.mark.parametrize("label", [-100, -1, 7])
def test_no_label_is_left_out(label):
    criterion, given = sample(3)
    with pytest.raises(IndexError, match=f"got {label} at position .. If your labels count"):
        criterion(**{**given, "target": torch.tensor([0, label, 1])})


def test_a_state_that_does_not_fit_changes_nothing():
    criterion, other = (RelativeUncertaintyLoss(num_features=6) for _ in range(2))
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    with pytest.raises(ValueError, match="stray is .* there and not here"):
        criterion.load_state_dict({**other.state_dict(), "stray": torch.zeros(1)})
    assert all(value.equal(before[name]) for name, value in criterion.state_dict().items())


def test_options():
    assert "num_features=6" in repr(RelativeUncertaintyLoss(num_features=6))
    with pytest.raises(ValueError, match="num_features must be a whole number from 1 on, got 0"):
        RelativeUncertaintyLoss(num_features=0)
