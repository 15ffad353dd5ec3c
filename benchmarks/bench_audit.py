"""Time the audit of a million labels, and the posterior of labels."""

import pytest
import torch

from robustfer.audit import audit
from robustfer.audit.scores import checked, label_posterior

CLASSES = 7


def draw(samples):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(samples, CLASSES, generator=generator).softmax(dim=1)
    given = torch.randint(CLASSES, (samples,), generator=generator)
    return given, rows, torch.randn(CLASSES, CLASSES, generator=generator).softmax(dim=1)


def literal(given, rows, transition):
    """Follow the equation, sample by sample."""
    wrong = []
    for label, row in zip(given.tolist(), rows, strict=True):
        joint = row * transition[:, label]
        wrong.append(1 - joint[label] / joint.sum())
    return torch.stack(wrong)


def plain(given, rows, transition):
    """Compute all samples at once, with several copies of the predictions."""
    joint = rows * transition.T[given]
    return 1 - joint.gather(1, given[:, None])[:, 0] / joint.sum(dim=1)


def ours(given, rows, transition):
    return label_posterior(*checked(given, rows), transition).wrong_probability


@pytest.mark.parametrize("form", [literal, plain, ours], ids=lambda form: form.__name__)
def test_posterior(compare, device, form):
    if device.type != "cpu":
        pytest.skip("an audit runs on the CPU")
    arguments = draw(10_000)
    torch.testing.assert_close(form(*arguments), plain(*arguments), rtol=1e-3, atol=1e-5)
    compare(
        lambda: form(*arguments),
        group="posterior of 10,000 labels",
        column=form.__name__,
        plain=lambda: plain(*arguments),
        min_rounds=5,
    )


def test_audit_of_a_million(compare, device):
    if device.type != "cpu":
        pytest.skip("an audit runs on the CPU")
    given, rows, transition = draw(1_000_000)
    compare(
        lambda: audit(given, rows, transition=transition),
        group="audit of 1,000,000 labels, 7 classes",
        column="ours",
        min_rounds=2,
    )
