"""--deterministic: only algorithms that repeat, for every method, and only while it trains."""

import pytest
import torch

from examples.train.devices import deterministic
from examples.train.engine import Training
from examples.train.options import Refused
from tests.examples.train.runs import METHOD_OPTIONS, run, settings_of


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_every_method_trains_with_it(method, tmp_path, monkeypatch):
    seen = []
    step = Training._step

    def remember(self, batch):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return step(self, batch)

    monkeypatch.setattr(Training, "_step", remember)
    few = ["--epochs=1", "--max-steps=1", f"--output={tmp_path}/run"]
    run(method, "--deterministic", *few)
    assert seen == [True]
    assert not torch.are_deterministic_algorithms_enabled()


def test_it_does_not_decide_what_is_computed():
    assert settings_of("ce", "--deterministic").name() == settings_of("ce").name()


def test_an_operation_without_such_an_algorithm_is_named():
    message = "put_with_cuda_kernel does not have a deterministic implementation, but you set it."
    with pytest.raises(Refused) as caught, deterministic(True):
        raise RuntimeError(message)
    for fact in ("--deterministic", "put_with_cuda_kernel", "remove it"):
        assert fact in str(caught.value)
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match="out of memory"), deterministic(True):
        raise RuntimeError("out of memory")
