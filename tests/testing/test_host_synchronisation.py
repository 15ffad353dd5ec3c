import numpy as np
import pytest
import torch
import torch.nn.functional as F

from robustfer.testing._host_synchronisation import refused_host_synchronisation

VALUES = torch.tensor([3.0, 1.0, 2.0])
MASK = VALUES > 1
INDEX = torch.tensor([2, 0, 1])

WAITS = {
    "item": lambda: VALUES.sum().item(),
    "if": lambda: bool(MASK.any()),
    "float": lambda: float(VALUES[0]),
    "tolist": lambda: VALUES.tolist(),
    "cpu": lambda: VALUES.cpu(),
    "to": lambda: VALUES.to("cpu"),
    "to device": lambda: VALUES.to(device="cpu"),
    "numpy": lambda: VALUES.numpy(),
    "asarray": lambda: np.asarray(VALUES),
    "nonzero": lambda: MASK.nonzero(),
    "where": lambda: torch.where(MASK),
    "mask": lambda: VALUES[MASK],
    "masked_select": lambda: VALUES.masked_select(MASK),
    "assign by mask": lambda: VALUES.clone().__setitem__(MASK, VALUES[:2]),
    "unique": lambda: VALUES.unique(),
    "equal": lambda: torch.equal(VALUES, VALUES),
    "repeat_interleave": lambda: VALUES.repeat_interleave(INDEX),
    "one_hot": lambda: F.one_hot(INDEX),
    "backward": lambda: hooked().sum().backward(),
}

GOES_ON = {
    "where": lambda: torch.where(MASK, VALUES, 0.0),
    "index": lambda: VALUES[INDEX],
    "slice": lambda: VALUES[1:],
    "fill by mask": lambda: VALUES.clone().__setitem__(MASK, 0.0),
    "assign by index": lambda: VALUES.clone().__setitem__(INDEX, VALUES),
    "sort": lambda: VALUES.sort().values.topk(2).values,
    "one_hot": lambda: F.one_hot(INDEX, 4),
    "cross_entropy": lambda: F.cross_entropy(torch.eye(3), INDEX, label_smoothing=0.1),
    "to": lambda: VALUES.to(INDEX.device, torch.float64),
    "shape": lambda: VALUES.sum() / VALUES.numel() if len(VALUES) > 2 else VALUES,
}


def hooked():
    tensor = VALUES.clone().requires_grad_()
    tensor.register_hook(lambda gradient: gradient / gradient.norm().item())
    return tensor


@pytest.mark.parametrize("name", WAITS)
def test_refuses(name):
    with pytest.raises(AssertionError, match=r"wait|on a GPU"), refused_host_synchronisation():
        WAITS[name]()


@pytest.mark.parametrize("name", GOES_ON)
def test_lets_pass_and_gives_the_same(name):
    expected = GOES_ON[name]()
    with refused_host_synchronisation():
        result = GOES_ON[name]()
    assert result is None if expected is None else torch.equal(result, expected)


def test_ends_with_its_block():
    with refused_host_synchronisation():
        VALUES.sum()
    assert VALUES.sum().item() == 6.0
