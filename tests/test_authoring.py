"""What a plugin's loss is written with."""

import pytest
import torch

from robustfer import authoring


def test_authors_may_check_what_the_core_checks():
    with pytest.raises(ValueError, match="prior must be finite, got 1 NaN or infinite of 2"):
        authoring.check_finite(prior=torch.tensor([0.5, torch.nan]))
    with pytest.raises(ValueError, match="rows of prior must be probabilities that sum to 1"):
        authoring.check_distribution(prior=torch.tensor([[0.5, 0.6]]))
    with pytest.raises(ValueError, match="variant must be 'paper' or 'official', got 'mine'"):
        authoring.check_variant("mine")


def test_all_that_is_offered_is_there():
    assert sorted(authoring.__all__) == authoring.__all__
    assert all(hasattr(authoring, name) for name in authoring.__all__)
