"""The precision that suits a device, and the word about one that does not."""

import pytest
import torch

from examples.train import devices, engine
from examples.train.devices import fast_precision, is_native
from tests.examples.train.runs import run

FEW = ("--epochs=1", "--max-steps=1")


@pytest.mark.parametrize("precision", ["32", "64"])
@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
def test_every_device_has_instructions_for_whole_precision(kind, precision):
    assert is_native(precision, kind)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_this_version_of_torch_can_be_asked(precision):
    assert hasattr(torch.ops.mkldnn, devices._CPU_QUESTIONS[precision])


def test_a_torch_that_cannot_be_asked_gets_float32(monkeypatch):
    monkeypatch.setitem(devices._CPU_QUESTIONS, "bf16-mixed", "no_such_question")
    assert fast_precision("cpu") == "32"


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_that_only_emulates_bf16_gets_float32(native, monkeypatch):
    def supported(including_emulation=True):
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert fast_precision("cuda") == ("bf16-mixed" if native else "32")
    assert is_native("16-mixed", "cuda")


@pytest.mark.parametrize("native", [True, False])
def test_a_slow_precision_is_named_with_the_one_to_choose(native, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(engine, "is_native", lambda precision, kind: native)
    run("ce", "--precision=bf16-mixed", *FEW, f"--output={tmp_path}/run")
    said = [line for line in capsys.readouterr().out.splitlines() if "is slow on this" in line]
    assert len(said) == (0 if native else 1)
    assert all("--precision bf16-mixed" in line and "choose 32" in line for line in said)
