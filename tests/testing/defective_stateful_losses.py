"""A sound loss that remembers its samples, and copies of it with one defect each."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from robustfer.authoring import (
    check_shapes,
    check_target,
    full_precision,
    load_whole,
    read_rows,
    write_rows,
)
from robustfer.state._distributed import gather_in_rank_order
from robustfer.testing import StatefulLossConformance
from tests.testing.defects import Defects

DEFECTS = Defects()
caught_by = DEFECTS.caught_by


def conformance_of(loss):
    return DEFECTS.conformance_of(SoundConformance, loss=loss)


class Sound(nn.Module):
    """Cross entropy, and how far a sample is from what was believed of it.

    Shape:
        logits ``(B, C)``, target ``(B)``, belief ``(B, C)`` -> scalar.

    Reference:
        None: made for these tests.
    """

    def __init__(self, *, num_samples, num_classes):
        super().__init__()
        self.register_buffer("bank", torch.full((num_samples, num_classes), 1 / num_classes))
        self.load_whole()

    def load_whole(self):
        load_whole(self)

    @classmethod
    def sized(cls, samples, classes):
        return cls(num_samples=samples, num_classes=classes)

    def check(self, logits, index):
        check_shapes(logits=(logits, f"B {self.bank.shape[1]}"), index=(index, "B"))

    def read(self, index):
        return read_rows(self.bank, index)

    def now(self, logits):
        return full_precision(logits).softmax(dim=1)

    def moved(self, old, logits):
        return 0.5 * old + 0.5 * self.now(logits)

    def propose(self, logits, index):
        self.check(logits, index)
        return self.moved(self.read(index), logits.detach())

    def forward(self, logits, target, belief):
        check_target(logits, target, belief=(belief, "B C"))
        logits, belief = full_precision(logits), full_precision(belief)
        distance = (logits.softmax(dim=1) - belief).square().sum(dim=1)
        return F.cross_entropy(logits, target) + distance.mean()

    def update(self, index, belief, *, gather=True):
        check_shapes(belief=(belief, f"B* {self.bank.shape[1]}"), index=(index, "B*"))
        if gather:
            index, belief = gather_in_rank_order(index, belief)
        self.write(index, belief)

    def write(self, index, belief):
        write_rows(self.bank, index, belief, gather=False)


class SoundConformance(StatefulLossConformance):
    loss = Sound

    def make_loss(self):
        return self.loss.sized(self.samples, self.classes)

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "logits": torch.randn(batch, classes, generator=generator, dtype=dtype),
            "target": torch.randint(classes, (batch,), generator=generator),
        }


# How it is made and called


@caught_by("test_is_made_for_a_number_of_samples")
class SizedByAnotherName(Sound):
    def __init__(self, *, length, num_classes):
        super().__init__(num_samples=length, num_classes=num_classes)

    @classmethod
    def sized(cls, samples, classes):
        return cls(length=samples, num_classes=classes)


@caught_by("test_propose_and_update_name_their_tensors")
class GathersByPosition(Sound):
    def update(self, index, belief, gather=True):
        super().update(index, belief, gather=gather)


@caught_by("test_propose_and_update_name_their_tensors")
class ProposesFromAnything(Sound):
    def propose(self, logits, index, **others):
        return super().propose(logits, index)


@caught_by("test_propose_and_update_name_their_tensors")
class KnowsTheEpoch(Sound):
    def propose(self, logits, index, epoch=0):
        return super().propose(logits, index)


@caught_by("test_propose_refuses_a_batch_that_does_not_fit")
class SpreadsOneRow(Sound):  # the state of one sample is given to the whole batch
    def check(self, logits, index):
        pass


@caught_by("test_update_refuses_rows_that_do_not_fit")
class WritesOneRowToAll(Sound):
    def update(self, index, belief, *, gather=True):
        super().update(index, belief.expand(len(index), -1), gather=gather)


@caught_by("test_refuses_samples_outside")
class CountsFromTheEnd(Sound):  # Python's -1: a mark of no sample is the last one's state
    def read(self, index):
        return self.bank[index]


@caught_by("test_refuses_samples_outside")
class GoesRound(Sound):
    def write(self, index, belief):
        super().write(index % len(self.bank), belief)


# What is proposed


@caught_by("test_proposes_a_row_a_sample")
class RoundsItsProposal(Sound):
    def moved(self, old, logits):
        return super().moved(old, logits).float()


@caught_by("test_proposal_is_a_constant")
class KeepsTheGraph(Sound):
    def propose(self, logits, index):
        self.check(logits, index)
        return self.moved(self.read(index), logits)


@caught_by("test_proposal_belongs_to_its_sample")
class SortsTheIndex(Sound):
    def read(self, index):
        return super().read(index.sort().values)


@caught_by("test_half_precision_proposes_in_single")
class MovesInHalf(Sound):
    def now(self, logits):
        return full_precision(logits.softmax(dim=1))


@caught_by("test_half_precision_proposes_in_single")
class ProposesHalf(Sound):
    def moved(self, old, logits):
        return super().moved(old, logits).to(logits.dtype)


@caught_by("test_autocast_changes_no_proposal")
class LeavesAutocastOn(Sound):
    def now(self, logits):
        now = super().now(logits)
        return now @ torch.eye(now.shape[1], dtype=now.dtype, device=now.device)


# What is written


@caught_by("test_update_writes_the_very_rows")
class NormalizesAgain(Sound):
    def write(self, index, belief):
        super().write(index, F.normalize(belief, p=1, dim=1))


@caught_by("test_update_leaves_other_samples_alone")
class FadesTheOthers(Sound):
    def write(self, index, belief):
        self.bank.mul_(0.9 if len(index) else 1.0)
        super().write(index, belief)


@caught_by("test_last_row_of_a_sample_wins", "test_remembers_nothing_that_is_not_finite")
class LeavesTheOrderToTheDevice(Sound):
    def write(self, index, belief):
        self.bank.index_copy_(0, index, belief.detach().to(self.bank.dtype))


@caught_by("test_last_row_of_a_sample_wins")
class FirstRowWins(Sound):
    def write(self, index, belief):
        super().write(index.flip(0), belief.flip(0))


@caught_by("test_remembers_nothing_that_is_not_finite")
class KeepsANan(Sound):
    def write(self, index, belief):
        read_rows(self.bank, index)
        ordered, order = index.sort(stable=True)
        last = order[torch.searchsorted(ordered, index, right=True) - 1]
        self.bank.index_copy_(0, index, belief.detach().to(self.bank.dtype)[last])


@caught_by("test_remembers_nothing_that_is_not_finite")
class ReplacesANan(Sound):  # by a number that nobody has predicted
    def write(self, index, belief):
        super().write(index, belief.nan_to_num())


@caught_by("test_update_takes_no_rows")
class NeedsARow(Sound):
    def update(self, index, belief, *, gather=True):
        check_shapes(belief=(belief, "B C"), index=(index, "B"))
        super().update(index, belief, gather=gather)


@caught_by("test_update_takes_tensors_with_gradients")
class WritesInTheGraph(Sound):
    def write(self, index, belief):
        super().write(index, belief)
        self.bank.add_(0.0 * belief.nan_to_num(0.0, 0.0, 0.0).sum())


@caught_by("test_processes_remember_the_joined_batch", "test_update_takes_no_rows")
class RemembersItsOwn(Sound):
    def update(self, index, belief, *, gather=True):
        super().update(index, belief, gather=False)


@caught_by("test_processes_remember_the_joined_batch")
class AlwaysGathers(Sound):
    def update(self, index, belief, *, gather=True):
        super().update(index, belief)


@caught_by("test_processes_remember_the_joined_batch", "test_update_takes_no_rows")
class JoinsEqualBatchesOnly(Sound):  # the last batch of an epoch is shorter in some processes
    def update(self, index, belief, *, gather=True):
        if gather and dist.is_initialized():
            index, belief = (self.joined(tensor) for tensor in (index, belief))
        super().update(index, belief, gather=False)

    def joined(self, tensor):
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor)
        return torch.cat(parts)


# What both leave alone


@caught_by("test_propose_leaves_state_alone")
class CountsProposals(Sound):
    def __init__(self, *, num_samples, num_classes):
        super().__init__(num_samples=num_samples, num_classes=num_classes)
        self.calls = 0

    def propose(self, logits, index):
        self.calls += 1
        return super().propose(logits, index)


@caught_by("test_propose_and_update_leave_tensors_alone")
class CutsTheLogits(Sound):
    def moved(self, old, logits):
        return super().moved(old, logits.clamp_(-30.0, 30.0))


@caught_by("test_propose_and_update_leave_tensors_alone")
class ClampsInPlace(Sound):
    def write(self, index, belief):
        super().write(index, belief.detach().clamp_(min=0.0))


@caught_by("test_propose_and_update_leave_grad_mode_alone")
class SwitchesGradOn(Sound):
    def write(self, index, belief):
        super().write(index, belief)
        torch.set_grad_enabled(True)


@caught_by("test_propose_and_update_draw_no_random_numbers")
class BreaksTiesByChance(Sound):
    def moved(self, old, logits):
        return super().moved(old, logits) + 0.0 * torch.rand_like(old)


# Resumed, and on a GPU


class Clock:
    """Hides a number where nothing that compares attributes would find it."""

    __slots__ = ("steps",)

    def __init__(self):
        self.steps = 0


@caught_by("test_goes_on_where_it_was_saved")
class HidesItsSteps(Sound):
    def __init__(self, *, num_samples, num_classes):
        super().__init__(num_samples=num_samples, num_classes=num_classes)
        self.clock = Clock()

    def moved(self, old, logits):
        return old.lerp(self.now(logits), 1 / (2 + self.clock.steps))

    def write(self, index, belief):
        super().write(index, belief)
        self.clock.steps += 1


@caught_by("test_host_waits_for_no_value_in_propose_and_update")
class ChecksValuesUnasked(Sound):
    def write(self, index, belief):
        if bool(belief.isnan().any()):
            raise ValueError("belief must not be NaN")
        super().write(index, belief)


@caught_by(
    "test_host_waits_for_no_value_in_propose_and_update",
    "test_propose_and_update_follow_to_a_gpu",
)
class ProposesOnTheHost(Sound):
    def moved(self, old, logits):
        return super().moved(old, logits).to("cpu")


@caught_by("test_propose_and_update_follow_to_a_gpu")
class ProposesOnItsFirstDevice(Sound):
    def __init__(self, *, num_samples, num_classes):
        super().__init__(num_samples=num_samples, num_classes=num_classes)
        self.device = self.bank.device

    def moved(self, old, logits):
        return super().moved(old, logits).to(self.device)


@caught_by("test_propose_and_update_follow_to_a_gpu")
class WritesByAnIndexOnTheCpu(Sound):
    def write(self, index, belief):
        order = torch.arange(len(index), device="cpu")
        super().write(index[order], belief[order])


@caught_by(
    "test_propose_and_update_make_tensors_on_the_device",
    "test_propose_and_update_follow_to_a_gpu",
)
class MakesTensorsOnTheCpu(Sound):
    def write(self, index, belief):
        order = torch.arange(len(index))
        super().write(index[order], belief[order])


@caught_by("test_propose_and_update_make_tensors_on_the_device")
class MakesTensorsInTheDefaultDtype(Sound):
    def moved(self, old, logits):
        half = torch.full((len(old), 1), 0.5, device=old.device)
        return half * old + half * self.now(logits)


# Defects that several checks see, those of every loss among them


@caught_by("test_state_is_loaded_whole_or_not_at_all")
class LoadsByHalves(Sound):  # as torch does: what fits is there when it raises for the rest
    def __init__(self, *, num_samples, num_classes):
        super().__init__(num_samples=num_samples, num_classes=num_classes)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def load_whole(self):
        pass

    def write(self, index, belief):
        super().write(index, belief)
        self.steps += len(index) > 0


@caught_by("test_propose_leaves_state_alone", "test_goes_on_where_it_was_saved")
class HidesItsProposals(Sound):
    def __init__(self, *, num_samples, num_classes):
        super().__init__(num_samples=num_samples, num_classes=num_classes)
        self.clock = Clock()

    def moved(self, old, logits):
        self.clock.steps += 1
        return old.lerp(self.now(logits), 1 / (1 + self.clock.steps))


@caught_by("test_forward_leaves_state_alone")
class WritesInForward(Sound):
    def forward(self, logits, target, belief):
        self.bank[: len(belief)] = belief
        return super().forward(logits, target, belief)


@caught_by("test_propose_leaves_state_alone")
class WritesInPropose(Sound):  # a step that is skipped is remembered
    def propose(self, logits, index):
        belief = super().propose(logits, index)
        self.update(index, belief)
        return belief


@caught_by(
    "test_state_dict_restores",
    "test_update_writes_the_very_rows",
    "test_goes_on_where_it_was_saved",
)
class ForgetsItsBank(Sound):  # lightly's memory bank
    def __init__(self, *, num_samples, num_classes):
        super().__init__(num_samples=num_samples, num_classes=num_classes)
        self.register_buffer("bank", self.bank, persistent=False)


@caught_by("test_state_dict_restores", "test_goes_on_where_it_was_saved")
class WarmsUp(Sound):  # by a count that is no buffer
    def __init__(self, *, num_samples, num_classes):
        super().__init__(num_samples=num_samples, num_classes=num_classes)
        self.steps = 0

    def moved(self, old, logits):
        return old.lerp(self.now(logits), 1 / (2 + self.steps))

    def write(self, index, belief):
        super().write(index, belief)
        self.steps += int(len(index) > 0)
