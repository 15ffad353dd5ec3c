import gc
import pickle
import warnings

import pytest
import torch
from torch import nn

from robustfer.losses import CompositeLoss, EACLoss, Term, param_groups
from robustfer.losses.parameters import warn_if_not_optimized


class Centres(nn.Module):
    """A loss with parameters of its own, one of them frozen."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(3))
        self.scale = nn.Parameter(torch.ones(()))
        self.fixed = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, logits):
        return (self.scale * (logits - self.centres) * self.fixed).square().mean()


@pytest.fixture
def model():
    return nn.Linear(2, 3)


def train(model, criterion, *optimizers, steps=3):
    """Train for some steps and return the texts of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Older torch's own, from torch.compile.
        warnings.simplefilter("ignore", DeprecationWarning)
        for _ in range(steps):
            criterion(logits=model(torch.ones(4, 2))).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return [str(warning.message) for warning in caught]


def sgd(*parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def test_groups_hold_every_trained_parameter_once(model):
    criterion = Centres()
    of_model, of_criterion = param_groups(model, criterion)
    assert of_model == {"params": [model.weight, model.bias]}
    assert of_criterion == {"params": [criterion.centres, criterion.scale], "weight_decay": 0.0}


def test_options_are_those_of_the_loss_alone(model):
    groups = param_groups(model, Centres(), criterion_lr=0.5, criterion_weight_decay=0.01)
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.2)
    options = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert options == [(0.1, 0.2), (0.5, 0.01)]


class Offsets(Centres):
    """A loss that says how its offsets learn, and nothing of the others."""

    def __init__(self):
        super().__init__()
        self.offsets = nn.Parameter(torch.zeros(3))

    def param_groups(self):
        return [{"params": [self.offsets, self.fixed], "lr": 9.0, "momentum": 0.0}]

    def forward(self, logits):
        return super().forward(logits + self.offsets)


@pytest.mark.parametrize("composed", [False, True])
def test_a_loss_may_set_options_of_its_own(model, composed):
    criterion = Offsets()
    whole = CompositeLoss(Term("offsets", criterion)) if composed else criterion
    of_model, plain, own = param_groups(model, whole, criterion_lr=0.5)
    assert of_model["params"] == [model.weight, model.bias]
    assert plain["params"] == [criterion.centres, criterion.scale]
    assert own == {"params": [criterion.offsets], "lr": 9.0, "momentum": 0.0}
    optimizer = torch.optim.SGD([of_model, plain, own], lr=0.1, momentum=0.9)
    assert [(g["lr"], g["momentum"]) for g in optimizer.param_groups] == [
        *((0.1, 0.9), (0.5, 0.9), (9.0, 0.0)),
    ]
    criterion.offsets.requires_grad_(False)
    assert len(param_groups(model, whole)) == 2


class Wrapped(nn.Module):
    """A loss that contains a loss with groups of its own, and passes them on."""

    def __init__(self, **options):
        super().__init__()
        self.inner, self.options = Offsets(), options

    def param_groups(self):
        return [{**group, **self.options} for group in self.inner.param_groups()]

    def forward(self, logits):
        return self.inner(logits)


@pytest.mark.parametrize("options", [{}, {"lr": 3.0}])
def test_the_outer_loss_decides_on_a_parameter_that_both_list(model, options):
    criterion = Wrapped(**options)
    groups = param_groups(model, CompositeLoss(Term("wrapped", criterion)))
    assert [len(group["params"]) for group in groups] == [2, 2, 1]
    expected = {"params": [criterion.inner.offsets], "lr": 9.0, "momentum": 0.0}
    assert groups[-1] == {**expected, **options}
    # torch refuses a parameter that is in two groups
    warn_if_not_optimized(criterion)
    assert train(model, criterion, torch.optim.SGD(groups, lr=0.1, momentum=0.9)) == []


def test_an_inner_loss_keeps_the_options_of_parameters_that_the_outer_one_does_not_list(model):
    criterion = Wrapped()
    criterion.param_groups = lambda: [{"params": [criterion.inner.scale], "lr": 2.0}]
    _, plain, outer, inner = param_groups(model, criterion)
    assert plain["params"] == [criterion.inner.centres]
    assert outer == {"params": [criterion.inner.scale], "lr": 2.0}
    assert inner == {"params": [criterion.inner.offsets], "lr": 9.0, "momentum": 0.0}


def test_an_optimizer_that_ignores_an_option_of_the_loss_is_warned_of(model):
    criterion = Offsets()
    warn_if_not_optimized(criterion)
    optimizer = torch.optim.AdamW(param_groups(model, criterion), lr=0.1)
    (message,) = train(model, criterion, optimizer, steps=5)
    assert "AdamW does not know momentum" in message
    assert "torch.optim.SGD(criterion.param_groups())" in message


def test_an_optimizer_of_its_own_is_not_warned_of(model):
    criterion = Offsets()
    warn_if_not_optimized(criterion)
    rest = [*model.parameters(), criterion.centres, criterion.scale]
    own = torch.optim.SGD([{"params": [criterion.offsets], "lr": 9.0, "momentum": 0.0}])
    assert train(model, criterion, torch.optim.AdamW(rest, lr=0.1), own) == []


def test_a_loss_without_parameters_adds_no_group(model):
    assert param_groups(model, EACLoss()) == [{"params": [model.weight, model.bias]}]


def test_a_shared_parameter_is_the_models(model):
    criterion = Centres()
    criterion.centres = model.bias
    assert [len(group["params"]) for group in param_groups(model, criterion)] == [2, 1]
    sgd(*param_groups(model, criterion))  # torch refuses a parameter that is in two groups


def test_a_frozen_model_leaves_the_loss(model):
    model.requires_grad_(False)
    (group,) = param_groups(model, Centres())
    assert len(group["params"]) == 2
    with pytest.raises(ValueError, match="hold no parameter that requires a gradient"):
        param_groups(model, EACLoss())


@pytest.mark.parametrize("option", ["criterion_lr", "criterion_weight_decay"])
def test_refuses_negative_options(model, option):
    with pytest.raises(ValueError, match=rf"{option} must lie in \[0, inf\), got -1.0"):
        param_groups(model, Centres(), **{option: -1.0})


def test_forgotten_parameters_are_warned_of_once(model):
    criterion = Centres()
    warn_if_not_optimized(criterion)
    (message,) = train(model, criterion, sgd(*model.parameters()), steps=5)
    assert "no optimizer holds centres of Centres, scale of Centres:" in message
    assert "param_groups(model, criterion)" in message


def test_one_forgotten_parameter_is_named_alone(model):
    criterion = Centres()
    warn_if_not_optimized(criterion)
    (message,) = train(model, criterion, sgd(*model.parameters(), criterion.scale))
    assert "holds centres of Centres: these parameters" in message


def test_param_groups_are_what_it_asks_for(model):
    criterion = Centres()
    warn_if_not_optimized(criterion)
    assert train(model, criterion, sgd(*param_groups(model, criterion))) == []


def test_a_second_optimizer_has_its_turn_first(model):
    criterion = Centres()
    warn_if_not_optimized(criterion)
    own = sgd(criterion.centres, criterion.scale)
    assert train(model, criterion, sgd(*model.parameters()), own) == []


def test_an_optimizer_that_steps_less_often_is_not_warned_of(model):
    criterion = Centres()
    warn_if_not_optimized(criterion)
    rare = sgd(criterion.centres, criterion.scale)
    assert train(model, criterion, sgd(*model.parameters()), steps=5) == []
    assert train(model, criterion, rare, steps=2) == []


def test_the_parameters_that_a_rare_optimizer_lacks_are_named(model):
    criterion = Centres()
    warn_if_not_optimized(criterion)
    rare = sgd(criterion.scale)
    (message,) = train(model, criterion, sgd(*model.parameters()), steps=5)
    assert "no optimizer holds centres of Centres: these" in message
    del rare


def test_an_optimizer_known_before_is_no_evidence_against_a_new_loss(model):
    optimizer, first, second = sgd(*model.parameters()), Centres(), Centres()
    warn_if_not_optimized(first)
    assert len(train(model, first, optimizer)) == 1
    warn_if_not_optimized(second)
    assert train(model, second, optimizer, sgd(second.centres, second.scale)) == []


def test_a_loss_that_is_not_used_is_not_warned_of(model):
    unused, used = Centres(), nn.Identity()
    warn_if_not_optimized(unused)
    optimizer = sgd(*model.parameters())
    for _ in range(3):
        used(model(torch.ones(1, 2))).sum().backward()
        optimizer.step()
    # Used later, it is.
    assert len(train(model, unused, optimizer)) == 1


def test_a_frozen_loss_is_not_warned_of(model):
    criterion = Centres()
    warn_if_not_optimized(criterion.requires_grad_(False))
    assert train(model, criterion, sgd(*model.parameters())) == []


def test_frozen_after_it_was_watched(model):
    criterion = Centres()
    warn_if_not_optimized(criterion)
    criterion.centres.requires_grad_(False)
    assert train(model, criterion, sgd(*model.parameters(), criterion.scale)) == []


def test_a_part_and_its_composition_warn_together_and_name_once(model):
    part = Centres()
    whole = CompositeLoss(Term("centres", part))
    warn_if_not_optimized(part)
    warn_if_not_optimized(whole)
    (message,) = train(model, whole, sgd(*model.parameters()))
    assert message.count("centres of") == 1


def test_watching_keeps_nothing_alive_and_does_not_travel(model):
    criterion = Centres()
    warn_if_not_optimized(criterion)
    copy = pickle.loads(pickle.dumps(criterion))
    del criterion
    gc.collect()
    assert train(model, copy, sgd(*model.parameters())) == []


def test_the_warning_points_at_the_step(model):
    criterion, optimizer = Centres(), sgd(*model.parameters())
    warn_if_not_optimized(criterion)
    criterion(model(torch.ones(4, 2))).backward()
    optimizer.step()
    with pytest.warns(UserWarning, match="no optimizer holds") as caught:
        optimizer.step()
    assert [warning.filename for warning in caught] == [__file__]


def test_compiled_steps_are_seen_too(model):
    criterion, optimizer = Centres(), sgd(*model.parameters())
    warn_if_not_optimized(criterion)
    optimizer.step = torch.compile(optimizer.step, backend="eager")
    assert len(train(model, criterion, optimizer)) == 1
