import pytest
from torch import nn

from robustfer.testing import AugmentationConformance, failing_checks
from tests.testing.defective_augmentations import DEFECTS, SoundConformance, conformance_of

CHECKS = {name for name in dir(AugmentationConformance) if name.startswith("test_")}


class TestSound(SoundConformance):
    """Without a defect every check passes, or the table would show nothing."""


@pytest.mark.parametrize(
    ("augmentation", "expected"), DEFECTS, ids=[defect.__name__ for defect, _ in DEFECTS]
)
def test_a_planted_defect_is_caught(augmentation, expected):
    failures = failing_checks(conformance_of(augmentation))
    assert set(failures) == expected
    for error in failures.values():
        assert isinstance(error, AssertionError), "a check must say what is wrong"


def test_every_check_alone_catches_something():
    """Taken out, any check would let a defect of the table pass."""
    alone = {next(iter(checks)) for _, checks in DEFECTS if len(checks) == 1}
    assert alone == CHECKS


def test_several_views_must_come_as_a_tuple():
    class Conformance(AugmentationConformance):
        def make_augmentation(self):
            class GivesADict(nn.Module):
                def forward(self, images, *, generator=None):
                    return {"view": images}

            return GivesADict()

    with pytest.raises(AssertionError, match="a tensor or a tuple of tensors, got dict"):
        Conformance().test_batch_of_one()


def test_what_an_author_must_define_is_named():
    with pytest.raises(NotImplementedError, match=r"define make_augmentation\(self\)"):
        AugmentationConformance().test_batch_of_one()
