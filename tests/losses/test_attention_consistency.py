import pytest
import torch

from robustfer.functional import attention_consistency
from robustfer.losses import AttentionConsistencyLoss


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_is_the_function(reduction):
    one, other = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    loss = AttentionConsistencyLoss(reduction=reduction)
    expected = attention_consistency(one, other, reduction=reduction)
    assert torch.equal(loss(one, other), expected)
    assert torch.equal(loss(attention=one, attention_flipped=other), expected)
    assert repr(loss) == f"AttentionConsistencyLoss(reduction={reduction!r})"


def test_refuses_an_unknown_reduction_at_construction():
    with pytest.raises(ValueError, match="reduction must be"):
        AttentionConsistencyLoss(reduction="average")
