"""More checks of a loss with parameters, as tests to inherit."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustfer.losses import param_groups
from robustfer.testing import _require as require
from robustfer.testing._state import changes, random_state, state_of
from robustfer.testing.losses import LossConformance


class ParametricLossConformance(LossConformance):
    """Test a loss with parameters, with the checks of every loss and some more.

    The checks of every loss already include the gradients of the parameters.

    Attributes:
        learning_rate: for a few steps of gradient descent on the parameters, which must lower the
            result.

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

    # For the optimizer

    def test_has_parameters(self) -> None:
        """It has parameters, whose shapes do not depend on the first batch."""
        loss = self.make_loss()
        parameters = dict(loss.named_parameters())
        assert parameters, (
            f"{type(loss).__name__} has no parameters; make learnt tensors nn.Parameters, not "
            "buffers, or inherit from LossConformance"
        )
        lazy = [name for name, parameter in parameters.items() if is_lazy(parameter)]
        assert not lazy, (
            f"{lazy} take their shape from the first batch, so a new loss cannot load a "
            "state_dict; take num_classes or num_features in the constructor"
        )

    def test_param_groups_hold_every_parameter(self) -> None:
        """``parameters()`` is torch's, and ``forward`` makes or replaces no parameter."""
        model, loss = nn.Linear(1, 1), self.make_loss()
        mend = (
            "make each nn.Parameter in the constructor, under its own name, do not override "
            "parameters(), and list each at most once in param_groups()"
        )
        with require.explained(f"param_groups(model, loss) fails; {mend}"):
            groups = param_groups(model, loss)
            torch.optim.SGD(groups, lr=0.1)
        held = {parameter for group in groups for parameter in group["params"]}
        loss(**self._inputs())
        missing = [name for name, parameter in loss.named_parameters() if parameter not in held]
        assert not missing, (
            f"param_groups(model, loss) does not have {missing}, which an optimizer would never "
            f"update; {mend}"
        )
        strange = held - {*model.parameters(), *loss.parameters()}
        assert not strange, f"param_groups() lists tensors that are not its parameters; {mend}"

    def test_training_lowers_the_result(self) -> None:
        """Steps of gradient descent with ``learning_rate``, by default 1e-3, lower the result."""
        loss, inputs = self.make_loss().double(), self._inputs(dtype=torch.float64)
        parameters = [*_parameters(loss).values()]
        if not parameters:
            return
        optimizer = torch.optim.SGD(parameters, lr=self.learning_rate)
        results = []
        with require.explained("a gradient step fails; compute everything again in each forward"):
            for _ in range(5):
                optimizer.zero_grad()
                result = loss(**inputs).mean()
                result.backward()
                optimizer.step()
                results.append(result.item())
        lowered = results == sorted(results, reverse=True) and results[-1] < results[0]
        assert lowered, (
            f"steps of gradient descent with rate {self.learning_rate:g} do not lower the result, "
            f"got {results}; learn the logarithm of a steep parameter, start at a gentle slope, or "
            "set learning_rate in the test class"
        )

    # First values

    def test_seed_decides_the_first_values(self) -> None:
        """First values come from torch's generator, which the constructor does not seed."""
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
            f"the constructor draws from numpy's or Python's generator; {mend}"
        )
        assert not reseeded, f"the constructor seeds torch's generator; {mend}"

    def test_losses_share_no_parameter(self) -> None:
        """Training a loss does not change another one, or a deep copy."""
        loss, other = self.make_loss(), self.make_loss()
        with require.explained("copy.deepcopy fails, which ModelEMA needs"):
            copied = deepcopy(loss)
        copied(**self._inputs(gradients=True)).sum().backward()
        unused = [name for name, parameter in _parameters(copied).items() if parameter.grad is None]
        assert not unused, (
            f"a deep copy computes with {unused} of its original; keep no function with the "
            "parameters in an attribute"
        )
        before = state_of(loss)
        for made, what in ((other, "another loss"), (copied, "a deep copy")):
            _move(made, 1.0)
            shared = changes(before, state_of(loss))
            assert not shared, (
                f"{what} shares {shared}, so training one changes both; make nn.Parameters in the "
                "constructor, not in the class or as the default of an argument"
            )

    def test_parameters_stay_in_single(self) -> None:
        """Parameters stay float32, also after half inputs and under autocast."""
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
                "parameters must stay float32 for all inputs and under autocast, because half "
                f"precision loses small steps, got {found}; convert a copy in forward"
            )

    # During training

    def test_gradient_of_parameters_is_summed_in_single(self) -> None:
        """The gradient of the parameters is not rounded to half precision."""
        loss, inputs = self.make_loss(), self._inputs(gradients=True)
        for dtype, rounded, single in require.in_half_and_single(inputs):
            _require_equal_gradients(
                _gradients(loss, rounded),
                _gradients(loss, single),
                f"{dtype} inputs: half precision rounds the gradient of",
            )
        _require_equal_gradients(
            _gradients(loss, inputs, autocast=True),
            _gradients(loss, inputs),
            "autocast: half precision rounds the gradient of",
        )

    def test_trained_parameters_are_left_alone(self) -> None:
        """``forward`` does not clamp parameters in place."""
        for distance in (-10.0, 10.0):
            loss = self.make_loss()
            _move(loss, distance)
            held, before = _parameters(loss), state_of(loss)
            loss(**self._inputs())
            replaced = [name for name, p in _parameters(loss).items() if p is not held.get(name)]
            written = changes(before, state_of(loss))
            assert not replaced + written, (
                f"after they moved by {distance:g}, forward changes {written or replaced}; bound a "
                "copy in forward (clamp, softplus, normalize), or the parameter in update(...), "
                "which the loop calls after optimizer.step()"
            )

    def test_frozen_parameters_stay_frozen(self) -> None:
        """Frozen parameters stay frozen, and the loss still trains the model."""
        loss = self.make_loss()
        for parameter in _parameters(loss).values():
            parameter.requires_grad_(False)
        with require.explained("it fails with frozen parameters; compute without their gradient"):
            loss(**self._inputs(gradients=True)).sum().backward()
        thawed = [
            name
            for name, parameter in _parameters(loss).items()
            if parameter.requires_grad or parameter.grad is not None
        ]
        assert not thawed, (
            f"forward trains {thawed} again, which loss.requires_grad_(False) froze; do not set "
            "requires_grad"
        )

    # Saved and moved

    def test_state_dict_restores_parameters(self) -> None:
        """A new loss loads exactly the trained parameters."""
        trained, restored = self.make_loss(), self.make_loss()
        _move(trained, 0.5)
        require.load_saved(restored, trained)
        require.same_state(
            restored,
            trained,
            "the state_dict does not restore the trained {}; do not override state_dict or "
            "load_state_dict",
        )

    def test_follows_to_another_device(self) -> None:
        """``.to(...)`` moves every parameter. This check needs no GPU."""
        moved = self.make_loss().to("meta")
        left = [name for name, p in _parameters(moved).items() if p.device.type != "meta"]
        assert not left, f".to(device) does not move {left}; do not override .to(...)"


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
    """Return the gradient of each parameter, zero if it has none."""
    for parameter in _parameters(loss).values():
        parameter.grad = None
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = loss(**inputs).sum()
    # Outside of autocast, as torch advises. Inside, backward itself would round.
    result.backward()
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in _parameters(loss).items()
    }


def _require_equal_gradients(
    found: dict[str, Tensor], expected: dict[str, Tensor], message: str
) -> None:
    # Relative to the largest gradient, because a sum that cancels out has only rounding errors.
    largest = max((float(gradient.abs().max()) for gradient in expected.values()), default=0.0)
    for name, gradient in expected.items():
        require.close(
            found[name].to(gradient.dtype) / (largest or 1.0),
            gradient / (largest or 1.0),
            f"{message} {name}; convert the inputs to the dtype of the parameters, and compute "
            "under robustfer.authoring.without_autocast(tensor)",
        )
