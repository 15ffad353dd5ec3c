"""Losses for votes against their equations, vote by vote in plain Python."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.data.readers.votes import judge
from robustfer.losses import AttentionConsistencyLoss, CompositeLoss, Term, check_values
from robustfer.testing import LossConformance
from robustfer_votes.functional import (
    drawn_vote,
    drawn_vote_cross_entropy,
    partial_label,
    vote_cross_entropy,
    vote_shares,
)
from robustfer_votes.losses import DrawnVoteLoss, PartialLabelLoss, VoteCrossEntropyLoss


def draw_votes(batch, classes, generator, voters=10):
    """Some classes have many votes, most have none."""
    chance = torch.rand(batch, classes, generator=generator) ** 8 + 1e-6
    drawn = torch.multinomial(chance, voters, replacement=True, generator=generator)
    nobody = torch.zeros(batch, classes, dtype=torch.int64)
    return nobody.scatter_add(1, drawn, torch.ones_like(drawn))


class TestVoteCrossEntropy(LossConformance):
    constants = ("vote_draw",)

    def make_loss(self):
        return VoteCrossEntropyLoss()

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "logits": torch.randn(batch, classes, dtype=dtype, generator=generator),
            "votes": draw_votes(batch, classes, generator),
        }


class TestVoteCrossEntropyByVotes(TestVoteCrossEntropy):
    def make_loss(self):
        return VoteCrossEntropyLoss(smoothing=0.0, drop_single=True, weighted=True)


class TestVoteCrossEntropyPerSample(TestVoteCrossEntropy):
    per_sample = True

    def make_loss(self):
        return VoteCrossEntropyLoss(reduction="none")


class TestDrawnVote(TestVoteCrossEntropy):
    def make_loss(self):
        return DrawnVoteLoss(weighted=True)

    def make_inputs(self, *, batch, dtype, generator, **sizes):
        inputs = super().make_inputs(batch=batch, dtype=dtype, generator=generator, **sizes)
        return {**inputs, "vote_draw": torch.rand(batch, dtype=dtype, generator=generator)}


class TestPartialLabel(TestVoteCrossEntropy):
    def make_loss(self):
        return PartialLabelLoss()


class TestPartialLabelPerSample(TestVoteCrossEntropyPerSample):
    def make_loss(self):
        return PartialLabelLoss(min_share=0.3, drop_single=True, reduction="none")


class TestAmongFacesWithoutVotes(TestPartialLabel):
    def make_inputs(self, *, batch, **sizes):
        inputs = super().make_inputs(batch=batch, **sizes)
        if batch > 1:
            inputs["votes"][0] = 0
        return inputs


def inputs(batch=6, classes=7, *, seed=0, voters=10):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, classes, generator=generator, dtype=torch.float64)
    return logits, draw_votes(batch, classes, generator, voters)


def log_softmax(row):
    normalizer = math.log(sum(math.exp(score) for score in row))
    return [score - normalizer for score in row]


def plain(logits, votes, loss, *, drop_single, weighted):
    """The weighted mean over the samples of ``loss(log_p, votes)``, which may be ``None``."""
    total = weights = 0.0
    for row, counts in zip(logits.tolist(), votes.tolist(), strict=True):
        kept = [count if count > 1 or not drop_single else 0 for count in counts]
        value = loss(log_softmax(row), kept) if sum(kept) else None
        if value is not None:
            weight = sum(kept) if weighted else 1
            total, weights = total + weight * value, weights + weight
    return total / weights if weights else 0.0


switches = pytest.mark.parametrize("drop_single", [False, True])
weighings = pytest.mark.parametrize("weighted", [False, True])
sizes = pytest.mark.parametrize(("batch", "classes"), [(6, 7), (1, 2), (4, 200)])


@sizes
@switches
@weighings
@pytest.mark.parametrize("smoothing", [0.0, 0.3, 2.0])
def test_cross_entropy_is_the_equation(batch, classes, smoothing, drop_single, weighted):
    logits, votes = inputs(batch, classes)

    def loss(log_p, counts):
        total = sum(counts) + classes * smoothing
        return -sum((v + smoothing) / total * value for v, value in zip(counts, log_p, strict=True))

    options = {"drop_single": drop_single, "weighted": weighted}
    found = VoteCrossEntropyLoss(smoothing=smoothing, **options)(logits, votes)
    assert found.item() == pytest.approx(plain(logits, votes, loss, **options), rel=1e-12)


@sizes
@switches
@weighings
def test_the_drawn_vote_is_the_one_that_its_number_counts_to(batch, classes, drop_single, weighted):
    logits, votes = inputs(batch, classes)
    votes[:, 0] += 2  # no face loses all of its votes
    options = {"drop_single": drop_single, "weighted": weighted}
    for seed in range(5):
        draw = torch.rand(batch, generator=torch.Generator().manual_seed(seed))
        numbers = iter(draw.tolist())

        def loss(log_p, counts, numbers=numbers):
            one_by_one = [k for k, count in enumerate(counts) for _ in range(count)]
            return -log_p[one_by_one[int(next(numbers) * len(one_by_one))]]

        found = DrawnVoteLoss(**options)(logits, votes, draw)
        assert found.item() == pytest.approx(plain(logits, votes, loss, **options), rel=1e-12)


@sizes
@switches
@weighings
@pytest.mark.parametrize("min_share", [0.0, 0.3, 0.6])
def test_partial_label_is_the_equation(batch, classes, min_share, drop_single, weighted):
    logits, votes = inputs(batch, classes)

    def loss(log_p, counts):
        chosen = [
            value
            for v, value in zip(counts, log_p, strict=True)
            if v > 0 and v >= min_share * sum(counts)
        ]
        return -math.log(sum(math.exp(value) for value in chosen)) if chosen else None

    options = {"drop_single": drop_single, "weighted": weighted}
    found = PartialLabelLoss(min_share=min_share, **options)(logits, votes)
    expected = plain(logits, votes, loss, **options)
    assert found.item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_class_with_exactly_the_least_share_is_in_the_set(dtype):
    """Every number of up to 200 votes for a class, and every share in per cent."""
    total = torch.arange(1, 201).repeat_interleave(200)
    first = torch.arange(1, 201).repeat(200)
    total, first = total[first <= total], first[first <= total]
    votes = torch.stack((first, total - first), dim=1)
    logits = torch.tensor([[0.0, 10.0]], dtype=dtype).expand(len(votes), -1)
    for percent in range(101):
        found = partial_label(logits, votes, min_share=percent / 100, reduction="none")
        one, other = (100 * counts >= percent * total for counts in votes.T)
        other &= votes[:, 1] > 0
        # -log p of the first class only is near 10, of both 0, of the second only between.
        assert torch.equal(found > 5, one & ~other)
        assert torch.equal((found > 1e-5) & (found < 5), other & ~one)


def of_drawn(logits, votes, **options):
    numbers = torch.linspace(0, 0.9, len(votes))
    return drawn_vote_cross_entropy(logits, votes, numbers, **options)


@pytest.mark.parametrize("function", [vote_cross_entropy, partial_label, of_drawn])
@weighings
def test_reductions_fit_each_other(function, weighted):
    logits, votes = inputs()
    votes[2] = 0
    each, total, mean = (
        function(logits, votes, weighted=weighted, reduction=reduction)
        for reduction in ("none", "sum", "mean")
    )
    assert each.shape == (6,)
    assert each[2] == 0
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(mean, each.sum() / (50 if weighted else 5))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=9).filter(any))
def test_each_vote_is_drawn_as_often_as_any_other(counts):
    total = sum(counts)
    votes = torch.tensor([counts]).expand(total, -1)
    middle = (torch.arange(total) + 0.5) / total
    found = drawn_vote(votes, middle).bincount(minlength=len(counts))
    assert found.tolist() == counts


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_greatest_number_draws_a_vote(dtype):
    """The number just below 1, and 1 itself, to which a half number may have been rounded."""
    votes = torch.tensor([[0, 5, 0], [2, 999_999, 0]])
    for number in (1 - torch.finfo(dtype).eps / 2, 1.0):
        assert drawn_vote(votes, torch.full((2,), number, dtype=dtype)).tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -0.5, 7.0])
def test_no_number_draws_a_class_without_votes(dtype, number):
    votes = torch.tensor([[0, 3, 1, 0], [0, 0, 2, 0], [0, 0, 0, 0]])
    draw = torch.full((3,), number, dtype=dtype)
    found = drawn_vote(votes, draw)
    assert found[2] == 0
    assert (votes[:2].gather(1, found[:2, None]) > 0).all()
    compiled = torch.compile(drawn_vote, fullgraph=True, backend="aot_eager")
    assert (votes[:2].gather(1, compiled(votes, draw)[:2, None]) > 0).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_a_draw_that_is_nan_makes_the_loss_of_its_face_nan_and_no_other(weighted):
    logits, votes = inputs(batch=4)
    draw = torch.rand(4, generator=torch.Generator().manual_seed(0))
    options = {"weighted": weighted, "reduction": "none"}
    expected = drawn_vote_cross_entropy(logits, votes, draw, **options)
    draw[1] = math.nan
    found = drawn_vote_cross_entropy(logits, votes, draw, **options)
    assert found.isnan().tolist() == [False, True, False, False]
    assert torch.equal(found[[0, 2, 3]], expected[[0, 2, 3]])
    assert found.dtype == expected.dtype == torch.float64
    assert drawn_vote_cross_entropy(logits.float(), votes, draw.double()).dtype == torch.float32


def test_a_vote_of_one_person_can_be_dropped():
    votes = torch.tensor([[1, 5, 0]])
    first = torch.zeros(1)
    assert drawn_vote(votes, first).tolist() == [0]
    assert drawn_vote(votes, first, drop_single=True).tolist() == [1]


def test_without_votes_there_are_no_shares_even_if_smoothed():
    assert not vote_shares(torch.zeros(1, 3).long(), smoothing=0.3).any()


def test_drawn_votes_cost_the_cross_entropy_on_average():
    logits, votes = inputs(batch=1)
    numbers = (torch.arange(1000) + 0.5) / 1000
    many = drawn_vote_cross_entropy(logits.expand(1000, -1), votes.expand(1000, -1), numbers)
    torch.testing.assert_close(many, vote_cross_entropy(logits, votes, smoothing=0.0))


def test_shares_are_those_of_ferplus_where_its_rule_takes_all():
    """Its rule for distributions takes no single vote and at most three classes."""
    votes = torch.tensor([[6, 4, 0], [9, 1, 0], [4, 3, 3]])
    expected, _ = judge(votes, num_classes=3, rule="crossentropy")
    torch.testing.assert_close(vote_shares(votes, drop_single=True), expected)


def test_a_set_of_three_tenths_is_ferplus_multi_target():
    votes = draw_votes(200, 7, torch.Generator().manual_seed(0))
    shares, leader = judge(votes, num_classes=7, rule="multi_target")
    logits = torch.randn(200, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = partial_label(logits, votes, min_share=0.3, drop_single=True, reduction="none")
    probability = (logits.softmax(dim=1) * (shares > 0)).sum(dim=1)
    decided = leader >= 0
    assert decided.sum() > 150
    torch.testing.assert_close(found[decided], -probability[decided].log())


@pytest.mark.parametrize("function", [vote_cross_entropy, partial_label, of_drawn])
def test_a_batch_without_votes_gives_a_zero_with_a_graph(function):
    logits = torch.randn(3, 7, requires_grad=True)
    loss = function(logits, torch.zeros(3, 7, dtype=torch.int64))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros(3, 7))


def test_faces_without_votes_leave_the_others_as_they_are():
    logits, votes = inputs()
    draw = torch.linspace(0, 0.9, 6)
    some = votes.clone()
    some[[1, 4]] = 0
    rows = torch.tensor([0, 2, 3, 5])
    for function in (vote_cross_entropy, partial_label):
        torch.testing.assert_close(function(logits, some), function(logits[rows], votes[rows]))
    torch.testing.assert_close(
        drawn_vote_cross_entropy(logits, some, draw),
        drawn_vote_cross_entropy(logits[rows], votes[rows], draw[rows]),
    )


def test_few_votes_say_less_than_many_when_smoothed():
    few, many = vote_shares(torch.tensor([[1, 0, 0], [10, 0, 0]]), smoothing=0.3)
    assert few[0].item() == pytest.approx(1.3 / 1.9)
    assert many[0].item() == pytest.approx(10.3 / 10.9)


def test_within_the_set_the_network_is_free():
    votes = torch.tensor([[5, 5, 0]])
    for logits in ([20.0, 0.0, -20.0], [0.0, 20.0, -20.0], [10.0, 10.0, -20.0]):
        assert partial_label(torch.tensor([logits]), votes) < 1e-6
    assert vote_cross_entropy(torch.tensor([[20.0, 0.0, -20.0]]), votes, smoothing=0.0) > 5


def test_in_a_composition():
    composed = CompositeLoss(
        Term("votes", VoteCrossEntropyLoss()),
        Term("drawn", DrawnVoteLoss()),
        Term("attention", AttentionConsistencyLoss()),
    )
    assert composed.accepts == {"logits", "votes", "vote_draw", "attention", "attention_flipped"}


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        (VoteCrossEntropyLoss, {"smoothing": -0.1}, ValueError, r"smoothing must lie in \[0, inf"),
        (PartialLabelLoss, {"min_share": 1.1}, ValueError, r"min_share must lie in \[0, 1\]"),
        (DrawnVoteLoss, {"reduction": "max"}, ValueError, "reduction must be 'mean', 'sum'"),
        (DrawnVoteLoss, {"weighted": "false"}, TypeError, "weighted must be True or False"),
        (PartialLabelLoss, {"drop_single": 1}, TypeError, "drop_single must be True or False"),
    ],
)
def test_options_that_do_not_fit(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"votes": torch.ones(4, 7)}, "votes must be int64 counts, got torch.float32"),
        ({"votes": torch.ones(4, 6).long()}, "logits has C=7 but votes has C=6"),
        ({"votes": torch.ones(4).long()}, r"votes must have shape \(B, C\), got \(4\)"),
        ({"logits": torch.ones(4, 7).long()}, "logits must have a floating-point dtype"),
        ({"vote_draw": torch.ones(3)}, "vote_draw has B=3 but votes has B=4"),
        ({"vote_draw": torch.ones(4).long()}, "vote_draw must have a floating-point dtype"),
    ],
)
def test_arguments_that_do_not_fit(change, message):
    given = {
        "logits": torch.zeros(4, 7),
        "votes": torch.ones(4, 7, dtype=torch.int64),
        "vote_draw": torch.zeros(4),
    } | change
    with pytest.raises(ValueError, match=message):
        DrawnVoteLoss()(**given)


def test_values_are_looked_at_where_asked_for():
    votes = torch.tensor([[3, -1]])
    with check_values(), pytest.raises(ValueError, match="votes must be counts from 0 on, got -1"):
        VoteCrossEntropyLoss()(torch.zeros(1, 2), votes)
    with check_values(), pytest.raises(ValueError, match="logits must be finite"):
        VoteCrossEntropyLoss()(torch.zeros(1, 2) / 0, votes.abs())
    for outside in (1.1, -0.1):
        with check_values(), pytest.raises(ValueError, match=r"vote_draw must lie in \[0, 1\)"):
            DrawnVoteLoss()(torch.zeros(1, 2), votes.abs(), torch.tensor([outside]))


@pytest.mark.parametrize("name", ["drop_single", "weighted"])
def test_functions_take_no_text_for_true(name):
    logits, votes, draw = torch.zeros(1, 2), torch.tensor([[3, 1]]), torch.zeros(1)
    for call in (
        partial(vote_cross_entropy, logits, votes),
        partial(drawn_vote_cross_entropy, logits, votes, draw),
        partial(partial_label, logits, votes),
    ):
        with pytest.raises(TypeError, match=f"{name} must be True or False, got 'false'"):
            call(**{name: "false"})


def test_the_modules_say_how_they_were_made():
    assert repr(VoteCrossEntropyLoss()) == (
        "VoteCrossEntropyLoss(smoothing=0.3, drop_single=False, weighted=False, reduction='mean')"
    )
    assert repr(PartialLabelLoss(drop_single=True)) == (
        "PartialLabelLoss(min_share=0.0, drop_single=True, weighted=False, reduction='mean')"
    )
    assert repr(DrawnVoteLoss(weighted=True)) == (
        "DrawnVoteLoss(drop_single=False, weighted=True, reduction='mean')"
    )
