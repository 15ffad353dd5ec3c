"""Checks of a loss, as tests to inherit."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import gradcheck

from robustfer._checks import check_values
from robustfer.testing import _require as require
from robustfer.testing._host_synchronisation import refused_host_synchronisation
from robustfer.testing._imitated_gpu import follows_to_gpu
from robustfer.testing._state import random_state


class LossConformance:
    """Test a loss. Subclass it with a name that starts with ``Test``, and define two methods.

    Every check is one test. If a loss breaks a check on purpose, switch it off by its name, and
    give the reason: ``test_order_of_the_batch_does_not_matter = None  # compares neighbours``.

    Attributes:
        batch: number of samples in a batch. A tensor whose first axis has this size has one row per
            sample.
        classes: number of classes that ``make_inputs`` gets. A check sets it to 200. If the loss
            needs the number, read ``self.classes`` in ``make_loss``.
        per_sample: whether the result is a value per sample, (B), instead of a scalar.
        constants: names of floating-point inputs without a gradient (soft labels, teachers, the
            progress of the training). Every other one must get a gradient.
        hides_nan: names of inputs whose NaN need not be seen, because no network makes them (the
            progress, a random draw), or because it has a meaning (a landmark that was not found).

    >>> from robustfer.losses import AttentionConsistencyLoss
    >>> class TestAttention(LossConformance):
    ...     def make_loss(self):
    ...         return AttentionConsistencyLoss()
    ...
    ...     def make_inputs(self, *, batch, classes, dtype, generator):
    ...         one, other = torch.randn(
    ...             2, batch, classes, 3, 4, dtype=dtype, generator=generator
    ...         )
    ...         return {"attention": one, "attention_flipped": other}
    >>> TestAttention().test_batch_of_one()
    """

    batch: int = 5
    classes: int = 7
    per_sample: bool = False
    constants: tuple[str, ...] = ("target", "soft_target", "teacher_logits", "progress")
    hides_nan: tuple[str, ...] = ("progress",)

    def make_loss(self) -> nn.Module:
        """Return a new loss, with the same options each time."""
        raise NotImplementedError("define make_loss(self), which returns a new loss")

    def make_inputs(
        self, *, batch: int, classes: int, dtype: torch.dtype, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return typical tensors of ``forward`` by name, drawn from the generator.

        A tensor whose first axis has the size ``batch`` must have one row per sample.
        """
        raise NotImplementedError(
            "define make_inputs(self, *, batch, classes, dtype, generator), which returns the "
            "tensors of forward by name"
        )

    def update(self, loss: Any, inputs: dict[str, Tensor]) -> None:
        """Change the state of the loss once, as the loop does after ``optimizer.step()``."""
        # A composition without state has both methods too.
        if getattr(loss, "proposes", None) == frozenset():
            return
        assert not hasattr(loss, "propose"), (
            f"{type(loss).__name__} has propose(...), so it remembers its samples; inherit from "
            "StatefulLossConformance, which also checks propose and update"
        )
        assert not hasattr(loss, "update"), (
            f"{type(loss).__name__} has update(...), which the test class does not call; define "
            "update(self, loss, inputs) in it"
        )

    # How it is made and called

    def test_documents_shape_and_reference(self) -> None:
        """The docstring has the sections ``Shape:`` and ``Reference:``."""
        require.sections(self.make_loss(), "Shape", "Reference")

    def test_options_are_keyword_only(self) -> None:
        """The constructor names its options, and takes them by keyword."""
        require.keyword_options(self.make_loss())

    def test_call_is_not_overridden(self) -> None:
        """``__call__`` is torch's. Hooks then run."""
        require.own_call(self.make_loss())

    def test_can_be_pickled(self) -> None:
        """It can be pickled, which spawned workers need."""
        require.pickling(self.make_loss())

    def test_forward_names_its_tensors(self) -> None:
        """``forward`` has no ``*args``, ``**kwargs``, ``epoch``, ``model`` or ``args``."""
        require.named_tensors(self.make_loss())

    def test_refuses_a_batch_that_does_not_fit(self) -> None:
        """One row beside a whole batch raises a ValueError that names an argument."""
        self._require_refusal_of_one_row(self.make_loss(), self._inputs())

    # Its result

    def test_result_has_its_shape_and_dtype(self) -> None:
        """The result is finite, a scalar or (B), in the dtype of the inputs."""
        for dtype in (torch.float32, torch.float64):
            result = self.make_loss().to(dtype)(**self._inputs(dtype=dtype))
            assert isinstance(result, Tensor), f"forward must return a tensor, got {result!r}"
            shape = (self.batch,) if self.per_sample else ()
            assert result.shape == shape, (
                f"the result must have shape {shape}, got {tuple(result.shape)}; reduce it, or "
                "set per_sample in the test class"
            )
            assert result.dtype == dtype, f"{dtype} inputs must give {dtype}, got {result.dtype}"
            assert result.isfinite().all(), f"the result must be finite, got {result}"

    def test_terms_sum_to_the_result(self) -> None:
        """If there is ``terms()``, the sum of its terms is the result."""
        loss, inputs = self.make_loss(), self._inputs()
        terms = getattr(loss, "terms", None)
        if terms is not None:
            require.close(
                torch.stack(list(terms(**inputs).values())).sum(0),
                loss(**inputs),
                "terms() must return the weighted terms, whose sum is the result of forward",
            )

    def test_reductions_agree(self) -> None:
        """If the loss has ``reduction``, "sum" gives the sum of what "none" gives."""
        loss, inputs = self.make_loss(), self._inputs()
        if getattr(loss, "reduction", None) in ("mean", "sum", "none"):
            each, total = (_with(loss, reduction)(**inputs) for reduction in ("none", "sum"))
            require.close(total, each.sum(), 'reduction "sum" must give the sum over the batch')

    def test_batch_of_one(self) -> None:
        """A batch of one, which can end an epoch, gives a finite result and finite gradients."""
        loss, inputs = self.make_loss(), self._inputs(batch=1, gradients=True)
        with require.explained("a batch of one, which can end an epoch, fails"):
            result = loss(**inputs)
        assert result.isfinite().all(), f"a batch of one must give a finite result, got {result}"
        assert result.requires_grad, (
            "a batch of one gives a result without a graph, so backward fails; return a zero made "
            "of the inputs, such as logits.sum() * 0.0"
        )
        self._require_finite_gradients(result, loss, inputs, "a batch of one")

    def test_two_hundred_classes(self) -> None:
        """200 classes work too, and give finite gradients."""
        self.classes = 200
        loss, inputs = self.make_loss(), self._inputs(gradients=True)
        with require.explained("200 classes fail; take the number of classes from the inputs"):
            result = loss(**inputs)
        assert result.isfinite().all(), f"200 classes must give a finite result, got {result}"
        self._require_finite_gradients(result, loss, inputs, "200 classes")

    def test_order_of_the_batch_does_not_matter(self) -> None:
        """Shuffled samples give the same result."""
        loss, inputs = self.make_loss().double(), self._inputs(dtype=torch.float64)
        order = torch.randperm(self.batch, generator=torch.Generator().manual_seed(1))
        shuffled = {
            name: tensor[order] if tensor.shape[:1] == (self.batch,) else tensor
            for name, tensor in self._inputs(dtype=torch.float64).items()
        }
        expected = loss(**inputs)
        require.close(
            loss(**shuffled),
            expected[order] if self.per_sample else expected,
            "the result depends on the order of the samples; treat all alike, or switch this check "
            "off if the order has a meaning",
        )

    def test_a_nan_stays_a_nan(self) -> None:
        """A NaN in any input, also in only one row, gives NaN, so a diverged run is seen."""
        for name, tensor in self._inputs().items():
            if not tensor.is_floating_point() or name in self.hides_nan:
                continue
            rows = range(self.batch) if tensor.shape[:1] == (self.batch,) else ()
            for row in (..., *rows):
                inputs = self._inputs()
                inputs[name][row] = float("nan")
                with check_values(False):
                    result = self.make_loss()(**inputs)
                seen = result if row is ... or not self.per_sample else result[row]
                where = name if row is ... else f"row {row} of {name}"
                assert seen.isnan().all(), (
                    f"NaN in {where} gave {result}, which hides a diverged run; remove nan_to_num, "
                    "nanmean and comparisons that are false for NaN, or add the input to "
                    "`hides_nan` of the test class"
                )

    # Gradients and precision

    def test_gradient_reaches_inputs_and_parameters(self) -> None:
        """A gradient reaches every input and parameter."""
        loss, inputs = self.make_loss(), self._inputs(gradients=True)
        result = loss(**inputs)
        assert result.requires_grad, (
            "the result is not attached to the graph; compute it from the inputs, without "
            "torch.tensor(...), .item() or .data"
        )
        result.sum().backward()
        learning = {name: inputs[name] for name in self._learning(inputs)}
        for name, tensor in (learning | dict(loss.named_parameters())).items():
            reached = tensor.grad is not None and bool(tensor.grad.any())
            assert reached, (
                f"no gradient reaches {name}, which is unused or detached; use it, or add it to "
                "`constants` of the test class"
            )

    def test_gradient_is_right(self) -> None:
        """The gradient is the slope of the result, in float64."""
        loss, inputs = self.make_loss().double(), self._inputs(batch=3, dtype=torch.float64)
        names, parameters = self._learning(inputs), dict(loss.named_parameters())
        tensors = [inputs[name].requires_grad_() for name in names] + [*parameters.values()]

        def value(*tensors: Tensor) -> Tensor:
            given = {name: tensor.clone() for name, tensor in inputs.items()}
            given.update(zip(names, tensors, strict=False))
            own = dict(zip(parameters, tensors[len(names) :], strict=True))
            result: Tensor = torch.func.functional_call(loss, own, (), given)
            return result

        with require.explained(
            f"the gradient by {[*names, *parameters]} is not the slope of the result; look for a "
            "detach, or a custom backward"
        ):
            gradcheck(value, tensors)

    def test_half_precision_is_summed_in_single(self) -> None:
        """float16 and bfloat16 inputs give the result of their float32 copies."""
        loss = self.make_loss()
        for dtype, half, single in require.in_half_and_single(self._inputs()):
            result = loss(**half)
            assert result.dtype == torch.float32, (
                f"{dtype} inputs must give a float32 result, got {result.dtype}; convert the "
                "inputs first"
            )
            require.close(
                result,
                loss(**single),
                f"{dtype} inputs are summed, squared or exponentiated in half precision; convert "
                "them to float32 first",
            )

    def test_autocast_changes_nothing(self) -> None:
        """Autocast does not change the result."""
        loss, inputs = self.make_loss(), self._inputs()
        with torch.autocast("cpu", torch.bfloat16):
            result = loss(**inputs)
        require.close(
            result,
            loss(**inputs),
            "autocast rounds a product inside the loss to half precision; compute it under "
            "robustfer.authoring.without_autocast(tensor)",
        )

    # Side effects

    def test_inputs_are_left_alone(self) -> None:
        """``forward`` does not write to its inputs."""
        inputs = self._inputs()
        with require.unwritten(
            inputs, "forward writes to {}; use operations that return new tensors"
        ):
            self.make_loss()(**inputs)

    def test_forward_leaves_state_alone(self) -> None:
        """``forward`` changes no parameter, buffer or attribute, in ``train()`` and ``eval()``."""
        for training in (True, False):
            loss = self.make_loss().train(training)
            self.update(loss, self._inputs())
            with require.unchanged(loss, _IN_UPDATE.format("forward")):
                loss(**self._inputs())

    def test_grad_mode_is_left_alone(self) -> None:
        """``forward`` does not change the grad mode."""
        for mode in (True, False):
            with torch.set_grad_enabled(mode):
                self.make_loss()(**self._inputs())
                kept = torch.is_grad_enabled() == mode
            assert kept, "forward changes the grad mode; use `with torch.no_grad():`"

    def test_draws_no_random_numbers(self) -> None:
        """No generator of torch, numpy or Python advances. A second call gives the same result."""
        loss, inputs = self.make_loss(), self._inputs()
        before = random_state()
        first = loss(**inputs)
        assert random_state() == before, (
            "forward draws random numbers; draw them in the loop or in an augmentation, and pass "
            "them as a tensor"
        )
        require.close(
            loss(**inputs),
            first,
            "called again, forward gives another result; take random numbers as a tensor from the "
            "loop, and count calls in update(...)",
        )

    # State

    def test_tensors_are_parameters_or_buffers(self) -> None:
        """``.to(device)`` moves every tensor."""
        loss = self.make_loss()
        self.update(loss, self._inputs())
        require.registered_tensors(loss)

    def test_state_dict_restores(self) -> None:
        """A new loss loads the state of an updated one."""
        loss, restored = self.make_loss(), self.make_loss()
        shared = (
            "update(...) of one loss changes {} of another one; make state in the constructor, not "
            "in the class or as the default of an argument"
        )
        with require.unchanged(restored, shared):
            for seed in range(3):
                self.update(loss, self._inputs(seed=seed))
        require.load_saved(restored, loss)
        require.same_state(
            restored,
            loss,
            "the state_dict does not restore {}; keep what update(...) changes in persistent "
            "buffers of fixed shape, counts and cursors included",
        )

    def test_state_is_loaded_whole_or_not_at_all(self) -> None:
        """A state that does not fit raises an error, and nothing of it is loaded."""
        loss, other = self.make_loss(), self.make_loss()
        for seed in range(3):
            self.update(other, self._inputs(seed=seed))
        state = other.state_dict()
        buffers = {name: state[name] for name, _ in other.named_buffers() if name in state}
        for what, wrong in _misfits(state, buffers):
            kept = f"load_state_dict raises for a state in which {what}, but loads {{}}; "
            with require.unchanged(loss, kept + _LOAD_WHOLE):
                taken = f"load_state_dict takes a state in which {what}; {_LOAD_WHOLE}"
                require.failure(partial(loss.load_state_dict, wrong), taken)

    # On a GPU and compiled

    def test_host_waits_for_no_value(self) -> None:
        """There is no ``.item()``, ``if tensor`` or boolean index, also in ``backward``."""
        loss, inputs = self.make_loss(), self._inputs(gradients=True)
        with check_values(False), refused_host_synchronisation():
            loss(**inputs).sum().backward()

    def test_new_tensors_follow_the_inputs(self) -> None:
        """Every new tensor has the device and dtype of the inputs, not torch's defaults."""
        loss, inputs = self.make_loss(), self._inputs()
        mend = (
            "forward makes a tensor without a device or a dtype, which then follows "
            "torch.set_default_device or set_default_dtype; use logits.new_zeros(...), "
            "device=logits.device with a dtype, or a plain number"
        )
        with require.explained(mend), require.other_defaults():
            result = loss(**inputs)
        assert result.device.type == "cpu", mend
        require.close(result, loss(**inputs), mend)

    def test_follows_to_a_gpu(self) -> None:
        """On a GPU every tensor is there, and no device is named. This check needs no GPU."""
        loss = self.make_loss()
        self.update(loss, self._inputs())
        follows_to_gpu(loss, self._inputs(), _ON_GPU.format("forward"))

    # torch's own warnings, which the tests of a plugin may turn into errors.
    @pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
    @pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
    def test_compiles_as_one_graph(self) -> None:
        """Compiled as one graph, it gives the same results for two batch sizes."""
        loss = self.make_loss()
        torch.compiler.reset()
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        # For the second size torch compiles a graph for varying sizes.
        for batch in (self.batch, self.batch - 1):
            inputs = self._inputs(batch=batch, gradients=True)
            with require.explained(
                "torch.compile(fullgraph=True) fails; look for prints, logging and Python that "
                "depends on values"
            ):
                result = compiled(**inputs)
            require.close(result, loss(**inputs), "compiled, forward gives another result")

    def _inputs(
        self,
        *,
        batch: int | None = None,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        gradients: bool = False,
    ) -> dict[str, Tensor]:
        """Return new tensors, the same for the same arguments."""
        made = self.make_inputs(
            batch=self.batch if batch is None else batch,
            classes=self.classes,
            dtype=dtype,
            generator=torch.Generator().manual_seed(seed),
        )
        inputs = {name: tensor.detach().clone() for name, tensor in made.items()}
        for name in self._learning(inputs) if gradients else ():
            inputs[name].requires_grad_()
        return inputs

    def _require_refusal_of_one_row(self, call: Any, given: dict[str, Tensor]) -> None:
        """Require that a call refuses one row of one tensor beside a whole batch of the others."""
        names = [name for name, tensor in given.items() if tensor.shape[:1] == (self.batch,)]
        for name in names if len(names) > 1 else ():
            what = f"{getattr(call, '__name__', 'forward')} with one row of {name}, of the others"
            wrong = {**given, name: given[name][:1]}
            require.refusal(partial(call, **wrong), f"{what} {self.batch},", given)

    def _require_finite_gradients(
        self, result: Any, loss: nn.Module, inputs: dict[str, Tensor], what: str
    ) -> None:
        """Require that backward gives inputs and parameters finite gradients."""
        if result.requires_grad:
            result.sum().backward()
        for name, tensor in (inputs | dict(loss.named_parameters())).items():
            assert tensor.grad is None or tensor.grad.isfinite().all(), (
                f"{what} must give {name} a finite gradient, got {tensor.grad}; the slope of sqrt, "
                "norm or log is infinite at 0: keep their argument above 0, such as with clamp"
            )

    def _learning(self, inputs: dict[str, Tensor]) -> list[str]:
        """Return the names of the inputs that must get a gradient."""
        names = [
            name
            for name, tensor in inputs.items()
            if tensor.is_floating_point() and name not in self.constants
        ]
        assert names, f"make_inputs must give an input that gets a gradient, got {list(inputs)}"
        return names


_IN_UPDATE = "{} changes {{}}; do that in update(...), which the loop calls after optimizer.step()"
_ON_GPU = (
    "{} names a device, or keeps one from the constructor, so on a GPU it fails or copies to the "
    "host; take the device from an input, such as device=logits.device"
)
_LOAD_WHOLE = "call robustfer.authoring.load_whole(self) in the constructor"


def _with(loss: nn.Module, reduction: str) -> nn.Module:
    copied = copy.deepcopy(loss)
    vars(copied)["reduction"] = reduction
    return copied


def _misfits(
    state: dict[str, Any], buffers: dict[str, Tensor]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield states that do not fit a loss with these buffers, each with its fault."""
    for name, buffer in buffers.items():
        longer = torch.cat((buffer, buffer[:1])) if buffer.ndim else buffer.repeat(2)
        yield f"{name} has shape {tuple(longer.shape)}", {**state, name: longer}
        yield f"{name} is missing", {key: state[key] for key in state if key != name}
    if buffers:
        yield "a name is unknown", {**state, "of_another_loss": torch.zeros(1)}
