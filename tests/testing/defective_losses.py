"""A sound loss and copies of it with one defect each, beside the checks that must catch it."""

import logging
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from robustfer._checks import check_shapes, check_target
from robustfer._saved_state import load_whole
from robustfer.functional._precision import full_precision
from robustfer.testing import LossConformance
from tests.testing.defects import COMPILES, Defects

DEFECTS = Defects()
caught_by = DEFECTS.caught_by


def conformance_of(loss):
    return DEFECTS.conformance_of(SoundConformance, loss=loss)


class Sound(nn.Module):
    """Cross entropy, each sample by its importance.

    Shape:
        logits ``(B, C)``, target ``(B)``, importance ``(B)`` -> scalar.

    Reference:
        None: made for these tests.
    """

    def each(self, logits, target):
        return F.cross_entropy(full_precision(logits), target, reduction="none")

    def forward(self, logits, target, importance):
        check_target(logits, target)
        check_shapes(logits=(logits, "B C"), importance=(importance, "B"))
        return (full_precision(importance) * self.each(logits, target)).mean()


class SoundConformance(LossConformance):
    loss = Sound

    def make_loss(self):
        return self.loss()

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "logits": torch.randn(batch, classes, generator=generator, dtype=dtype),
            "target": torch.randint(classes, (batch,), generator=generator),
            "importance": torch.rand(batch, generator=generator, dtype=dtype),
        }

    def update(self, loss, inputs):
        if hasattr(loss, "update"):
            loss.update(inputs["logits"])


# How it is made and called


@caught_by("test_documents_shape_and_reference")
class WithoutReference(Sound):
    """Cross entropy, each sample by its importance.

    Shape:
        logits ``(B, C)``, target ``(B)``, importance ``(B)`` -> scalar.
    """


@caught_by("test_documents_shape_and_reference")
class WithoutShape(Sound):
    """Cross entropy of Shape: unknown.

    Reference:
        None: made for these tests.
    """


@caught_by("test_options_are_keyword_only")
class OptionsByPosition(Sound):
    def __init__(self, smoothing=0.1, weight=1.0):
        super().__init__()


@caught_by("test_options_are_keyword_only")
class OptionsPassedThrough(Sound):
    def __init__(self, **options):
        super().__init__()


@caught_by("test_forward_names_its_tensors")
class TakesAnything(Sound):
    def forward(self, logits, target, importance, **others):
        return super().forward(logits, target, importance)


@caught_by("test_forward_names_its_tensors")
class TakesTheEpoch(Sound):
    def forward(self, logits, target, importance, epoch=0):
        return super().forward(logits, target, importance)


@caught_by("test_call_is_not_overridden")
class OverridesCall(Sound):  # timm's JsdCrossEntropy: hooks are skipped
    def __call__(self, logits, target, importance):
        return self.forward(logits, target, importance)


@caught_by("test_can_be_pickled")
class HoldsALambda(Sound):
    def __init__(self):
        super().__init__()
        self.activation = lambda value: value


@caught_by("test_refuses_a_batch_that_does_not_fit")
class SpreadsOneRow(Sound):  # one importance is spread over the batch, in silence
    def forward(self, logits, target, importance):
        check_target(logits, target)
        return (full_precision(importance) * self.each(logits, target)).mean()


@caught_by("test_refuses_a_batch_that_does_not_fit")
class LeavesTheErrorToTorch(Sound):  # RuntimeError: The size of tensor a (5) must match ...
    def forward(self, logits, target, importance):
        return full_precision(importance).dot(self.each(logits, target)) / len(logits)


# What comes out


@caught_by("test_result_has_its_shape_and_dtype")
class KeepsAnAxis(Sound):
    def forward(self, logits, target, importance):
        return super().forward(logits, target, importance).reshape(1)


@caught_by("test_terms_sum_to_the_result")
class TermsWithoutWeights(Sound):
    def terms(self, logits, target, importance):
        value = super().forward(logits, target, importance)
        return {"cross_entropy": value, "squares": value.square()}

    def forward(self, logits, target, importance):
        terms = self.terms(logits, target, importance)
        return terms["cross_entropy"] + 0.1 * terms["squares"]


@caught_by("test_reductions_agree")
class ForgetsItsReduction(Sound):  # "sum" gives the mean
    def __init__(self, *, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, logits, target, importance):
        check_target(logits, target, importance=(importance, "B"))
        losses = full_precision(importance) * self.each(logits, target)
        return losses if self.reduction == "none" else losses.mean()


@caught_by("test_batch_of_one")
class SpreadOfOne(Sound):  # the standard deviation of one value is NaN
    def forward(self, logits, target, importance):
        total = super().forward(logits, target, importance)
        return total + full_precision(importance).var(dim=0).clamp(max=9.0)


@caught_by("test_batch_of_one")
class DetachedZero(Sound):  # torchtune's distillation, pytorch-ood's centre loss
    def forward(self, logits, target, importance):
        value = super().forward(logits, target, importance)
        return value if len(logits) > 1 else torch.zeros((), device=logits.device)


@caught_by("test_batch_of_one")
class SpreadOfThePredictions(Sound):  # the root of a sum of squares that is 0 for a batch of one
    def forward(self, logits, target, importance):
        total = super().forward(logits, target, importance)
        p = full_precision(logits).softmax(dim=1)
        return total + (p - p.mean(dim=0)).square().sum().sqrt()


@caught_by("test_batch_of_one")
class ParameterAtItsRoot(Sound):  # the gradient of a parameter
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits, target, importance):
        total = super().forward(logits, target, importance)
        apart = (len(logits) - 1.0) * self.scale.square()
        return total + apart.sqrt()


@caught_by("test_two_hundred_classes")
class SevenClasses(Sound):
    def each(self, logits, target):
        return -(full_precision(logits).log_softmax(1) * F.one_hot(target, 7)).sum(1)


@caught_by("test_two_hundred_classes")
class ManyClassesUnderflow(Sound):  # finite, with a slope that is not
    def each(self, logits, target):
        logits = full_precision(logits)
        beyond = logits[:, 100:].square().sum(dim=1)  # 200 classes have some
        return super().each(logits, target) + 1e-3 * (beyond - beyond.detach()).abs().sqrt()


@caught_by("test_order_of_the_batch_does_not_matter")
class ComparesNeighbours(Sound):
    def forward(self, logits, target, importance):
        total = super().forward(logits, target, importance)
        return total + full_precision(importance).diff().square().sum()


@caught_by("test_a_nan_stays_a_nan")
class HidesNaNOfOneInput(Sound):
    def forward(self, logits, target, importance):
        return super().forward(logits, target, importance.nan_to_num())


@caught_by("test_a_nan_stays_a_nan")
class HidesNaNOfOneRow(Sound):  # nanmean, which is NaN only if all rows are
    def forward(self, logits, target, importance):
        check_target(logits, target, importance=(importance, "B"))
        return (full_precision(importance) * self.each(logits, target)).nanmean()


@caught_by("test_a_nan_stays_a_nan")
class HidesNaN(Sound):
    def forward(self, logits, target, importance):
        return super().forward(logits, target, importance).nan_to_num()


# Gradients and precision


@caught_by("test_gradient_reaches_inputs_and_parameters", "test_a_nan_stays_a_nan")
class IgnoresAnInput(Sound):  # EAC's public loss takes the logits for the size of their batch
    def forward(self, logits, target, importance):
        check_shapes(logits=(logits, "B C"), target=(target, "B"), importance=(importance, "B"))
        return self.each(logits, target).sum() / len(importance)


@caught_by("test_gradient_reaches_inputs_and_parameters")
class UnusedParameter(Sound):
    def __init__(self):
        super().__init__()
        self.margin = nn.Parameter(torch.tensor(0.1))


@caught_by("test_gradient_is_right")
class DetachesAFactor(Sound):
    def each(self, logits, target):
        each = super().each(logits, target)
        return each * each.neg().exp().detach()


@caught_by("test_half_precision_is_summed_in_single")
class SumsInHalf(Sound):
    def each(self, logits, target):
        return full_precision(F.cross_entropy(logits, target, reduction="none"))


@caught_by("test_half_precision_is_summed_in_single")
class ReturnsHalf(Sound):
    def forward(self, logits, target, importance):
        return super().forward(logits, target, importance).to(logits.dtype)


@caught_by("test_autocast_changes_nothing")
class LeavesAutocastOn(Sound):
    def forward(self, logits, target, importance):
        total = super().forward(logits, target, importance)
        logits = full_precision(logits)
        return total + (logits @ logits.T).square().mean()


# What forward leaves alone


@caught_by("test_inputs_are_left_alone")
class WritesIntoItsInput(Sound):  # marks of ignored samples, -1, become class 0
    def forward(self, logits, target, importance):
        return super().forward(logits, target.clamp_(min=0), importance)


@caught_by("test_forward_leaves_state_alone")
class CountsCalls(Sound):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, logits, target, importance):
        self.calls += 1
        return super().forward(logits, target, importance)


@caught_by("test_forward_leaves_state_alone")
class UpdatesInForward(Sound):  # only while training, as BatchNorm does
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, logits, target, importance):
        if self.training:
            self.mean.lerp_(logits.detach().mean().to(self.mean.dtype), 0.1)
        return super().forward(logits, target, importance)


@caught_by("test_grad_mode_is_left_alone")
class SwitchesGradOn(Sound):  # timm's AsymmetricLossMultiLabel
    def forward(self, logits, target, importance):
        result = super().forward(logits, target, importance)
        torch.set_grad_enabled(True)
        return result


@caught_by("test_draws_no_random_numbers")
class BreaksTiesByChance(Sound):
    def each(self, logits, target):
        return super().each(logits, target) + 0.0 * torch.rand_like(full_precision(logits[:, 0]))


# State


@caught_by("test_tensors_are_parameters_or_buffers")
class PlainTensor(Sound):  # kornia's focal loss: .to(device) leaves the weight behind
    def __init__(self):
        super().__init__()
        self.weights = {"cross_entropy": torch.tensor(1.0, dtype=torch.float64)}


@caught_by("test_state_dict_restores")
class ForgetsItsBank(Sound):  # lightly's memory bank
    def __init__(self):
        super().__init__()
        self.register_buffer("bank", torch.zeros(3), persistent=False)

    def update(self, logits):
        self.bank.copy_(logits.mean())


@caught_by("test_state_dict_restores")
class SharesItsBank(Sound):  # each loss finds what another one has seen
    seen: ClassVar[list] = []

    def update(self, logits):
        self.seen.append(logits.mean().item())


@caught_by("test_state_dict_restores")
class ForgetsItsCursor(Sound):  # pytorch-metric-learning's CrossBatchMemory
    def __init__(self):
        super().__init__()
        self.register_buffer("queue", torch.zeros(8))
        self.cursor = 0
        load_whole(self)

    def update(self, logits):
        self.queue[self.cursor] = logits.mean()
        self.cursor += 1


@caught_by("test_state_dict_restores")
class GrowsItsBank(Sound):  # the state_dict fits no new loss
    def __init__(self):
        super().__init__()
        self.register_buffer("bank", torch.zeros(0))
        load_whole(self)

    def update(self, logits):
        self.bank = torch.cat((self.bank, logits.mean().reshape(1)))


@caught_by("test_state_is_loaded_whole_or_not_at_all")
class LoadsByHalves(Sound):  # as torch does: what fits is there when it raises for the rest
    def __init__(self):
        super().__init__()
        self.register_buffer("queue", torch.zeros(8))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.int64))

    def update(self, logits):
        self.queue[self.cursor] = logits.mean()
        self.cursor += 1


# On a GPU and compiled


@caught_by("test_host_waits_for_no_value")
class ChecksValuesUnasked(Sound):
    def forward(self, logits, target, importance):
        if not torch.compiler.is_compiling() and bool(importance.sum() < 0):
            raise ValueError("importance must not be negative")
        return super().forward(logits, target, importance)


@caught_by("test_host_waits_for_no_value", "test_follows_to_a_gpu")
class CopiesToTheHost(Sound):
    def forward(self, logits, target, importance):
        return super().forward(logits, target, importance).cpu()


@caught_by("test_host_waits_for_no_value", "test_follows_to_a_gpu")
class ComputesOnTheHost(Sound):
    def each(self, logits, target):
        return super().each(logits.to("cpu"), target.to("cpu")).to(logits.device)


@caught_by("test_follows_to_a_gpu")
class NamesTheCpu(Sound):
    def each(self, logits, target):
        ramp = torch.linspace(1.0, 2.0, logits.shape[1], device="cpu", dtype=torch.float64)
        return super().each(full_precision(logits) * ramp.to(full_precision(logits).dtype), target)


@caught_by("test_follows_to_a_gpu")
class KeepsItsFirstDevice(Sound):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(1), persistent=False)
        self.device = self.scale.device

    def each(self, logits, target):
        return super().each(logits.to(self.device), target.to(self.device))


@caught_by("test_follows_to_a_gpu")
class IndexesFromTheCpu(Sound):  # torch takes such an index, and waits for its copy
    def each(self, logits, target):
        rows = torch.arange(len(target), device="cpu")
        return -full_precision(logits).log_softmax(1)[rows, target]


@caught_by("test_new_tensors_follow_the_inputs", "test_follows_to_a_gpu")
class MakesTensorsOnTheCpu(Sound):
    def each(self, logits, target):
        rows = torch.arange(len(target))
        return -full_precision(logits).log_softmax(1)[rows, target]


@caught_by("test_new_tensors_follow_the_inputs")
class MakesTensorsInTheDefaultDtype(Sound):
    def each(self, logits, target):
        return super().each(logits, target) * torch.ones(len(target), device=logits.device)


@caught_by(COMPILES)
class Logs(Sound):
    def forward(self, logits, target, importance):
        logging.getLogger("robustfer").debug("batch of %d", len(logits))
        return super().forward(logits, target, importance)


# Defects of well-known programs that several checks see


@caught_by("test_host_waits_for_no_value", COMPILES)
class BranchOnTheHost(Sound):  # SCN's public program: a Python zero where the margin is kept
    def forward(self, logits, target, importance):
        total = super().forward(logits, target, importance)
        gap = 9.0 - full_precision(importance).mean()
        return total + (gap if gap > 0 else 0.0)


@caught_by("test_forward_leaves_state_alone", "test_tensors_are_parameters_or_buffers")
class BankInForward(Sound):  # LA-Net's public program: a plain attribute, written in forward
    def __init__(self):
        super().__init__()
        self.bank = torch.zeros(5)

    def forward(self, logits, target, importance):
        self.bank = importance.detach() + 1.0
        return super().forward(logits, target, importance)


@caught_by(
    "test_gradient_reaches_inputs_and_parameters",
    "test_gradient_is_right",
    "test_batch_of_one",
    "test_host_waits_for_no_value",
    "test_new_tensors_follow_the_inputs",
    "test_result_has_its_shape_and_dtype",
)
class RebuildsTheResult(Sound):
    def forward(self, logits, target, importance):
        return torch.tensor(super().forward(logits, target, importance).item())
