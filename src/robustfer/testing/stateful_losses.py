"""More checks of a loss that remembers its samples, as tests to inherit."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from robustfer._checks import check_values
from robustfer.testing import _require as require
from robustfer.testing._host_synchronisation import refused_host_synchronisation
from robustfer.testing._imitated_gpu import follows_to_gpu
from robustfer.testing._processes import run_as_processes
from robustfer.testing._state import changes, random_state, same, state_of
from robustfer.testing._write_order import writing_backwards
from robustfer.testing.losses import _IN_UPDATE, _ON_GPU, LossConformance


class StatefulLossConformance(LossConformance):
    """Test a loss with a state per sample, with the checks of every loss and those of its state.

    Such a loss has two methods beside ``forward``. ``propose`` returns what it will remember of a
    batch, and ``update`` writes this after the optimizer's step::

        new = criterion.propose(logits=logits, index=index)
        loss = criterion(logits, target, new)
        ...  # backward, optimizer.step()
        criterion.update(index, new)

    ``make_inputs`` returns all tensors of ``propose`` and ``forward``, except two that the checks
    make: ``index``, and the result of ``propose``. ``forward`` takes this result under the name of
    the second argument of ``update``.

    Attributes:
        samples: number of samples in the data set, more than twice ``batch``. Read ``self.samples``
            in ``make_loss``.

    >>> from torch import nn
    >>> from robustfer.authoring import full_precision, load_whole, read_rows, write_rows
    >>> class Remembering(nn.Module):
    ...     def __init__(self, *, num_samples, num_classes):
    ...         super().__init__()
    ...         self.register_buffer("seen", torch.zeros(num_samples, num_classes))
    ...         load_whole(self)
    ...
    ...     def propose(self, logits, index):
    ...         now = full_precision(logits.detach()).softmax(dim=1)
    ...         return (read_rows(self.seen, index) + now) / 2
    ...
    ...     def forward(self, logits, seen):
    ...         return -(full_precision(seen) * full_precision(logits).log_softmax(dim=1)).mean()
    ...
    ...     def update(self, index, seen, *, gather=True):
    ...         write_rows(self.seen, index, seen, name="seen", gather=gather)
    >>> class TestRemembering(StatefulLossConformance):
    ...     def make_loss(self):
    ...         return Remembering(num_samples=self.samples, num_classes=self.classes)
    ...
    ...     def make_inputs(self, *, batch, classes, dtype, generator):
    ...         return {"logits": torch.randn(batch, classes, dtype=dtype, generator=generator)}
    >>> TestRemembering().test_last_row_of_a_sample_wins()
    """

    samples: int = 12

    def update(self, loss: Any, inputs: dict[str, Tensor]) -> None:
        rows = inputs[_name(loss)]
        loss.update(torch.arange(self.samples)[-len(rows) :], rows.detach())

    # How it is made and called

    def test_is_made_for_a_number_of_samples(self) -> None:
        """The constructor takes ``num_samples``."""
        loss = self.make_loss()
        assert "num_samples" in inspect.signature(type(loss)).parameters, (
            f"the constructor of {type(loss).__name__} does not take num_samples; take it, and "
            "make the state for this number: programs then fill it in, and a new loss can load "
            "a state_dict"
        )

    def test_propose_and_update_name_their_tensors(self) -> None:
        """The methods are ``propose(..., index)`` and ``update(index, ROWS, *, gather=True)``."""
        loss: Any = self.make_loss()
        name = _name(loss)
        require.named_tensors(loss, "propose")
        assert "index" in _parameters(loss.propose), (
            "propose does not take index, the rows of the samples in their data set; take it to "
            "find their state"
        )
        update = inspect.signature(loss.update)
        kinds = [(p.name, p.kind is p.KEYWORD_ONLY, p.default) for p in update.parameters.values()]
        required = inspect.Parameter.empty
        expected = [("index", False, required), (name, False, required), ("gather", True, True)]
        assert kinds == expected, (
            f"update takes {update}; take (index, {name}, *, gather=True), as compositions and "
            "loops call it"
        )

    def test_propose_refuses_a_batch_that_does_not_fit(self) -> None:
        """One row beside a whole batch raises a ValueError that names an argument."""
        loss, given = self._used()
        self._require_refusal_of_one_row(loss.propose, given)

    def test_update_refuses_rows_that_do_not_fit(self) -> None:
        """Rows of another number or width raise a ValueError that names an argument."""
        loss, given = self._used()
        index, rows, name = given["index"], loss.propose(**given), _name(loss)
        wider = rows.unsqueeze(-1) if rows.ndim == 1 else torch.cat((rows, rows), dim=-1)
        narrower = [rows[..., :1]] if rows.ndim > 1 and rows.shape[-1] > 1 else []
        for place, values in (
            (index[:1], rows),
            (index, rows[:1]),
            *((index, other) for other in (wider, *narrower)),
        ):
            require.refusal(
                partial(loss.update, place, values),
                f"update with index {tuple(place.shape)} and {name} {tuple(values.shape)}",
                ("index", name),
            )

    def test_refuses_samples_outside(self) -> None:
        """An index of -1 or ``num_samples`` raises an error."""
        for outside in (-1, self.samples):
            loss, given = self._used()
            rows = loss.propose(**given)
            given["index"][0] = outside
            for what, call in (
                ("propose", partial(loss.propose, **given)),
                ("update", partial(loss.update, given["index"], rows)),
            ):
                require.failure(
                    call,
                    f"{what} takes row {outside} of {self.samples} samples, which is the state of "
                    "another sample; use robustfer.authoring.read_rows and write_rows, or "
                    "index_select and index_copy_",
                )

    # What is proposed

    def test_proposes_a_row_a_sample(self) -> None:
        """``propose`` returns a finite row per sample, in the dtype of the inputs."""
        for dtype in (torch.float32, torch.float64):
            loss, given = self._used(dtype=dtype)
            for batch in (self.batch, 1):
                rows = loss.propose(**self._samples(given, slice(batch)))
                assert rows.shape[:1] == (batch,), (
                    f"propose must return a row for each of {batch} samples, got shape "
                    f"{tuple(rows.shape)}"
                )
                if rows.is_floating_point():
                    assert rows.dtype == dtype, f"{dtype} must give {dtype}, got {rows.dtype}"
                    assert rows.isfinite().all(), f"propose must return finite rows, got {rows}"

    def test_proposal_is_a_constant(self) -> None:
        """The result of ``propose`` has no gradient."""
        loss, given = self._used()
        for tensor in given.values():
            tensor.requires_grad_(tensor.is_floating_point())
        with require.explained("propose fails for tensors that require a gradient"):
            rows = loss.propose(**given)
        assert not rows.requires_grad, (
            "propose returns a tensor with a graph, which would be kept in the state; detach the "
            "result"
        )

    def test_proposal_belongs_to_its_sample(self) -> None:
        """``propose`` returns the same rows for shuffled samples."""
        loss, given = self._used(dtype=torch.float64)
        order = torch.randperm(self.batch, generator=torch.Generator().manual_seed(1))
        rows = deepcopy(loss).propose(**given)
        require.close(
            loss.propose(**self._samples(given, order)),
            rows[order],
            "propose returns other rows for shuffled samples; read the state of each sample at its "
            "index",
        )

    def test_half_precision_proposes_in_single(self) -> None:
        """float16 and bfloat16 inputs give the proposal of their float32 copies."""
        for dtype, half, single in require.in_half_and_single(self._used()[1]):
            loss = self._used()[0]
            rows, expected = deepcopy(loss).propose(**half), loss.propose(**single)
            message = (
                f"propose computes with {dtype} inputs in half precision; convert them to float32 "
                "first"
            )
            assert rows.dtype == expected.dtype, f"{message}; got {rows.dtype}"
            require.close(rows, expected, message)

    def test_autocast_changes_no_proposal(self) -> None:
        """Autocast does not change the result of ``propose``."""
        loss, given = self._used()
        with torch.autocast("cpu", torch.bfloat16):
            rows = deepcopy(loss).propose(**given)
        require.close(
            rows,
            loss.propose(**given),
            "autocast rounds a product inside propose to half precision; compute it under "
            "robustfer.authoring.without_autocast(tensor)",
        )

    # Writing

    def test_update_writes_the_very_rows(self) -> None:
        """``update`` writes exactly the given rows at their index, into a persistent buffer."""
        loss, index, rows = self._written()
        banks = {
            name: bank
            for name, bank in loss.state_dict().items()
            if bank.shape == (self.samples, *rows.shape[1:])
        }
        name = _name(loss)
        assert banks, (
            f"the state_dict has no tensor with a row of {name} for each of {self.samples} "
            "samples; keep one in a persistent buffer"
        )
        loss.update(index, rows)
        kept = [key for key in banks if same(loss.state_dict()[key][index], rows.to(banks[key]))]
        assert kept, (
            f"update(index, {name}) does not leave {name} in any of {list(banks)}; write exactly "
            "the given rows at their index, and move, scale or sort them in propose"
        )

    def test_update_leaves_other_samples_alone(self) -> None:
        """``update`` does not change rows of other samples."""
        loss, index, rows = self._written()
        others = torch.ones(self.samples, dtype=torch.bool).index_fill(0, index, False)

        def of_others() -> dict[str, object]:
            return {
                name: leaf[others]
                for name, leaf in state_of(loss).items()
                if isinstance(leaf, Tensor) and leaf.shape[:1] == (self.samples,)
            }

        before = of_others()
        loss.update(index, rows)
        changed = changes(before, of_others())
        assert not changed, (
            f"update changes {changed} of samples that are not in the batch; write only the rows "
            "of index"
        )

    def test_last_row_of_a_sample_wins(self) -> None:
        """If a sample comes several times, its last row wins, on a GPU too."""
        loss, index, rows = self._written()
        half = len(index) // 2
        index[half:] = index[0]
        last = [*range(1, half), len(index) - 1]
        expected = deepcopy(loss)
        expected.update(index[last], rows[last])
        for order, mend in (
            (nullcontext(), "write the last one"),
            (writing_backwards(), "a GPU writes them in any order, so write only the last one"),
        ):
            found = deepcopy(loss)
            with order:
                found.update(index, rows)
            require.same_state(
                found,
                expected,
                "if a sample comes several times in a batch, {} does not have its last row; "
                f"{mend}, as robustfer.authoring.write_rows does",
            )

    def test_remembers_nothing_that_is_not_finite(self) -> None:
        """A row with NaN or infinity is skipped, or its batch raises an error."""
        loss, index, rows = self._written()
        if not rows.is_floating_point():
            return
        # The same sample has a finite row first.
        index[-1] = index[0]
        for value in (float("nan"), float("inf")):
            bad = rows.clone()
            bad.view(len(bad), -1)[-1, 0] = value
            expected, found = deepcopy(loss), deepcopy(loss)
            expected.update(index[:-1], bad[:-1])
            try:
                with check_values(False):
                    found.update(index, bad)
            except ValueError:
                expected = loss
            require.same_state(
                found,
                expected,
                f"a row with {value} changes {{}}, so the loss of that sample stays {value}; skip "
                "such a row, as robustfer.authoring.write_rows does, or raise a ValueError before "
                "writing",
            )

    def test_update_takes_no_rows(self) -> None:
        """A batch without rows changes nothing, also if only one of two processes has it."""
        loss, index, rows = self._written()
        mend = "take a batch without rows, as write_rows does, and check_shapes with B* for B"
        same_as_before = deepcopy(loss)
        with require.explained(f"update fails for a batch without rows; {mend}"):
            same_as_before.update(index[:0], rows[:0])
        require.same_state(same_as_before, loss, "a batch without rows changes {}; " + mend)
        parts, mend = (slice(0, 0), slice(None)), f"one of them has no rows: {mend}"
        _require_state_of_processes(loss, index, rows, parts, mend)

    def test_update_takes_tensors_with_gradients(self) -> None:
        """``update`` takes tensors with gradients, and does not keep their graph."""
        loss, index, rows = self._written()
        if rows.is_floating_point():
            rows.requires_grad_()
        mend = "decorate update with torch.no_grad(), and detach the rows"
        with require.explained(f"update fails for a tensor that requires a gradient; {mend}"):
            loss.update(index, rows * 1)
        attached = [name for name, buffer in loss.named_buffers() if buffer.requires_grad]
        assert not attached, f"{attached} became part of the graph in update; {mend}"

    def test_processes_remember_the_joined_batch(self) -> None:
        """Two processes have the state of the joined batch, or their own with ``gather=False``."""
        loss, index, rows = self._written()
        index[-1] = index[0]
        # Parts of different length, with a sample in both.
        parts = slice(None, 2), slice(2, None)
        for gather, mend in (
            (True, "join the rows of all in rank order, as robustfer.authoring.write_rows does"),
            (False, "with gather=False write only the rows of the own process"),
        ):
            _require_state_of_processes(loss, index, rows, parts, mend, gather=gather)

    # Side effects

    def test_propose_leaves_state_alone(self) -> None:
        """``propose`` changes no state, and returns the same when called again."""
        for training in (True, False):
            loss, given = self._used()
            loss.train(training)
            with require.unchanged(loss, _IN_UPDATE.format("propose")):
                first = loss.propose(**given)
            assert same(first, loss.propose(**given)), (
                "propose returns other rows when called again before update(...); compute them "
                "only from the state and the batch"
            )

    def test_propose_and_update_leave_tensors_alone(self) -> None:
        """``propose`` and ``update`` do not write to their arguments."""
        loss, given = self._used()
        rows = loss.propose(**given)
        message = "propose or update writes to {}; use operations that return new tensors"
        with require.unwritten({**given, _name(loss): rows}, message):
            loss.propose(**given)
            loss.update(given["index"], rows)

    def test_propose_and_update_leave_grad_mode_alone(self) -> None:
        """``propose`` and ``update`` do not change the grad mode."""
        for mode in (True, False):
            loss, given = self._used()
            with torch.set_grad_enabled(mode):
                loss.update(given["index"], loss.propose(**given))
                kept = torch.is_grad_enabled() == mode
            assert kept, "propose or update changes the grad mode; use `with torch.no_grad():`"

    def test_propose_and_update_draw_no_random_numbers(self) -> None:
        """The generators of torch, numpy and Python do not advance."""
        loss, given = self._used()
        before = random_state()
        loss.update(given["index"], loss.propose(**given))
        assert random_state() == before, (
            "propose or update draws random numbers; draw them in the loop, and pass them as a "
            "tensor"
        )

    # Resumed, and on a GPU

    def test_goes_on_where_it_was_saved(self) -> None:
        """Resumed from its ``state_dict``, it gives exactly the same next two losses."""
        loss, resumed = self._used()[0], self.make_loss()
        require.load_saved(resumed, loss)
        for seed in (1, 2):
            expected = self._step(loss, seed=seed, batch=self.samples)
            found = self._step(resumed, seed=seed, batch=self.samples)
            assert same(expected, found), (
                f"resumed from its state_dict, the loss is {found}, but {expected} without a stop; "
                "keep all state of propose, forward and update in persistent buffers"
            )

    def test_host_waits_for_no_value_in_propose_and_update(self) -> None:
        """There is no ``.item()``, ``if tensor`` or boolean index."""
        loss, given = self._used()
        with check_values(False), refused_host_synchronisation():
            loss.update(given["index"], loss.propose(**given))

    def test_propose_and_update_make_tensors_on_the_device(self) -> None:
        """Every new tensor has the device and dtype of the inputs, not torch's defaults."""
        loss, given = self._used()
        expected = deepcopy(loss)
        mend = (
            "propose or update makes a tensor without a device or a dtype; use "
            "logits.new_zeros(...), device=index.device with a dtype, or a plain number"
        )
        with require.explained(mend), require.other_defaults():
            rows = loss.propose(**given)
            loss.update(given["index"], rows)
        wanted = expected.propose(**given)
        expected.update(given["index"], wanted)
        assert same(rows, wanted), mend
        require.same_state(loss, expected, mend)

    def test_propose_and_update_follow_to_a_gpu(self) -> None:
        """On a GPU every tensor is there, and no device is named. This check needs no GPU."""
        loss, given = self._used()
        rows = {"index": given["index"], _name(loss): loss.propose(**given)}
        for method, tensors in (("propose", given), ("update", rows)):
            follows_to_gpu(deepcopy(loss), tensors, _ON_GPU.format(method), method=method)

    # How the tensors are made

    def _given(
        self, loss: Any, *, batch: int | None = None, seed: int = 0, **options: Any
    ) -> dict[str, Tensor]:
        """Return tensors of ``propose`` and ``forward``, with an index and without the proposal."""
        given = super()._inputs(batch=batch, seed=seed, **options)
        made = {"index", _name(loss)} & given.keys()
        assert not made, f"make_inputs gives {sorted(made)}, which the checks make; leave it out"
        index = torch.randperm(self.samples, generator=torch.Generator().manual_seed(seed))
        given["index"] = index[: self.batch if batch is None else batch]
        taken = {*_parameters(loss.propose), *_parameters(loss.forward)}
        stray = given.keys() - taken
        assert not stray - {"index"}, (
            f"make_inputs gives {sorted(stray)}, but propose and forward take {sorted(taken)}; "
            "leave it out"
        )
        return given

    def _inputs(
        self, *, dtype: torch.dtype = torch.float32, gradients: bool = False, **options: Any
    ) -> dict[str, Tensor]:
        """Return tensors of ``forward``, with a proposal."""
        with torch.random.fork_rng(devices=[]):
            # Parameters can start at random values.
            torch.manual_seed(0)
            loss: Any = self.make_loss().to(dtype)
        given = self._given(loss, dtype=dtype, **options)
        with require.explained(f"propose fails for {given['index'].shape[0]} samples"):
            rows = _proposed(loss, given)
        inputs = _taken(loss.forward, given) | {_name(loss): rows}
        for name in self._learning(inputs) if gradients else ():
            inputs[name].requires_grad_()
        return inputs

    def _learning(self, inputs: dict[str, Tensor]) -> list[str]:
        name = _name(self.make_loss())
        return super()._learning({key: value for key, value in inputs.items() if key != name})

    def _used(self, dtype: torch.dtype = torch.float32) -> tuple[Any, dict[str, Tensor]]:
        """Return a loss with a state of every sample, and tensors for another ``propose``."""
        loss: Any = self.make_loss().to(dtype)
        self._step(loss, seed=7, batch=self.samples, dtype=dtype)
        return loss, _taken(loss.propose, self._given(loss, dtype=dtype))

    def _samples(self, given: dict[str, Tensor], chosen: slice | Tensor) -> dict[str, Tensor]:
        """Return the chosen rows of all tensors that have one per sample."""
        return {
            name: tensor[chosen] if tensor.shape[:1] == (self.batch,) else tensor
            for name, tensor in given.items()
        }

    def _written(self) -> tuple[Any, Tensor, Tensor]:
        """Return a used loss, an unsorted index, and rows for it that ``propose`` did not make."""
        loss, given = self._used()
        rows: Tensor = loss.propose(**given)
        return loss, given["index"], rows * 0.5 if rows.is_floating_point() else rows

    def _step(self, loss: Any, **options: Any) -> Tensor:
        """Run a step of the loop without the optimizer, and return the loss."""
        given = self._given(loss, **options)
        rows = _proposed(loss, given)
        value: Tensor = loss(**_taken(loss.forward, given), **{_name(loss): rows}).detach()
        loss.update(given["index"], rows)
        return value


def _require_state_of_processes(
    loss: Any,
    index: Tensor,
    rows: Tensor,
    parts: tuple[slice, slice],
    mend: str,
    *,
    gather: bool = True,
) -> None:
    """Require that two processes, with a part each, get the state of one process."""
    losses = [deepcopy(loss) for _ in parts]
    with require.explained(f"update fails with two processes; {mend}"):
        run_as_processes(
            lambda rank: losses[rank].update(index[parts[rank]], rows[parts[rank]], gather=gather)
        )
    for one, part in zip(losses, parts, strict=True):
        expected, kept = deepcopy(loss), slice(None) if gather else part
        expected.update(index[kept], rows[kept])
        message = "one of two processes has another {}; "
        require.same_state(one, expected, message + mend)


def _name(loss: Any) -> str:
    """Return the name of the proposal, which ``forward`` takes and ``update`` writes."""
    for method in ("propose", "update"):
        assert callable(getattr(loss, method, None)), (
            f"{type(loss).__name__} has no {method}(...); a loss with a state per sample needs "
            "propose(<tensors>, index) and update(index, <rows>, *, gather=True)"
        )
    names = _parameters(loss.update)
    assert len(names) > 1, f"update must take index and the rows to write, got {names}"
    assert names[1] in _parameters(loss.forward), (
        f"update writes {names[1]!r}, which forward does not take; give the proposal one name in "
        "both"
    )
    return names[1]


def _proposed(loss: Any, given: dict[str, Tensor]) -> Tensor:
    rows = loss.propose(**_taken(loss.propose, given))
    assert isinstance(rows, Tensor), (
        f"propose must return one tensor, got {type(rows).__name__}; if there is more to remember "
        "of a sample, make each thing a column of its row"
    )
    return rows.detach()


def _parameters(method: Callable[..., object]) -> list[str]:
    return list(inspect.signature(method).parameters)


def _taken(method: Callable[..., object], given: dict[str, Tensor]) -> dict[str, Tensor]:
    names = _parameters(method)
    return {name: tensor for name, tensor in given.items() if name in names}
