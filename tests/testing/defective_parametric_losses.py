"""A sound loss with parameters and copies with one defect each, beside the checks that catch it."""

import random
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from robustfer._checks import check_target
from robustfer._saved_state import load_whole
from robustfer.functional._precision import full_precision
from robustfer.testing import ParametricLossConformance
from tests.testing.defects import COMPILES, Defects

DEFECTS = Defects()
caught_by = DEFECTS.caught_by


def conformance_of(loss):
    return DEFECTS.conformance_of(SoundConformance, loss=loss)


class Sound(nn.Module):
    """Cross entropy of logits that are stretched and shifted by what was learnt.

    Shape:
        logits ``(B, C)``, target ``(B)`` -> scalar.

    Reference:
        None: made for these tests.
    """

    def __init__(self, *, num_classes):
        super().__init__()
        self.stretch = nn.Parameter(torch.ones(()))
        self.shift = nn.Parameter(0.1 * torch.randn(num_classes))

    def stretched(self, logits):
        return self.stretch * logits + self.shift

    def forward(self, logits, target):
        check_target(logits, target)
        return F.cross_entropy(self.stretched(full_precision(logits)), target)


class SoundConformance(ParametricLossConformance):
    loss = Sound

    def make_loss(self):
        return self.loss(num_classes=self.classes)

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "logits": torch.randn(batch, classes, generator=generator, dtype=dtype),
            "target": torch.randint(classes, (batch,), generator=generator),
        }


# What an optimizer is given


@caught_by("test_has_parameters")
class LearnsNothing(Sound):
    def __init__(self, *, num_classes):
        super().__init__(num_classes=num_classes)
        stretch, shift = self.stretch.detach(), self.shift.detach()
        del self.stretch, self.shift
        self.register_buffer("stretch", stretch)
        self.register_buffer("shift", shift)
        load_whole(self)


@caught_by("test_param_groups_hold_every_parameter")
class HandsOutSome(Sound):  # "the shift needs a rate of its own"
    def parameters(self, recurse=True):
        yield self.stretch


@caught_by("test_param_groups_hold_every_parameter")
class ListsOneTwice(Sound):  # which torch's optimizers refuse
    def param_groups(self):
        return [{"params": [self.stretch]}, {"params": [self.stretch], "lr": 0.1}]


@caught_by("test_param_groups_hold_every_parameter")
class ListsACopy(Sound):  # which learns instead
    def param_groups(self):
        return [{"params": [nn.Parameter(self.stretch.detach())], "lr": 0.1}]


@caught_by("test_param_groups_hold_every_parameter")
class HidesTheMethod(Sound):
    def __init__(self, *, num_classes):
        super().__init__(num_classes=num_classes)
        self.parameters = ["stretch", "shift"]


@caught_by("test_training_lowers_the_result")
class LearnsFast(Sound):  # "a rate of its own", which enters twice: in the slope and in the step
    def stretched(self, logits):
        return (1 + 300 * (self.stretch - 1)) * logits + self.shift


# First values


@caught_by("test_seed_decides_the_first_values")
class DrawsFromNumpy(Sound):
    def __init__(self, *, num_classes):
        super().__init__(num_classes=num_classes)
        drawn = np.random.randn(num_classes)  # noqa: NPY002
        self.shift = nn.Parameter(torch.tensor(0.1 * drawn, dtype=torch.float32))


@caught_by("test_seed_decides_the_first_values")
class DrawsWithItsOwnGenerator(Sound):
    def __init__(self, *, num_classes):
        super().__init__(num_classes=num_classes)
        generator = torch.Generator()
        generator.seed()
        self.shift = nn.Parameter(0.1 * torch.randn(num_classes, generator=generator))


@caught_by("test_seed_decides_the_first_values")
class SetsTheSeed(Sound):
    def __init__(self, *, num_classes):
        torch.manual_seed(0)
        super().__init__(num_classes=num_classes)


@caught_by("test_seed_decides_the_first_values")
class DrawsFromPythonInVain(Sound):
    def __init__(self, *, num_classes):
        random.random()
        super().__init__(num_classes=num_classes)


ONE = torch.ones(())


@caught_by("test_losses_share_no_parameter")
class SharesItsFirstValue(Sound):  # nn.Parameter copies nothing
    def __init__(self, *, num_classes):
        super().__init__(num_classes=num_classes)
        self.stretch = nn.Parameter(ONE)


@caught_by("test_losses_share_no_parameter")
class CopiesItsOriginal(Sound):
    def __deepcopy__(self, memo):
        copied = type(self)(num_classes=len(self.shift))
        copied.stretch, copied.shift = self.stretch, deepcopy(self.shift, memo)
        return copied


@caught_by("test_losses_share_no_parameter")
class CannotBeCopied(Sound):
    def __deepcopy__(self, memo):
        raise TypeError("not this one")


@caught_by(
    "test_losses_share_no_parameter",
    "test_can_be_pickled",
    "test_follows_to_a_gpu",
)
class HoldsAFunction(Sound):  # which a copy takes over as it is
    def __init__(self, *, num_classes):
        super().__init__(num_classes=num_classes)
        stretch = self.stretch
        self.stretched = lambda logits: stretch * logits + self.shift


@caught_by("test_parameters_stay_in_single")
class IsMadeInHalf(Sound):
    def __init__(self, *, num_classes):
        super().__init__(num_classes=num_classes)
        self.stretch = nn.Parameter(torch.ones((), dtype=torch.bfloat16))


@caught_by(
    "test_parameters_stay_in_single",
    "test_gradient_of_parameters_is_summed_in_single",
)
class FollowsItsInputs(Sound):
    def forward(self, logits, target):
        self.shift.data = self.shift.data.to(logits.dtype)
        return super().forward(logits, target)


# What training does to them


@caught_by("test_gradient_of_parameters_is_summed_in_single")
class RoundsItsGradient(Sound):  # 1 is 1 in every precision, and only backward shows it
    def forward(self, logits, target):
        check_target(logits, target)
        stretch = full_precision(self.stretch.to(logits.dtype))
        return F.cross_entropy(stretch * full_precision(logits) + self.shift, target)


@caught_by("test_gradient_of_parameters_is_summed_in_single")
class LeavesAutocastOn(Sound):  # a product with 1 and 0 is exact, the gradient is not
    def stretched(self, logits):
        ones = torch.ones_like(logits[:1, :1])
        return logits * (self.stretch[None, None] @ ones) + self.shift


@caught_by("test_trained_parameters_are_left_alone")
class BoundsItselfInForward(Sound):
    def forward(self, logits, target):
        self.stretch.data.clamp_(0.01, 5.0)
        return super().forward(logits, target)


@caught_by(
    "test_trained_parameters_are_left_alone",
    "test_param_groups_hold_every_parameter",
    "test_training_lowers_the_result",
    "test_frozen_parameters_stay_frozen",
    "test_gradient_is_right",
    COMPILES,
)
class ReplacesItself(Sound):  # what the optimizer holds is left behind
    def forward(self, logits, target):
        self.stretch = nn.Parameter(self.stretch.detach().clone())
        self.shift = nn.Parameter(self.shift.detach().clone())
        return super().forward(logits, target)


@caught_by("test_frozen_parameters_stay_frozen")
class ThawsItself(Sound):
    def forward(self, logits, target):
        self.requires_grad_()
        return super().forward(logits, target)


@caught_by("test_frozen_parameters_stay_frozen")
class AsksForItsOwnGradient(Sound):
    def forward(self, logits, target):
        result = super().forward(logits, target)
        if not self.stretch.requires_grad:
            torch.autograd.grad(result, self.stretch, retain_graph=True)
        return result


# Where they go


@caught_by("test_state_dict_restores_parameters")
class KeepsCheckpointsSmall(Sound):
    def state_dict(self, *args, **kwargs):
        state = super().state_dict(*args, **kwargs)
        del state["stretch"]
        return state

    def load_state_dict(self, state_dict, *args, **kwargs):
        return super().load_state_dict(state_dict, strict=False)


@caught_by("test_state_dict_restores_parameters", "test_state_dict_restores")
class NamesItsStateAnew(Sound):
    def state_dict(self, *args, **kwargs):
        state = super().state_dict(*args, **kwargs)
        return {f"criterion.{name}": tensor for name, tensor in state.items()}


@caught_by("test_follows_to_a_gpu")
class FixesItsDevice(Sound):
    def __init__(self, *, num_classes):
        super().__init__(num_classes=num_classes)
        self.device = torch.device("cpu")

    def stretched(self, logits):
        return super().stretched(logits) + logits.new_zeros(logits.shape[1], device=self.device)


@caught_by("test_follows_to_another_device")
class StaysWhereItIs(Sound):
    def to(self, *args, **kwargs):
        return self if "meta" in args else super().to(*args, **kwargs)
