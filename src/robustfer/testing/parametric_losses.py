"""What a loss with parameters must keep to, beyond what every loss does, as tests to inherit."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parameter import is_lazy

from robustfer._checks import check_values
from robustfer.losses import param_groups
from robustfer.testing import _require as require
from robustfer.testing._state import changes, random_state, state_of
from robustfer.testing.losses import LossConformance


class ParametricLossConformance(LossConformance):
    """Tests of a loss with parameters of its own: those of every loss, and some more.

    That a gradient reaches the parameters and is right is among the checks of every loss.

    Attributes:
        learning_rate: of a few steps of gradient descent on the parameters, which must lower the
            loss.

    >>> from torch import nn
    >>> from robustfer.losses import RankRegularizationLoss
    >>> class TestLearntMargin(ParametricLossConformance):
    ...     def make_loss(self):
    ...         return RankRegularizationLoss(learnable_margin=True)
    ...
    ...     def make_inputs(self, *, batch, classes, dtype, generator):
    ...         return {"importance": torch.rand(batch, dtype=dtype, generator=generator)}
    >>> TestLearntMargin().test_has_parameters()
    """

    learning_rate: float = 1e-3

    # What an optimizer is given

    def test_has_parameters(self) -> None:
        """It has parameters, and their shapes do not depend on the first batch."""
        loss = self.make_loss()
        parameters = dict(loss.named_parameters())
        assert parameters, (
            f"{type(loss).__name__} has no parameters; make what is learnt an nn.Parameter, which "
            "a buffer is not, or inherit from LossConformance"
        )
        lazy = [name for name, parameter in parameters.items() if is_lazy(parameter)]
        assert not lazy, (
            f"{lazy} take their shape from the first batch, so that no state_dict fits a new loss; "
            "take num_classes or num_features in the constructor"
        )

    def test_param_groups_hold_every_parameter(self) -> None:
        """``parameters()`` is torch's; ``forward`` makes or replaces none."""
        loss = self.make_loss()
        mend = (
            "keep nn.Parameters from the constructor on, under names of their own, and leave "
            "parameters() to torch"
        )
        with require.explained(f"param_groups(model, loss) fails; {mend}"):
            groups = param_groups(nn.Linear(1, 1), loss)
        held = {parameter for group in groups for parameter in group["params"]}
        loss(**self._inputs())
        missing = [name for name, parameter in loss.named_parameters() if parameter not in held]
        assert not missing, (
            f"an optimizer made of param_groups(model, loss) does not hold {missing}, which "
            f"stays as it is; {mend}"
        )

    def test_training_lowers_the_result(self) -> None:
        """Steps of gradient descent at ``learning_rate``, 1e-3, lower the result."""
        loss, inputs = self.make_loss().double(), self._inputs(dtype=torch.float64)
        parameters = [*_parameters(loss).values()]
        if not parameters:
            return
        optimizer = torch.optim.SGD(parameters, lr=self.learning_rate)
        results = []
        with require.explained("a gradient step fails; compute all anew in each forward"):
            for _ in range(5):
                optimizer.zero_grad()
                result = loss(**inputs).mean()
                result.backward()
                optimizer.step()
                results.append(result.item())
        lowered = results == sorted(results, reverse=True) and results[-1] < results[0]
        assert lowered, (
            f"steps of gradient descent at rate {self.learning_rate:g} do not lower the result, "
            f"{results}; learn what is steep by its logarithm, start where the slope is gentle, or "
            "set learning_rate in the test class"
        )

    # First values

    def test_seed_decides_the_first_values(self) -> None:
        """First values come from torch's generator, which is not seeded here."""
        others = random_state()[1:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            one = state_of(self.make_loss())
            torch.manual_seed(1)
            other, followed = state_of(self.make_loss()), torch.rand(1).item()
            torch.manual_seed(2)
            self.make_loss()
            reseeded = torch.rand(1).item() == followed
        mend = "draw first values from torch's global generator, as torch's own layers do"
        differing = changes(one, other)
        assert not differing, f"torch.manual_seed does not decide the first {differing}; {mend}"
        assert random_state()[1:] == others, (
            f"the constructor moves numpy's or Python's random numbers on; {mend}"
        )
        assert not reseeded, f"the constructor sets the seed of all that follows; {mend}"

    def test_losses_share_no_parameter(self) -> None:
        """Training one loss leaves another one and its own deep copy unchanged."""
        loss, other = self.make_loss(), self.make_loss()
        with require.explained("copy.deepcopy fails, which ModelEMA and others need"):
            copied = deepcopy(loss)
        copied(**self._inputs(gradients=True)).sum().backward()
        unused = [name for name, parameter in _parameters(copied).items() if parameter.grad is None]
        assert not unused, (
            f"a deep copy computes with {unused} of its original; keep no function that holds the "
            "parameters in an attribute"
        )
        before = state_of(loss)
        for made, what in ((other, "another loss"), (copied, "a deep copy")):
            _move(made, 1.0)
            shared = changes(before, state_of(loss))
            assert not shared, (
                f"{what} shares {shared}, so that training one changes both; make nn.Parameters "
                "in the constructor, not in the class or as the default of an argument"
            )

    def test_parameters_stay_in_single(self) -> None:
        """Parameters are float32, also after half inputs and under autocast."""
        halves = [half for _, half, _ in require.in_half_and_single(self._inputs())]
        for inputs, autocast in ((self._inputs(), True), *((half, False) for half in halves)):
            loss = self.make_loss()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss(**inputs)
            found = {
                name: parameter.dtype
                for name, parameter in _parameters(loss).items()
                if parameter.dtype != torch.float32
            }
            assert not found, (
                "parameters must be float32 and stay so for all inputs and under autocast, "
                f"got {found}: half precision loses small steps; convert a copy in forward"
            )

    # What training does to them

    def test_gradient_of_parameters_is_summed_in_single(self) -> None:
        """Their gradient is not rounded to half precision on its way."""
        loss, inputs = self.make_loss(), self._inputs(gradients=True)
        for dtype, rounded, single in require.in_half_and_single(inputs):
            _require_equal_gradients(
                _gradients(loss, rounded),
                _gradients(loss, single),
                f"{dtype} inputs: the gradient is rounded to half precision on its way to",
            )
        _require_equal_gradients(
            _gradients(loss, inputs, autocast=True),
            _gradients(loss, inputs),
            "autocast: the gradient is rounded to half precision on its way to",
        )

    def test_trained_parameters_are_left_alone(self) -> None:
        """Parameters that moved far are not clamped in place."""
        for distance in (-10.0, 10.0):
            loss = self.make_loss()
            _move(loss, distance)
            held, before = _parameters(loss), state_of(loss)
            loss(**self._inputs())
            replaced = [name for name, p in _parameters(loss).items() if p is not held.get(name)]
            written = changes(before, state_of(loss))
            assert not replaced + written, (
                f"once they have moved by {distance:g}, forward changes {written or replaced}; "
                "bound a copy in forward (clamp, softplus, normalize), or the parameter in "
                "update(...), which the loop calls after optimizer.step()"
            )

    def test_frozen_parameters_stay_frozen(self) -> None:
        """``requires_grad_(False)`` holds, and the loss still trains the model."""
        loss = self.make_loss()
        for parameter in _parameters(loss).values():
            parameter.requires_grad_(False)
        with require.explained("with frozen parameters it fails; compute the result all the same"):
            loss(**self._inputs(gradients=True)).sum().backward()
        thawed = [
            name
            for name, parameter in _parameters(loss).items()
            if parameter.requires_grad or parameter.grad is not None
        ]
        assert not thawed, (
            f"forward makes {thawed} learn again, which loss.requires_grad_(False) had frozen; "
            "leave requires_grad to the user"
        )

    # Where they go

    def test_state_dict_restores_parameters(self) -> None:
        """A new loss takes over what was trained, to the bit."""
        trained, restored = self.make_loss(), self.make_loss()
        _move(trained, 0.5)
        require.load_saved(restored, trained)
        require.same_state(
            restored,
            trained,
            "the state_dict does not restore {} as trained; leave state_dict and what loads it to "
            "torch",
        )

    def test_follows_to_another_device(self) -> None:
        """``.to(...)`` moves all of it, and it runs there; this needs no GPU."""
        moved = self.make_loss().to("meta")
        left = [name for name, p in _parameters(moved).items() if p.device.type != "meta"]
        assert not left, f".to(device) leaves {left} behind; leave .to(...) to torch"
        mend = (
            "moved to a GPU with its inputs, the loss fails or gives a result elsewhere; take the "
            "device from an input, and fix none in the constructor"
        )
        loss, inputs = self.make_loss(), self._inputs()
        with require.explained(mend), check_values(False):
            device = _device_of_result(loss, inputs)
        assert device.type == "cuda", f"{mend}: {device}"


def _parameters(loss: nn.Module) -> dict[str, nn.Parameter]:
    return dict(loss.named_parameters())


@torch.no_grad()
def _move(loss: nn.Module, distance: float) -> None:
    """Change every parameter, as training does."""
    for parameter in _parameters(loss).values():
        parameter.add_(distance)


def _gradients(
    loss: nn.Module, inputs: dict[str, Tensor], *, autocast: bool = False
) -> dict[str, Tensor]:
    """Gradient by each parameter; a zero where there is none."""
    for parameter in _parameters(loss).values():
        parameter.grad = None
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = loss(**inputs).sum()
    result.backward()  # outside, as torch says: inside, it would round on its own
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in _parameters(loss).items()
    }


def _require_equal_gradients(
    found: dict[str, Tensor], expected: dict[str, Tensor], message: str
) -> None:
    # Measured by the largest: what cancels out but for rounding has no digits to agree on.
    largest = max((float(gradient.abs().max()) for gradient in expected.values()), default=0.0)
    for name, gradient in expected.items():
        require.close(
            found[name].to(gradient.dtype) / (largest or 1.0),
            gradient / (largest or 1.0),
            f"{message} {name}; convert the inputs to the dtype of the parameters, and compute "
            "under torch.autocast(tensor.device.type, enabled=False)",
        )


def _device_of_result(loss: nn.Module, inputs: dict[str, Tensor]) -> torch.device:
    """Where the result lies if parameters, buffers and inputs lie on a GPU; none is needed."""
    with FakeTensorMode() as mode:  # tensors with a device, a shape and no values

        def sent(tensor: Tensor) -> Tensor:
            return mode.from_tensor(tensor).to("cuda")

        own = {**_parameters(loss), **dict(loss.named_buffers())}
        result: Tensor = torch.func.functional_call(
            loss,
            {name: sent(tensor) for name, tensor in own.items()},
            (),
            {name: sent(tensor) for name, tensor in inputs.items()},
        )
        return result.device
