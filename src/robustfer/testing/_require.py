"""Requirements that losses and augmentations share. Each failure says how to mend it."""

from __future__ import annotations

import inspect
import io
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustfer.testing._state import changes, plain_tensors, same, state_of


@contextmanager
def explained(message: str) -> Iterator[None]:
    """Turn any error into a failed assertion whose text begins with a message."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{message}: {error!r}") from error


def same_state(module: nn.Module, expected: nn.Module, message: str) -> None:
    """Require that two modules have the same state. ``{}`` in the message is what differs."""
    differing = changes(state_of(expected), state_of(module))
    assert not differing, message.format(differing)


@contextmanager
def unchanged(module: nn.Module, message: str) -> Iterator[None]:
    """Require that the state of a module does not change. ``{}`` in the message is what does."""
    before = state_of(module)
    yield
    changed = changes(before, state_of(module))
    assert not changed, message.format(changed)


@contextmanager
def unwritten(tensors: Mapping[str, Tensor], message: str) -> Iterator[None]:
    """Require that tensors are not written to. ``{}`` in the message is the name of one."""
    originals = {name: (tensor._version, tensor.clone()) for name, tensor in tensors.items()}
    yield
    for name, tensor in tensors.items():
        version, original = originals[name]
        untouched = tensor._version == version and same(tensor, original)
        assert untouched, message.format(name)


def in_half_and_single(
    tensors: Mapping[str, Tensor],
) -> Iterator[tuple[torch.dtype, dict[str, Tensor], dict[str, Tensor]]]:
    """Yield each half dtype, the tensors rounded to it, and the rounded tensors in float32."""
    for dtype in (torch.float16, torch.bfloat16):
        floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
        half = {**tensors, **{name: tensor.to(dtype) for name, tensor in floating.items()}}
        yield dtype, half, {**half, **{name: half[name].float() for name in floating}}


def sections(module: nn.Module, *titles: str) -> None:
    """Require sections such as ``Shape:`` in the docstring of a module's class."""
    text = inspect.getdoc(type(module)) or ""
    missing = [one for one in titles if not re.search(rf"^{one}:\s*$", text, re.MULTILINE)]
    assert not missing, (
        f"the docstring of {type(module).__name__} has no section {missing}; add "
        + " and ".join(f'"{title}:"' for title in missing)
        + " on a separate line, with the text indented below it"
    )


def keyword_options(module: nn.Module) -> None:
    """Require that the constructor takes its options by keyword, and names each."""
    constructor = type(module).__init__
    if constructor is nn.Module.__init__:
        return
    _self, *parameters = inspect.signature(constructor).parameters.values()
    loose = [
        str(parameter)
        for parameter in parameters
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
    ]
    assert not loose, (
        f"{type(module).__name__} takes {loose} by position or by any name; put a * before the "
        "options and name each: a call then says what its numbers mean, and a misspelt name fails"
    )


def named_tensors(module: nn.Module, method: str = "forward") -> None:
    """Require that a method takes each tensor by its name, and only tensors."""
    # A composition lists there the tensors of its terms.
    if hasattr(module, "accepts"):
        return
    for parameter in inspect.signature(getattr(module, method)).parameters.values():
        assert parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY), (
            f"{method} takes {parameter}; take each tensor by name: losses can then be composed, "
            "and a misspelt name is an error"
        )
        assert parameter.name not in ("args", "epoch", "model"), (
            f"{method} takes {parameter.name}; take only tensors, and keep a value that changes "
            "during training in an attribute that the loop sets"
        )


def own_call(module: nn.Module) -> None:
    """Require that ``__call__`` is torch's."""
    assert type(module).__call__ is nn.Module.__call__, (
        f"{type(module).__name__} overrides __call__, which skips hooks; move the code to forward"
    )


def pickling(module: nn.Module) -> None:
    """Require that a module can be pickled and loaded."""
    with explained(
        f"{type(module).__name__} cannot be pickled, which spawned workers need; keep no lambda, "
        "local function or open file in an attribute"
    ):
        pickle.loads(pickle.dumps(module))


def refusal(call: Callable[[], object], what: str, names: Iterable[str]) -> None:
    """Require that a call raises a ValueError whose text has one of the names."""
    mend = "check the arguments first, and raise a ValueError that names the wrong one"
    text = None
    with explained(f"{what} fails with another error; {mend}"):
        try:
            call()
        except ValueError as error:
            text = str(error)
    assert text is not None, f"{what} raised no error; {mend}"
    assert any(name in text for name in names), f"{what} raised {text!r}; {mend}"


def load_saved(fresh: nn.Module, saved: nn.Module) -> None:
    """Load the ``state_dict`` of a module into a new one, through a file."""
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    with explained(
        f"a new {type(saved).__name__} does not load the state_dict of a used one; keep state in "
        "buffers of fixed shape"
    ):
        fresh.load_state_dict(torch.load(file, weights_only=True))


def failure(call: Callable[[], object], message: str) -> None:
    """Require that a call raises an error that torch or a check raises for a wrong argument."""
    try:
        call()
    except (IndexError, ValueError, RuntimeError):
        return
    raise AssertionError(message)


def registered_tensors(module: nn.Module) -> None:
    """Require that every tensor is a parameter or a buffer."""
    plain = plain_tensors(module)
    assert not plain, (
        f"{type(module).__name__} has tensors as plain attributes: {plain}. .to(device) does not "
        "move them, and the state_dict does not save them; use register_buffer (persistent=False "
        "for a constant) or nn.Parameter"
    )


@contextmanager
def other_defaults() -> Iterator[None]:
    """Make tensors without an explicit device and dtype float64 on the device meta."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(dtype)


def close(result: Tensor, expected: Tensor, message: str) -> None:
    """Require that two tensors agree up to rounding. Half precision is held to that of float32."""
    tolerance = 1e-10 if expected.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(
        result,
        expected,
        rtol=tolerance,
        atol=tolerance / 10,
        msg=lambda difference: f"{message}\n{difference}",
    )
