"""Save and load trained models and running trainings, without pickle, whole or not at all.

``model.safetensors`` is for users: weights, class names and settings. ``resume.pt`` continues a
run: tensors and plain containers, read with ``weights_only=True``.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from robustfer import __version__
from robustfer._files import write_whole
from robustfer._inputs import check_ids
from robustfer._wrappers import unwrapped

if TYPE_CHECKING:
    from robustfer.models import CAMClassifier

__all__ = [
    "load_model",
    "load_resume",
    "read_model_info",
    "save_model",
    "save_resume",
]

_Model = TypeVar("_Model", bound=nn.Module)

MODEL_FILE = "model.safetensors"

# torch.load(weights_only=True) rebuilds these. torch's own state_dicts use the last two:
# modules an OrderedDict, MultiStepLR a Counter. A dtype is in the state of timm's adafactorbv.
_MAPPINGS = (dict, OrderedDict, Counter)
_PLAIN = (str, int, float, bool, type(None), torch.dtype)
# Greatest depth of nested containers. pickle fails at several hundred.
_MAX_DEPTH = 100

_NO_CHECKSUM = "0" * 64
# Unique in the header, because quotes inside of texts are escaped.
_CHECKSUM_KEY = b'"checksum":"'


class ModelInfo(NamedTuple):
    """Class names and settings of a model file."""

    classes: tuple[str, ...]
    settings: dict[str, Any]


def save_model(
    folder: str | Path, model: nn.Module, *, classes: Sequence[str], settings: Mapping[str, Any]
) -> Path:
    """Write ``model.safetensors`` into a folder, with class names, settings and a checksum.

    A model in a :class:`robustfer.state.ModelEMA`, or wrapped for data parallelism, by
    ``AveragedModel``, ``torch.compile`` or Lightning Fabric, is written without the wrapper.
    Weights that share memory are written under each of their names. The file of a
    :class:`robustfer.models.CAMClassifier` built by name also says how to build it, for
    :func:`load_model`.

    Args:
        folder: the folder, which is made if needed.
        model: the model whose ``state_dict`` is written.
        classes: names of the classes, in the order of the model's outputs.
        settings: everything else needed to build the model and its input again, as JSON values:
            texts, numbers, booleans, ``None``, lists, and dicts with texts as keys.

    Returns:
        The path of the file.

    Raises:
        TypeError: ``classes`` is not a list of names, or ``settings`` is not a mapping.
        ValueError: the class names are not distinct or do not fit the model's outputs, JSON would
            change a setting, or a value of the ``state_dict`` is not a dense tensor of a dtype
            that safetensors can store.
        OSError: the file cannot be written.

    >>> import tempfile
    >>> model = nn.Linear(4, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_model(folder, model, classes=["sad", "glad"], settings={"size": 48})
    ...     print(read_model_info(folder))
    ...     load_model(folder, nn.Linear(4, 2), classes=["sad", "glad"])
    ModelInfo(classes=('sad', 'glad'), settings={'size': 48})
    Linear(in_features=4, out_features=2, bias=True)
    """
    model = unwrapped(model)
    classes = _checked_classes(classes)
    _check_number_of_classes(model, classes)
    metadata = {
        "format": "pt",
        "robustfer": __version__,
        "classes": json.dumps(classes),
        "settings": _settings_as_json(settings),
        "checksum": _NO_CHECKSUM,
    }
    architecture = getattr(model, "architecture", None)
    if isinstance(architecture, dict):
        # Some options are not JSON values.
        with suppress(TypeError, ValueError, RecursionError):
            metadata["architecture"] = json.dumps(architecture)
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
            kind = value.layout if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"the model's state {name!r} must be a dense tensor, got {kind}")
        if not _storable(value.dtype):
            raise ValueError(
                f"the model's state {name!r} must have a dtype that safetensors can store, got "
                f"{value.dtype}; convert it first"
            )
        # Copies, because safetensors refuses tensors that share memory, such as tied weights.
        tensors[_plain_name(name)] = (
            value.detach().cpu().clone(memory_format=torch.contiguous_format)
        )
    before, after = _around_checksum(to_safetensors(tensors, metadata))
    checksum = _checksum(before, after).encode()
    path = Path(folder).expanduser() / MODEL_FILE
    write_whole(path, lambda file: file.writelines((before, checksum, after)))
    return path


def read_model_info(folder: str | Path) -> ModelInfo:
    """Read class names and settings of a model file. See :func:`save_model` for an example.

    Raises:
        FileNotFoundError: the folder has no ``model.safetensors``.
        ValueError: the file is damaged, or was not written by :func:`save_model`.
    """
    return _read(Path(folder).expanduser() / MODEL_FILE)[0]


@overload
def load_model(folder: str | Path, *, classes: Sequence[str] | None = None) -> CAMClassifier: ...


@overload
def load_model(folder: str | Path, model: _Model, *, classes: Sequence[str]) -> _Model: ...


def load_model(
    folder: str | Path, model: nn.Module | None = None, *, classes: Sequence[str] | None = None
) -> nn.Module:
    """Load the weights of ``model.safetensors`` into a model, all of them or none.

    Names and shapes must be the same. Only floating-point dtypes may differ from each other, if all
    values stay finite.

    Without ``model``, it builds the :class:`robustfer.models.CAMClassifier` that was saved, on the
    CPU in eval mode. This works if that was built by the name of a timm model.
    :func:`read_model_info` returns its classes.

    Args:
        folder: the folder that :func:`save_model` wrote into.
        model: a model of the same structure, wrapped or not, to load the weights into.
        classes: names of the classes that you use the model for, in order; required with
            ``model``. Default: those of the file.

    Returns:
        The model.

    Raises:
        FileNotFoundError: the folder has no ``model.safetensors``.
        TypeError: ``classes`` is not a list of names.
        ValueError: the file is damaged or does not say how to build its model, or its classes,
            their order, or the names, shapes, dtypes or values of its weights do not fit.

    >>> import tempfile
    >>> from robustfer.models import CAMClassifier
    >>> model = CAMClassifier("resnet10t", num_classes=2, model_options={"output_stride": 8})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_model(folder, model, classes=["sad", "glad"], settings={})
    ...     load_model(folder)(torch.rand(1, 3, 48, 48)).attention.shape
    torch.Size([1, 2, 6, 6])
    """
    path = Path(folder).expanduser() / MODEL_FILE
    expected = None if model is None and classes is None else _checked_classes(classes)
    info, content, architecture = _read(path)
    if expected is not None and list(info.classes) != expected:
        same = sorted(info.classes) == sorted(expected)
        raise ValueError(
            f"{path} has {'the classes in another order' if same else 'other classes'}: "
            f"{', '.join(info.classes)}; expected: {', '.join(expected)}. Load it with its own "
            "classes and reorder the outputs: logits[:, [its.index(name) for name in yours]]"
        )
    if model is None:
        model = _rebuilt(path, architecture, len(info.classes))
        _load_weights(path, content, model)
        return model.eval()
    _load_weights(path, content, model)
    return model


def save_resume(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write the state that a run needs to continue.

    Args:
        path: the file, usually ``resume.pt``. Its folder is made if needed.
        state: dicts, lists and tuples of tensors, texts, numbers, booleans, ``None`` and dtypes,
            such as the ``state_dict`` of modules, optimizers and most schedulers.

    Raises:
        ValueError: ``state`` holds something else, which :func:`load_resume` could not read. An
            existing file does not change.
        OSError: the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "resume.pt")
    ...     save_resume(path, {"epoch": 3, "rng": torch.tensor([1, 2])})
    ...     load_resume(path)
    {'epoch': 3, 'rng': tensor([1, 2])}
    >>> save_resume("resume.pt", {"optimizer": {"hooks": [print]}})
    Traceback (most recent call last):
    ...
    ValueError: state['optimizer']['hooks'][0] must be a tensor, text, number, boolean, None or dtype in plain dicts, lists and tuples, got builtin_function_or_method
    """  # noqa: E501 - the message is one line
    _check_plain("state", state)
    write_whole(Path(path), lambda file: _save(state, file))


def load_resume(path: str | Path, *, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read what :func:`save_resume` wrote. See there for an example.

    It unpickles only tensors and plain containers. It verifies checksums, so it finds a single
    changed bit.

    Args:
        path: the file.
        map_location: device of the tensors; ``load_state_dict`` moves them where they belong.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, or holds something other than tensors and plain containers.
    """
    path = Path(path).expanduser()
    # A missing device must not be reported as a damaged file.
    torch.empty(0, device=map_location)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    # Opened once, so both readers see the same file.
    with path.open("rb") as file:
        try:
            _check_archive(file)
            file.seek(0)
            state = torch.load(file, map_location=map_location, weights_only=True)
        except Exception as error:
            # A damaged file can raise anything.
            raise ValueError(
                f"{path} is damaged, or holds more than tensors and plain containers: {error}"
            ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} must hold a dict, got {type(state).__name__}")
    return state


def _check_archive(file: IO[bytes]) -> None:
    """Verify the checksums of a zip archive, which torch does not do."""
    with zipfile.ZipFile(file) as archive:
        # torch skips an entry whose attributes mark it as a folder.
        marked = [info.filename for info in archive.infolist() if info.external_attr]
        damaged = marked[0] if marked else archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"its entry {damaged} was changed")


def _read(path: Path) -> tuple[ModelInfo, bytes, dict[str, Any] | None]:
    """Return the info of a model file, its verified content, and its architecture or ``None``."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    content = path.read_bytes()
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = dict(header.get("__metadata__") or {})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or not a safetensors file: {error}") from error
    classes, settings, architecture = None, None, None
    if "checksum" in metadata:
        if metadata["checksum"] != _checksum(*_around_checksum(content)):
            raise ValueError(f"{path} is damaged: its checksum does not match its content")
        with suppress(KeyError, TypeError, ValueError, RecursionError):
            classes, settings = json.loads(metadata["classes"]), json.loads(metadata["settings"])
            architecture = json.loads(metadata.get("architecture", "null"))
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not named or not isinstance(settings, dict):
        raise ValueError(f"{path} must have the class names and settings that save_model writes")
    return ModelInfo(tuple(classes or ()), settings), content, architecture


def _load_weights(path: Path, content: bytes, model: nn.Module) -> None:
    """Load a file's tensors into a model, or raise if a name, shape, dtype or value differs."""
    try:
        tensors = from_safetensors(content)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or not a safetensors file: {error}") from error
    model = unwrapped(model)
    expected = model.state_dict()
    names = {_plain_name(name): name for name in expected}
    problems = [f"missing {name}" for name in names if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in names]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, the model's {tuple(expected[own].shape)}"
        for name, own in names.items()
        if name in tensors and tensors[name].shape != expected[own].shape
    ]
    problems += [
        f"{name} has {problem}"
        for name, own in names.items()
        if name in tensors and (problem := _lost_in(expected[own].dtype, tensors[name]))
    ]
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"{path} does not fit the model: {'; '.join(problems[:8])}{more}")
    model.load_state_dict({own: tensors[name] for name, own in names.items()})


def _lost_in(dtype: torch.dtype, saved: Tensor) -> str:
    """Describe why copying a tensor to a dtype would change its values, or return ""."""
    if saved.dtype == dtype:
        return ""
    if not (saved.is_floating_point() and dtype.is_floating_point):
        return f"dtype {saved.dtype}, the model's {dtype}"
    # float64 holds the values of all floating-point dtypes, and knows all operations.
    overflows = saved.double().isfinite() & ~saved.to(dtype).double().isfinite()
    return f"values that are infinite in {dtype}, the model's dtype" if overflows.any() else ""


def _storable(dtype: torch.dtype) -> bool:
    # By trial, because the list depends on the version, and it writes some that it cannot read.
    try:
        from_safetensors(to_safetensors({"empty": torch.empty(0, dtype=dtype)}))
    except KeyError:
        return False
    return True


def _rebuilt(path: Path, architecture: Any, num_classes: int) -> CAMClassifier:
    # Imported here, because it loads timm, which the other functions do not need.
    from robustfer.models import CAMClassifier

    if not isinstance(architecture, dict):
        raise ValueError(
            f"{path} does not say how to build its model, which is saved only for a CAMClassifier "
            "built by name; build the model and pass it to load_model"
        )
    return CAMClassifier(num_classes=num_classes, **_with_tuples(architecture))


def _around_checksum(content: bytes) -> tuple[memoryview, memoryview]:
    start = content.find(_CHECKSUM_KEY) + len(_CHECKSUM_KEY)
    whole = memoryview(content)
    return whole[:start], whole[start + len(_NO_CHECKSUM) :]


def _checksum(before: memoryview, after: memoryview) -> str:
    digest = sha256(before)
    digest.update(after)
    return digest.hexdigest()


def _with_tuples(value: Any) -> Any:
    """Replace lists by tuples: JSON has no tuples, and timm often needs them."""
    if isinstance(value, dict):
        return {name: _with_tuples(inner) for name, inner in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _plain_name(name: str) -> str:
    # torch.compile renames the weights of compiled submodules.
    return name.replace("_orig_mod.", "")


def _checked_classes(classes: Any) -> list[str]:
    names = check_ids(classes, name="classes", unique=True)
    if not names:
        raise ValueError("classes must hold at least one name, got none")
    return names


def _check_number_of_classes(model: nn.Module, classes: Sequence[str]) -> None:
    """Compare with the outputs of the model's linear classifier, if it is known."""
    while not hasattr(model, "get_classifier") and isinstance(
        inner := getattr(model, "model", None), nn.Module
    ):
        model = inner
    classifier = getattr(model, "get_classifier", lambda: model)()
    if isinstance(classifier, nn.Linear) and classifier.out_features != len(classes):
        raise ValueError(
            f"classes must be the names of the model's {classifier.out_features} outputs, got "
            f"{len(classes)}: {', '.join(classes)}"
        )


def _settings_as_json(settings: Mapping[str, Any]) -> str:
    if not isinstance(settings, Mapping):
        raise TypeError(f"settings must be a mapping, got {type(settings).__name__}")
    for name, value in settings.items():
        given = {name: value}
        try:
            same = json.loads(json.dumps(given, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"settings[{name!r}] must be a JSON value: {error}") from error
        if same != given:
            raise ValueError(
                f"settings must not change in JSON, got {given}, which becomes {same}; use lists "
                "instead of tuples, and texts as keys"
            )
    return json.dumps(dict(settings))


def _save(state: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write the state with checksums, and check that it can be read, without reading tensors."""
    with_checksums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        torch.save(state, file)
    finally:
        torch.serialization.set_crc32_options(with_checksums)
    file.flush()
    try:
        torch.load(file.name, mmap=True, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"state must be readable without pickle: {error}") from error


def _check_plain(where: str, value: Any, depth: int = 0) -> None:
    # Exact types, because a numpy float is a float, but unpickling it needs numpy.
    if depth > _MAX_DEPTH:
        raise ValueError(f"{where[:80]}... must not nest more than {_MAX_DEPTH} containers")
    mapping = type(value) in _MAPPINGS
    if not mapping and type(value) not in (list, tuple, *_PLAIN, Tensor, nn.Parameter):
        raise ValueError(
            f"{where} must be a tensor, text, number, boolean, None or dtype in plain dicts, lists "
            f"and tuples, got {type(value).__name__}"
        )
    if mapping or type(value) in (list, tuple):
        for key, inner in value.items() if mapping else enumerate(value):
            if type(key) not in (str, int, float, bool):
                raise ValueError(f"{where} must have texts or numbers as keys, got {key!r}")
            _check_plain(f"{where}[{key!r}]", inner, depth + 1)
