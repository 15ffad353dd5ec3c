"""A backbone of the user's own, named as package.module:function."""

import sys

import pytest
import torch

from examples.train.__main__ import main
from examples.train.options import ModelOptions, Refused
from examples.train.weights import is_factory, make_classifier
from robustfer.checkpoint import load_model, read_model_info
from robustfer.models import CAMClassifier
from tests.data.trees import write_image
from tests.examples.train.runs import assert_same_to_the_bit, run

OWN = """
import torch
from torch import nn

class Small(nn.Sequential):
    pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 4.0), "input_size": (3, 32, 32)}

    def __init__(self, width):
        super().__init__(nn.Conv2d(3, width, 3, stride=4), nn.BatchNorm2d(width), nn.ReLU())

    def prepare(self, batches):
        self.seen = torch.cat(list(batches))

def small(width=8):
    return Small(width)

def no_network():
    return "resnet18"
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "--backbone=own_networks:small"


def test_it_is_trained_and_resumed_to_the_bit(own, tmp_path):
    options = [own, "--backbone-options.width=12", "--ema-decay=0.9"]
    outcome = run("gsmc", *options, f"--output={tmp_path}/whole")
    run("gsmc", *options, f"--output={tmp_path}/stopped", "--stop-after=1")
    run("gsmc", *options, f"--output={tmp_path}/stopped", "--resume")
    assert_same_to_the_bit(tmp_path / "whole", tmp_path / "stopped")
    backbone = outcome.classifier.backbone
    assert backbone[0].out_channels == 12

    from own_networks import small

    again = CAMClassifier(small(12), num_classes=7)
    classes = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
    load_model(tmp_path / "whole", again, classes=classes)
    settings = read_model_info(tmp_path / "whole").settings
    assert torch.equal(again.get_classifier().weight, outcome.classifier.get_classifier().weight)
    assert (settings["mean"], settings["std"]) == ([0.1, 0.2, 0.3], [1.0, 2.0, 4.0])


def test_it_sees_the_training_images_before_the_first_step(own, tmp_path):
    from robustfer.data import DemoFaces

    seen = run("ce", own, f"--output={tmp_path}/run").classifier.backbone.seen
    faces = DemoFaces(40, size=32)
    images = torch.stack([faces[row]["image"] for row in range(len(faces))]) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.1, 0.2, 0.3), (1.0, 2.0, 4.0)))
    torch.testing.assert_close(seen, (images - mean) / std)


@pytest.mark.parametrize(
    ("text", "facts"),
    {
        "own_networks:no_network": ["must return a torch.nn.Module", "got str"],
        "own_networks:nothing": ["nothing", "PYTHONPATH"],
        "nowhere.networks:small": ["nowhere", "PYTHONPATH"],
    }.items(),
)
def test_what_is_not_one_is_refused(own, text, facts):
    with pytest.raises(Refused) as caught:
        make_classifier(ModelOptions(backbone=text), ("sad", "glad"))
    assert all(fact in str(caught.value) for fact in [text, *facts])


def test_weights_of_timm_are_not_for_it(own):
    with pytest.raises(Refused, match="--pretrained is for timm"):
        make_classifier(ModelOptions(backbone="own_networks:small", pretrained=True), ("a", "b"))


def test_commands_do_not_import_what_a_file_names(own, tmp_path, capsys):
    """The folder of a run may come from a stranger."""
    path = str(tmp_path / "run")
    run("ce", own, f"--output={path}")
    sys.modules.pop("own_networks")
    for command in (["evaluate", path], ["predict", path, path], ["export", path, "--onnx=a.onnx"]):
        assert main(command) == 2
        err = capsys.readouterr().err
        assert "if you trust it, add --backbone own_networks:small\n" in err
        assert main([*command, "--backbone=os:getcwd"]) == 2
        assert "--backbone must be that of" in capsys.readouterr().err
    assert main(["strip", path]) == 2
    assert "own_networks:small; use export --onnx FILE instead" in capsys.readouterr().err
    assert "own_networks" not in sys.modules


def test_commands_import_what_the_user_names(own, tmp_path, capsys):
    path = tmp_path / "run"
    options = ["--backbone-options.width=12", "--ema-decay=0.9"]
    outcome = run("ce", own, *options, f"--output={path}")
    write_image(tmp_path / "photographs/a.png", size=(32, 32))
    capsys.readouterr()
    assert main(["evaluate", str(path), own, "--progress=false"]) == 0
    assert f"{outcome.history.last['accuracy']:.2%}" in capsys.readouterr().out
    assert main(["evaluate", str(path / "ema"), own, "--progress=false"]) == 0
    folders = [str(path), str(tmp_path / "photographs")]
    assert main(["predict", *folders, own, "--progress=false"]) == 0
    assert len(list((path / "predictions").glob("photographs-*.csv"))) == 1
    for maps in ([], ["--maps"]):
        file = tmp_path / f"net{len(maps)}.onnx"
        assert main(["export", str(path), f"--onnx={file}", own, *maps]) == 0
        assert file.is_file()


def test_a_name_is_not_for_a_run_with_timms_backbone(finished, own, capsys):
    assert main(["evaluate", str(finished["ce-0"]), own, "--progress=false"]) == 2
    assert "--backbone must be that of" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["resnet18", "hf_hub:timm/resnet18", "hf-hub:timm/x", "local-dir:/a/b", "a:b:c"]
)
def test_names_of_timm_are_not_functions(name):
    assert not is_factory(ModelOptions(backbone=name))
