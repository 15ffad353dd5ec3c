"""The public program's numbers, and what it does to a batch of one and to a product rounded down.

The stored data says what to expect: ``tops``, the size of its high group, tells where its group is
one short, and ``group_unique`` where which of equal samples falls into which group is arbitrary.
"""

import numpy as np
import pytest
import torch

from robustfer.functional import rank_regularization
from robustfer.functional.ranking import low_importance, weighted_logits
from robustfer.losses import SCNLoss
from robustfer.state import LabelStore, Relabeler
from tests.golden.conftest import assert_agrees, needs, tensor
from tests.reference import importance as reference

GOLDEN = "scn"


def options(case):
    return {"margin": float(case["margin_1"]), "high_ratio": float(case["beta"])}


def forward(case, dtype, variant="official"):
    z, u = tensor(case["z"], dtype, grad=True), tensor(case["u"], dtype, grad=True)
    importance = torch.sigmoid(z[:, 0])
    criterion = SCNLoss(**options(case), variant=variant)
    return z, u, importance, criterion.terms(u, tensor(case["y"]), importance)


@needs("z")
def test_values(case):
    _, u, importance, terms = forward(case, torch.float64)
    assert_agrees(importance[:, None], case["alpha"])
    assert_agrees(weighted_logits(u, importance), case["out"])
    assert_agrees(terms["weighted_cross_entropy"], case["ce"])
    assert_agrees(terms["rank_regularization"], case["rr"], scale=1.0)
    assert_agrees(sum(terms.values()), case["total"])


@needs("z")
def test_values_in_single_precision(case):
    _, _, _, terms = forward(case, torch.float32)
    assert_agrees(terms["weighted_cross_entropy"], case["ce_f32"])
    assert_agrees(terms["rank_regularization"], case["rr_f32"], scale=1.0)
    assert_agrees(sum(terms.values()), case["total_f32"])


@needs("z")
def test_gradients_of_the_total(case):
    z, u, _, terms = forward(case, torch.float64)
    sum(terms.values()).backward()
    assert_agrees(u.grad, case["dtotal_du"])
    if case["group_unique"]:
        assert_agrees(z.grad, case["dtotal_dz"])
    else:
        largest = float(abs(case["dtotal_dz"]).max())
        assert_agrees(z.grad.sum(), case["dtotal_dz"].sum(), scale=largest)


@needs("z")
def test_gradients_of_the_ranking(case):
    importance = tensor(case["alpha"][:, 0], grad=True)
    rank_regularization(importance, **options(case), variant="official").backward()
    golden = case["drr_dalpha"][:, 0]
    if case["group_unique"]:
        assert_agrees(importance.grad, golden)
    else:
        assert_agrees(importance.grad.sum(), golden.sum(), scale=1.0)


@needs("z")
def test_groups(case):
    importance = tensor(case["alpha"][:, 0])
    low = low_importance(importance, high_ratio=float(case["beta"]), variant="official")
    assert int((~low).sum()) == case["tops"]
    if case["group_unique"] and case["tops"]:
        assert low.nonzero()[:, 0].tolist() == sorted(case["low_idx"])
    # With equal importances the means are what is certain.
    assert_agrees(importance[low].mean(), case["low_mean"])


@needs("z")
def test_the_papers_form_is_half_of_it_where_the_public_program_has_no_defect(case):
    _, _, importance, terms = forward(case, torch.float64, variant="paper")
    ours = sum(terms.values())
    batch, ratio = len(case["y"]), float(case["beta"])
    expected = reference.rank_regularization(importance, float(case["margin_1"]), ratio)
    torch.testing.assert_close(2 * terms["rank_regularization"], expected)
    if case["tops"] == reference.group_size(batch, ratio) > 0:
        assert_agrees(2 * ours, case["total"])
    else:
        assert_agrees(2 * ours, case["ce"] + expected.item())


@needs("z")
@pytest.mark.parametrize("scope", ["all", "low_importance"])
def test_relabelling(case, scope):
    """The public program relabels any sample of a batch, the paper those of the low group."""
    u, alpha = tensor(case["u"]), tensor(case["alpha"][:, 0])
    labels = LabelStore(tensor(case["y"]), num_classes=u.shape[1])
    ratio = float(case["beta"])
    relabeler = Relabeler(
        labels, margin=float(case["margin_2"]), scope=scope, high_ratio=ratio, start_epoch=0
    )
    relabeler.update(torch.arange(len(u)), u, alpha, step=0, epoch=0)
    mask = case["relabel_mask"]
    if scope == "low_importance":
        low = low_importance(alpha, high_ratio=ratio).numpy()
        mask = mask & low
        if case["group_unique"] and case["tops"] == reference.group_size(len(u), ratio):
            np.testing.assert_array_equal(mask, case["relabel_mask_lowgroup"])
    np.testing.assert_array_equal(labels.changed(), mask)
    np.testing.assert_array_equal(labels()[mask], case["relabel_new"][mask])
    journal = labels.journal()
    np.testing.assert_allclose(journal["confidence"], case["pmax"][journal["index"]], rtol=1e-6)


@needs("n")
def test_group_sizes(case):
    for key in case.keys() - {"n"}:
        ratio = float(key.removeprefix("tops_beta"))
        for variant in ("paper", "official"):
            found = [
                batch
                - int(low_importance(torch.ones(batch), high_ratio=ratio, variant=variant).sum())
                for batch in case["n"].tolist()
            ]
            if variant == "official":
                np.testing.assert_array_equal(found, case[key])
            else:
                exact = [reference.group_size(batch, ratio) for batch in case["n"].tolist()]
                assert found == exact
                assert set(np.subtract(exact, case[key])) <= {0, 1}
