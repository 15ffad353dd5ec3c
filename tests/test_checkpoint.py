import copy
import json
import os
import pickle
import random
import re
from collections import OrderedDict, deque
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from robustfer import checkpoint
from robustfer.checkpoint import (
    load_model,
    load_resume,
    read_model_info,
    save_model,
    save_resume,
)
from robustfer.models import CAMClassifier, strip_for_inference

CLASSES = ("fear", "anger", "neutral")


class Tied(nn.Module):
    """Two names for one weight, a transposed one and a buffer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("table", torch.arange(6.0).view(2, 3).T)


def filled(model, value):
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)
    return model


def assert_same_state(one, other):
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("make", [Tied, lambda: nn.Linear(4, 3).to(torch.bfloat16)])
def test_round_trip(tmp_path, make):
    model, other = make(), filled(make(), 0)
    settings = {"size": 48, "model": {"name": "resnet18", "layers": [2, 2]}, "note": "größer"}
    path = save_model(tmp_path / "new" / "run", model, classes=CLASSES, settings=settings)
    assert path.name == "model.safetensors"
    assert load_model(path.parent, other, classes=list(CLASSES)) is other
    assert_same_state(model, other)
    assert read_model_info(path.parent) == (CLASSES, settings)


def test_tied_weights_stay_tied(tmp_path):
    save_model(tmp_path, Tied(), classes=CLASSES, settings={})
    other = Tied()
    load_model(tmp_path, other, classes=CLASSES)
    assert other.first.weight is other.second.weight


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (CLASSES[::-1], "in another order: fear, anger, neutral; expected: neutral, anger, fear"),
        (CLASSES[:2], r"has other classes: fear, anger, neutral; expected: fear, anger\."),
        (("a", "b", "c"), "has other classes: fear, anger, neutral; expected: a, b, c"),
    ],
)
def test_checkpoint_of_other_classes(tmp_path, classes, message):
    save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings={})
    with pytest.raises(ValueError, match=r"model\.safetensors has .*" + message.split("has ")[-1]):
        load_model(tmp_path, nn.Linear(4, 3), classes=classes)


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    save_model(tmp_path, nn.Sequential(nn.Linear(4, 3)), classes=CLASSES, settings={})
    other = filled(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), 7)
    with pytest.raises(ValueError, match=r"does not fit the model: missing 1\.weight; missing 1\."):
        load_model(tmp_path, other, classes=CLASSES)
    assert all((tensor == 7).all() for tensor in other.parameters())
    with pytest.raises(ValueError, match=r"0\.weight has shape \(3, 4\), the model's \(3, 5\)"):
        load_model(tmp_path, nn.Sequential(nn.Linear(5, 3)), classes=CLASSES)
    with pytest.raises(ValueError, match=r"unexpected 0\.weight"):
        load_model(tmp_path, nn.Sequential(nn.ReLU()), classes=CLASSES)


class Counted(nn.Module):
    def __init__(self, *counts, dtype):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("counts", torch.tensor(counts).to(dtype))


@pytest.mark.parametrize(
    ("saved", "own"),
    [
        (torch.float32, torch.int64),
        (torch.int64, torch.float32),
        (torch.int64, torch.int32),
        (torch.int64, torch.bool),
        (torch.complex64, torch.float32),
    ],
)
def test_values_that_another_dtype_would_change_are_refused(tmp_path, saved, own):
    save_model(tmp_path, Counted(1.5, 2.5, dtype=saved), classes=CLASSES, settings={})
    other = filled(Counted(0, 0, dtype=own), 0)
    message = f"does not fit the model: counts has dtype {saved}, the model's {own}$"
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path, other, classes=CLASSES)
    assert not any(tensor.any() for tensor in other.state_dict().values())


def test_values_that_overflow_are_refused(tmp_path):
    save_model(tmp_path, Counted(1e6, 2.5, dtype=torch.float32), classes=CLASSES, settings={})
    other = filled(Counted(0, 0, dtype=torch.float16), 0)
    with pytest.raises(ValueError, match="counts has values that are infinite in torch.float16, "):
        load_model(tmp_path, other, classes=CLASSES)
    assert not any(tensor.any() for tensor in other.state_dict().values())


def test_values_that_were_infinite_before_are_no_overflow(tmp_path):
    model = Counted(float("inf"), float("nan"), dtype=torch.float32)
    save_model(tmp_path, model, classes=CLASSES, settings={})
    other = load_model(tmp_path, Counted(0, 0, dtype=torch.float16), classes=CLASSES)
    assert other.counts.isinf().tolist() == [True, False]


@pytest.mark.parametrize("own", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_dtypes_may_differ(tmp_path, own):
    for saved in (torch.float16, torch.float32, torch.float64, torch.float8_e4m3fn):
        save_model(tmp_path, Counted(1.5, 2.5, dtype=saved), classes=CLASSES, settings={})
        other = load_model(tmp_path, Counted(0, 0, dtype=own), classes=CLASSES)
        assert other.counts.tolist() == [1.5, 2.5]
        assert other.counts.dtype == own


@pytest.mark.parametrize("dtype", [torch.complex128, torch.float8_e8m0fnu])
def test_dtypes_that_safetensors_does_not_have(tmp_path, dtype):
    model = nn.Linear(4, 3)
    model.register_buffer("table", torch.zeros(2).to(dtype))
    with pytest.raises(ValueError, match=f"'table' must have a dtype .*, got {dtype}; convert it"):
        save_model(tmp_path, model, classes=CLASSES, settings={})
    assert list(tmp_path.iterdir()) == []


def test_many_misfits_are_cut_short(tmp_path):
    save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings={})
    with pytest.raises(ValueError, match=r"; and 14 more$"):
        load_model(tmp_path, nn.Sequential(*(nn.Linear(4, 3) for _ in range(10))), classes=CLASSES)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, torch.zeros(1), [object()]])
def test_settings_that_json_does_not_have(tmp_path, value):
    with pytest.raises(ValueError, match=r"settings\['rate'\] must be a JSON value"):
        save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings={"rate": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [(48, 48), {48: "small"}, [[1, (2,)]], {"a": {None: 1}}])
def test_settings_that_json_would_change(tmp_path, value):
    with pytest.raises(ValueError, match=r"settings .*'size'.* lists instead of tuples"):
        save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings={"size": value})
    assert list(tmp_path.iterdir()) == []


def test_settings_that_json_keeps(tmp_path):
    settings = {"a": [1, 2.5, True, None], "b": {"c": "0" * 64, "d": '"checksum":"' + "0" * 64}}
    save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings=settings)
    assert read_model_info(tmp_path).settings == settings


def test_settings_without_names(tmp_path):
    with pytest.raises(TypeError, match="settings must be a mapping, got list"):
        save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings=[("size", 48)])


@pytest.mark.parametrize(
    ("classes", "error", "found"),
    [
        ([0, 1, 2], TypeError, "got 0"),
        (["a", None, "c"], TypeError, "got None"),
        (["a", "b", "a"], ValueError, "got 'a' 2 times"),
        ([["a"], ["b"], ["c"]], TypeError, r"got \['a'\]"),
        ([], ValueError, "got none"),
        ("abc", TypeError, "got 'abc'"),
        (b"abc", TypeError, "got bytes"),
        ({"a", "b", "c"}, TypeError, "got set"),
        (None, TypeError, "got None"),
    ],
)
def test_class_names_that_could_not_be_read(tmp_path, classes, error, found):
    with pytest.raises(error, match=f"classes must .*{found}"):
        save_model(tmp_path, nn.Linear(4, 3), classes=classes, settings={})
    assert list(tmp_path.iterdir()) == []
    save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings={})
    with pytest.raises(error, match=f"classes must .*{found}"):
        load_model(tmp_path, nn.Linear(4, 3), classes=classes)


class Headed(nn.Module):
    """A backbone whose classifier is known as timm has it, perhaps inside another module."""

    def __init__(self, outputs):
        super().__init__()
        self.trunk = nn.Linear(4, 5)
        self.fc = nn.Linear(5, outputs)

    def get_classifier(self):
        return self.fc


class Around(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model


@pytest.mark.parametrize("make", [lambda n: nn.Linear(4, n), Headed, lambda n: Around(Headed(n))])
def test_a_name_for_each_output(tmp_path, make):
    with pytest.raises(
        ValueError, match="classes must be the names of the model's 4 outputs, got 3"
    ):
        save_model(tmp_path, make(4), classes=CLASSES, settings={})
    assert list(tmp_path.iterdir()) == []
    save_model(tmp_path, make(3), classes=CLASSES, settings={})


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_inside(model):
    model[0] = compiled(model[0])
    return model


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        compiled,
        lambda model: compiled(nn.DataParallel(model)),
        lambda model: nn.DataParallel(compiled(model)),
        AveragedModel,
        compiled_inside,
    ],
)
def test_the_model_inside_a_wrapper_is_saved_and_loaded(tmp_path, wrap):
    def make():
        return nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))

    model = make()
    save_model(tmp_path, wrap(copy.deepcopy(model)), classes=CLASSES, settings={})
    plain, wrapped = make(), wrap(make())
    for other in (plain, wrapped):
        load_model(tmp_path, other, classes=CLASSES)
    inputs = torch.rand(2, 4)
    assert_same_state(model, plain)
    torch.testing.assert_close(wrapped(inputs), model(inputs))


def test_state_that_is_no_tensor(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"step": 1}

    with pytest.raises(ValueError, match="'_extra_state' must be a dense tensor, got dict"):
        save_model(tmp_path, Extra(4, 3), classes=CLASSES, settings={})


@pytest.mark.parametrize(
    ("tensor", "found"),
    [(torch.eye(3).to_sparse(), "sparse_coo"), (torch.empty(3, device="meta"), "strided")],
)
def test_state_that_is_not_dense(tmp_path, tensor, found):
    model = nn.Linear(4, 3)
    model.register_buffer("table", tensor)
    with pytest.raises(ValueError, match=f"'table' must be a dense tensor, got .*{found}"):
        save_model(tmp_path, model, classes=CLASSES, settings={})


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors does not exist"):
        read_model_info(tmp_path)
    path = save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings={})
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load_model(tmp_path, nn.Linear(4, 3), classes=CLASSES)
    path.write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        read_model_info(tmp_path)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"classes": '["a"]'},
        {"classes": "a", "settings": "{}"},
        {"classes": '["a", 1]', "settings": "{}"},
        {"classes": '["a"]', "settings": "[]"},
    ],
)
def test_safetensors_of_another_program(tmp_path, metadata):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match="must have the class names and settings"):
        read_model_info(tmp_path)


def damages(content, seed=0):
    """The content cut short, and with one bit of each byte flipped."""
    for length in range(len(content)):
        yield content[:length]
    for place, bit in enumerate(np.random.default_rng(seed).integers(8, size=len(content))):
        yield content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


def test_every_damage_of_a_model_file_is_found(tmp_path):
    path = save_model(tmp_path, nn.Linear(2, 3), classes=CLASSES, settings={"size": 48})
    model = filled(nn.Linear(2, 3), 7)
    for damaged in damages(path.read_bytes()):
        path.write_bytes(damaged)
        for read in (read_model_info, partial(load_model, model=model, classes=CLASSES)):
            with pytest.raises(ValueError, match=re.escape(str(path))):
                read(tmp_path)
    assert all((tensor == 7).all() for tensor in model.parameters())


@pytest.mark.parametrize(
    "header", ["5", "[]", '"text"', '{"__metadata__": 5}', '{"__metadata__": [1]}']
)
def test_headers_of_a_stranger(tmp_path, header):
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read_model_info(tmp_path)


def test_nested_settings_of_a_stranger(tmp_path):
    path = save_model(tmp_path, nn.Linear(2, 3), classes=CLASSES, settings={})
    for nested in ('{"a":' * 5000 + "1" + "}" * 5000, "[" * 5000 + "]" * 5000):
        for header in (json.dumps({"__metadata__": {"settings": nested}}), nested):
            length = len(header).to_bytes(8, "little")
            path.write_bytes(length + header.encode())
            with pytest.raises(ValueError, match=re.escape(str(path))):
                read_model_info(tmp_path)


def test_one_file_is_read(tmp_path, monkeypatch):
    """Its class names and its weights, though another replaces it meanwhile."""
    for value in (1.0, 2.0):
        save_model(
            tmp_path / str(value),
            filled(nn.Linear(4, 3), value),
            classes=CLASSES,
            settings={"value": value},
        )
    path, read_bytes = (
        save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings={}),
        Path.read_bytes,
    )
    path.write_bytes((tmp_path / "1.0" / path.name).read_bytes())

    def read_and_replace(self):
        content = read_bytes(self)
        if self == path:
            self.write_bytes(read_bytes(tmp_path / "2.0" / path.name))
        return content

    monkeypatch.setattr(Path, "read_bytes", read_and_replace)
    model = nn.Linear(4, 3)
    for value in (1.0, 2.0):
        load_model(tmp_path, model, classes=CLASSES)
        assert (model.weight == value).all()


def training():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4])
    return model, optimizer, scheduler


def train(model, optimizer, scheduler, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        scheduler.step()


def test_a_resumed_run_ends_as_the_whole_one(tmp_path):
    whole = training()
    train(*whole, 6)
    half = training()
    train(*half, 3)
    names = ("model", "optimizer", "scheduler")
    state = {name: part.state_dict() for name, part in zip(names, half, strict=True)}
    save_resume(
        tmp_path / "run" / "resume.pt",
        state | {"rng": torch.get_rng_state(), "python": random.getstate(), "epoch": 3},
    )
    resumed = training()
    torch.manual_seed(99)
    state = load_resume(tmp_path / "run" / "resume.pt")
    for name, part in zip(names, resumed, strict=True):
        part.load_state_dict(state[name])
    torch.set_rng_state(state["rng"])
    train(*resumed, 3)
    assert_same_state(whole[0], resumed[0])
    assert state["python"] == random.getstate()
    assert state["epoch"] == 3


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.float64(1.0), "float64"),
        (np.zeros(2), "ndarray"),
        (torch.device("cpu"), "device"),
        (torch.Size([1]), "Size"),
        (deque([1]), "deque"),
        (nn.Linear(1, 1), "Linear"),
        (b"bytes", "bytes"),
        (test_files_that_are_no_checkpoints, "function"),
    ],
)
def test_only_plain_values_are_saved(tmp_path, value, kind):
    state = OrderedDict(optimizer={"groups": [1, (2, value)]})
    message = rf"state\['optimizer'\]\['groups'\]\[1\]\[1\] must be a tensor, .* got {kind}"
    with pytest.raises(ValueError, match=message):
        save_resume(tmp_path / "resume.pt", state)
    assert list(tmp_path.iterdir()) == []


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def own_container():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize("value", [nested(500), own_container()])
def test_nested_containers_are_refused_when_saved(tmp_path, value):
    path = tmp_path / "resume.pt"
    with pytest.raises(ValueError, match=r"state\['a'\]\[0\].* more than 100 containers"):
        save_resume(path, {"a": value})
    assert not path.exists()
    save_resume(path, {"a": nested(99)})
    assert load_resume(path) == {"a": nested(99)}


def test_what_cannot_be_read_again_is_not_written(tmp_path):
    path = tmp_path / "resume.pt"
    save_resume(path, {"momentum_dtype": torch.bfloat16})  # as timm's adafactorbv has it
    assert load_resume(path) == {"momentum_dtype": torch.bfloat16}
    save_resume(path, {"epoch": 1})
    marked = torch.zeros(2)
    marked.marked = Trap
    for value in (10**5000, marked):
        with pytest.raises(ValueError, match="state must be readable without pickle"):
            save_resume(path, {"value": value})
    assert load_resume(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_only_plain_keys_are_saved(tmp_path):
    with pytest.raises(
        ValueError, match=r"state\['a'\] must have texts or numbers as keys, got \("
    ):
        save_resume(tmp_path / "resume.pt", {"a": {(1, 2): 3}})


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_foreign_resume_file_is_never_unpickled(tmp_path):
    path, sprung = tmp_path / "resume.pt", tmp_path / "sprung"
    torch.save({"model": Trap(sprung)}, path)
    with pytest.raises(ValueError, match=r"resume\.pt is damaged, or holds more than tensors"):
        load_resume(path)
    path.write_bytes(pickle.dumps(Trap(sprung), protocol=2))
    with pytest.raises(ValueError, match=r"resume\.pt is damaged, or holds more than tensors"):
        load_resume(path)
    assert not sprung.exists()


def test_damaged_resume_files(tmp_path):
    path = tmp_path / "resume.pt"
    with pytest.raises(FileNotFoundError, match=r"resume\.pt does not exist"):
        load_resume(path)
    save_resume(path, {"a": torch.zeros(100)})
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[: len(content) // 2], b"no file of torch"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"resume\.pt is damaged"):
            load_resume(path)
    torch.save([1], path)
    with pytest.raises(ValueError, match=r"resume\.pt must hold a dict, got list"):
        load_resume(path)


STATE = {"epoch": 3, "weights": torch.arange(9.0), "half": torch.arange(4.0).half(), "more": [1.5]}


def test_every_damage_of_a_resume_file_is_found_or_does_no_harm(tmp_path):
    path = tmp_path / "resume.pt"
    save_resume(path, STATE)
    content, refusals = path.read_bytes(), []
    for damaged in damages(content):
        path.write_bytes(damaged)
        try:
            found = load_resume(path)
        except ValueError as error:
            refusals.append(str(error))
        else:  # padding, dates and the like
            torch.testing.assert_close(found, STATE, rtol=0, atol=0)
    assert len(refusals) > len(content)  # every cut, and many a bit
    assert all(str(path) in refusal for refusal in refusals)


def test_a_value_taken_for_a_folder_is_found(tmp_path):
    """torch reads nothing at all of what the archive marks as a folder, and says nothing."""
    path = tmp_path / "resume.pt"
    save_resume(path, STATE)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02", 0, content.rindex(b"/data/1")) + 38] |= 16
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"resume\.pt is damaged.*data/1"):
        load_resume(path)


def test_checksums_are_written_whatever_the_program_asks(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        save_resume(tmp_path / "resume.pt", STATE)
        assert not torch.serialization.get_crc32_options()
    finally:
        torch.serialization.set_crc32_options(True)
    torch.testing.assert_close(load_resume(tmp_path / "resume.pt"), STATE)


def test_a_device_that_is_not_there_is_not_the_files_fault(tmp_path):
    save_resume(tmp_path / "resume.pt", STATE)
    with pytest.raises(RuntimeError, match="no_device"):
        load_resume(tmp_path / "resume.pt", map_location="no_device")


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("when", ["write", "replace"])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, error, when):
    def fail(*args, **kwargs):
        raise error

    def half(state, file):
        file.write(b"half")
        raise error

    save_resume(tmp_path / "resume.pt", {"epoch": 1})
    save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings={"epoch": 1})
    with monkeypatch.context() as patch:
        if when == "replace":
            patch.setattr(os, "fsync", fail)
        else:
            patch.setattr(checkpoint.torch, "save", half)
            patch.setattr(checkpoint, "to_safetensors", fail)
        with pytest.raises(type(error)):
            save_resume(tmp_path / "resume.pt", {"epoch": 2})
        with pytest.raises(type(error)):
            save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings={"epoch": 2})
    assert load_resume(tmp_path / "resume.pt") == {"epoch": 1}
    assert read_model_info(tmp_path).settings == {"epoch": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "resume.pt"]


def test_files_are_as_readable_as_any_other(tmp_path):
    (tmp_path / "plain").write_text("")
    path = save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings={})
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_file_says_who_wrote_it(tmp_path):
    path = save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings={})
    length = int.from_bytes(path.read_bytes()[:8], "little")
    metadata = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]
    assert set(metadata) == {"format", "robustfer", "classes", "settings", "checksum"}


@pytest.mark.parametrize(
    ("name", "options", "head"),
    [
        ("resnet10t", {"channels": (16, 32, 64, 128), "output_stride": 8, "in_chans": 1}, "keep"),
        ("mobilenetv3_small_050", {"drop_rate": 0.1}, "auto"),
        # A path on the machine that trained is not needed again.
        ("convnext_atto", {"checkpoint_path": "", "cache_dir": "trained/here"}, "replace"),
    ],
)
def test_a_classifier_is_rebuilt_from_its_file(tmp_path, name, options, head):
    model = CAMClassifier(name, num_classes=3, head=head, model_options=options)
    path = save_model(tmp_path, torch.nn.DataParallel(model), classes=CLASSES, settings={})
    assert b"checkpoint_path" not in path.read_bytes()
    assert b"trained/here" not in path.read_bytes()
    again = load_model(tmp_path)
    assert again.head_kind == model.head_kind
    assert not again.training
    images = torch.rand(2, model.input_size[0], 64, 64)
    for ours, theirs in zip(again(images), model.eval()(images), strict=True):
        assert torch.equal(ours, theirs)
    assert again.architecture == model.architecture
    assert read_model_info(tmp_path) == (CLASSES, {})


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(4, 3),
        lambda: CAMClassifier(nn.Conv2d(3, 8, 3, stride=4), num_classes=3),
        lambda: CAMClassifier("resnet10t", num_classes=3, model_options={"act_layer": nn.SiLU}),
    ],
)
def test_a_file_that_does_not_say_how_to_build_its_model(tmp_path, make):
    path = save_model(tmp_path, make(), classes=CLASSES, settings={})
    with pytest.raises(ValueError, match=r"model\.safetensors does not say how .* load_model$"):
        load_model(tmp_path)
    assert path.is_file()
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto"])
def test_timm_reads_a_stripped_network(tmp_path, name):
    model = CAMClassifier(name, num_classes=3).eval()
    path = save_model(tmp_path, strip_for_inference(model), classes=CLASSES, settings={})
    plain = timm.create_model(name, num_classes=3, checkpoint_path=str(path)).eval()
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(plain(images), model(images).logits)
