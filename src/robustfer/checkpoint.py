"""Files of a trained model and of a running training: written whole or not at all, never unpickled.

``model.safetensors`` is for users: weights, class names and settings. ``resume.pt`` is for the run
itself: tensors and plain containers, read with ``weights_only=True``.
"""

from __future__ import annotations

import json
import pickle
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from robustfer import __version__
from robustfer._files import write_whole

MODEL_FILE = "model.safetensors"

_PLAIN = (str, int, float, bool, type(None))
# What torch.load(weights_only=True) rebuilds. torch's own state_dicts hold the last two: modules
# an OrderedDict, MultiStepLR a Counter.
_MAPPINGS = (dict, OrderedDict, Counter)


class ModelInfo(NamedTuple):
    """What a model file says about its model."""

    classes: tuple[str, ...]
    settings: dict[str, Any]


def save_model(
    folder: str | Path, model: nn.Module, *, classes: Sequence[str], settings: Mapping[str, Any]
) -> Path:
    """Write ``model.safetensors`` into a folder, with class names and settings.

    Weights that share memory are written under each of their names. Save the plain model, not its
    wrapping by DistributedDataParallel or ``torch.compile``, which rename the weights.

    Args:
        folder: made where it is not there.
        model: its ``state_dict`` is written.
        classes: names of the classes, in the order of the model's outputs.
        settings: whatever builds the same model and input again; values that JSON has.

    Returns:
        The path of the file.

    Raises:
        ValueError: a setting is no JSON value, or the ``state_dict`` holds something but tensors.

    >>> import tempfile
    >>> model = nn.Linear(4, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_model(folder, model, classes=["sad", "glad"], settings={"size": 48})
    ...     load_model(folder, nn.Linear(4, 2), classes=["sad", "glad"])
    {'size': 48}
    """
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"the model's state {name!r} is no tensor but {type(value).__name__}, which "
                "safetensors cannot hold"
            )
        # A copy each: safetensors refuses tensors that share memory, as tied weights do.
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    metadata = {
        "format": "pt",
        "robustfer": __version__,
        "classes": json.dumps(list(classes)),
        "settings": _settings_as_json(settings),
    }
    path = Path(folder) / MODEL_FILE
    write_whole(path, lambda file: file.write(to_safetensors(tensors, metadata)))
    return path


def read_model_info(folder: str | Path) -> ModelInfo:
    """Read class names and settings of a model file, without its weights.

    Raises:
        FileNotFoundError: the folder has no ``model.safetensors``.
        ValueError: the file is damaged, or was not written by :func:`save_model`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_model(folder, nn.Linear(4, 2), classes=["sad", "glad"], settings={"size": 48})
    ...     read_model_info(folder)
    ModelInfo(classes=('sad', 'glad'), settings={'size': 48})
    """
    return _read(Path(folder) / MODEL_FILE, with_weights=False)[0]


def load_model(folder: str | Path, model: nn.Module, *, classes: Sequence[str]) -> dict[str, Any]:
    """Load the weights of ``model.safetensors`` into a model, all of them or none.

    Args:
        folder: where :func:`save_model` wrote.
        model: a model of the same structure.
        classes: names of the classes the model is to be used for, in order.

    Returns:
        The settings saved with it.

    Raises:
        FileNotFoundError: the folder has no ``model.safetensors``.
        ValueError: the file is damaged, is for other classes or for the same in another order, or
            its weights are not the model's. The message names them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_model(folder, nn.Linear(4, 2), classes=["sad", "glad"], settings={})
    ...     load_model(folder, nn.Linear(4, 2), classes=["glad", "sad"])
    Traceback (most recent call last):
    ...
    ValueError: .../model.safetensors has the classes in another order: sad, glad; expected: glad, sad. Load ...
    """  # noqa: E501 - the message is one line
    path = Path(folder) / MODEL_FILE
    info, tensors = _read(path, with_weights=True)
    if info.classes != tuple(classes):
        same = sorted(info.classes) == sorted(classes)
        raise ValueError(
            f"{path} has {'the classes in another order' if same else 'other classes'}: "
            f"{', '.join(info.classes)}; expected: {', '.join(classes)}. Load it with its own "
            "classes; robustfer.data.translate_classes tells which output is which class here"
        )
    expected = model.state_dict()
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, the model's {tuple(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"{path} does not fit the model: {'; '.join(problems[:8])}{more}")
    model.load_state_dict(tensors)
    return info.settings


def save_resume(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write what a run needs to go on: tensors in plain containers.

    Args:
        path: usually ``resume.pt``; its folder is made where it is not there.
        state: dicts, lists and tuples of tensors, texts, numbers, booleans and ``None``; the
            ``state_dict`` of modules, optimizers and most schedulers is made of these.

    Raises:
        ValueError: something else is in it; the message names the key.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "resume.pt")
    ...     save_resume(path, {"epoch": 3, "rng": torch.tensor([1, 2])})
    ...     load_resume(path)
    {'epoch': 3, 'rng': tensor([1, 2])}
    >>> save_resume("resume.pt", {"optimizer": {"hooks": [print]}})
    Traceback (most recent call last):
    ...
    ValueError: state['optimizer']['hooks'][0] must be a tensor, text, number, boolean or None in plain dicts, lists and tuples, got builtin_function_or_method
    """  # noqa: E501 - the message is one line
    _check_plain("state", state)
    write_whole(Path(path), lambda file: torch.save(state, file))


def load_resume(path: str | Path, *, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read what :func:`save_resume` wrote, without unpickling anything but tensors.

    Args:
        path: the file.
        map_location: the device for the tensors; ``load_state_dict`` moves them where they belong.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds something but tensors and plain containers.

    The example stands at :func:`save_resume`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    try:
        state = torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged, or holds more than tensors and plain containers: {error}"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} must hold a dict, got {type(state).__name__}")
    return state


def _read(path: Path, *, with_weights: bool) -> tuple[ModelInfo, dict[str, Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys() if with_weights else []
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: {error}") from error
    try:
        classes = json.loads(metadata["classes"])
        settings = json.loads(metadata["settings"])
    except (KeyError, json.JSONDecodeError):
        classes, settings = None, None
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not named or not isinstance(settings, dict):
        raise ValueError(f"{path} has no class names and settings as save_model writes them")
    return ModelInfo(tuple(classes), settings), tensors


def _settings_as_json(settings: Mapping[str, Any]) -> str:
    for name, value in settings.items():
        try:
            json.dumps({name: value}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"settings[{name!r}] is no JSON value: {error}") from error
    return json.dumps(dict(settings))


def _check_plain(where: str, value: object) -> None:
    # Exact types: a numpy float is a float, but unpickling it needs numpy.
    if type(value) in _MAPPINGS:
        assert isinstance(value, dict)
        for key, inner in value.items():
            if type(key) not in (str, int, float, bool):
                raise ValueError(f"{where} must have texts or numbers as keys, got {key!r}")
            _check_plain(f"{where}[{key!r}]", inner)
    elif type(value) in (list, tuple):
        assert isinstance(value, list | tuple)
        for position, inner in enumerate(value):
            _check_plain(f"{where}[{position}]", inner)
    elif type(value) not in (*_PLAIN, Tensor, nn.Parameter):
        raise ValueError(
            f"{where} must be a tensor, text, number, boolean or None in plain dicts, lists and "
            f"tuples, got {type(value).__name__}"
        )
