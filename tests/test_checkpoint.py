import json
import os
import pickle
import random
from collections import OrderedDict, deque

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robustfer import checkpoint
from robustfer.checkpoint import (
    load_model,
    load_resume,
    read_model_info,
    save_model,
    save_resume,
)

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
    assert load_model(path.parent, other, classes=list(CLASSES)) == settings
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


def test_many_misfits_are_cut_short(tmp_path):
    save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings={})
    with pytest.raises(ValueError, match=r"; and 14 more$"):
        load_model(tmp_path, nn.Sequential(*(nn.Linear(4, 3) for _ in range(10))), classes=CLASSES)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, torch.zeros(1), [object()]])
def test_settings_that_json_does_not_have(tmp_path, value):
    with pytest.raises(ValueError, match=r"settings\['rate'\] is no JSON value"):
        save_model(tmp_path, nn.Linear(4, 3), classes=CLASSES, settings={"rate": value})
    assert list(tmp_path.iterdir()) == []


def test_state_that_is_no_tensor(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"step": 1}

    with pytest.raises(ValueError, match="'_extra_state' is no tensor but dict"):
        save_model(tmp_path, Extra(4, 3), classes=CLASSES, settings={})


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is not there"):
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
    with pytest.raises(ValueError, match="no class names and settings as save_model writes them"):
        read_model_info(tmp_path)


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
        (torch.float32, "dtype"),
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
    with pytest.raises(FileNotFoundError, match=r"resume\.pt is not there"):
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
    assert set(metadata) == {"format", "robustfer", "classes", "settings"}
