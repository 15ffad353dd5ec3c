"""Sparse over-parameterization against the equations, in plain Python, and robustfer's checks."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustfer.losses import CompositeLoss, Term, check_values, param_groups
from robustfer.testing import ParametricLossConformance
from robustfer_sop.functional import class_balance, corrected_cross_entropy, noise_error
from robustfer_sop.losses import (
    SparseOverParameterizationLoss,
    SparseOverParameterizationPlusLoss,
)

SAMPLES = 12


class TestSOP(ParametricLossConformance):
    # The equation stops gradients. An independent gradient of each part is below.
    test_gradient_is_right = None

    def make_loss(self):
        return SparseOverParameterizationLoss(
            num_samples=SAMPLES, num_classes=self.classes, batch_size=self.batch, init_std=0.3
        )

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "logits": torch.randn(batch, classes, dtype=dtype, generator=generator),
            "target": torch.randint(classes, (batch,), generator=generator),
            "index": torch.randperm(SAMPLES, generator=generator)[:batch],
        }


class TestSOPWithProbabilities(TestSOP):
    def make_inputs(self, *, batch, classes, dtype, generator):
        sizes = {"batch": batch, "classes": classes, "dtype": dtype, "generator": generator}
        votes = torch.randn(batch, classes, dtype=dtype, generator=generator)
        return {**super().make_inputs(**sizes), "target": votes.softmax(dim=1)}


class TestSOPPlus(TestSOP):
    def make_loss(self):
        return SparseOverParameterizationPlusLoss(
            num_samples=SAMPLES, num_classes=self.classes, batch_size=self.batch, init_std=0.3
        )

    def make_inputs(self, *, batch, classes, dtype, generator):
        sizes = {"batch": batch, "classes": classes, "dtype": dtype, "generator": generator}
        other = torch.randn(batch, classes, dtype=dtype, generator=generator)
        return {**super().make_inputs(**sizes), "logits_flipped": other}


def softmax(row):
    e = [math.exp(score - max(row)) for score in row]
    return [value / sum(e) for value in e]


def written_out(logits, label, u, v, logits_flipped):
    """The four terms, number by number; ``label`` as rows of probabilities."""
    entropy, error, apart = 0.0, 0.0, 0.0
    classes, size = range(len(logits[0])), len(logits)
    mean = [0.0 for _ in classes]
    for n in range(size):
        p, q = softmax(logits[n]), softmax(logits_flipped[n])
        guess = max(classes, key=lambda k: p[k])
        added = [min(u[n] ** 2 * label[n][k], 1) for k in classes]
        taken = [min(v[n][k] ** 2 * (1 - label[n][k]), 1) for k in classes]
        corrected = [max(p[k] + added[k] - taken[k], 1e-4) for k in classes]
        for k in classes:
            entropy -= label[n][k] * math.log(corrected[k] / sum(corrected)) / size
            error += ((k == guess) + added[k] - taken[k] - label[n][k]) ** 2 / size
            apart += p[k] * math.log(p[k] / q[k]) / size
            mean[k] += p[k] / size
    balance = sum(math.log(1 / len(mean) / share) / len(mean) for share in mean)
    return [entropy, error, apart, balance]


def sample(batch=9, classes=7, *, soft=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"classes": classes, "dtype": torch.float64, "generator": generator}
    maker = TestSOPWithProbabilities() if soft else TestSOP()
    given = maker.make_inputs(batch=batch, **sizes)
    other = torch.randn(batch, classes, dtype=torch.float64, generator=generator)
    return given, other


def made(kind=SparseOverParameterizationLoss, *, classes=7, batch_size=128, **options):
    torch.manual_seed(0)
    options = {"num_samples": SAMPLES, "num_classes": classes, "batch_size": batch_size, **options}
    return kind(**options).double()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("init_std", [1e-8, 0.3, 1.5])
@pytest.mark.parametrize(("batch", "classes"), [(1, 2), (9, 7), (9, 200)])
def test_it_is_the_equations(batch, classes, init_std, soft):
    given, other = sample(batch, classes, soft=soft)
    criterion = made(SparseOverParameterizationPlusLoss, classes=classes, init_std=init_std)
    index, target = given["index"], given["target"]
    label = target if soft else F.one_hot(target, classes).double()
    u, v = criterion.u[index].tolist(), criterion.v[index].tolist()
    expected = written_out(given["logits"].tolist(), label.tolist(), u, v, other.tolist())
    terms = criterion.terms(**given, logits_flipped=other)
    factors = [1, 1, 0.9, 0.1]
    for term, value, factor in zip(terms.values(), expected, factors, strict=True):
        assert term.item() == pytest.approx(factor * value, rel=1e-9, abs=1e-12)
    plain = made(classes=classes, init_std=init_std)
    assert plain(**given).item() == pytest.approx(expected[0] + expected[1], rel=1e-9)


def test_the_functions_reduce_as_they_are_told():
    given, _ = sample(6, 5)
    u, v = torch.full((6,), 0.4).double(), torch.full((6, 5), 0.3).double()
    for function in (corrected_cross_entropy, noise_error):
        each, total, mean = (
            function(given["logits"], given["target"], u, v, reduction=reduction)
            for reduction in ("none", "sum", "mean")
        )
        assert each.shape == (6,)
        torch.testing.assert_close(total, each.sum())
        torch.testing.assert_close(mean, each.mean())


def test_the_terms_of_the_second_view_have_their_weights():
    given, other = sample(6)
    plain, weighed = (
        made(SparseOverParameterizationPlusLoss, **weights).terms(**given, logits_flipped=other)
        for weights in ({}, {"consistency_weight": 0.3, "balance_weight": 0.7})
    )
    torch.testing.assert_close(weighed["consistency"], plain["consistency"] / 3)
    torch.testing.assert_close(weighed["class_balance"], plain["class_balance"] * 7)


def test_the_first_view_is_a_constant_for_the_second():
    given, other = sample(6)
    logits, other = given["logits"].requires_grad_(), other.requires_grad_()
    terms = made(SparseOverParameterizationPlusLoss).terms(**given, logits_flipped=other)
    terms["consistency"].backward()
    assert logits.grad is None
    assert other.grad.any()


def test_the_gradient_by_the_logits_is_a_learnt_weight_on_that_of_cross_entropy():
    given, _ = sample(4, 5)
    logits, target = given["logits"].requires_grad_(), given["target"]
    u = torch.tensor([0.0, 0.1, 0.5, 1.0]).double()
    losses = corrected_cross_entropy(logits, target, u, torch.zeros(4, 5), reduction="sum")
    [found] = torch.autograd.grad(losses, logits)
    p = logits.detach().softmax(dim=1)
    of_label = p.gather(1, target[:, None])
    weight = of_label / (of_label + u[:, None] ** 2)
    torch.testing.assert_close(found, weight * (p - F.one_hot(target, 5)))


def test_gradients_are_right_where_the_equation_lets_them_through():
    given, _ = sample(3, 5)
    logits, target = given["logits"].requires_grad_(), given["target"]
    u = torch.tensor([0.1, 0.3, 0.6]).double().requires_grad_()
    v = (0.2 * torch.rand(3, 5).double()).requires_grad_()

    def entropy(logits, u):
        return corrected_cross_entropy(logits, target, u, v)

    def error(u, v):
        return noise_error(logits, target, u, v)

    assert torch.autograd.gradcheck(entropy, (logits, u))
    assert torch.autograd.gradcheck(error, (u, v))
    assert torch.autograd.gradcheck(class_balance, (logits,))
    of_v, of_logits = torch.autograd.grad(
        entropy(logits, u) + error(u, v), (v, logits), allow_unused=True
    )
    torch.testing.assert_close(of_v, torch.autograd.grad(error(u, v), v)[0])
    torch.testing.assert_close(of_logits, torch.autograd.grad(entropy(logits, u), logits)[0])


def test_a_step_changes_the_samples_of_the_batch_and_no_other():
    given, _ = sample(4)
    criterion = made(init_std=0.1)
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    optimizer = torch.optim.SGD(criterion.param_groups())
    criterion(**given).backward()
    optimizer.step()
    seen = torch.zeros(SAMPLES, dtype=torch.bool).index_fill(0, given["index"], True)
    for name, value in criterion.state_dict().items():
        changed = (value != before[name]).view(SAMPLES, -1).any(dim=1)
        assert torch.equal(changed, seen), name


def test_a_sample_twice_in_a_batch_learns_from_both():
    given, _ = sample(1)
    twice = {name: torch.cat([tensor, tensor]) for name, tensor in given.items()}
    gradients = []
    for batch in (given, twice):
        criterion = made(init_std=0.1)
        criterion(**batch).backward()
        gradients.append(criterion.v.grad)
    torch.testing.assert_close(*gradients)


def visit(criterion, times):
    """Show the loss one sample, labelled 0, that the network surely sees as class 1."""
    logits = torch.tensor([[2.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    optimizer = torch.optim.SGD(criterion.param_groups())
    target = index = torch.tensor([0])
    for _ in range(times):
        optimizer.zero_grad()
        # One sample of the mean over a whole batch.
        (criterion(logits, target, index) / criterion.batch_size).backward()
        optimizer.step()
    return criterion.v[0, 1].item() ** 2


@pytest.mark.parametrize("batch_size", [16, 128, 1024])
def test_the_published_start_does_nothing_in_thirty_visits_and_the_default_does(batch_size):
    published = made(batch_size=batch_size, init_std=1e-8)
    default = made(batch_size=batch_size)
    assert visit(published, 30) < 1e-6
    assert visit(default, 30) > 0.99
    # It acts at last: 1 + 4 * 10 / 128 a visit, 68 visits from 1e-8 to 1.
    assert visit(published, 60) > 0.99


@pytest.mark.parametrize("init_std", [1e-8, 1e-5])
def test_the_growth_a_visit_is_that_of_the_equation(init_std):
    one, other = (visit(made(init_std=init_std), times) for times in (1, 11))
    assert other / one == pytest.approx((1 + 4 * 10 / 128) ** 20, rel=1e-3)


def test_where_the_label_is_believed_the_noise_shrinks():
    logits = torch.tensor([[9.0, 0.0, 0.0]], dtype=torch.float64)
    criterion = made(classes=3, batch_size=128, init_std=0.5)
    optimizer = torch.optim.SGD(criterion.param_groups())
    target = index = torch.tensor([0])
    before = criterion.u[0].abs().item(), criterion.v[0, 1:].abs().tolist()
    (criterion(logits, target, index) / criterion.batch_size).backward()
    optimizer.step()
    assert criterion.u[0].abs() < before[0]
    assert all(criterion.v[0, 1:].abs() < torch.tensor(before[1]))


def test_two_averaged_halves_are_one_batch():
    """What DistributedDataParallel does with two processes."""
    given, _ = sample(8)
    whole, halves = made(init_std=0.3), made(init_std=0.3)
    whole(**given).backward()
    for half in (slice(0, 4), slice(4, 8)):
        (halves(**{name: tensor[half] for name, tensor in given.items()}) / 2).backward()
    torch.testing.assert_close(halves.u.grad, whole.u.grad)
    torch.testing.assert_close(halves.v.grad, whole.v.grad)


def test_one_optimizer_has_the_rates_of_the_loss():
    criterion = made(batch_size=64, lr_u=1.0, lr_v=10.0)
    groups = param_groups(nn.Linear(2, 2), CompositeLoss(Term("sop", criterion)))
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=1e-3)
    names = ("lr", "momentum", "weight_decay")
    assert [tuple(group[name] for name in names) for group in optimizer.param_groups] == [
        *((0.1, 0.9, 1e-3), (0.5, 0.0, 0.0), (5.0, 0.0, 0.0)),
    ]


def test_doubt_is_the_noise_found_at_the_label():
    criterion = made()
    with torch.no_grad():
        criterion.u[:3] = torch.tensor([0.0, -0.5, 3.0])
    assert criterion.doubt(torch.tensor([2, 1, 0])).tolist() == [1.0, 0.25, 0.0]
    assert criterion.doubt().shape == (SAMPLES,)
    assert not criterion.doubt().requires_grad
    with pytest.raises(IndexError):
        criterion.doubt(torch.tensor([SAMPLES]))


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"num_samples": 0}, "num_samples must be a whole number from 1 on, got 0"),
        ({"num_classes": 1}, "num_classes must be a whole number from 2 on, got 1"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1 on, got 0"),
        ({"lr_u": -1.0}, r"lr_u must lie in \[0, inf\), got -1"),
        ({"lr_v": -1.0}, r"lr_v must lie in \[0, inf\), got -1"),
        ({"init_std": 0.0}, r"init_std must lie in \(0, inf\), got 0"),
        ({"consistency_weight": -1.0}, r"consistency_weight must lie in \[0, inf\), got -1"),
        ({"balance_weight": -1.0}, r"balance_weight must lie in \[0, inf\), got -1"),
    ],
)
def test_options_that_do_not_fit(options, fact):
    with pytest.raises(ValueError, match=fact):
        made(SparseOverParameterizationPlusLoss, **options)


def test_arguments_that_do_not_fit():
    given, other = sample(4)
    plain, plus = made(), made(SparseOverParameterizationPlusLoss)
    for criterion, change, fact in (
        (plain, {"logits": other[:, :5]}, r"logits must have shape \(B, 7\), got \(4, 5\)"),
        (plain, {"index": given["index"][:2]}, "index has B=2 but logits has B=4"),
        (plain, {"index": given["index"].int()}, r"index must be int64"),
        (plain, {"target": given["target"].int()}, "target must be int64 class indices"),
        (plus, {"logits_flipped": other[:2]}, "logits_flipped has B=2 but logits has B=4"),
    ):
        with pytest.raises(ValueError, match=fact):
            criterion(**{**given, **change})
    with pytest.raises(IndexError, match=f"{SAMPLES}"):
        plain(**{**given, "index": given["index"].clone().fill_(SAMPLES)})
    with pytest.raises(IndexError, match="0 to 6, got -100 at position 0. If your labels count"):
        plain(**{**given, "target": given["target"].clone().fill_(-100)})
    with check_values(), pytest.raises(ValueError, match="class indices from 0 to 6, got 9"):
        plain(**{**given, "target": given["target"].clone().fill_(9)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_it_stays_finite_for_any_logits(dtype):
    logits = (3e4 * torch.eye(7)[:4]).to(dtype).requires_grad_()
    criterion = made(SparseOverParameterizationPlusLoss).float()
    loss = criterion(logits, logits.detach().flip(0), torch.tensor([0, 2, 1, 0]), torch.arange(4))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert criterion.u.grad.isfinite().all()


def test_the_parameters_keep_their_precision_in_a_model_that_is_cast():
    criterion = made(init_std=1e-8)  # 0 in float16
    before = criterion.v.clone()
    assert before.count_nonzero() == before.numel()
    nn.ModuleList([criterion]).half()
    assert torch.equal(criterion.v, before)
    assert criterion.v.dtype == before.dtype


def test_a_saved_state_of_another_size_is_refused_whole():
    criterion, other = made(), made(num_samples=SAMPLES + 1)
    before = criterion.v.clone()
    with pytest.raises(ValueError, match="does not fit"):
        criterion.load_state_dict(other.state_dict())
    assert torch.equal(criterion.v, before)


def test_the_module_says_how_it_was_made():
    assert repr(made(SparseOverParameterizationPlusLoss)) == (
        "SparseOverParameterizationPlusLoss(12 samples, num_classes=7, batch_size=128, "
        "lr_u=1.0, lr_v=10.0, init_std=0.01, consistency_weight=0.9, balance_weight=0.1)"
    )
