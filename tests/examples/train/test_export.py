"""export and strip: other programs make the same logits of the same images."""

import json

import pytest
import timm
import torch
from safetensors import safe_open

from examples.train.__main__ import main
from examples.train.commands import export
from examples.train.commands.export import exported
from examples.train.options import Refused
from examples.train.trained import load_trained
from tests.examples.train.runs import run

VIT = ["--backbone=vit_tiny_patch16_224", "--max-steps=1", "--epochs=1"]
OPTIONS = "{img_size: 32, patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2"


@pytest.fixture(scope="module")
def norm_linear(tmp_path_factory):
    """A run whose network has a layer norm between pooling and classifier."""
    path = tmp_path_factory.mktemp("vit") / "run"
    run("ce", *VIT, f"--backbone-options={OPTIONS}, global_pool: avg}}", f"--output={path}")
    assert load_trained(str(path)).classifier.head_kind == "norm_linear"
    return path


def images_of(trained, number):
    return torch.randn(number, 3, *trained.views.size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("kind", "maps"), [("linear", []), ("norm_linear", ["--maps"])])
def test_onnxruntime_makes_the_same_outputs(kind, maps, finished, norm_linear, tmp_path, capsys):
    import onnx
    import onnxruntime

    folder = norm_linear if kind == "norm_linear" else finished["eac-0"]
    path = tmp_path / "model.onnx"
    assert main(["export", str(folder), f"--onnx={path}", *maps]) == 0
    shown = capsys.readouterr().out
    assert str(path) in shown
    assert ("class maps" in shown) == bool(maps)
    trained = load_trained(str(folder))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for number in (1, 7):
        images = images_of(trained, number)
        with torch.no_grad():
            expected = trained.classifier(images)
        found = session.run(None, {"images": images.numpy()})
        assert len(found) == 1 + len(maps)
        torch.testing.assert_close(torch.from_numpy(found[0]), expected.logits, rtol=0, atol=1e-4)
        if maps:
            torch.testing.assert_close(
                torch.from_numpy(found[1]), expected.attention, rtol=0, atol=1e-4
            )
    told = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(told["classes"]) == list(trained.classes)
    assert json.loads(told["mean"]) == pytest.approx(trained.settings["mean"])
    assert json.loads(told["std"]) == pytest.approx(trained.settings["std"])
    assert json.loads(told["image_size"]) == [32, 32]


@pytest.mark.parametrize("kind", ["linear", "norm_linear"])
def test_plain_timm_loads_the_stripped_weights(kind, finished, norm_linear, tmp_path, capsys):
    folder = norm_linear if kind == "norm_linear" else finished["ce-0"]
    path = tmp_path / "weights.safetensors"
    assert main(["strip", str(folder), f"--output={path}"]) == 0
    told = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("timm."))
    model = eval(told, {"timm": timm})  # as a user pastes it
    trained = load_trained(str(folder))
    images = images_of(trained, 3)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), trained.classifier(images).logits)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["classes"]) == list(trained.classes)


def test_a_head_that_timm_does_not_have_is_refused(tmp_path, capsys):
    run("ce", *VIT, f"--backbone-options={OPTIONS}}}", f"--output={tmp_path}/run")
    capsys.readouterr()
    assert main(["strip", f"{tmp_path}/run"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(fact in err for fact in ("vit_tiny_patch16_224", "export --onnx"))
    assert not (tmp_path / "run/timm.safetensors").exists()


def test_outputs_that_differ_are_refused(finished, monkeypatch):
    trained = load_trained(str(finished["ce-0"]))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(7))
    network(images_of(trained, 1))
    content, difference = exported(network, trained, maps=False)
    assert content
    assert difference < 1e-4
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(Refused, match="onnxruntime.*nothing is written"):
        exported(network, trained, maps=False)
