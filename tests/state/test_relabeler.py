import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.losses import check_values
from robustfer.state import ChangeReason, LabelStore, Relabeler
from tests.reference import importance as reference
from tests.state.processes import run_in_processes

C = 4


def batch(seed, size=10, samples=30):
    generator = torch.Generator().manual_seed(seed)
    return {
        "index": torch.randperm(samples, generator=generator)[:size],
        "logits": 3 * torch.randn(size, C, generator=generator, dtype=torch.float64),
        "importance": torch.rand(size, generator=generator, dtype=torch.float64),
    }


def store(samples=30, **options):
    return LabelStore(torch.arange(samples) % C, num_classes=C, **options)


def by_hand(labels, given, epoch, *, margin, scope, weighting, high_ratio, cooldown, bias=None):
    """Row by row: the labels wanted, and how sure the network was."""
    index, scores, importance = given["index"], given["logits"], given["importance"]
    if weighting == "importance":
        scores = reference.weighted_logits(scores, importance, bias)
    size = reference.group_size(len(index), high_ratio)
    low = reference.groups(importance, size)[1]
    wanted = labels()
    confidence = {}
    for row, sample in enumerate(index.tolist()):
        weights = [math.exp(value) for value in scores[row].tolist()]
        probability = [value / sum(weights) for value in weights]
        best = max(range(C), key=probability.__getitem__)
        last = int(labels.changed_epoch(index[row : row + 1]))
        rested = last < 0 or epoch - last > cooldown
        if (
            rested
            and (scope == "all" or row in low)
            and probability[best] - probability[int(wanted[sample])] > margin
        ):
            wanted[sample] = best
            confidence[sample] = probability[best]
    return wanted, confidence


@pytest.mark.parametrize("scope", ["low_importance", "all"])
@pytest.mark.parametrize("weighting", ["importance", "none"])
@pytest.mark.parametrize("margin", [0.0, 0.2, 0.6])
def test_is_the_rule_row_by_row(scope, weighting, margin):
    options = {
        "margin": margin, "scope": scope, "weighting": weighting, "high_ratio": 0.6, "cooldown": 1,
    }  # fmt: skip
    labels, bias = store(), torch.tensor([0.5, -1.0, 0.0, 2.0]).double()
    relabeler = Relabeler(labels, start_epoch=0, **options)
    changes = 0
    for step in range(20):
        given, epoch = batch(step), step // 3
        wanted, confidence = by_hand(labels, given, epoch, bias=bias, **options)
        before = int(labels.counts()["journalled"])
        changed = relabeler.update(**given, step=step, epoch=epoch, bias=bias)
        assert torch.equal(labels(), wanted)
        assert changed == len(confidence)
        journal = {name: column[before:] for name, column in labels.journal().items()}
        assert set(journal["index"].tolist()) == set(confidence)
        assert set(journal["reason"].tolist()) <= {int(ChangeReason.RELABELLED)}
        for sample, sure in zip(journal["index"].tolist(), journal["confidence"], strict=True):
            assert sure == pytest.approx(confidence[sample], rel=1e-6)
        changes += changed
    assert changes > 10


def test_nothing_before_the_first_epoch():
    labels = store()
    relabeler = Relabeler(labels, scope="all", start_epoch=3)
    for epoch in range(3):
        assert relabeler.update(**batch(epoch), step=epoch, epoch=epoch) == 0
    assert relabeler.update(**batch(3), step=3, epoch=3) > 0
    assert set(labels.journal()["epoch"].tolist()) == {3}


def test_the_margin_is_strict():
    """Two classes of one half and a margin of zero: no reason to change."""
    labels = LabelStore(torch.tensor([0]), num_classes=2)
    relabeler = Relabeler(labels, scope="all", margin=0.0, start_epoch=0)
    given = {"index": torch.tensor([0]), "importance": torch.ones(1)}
    assert relabeler.update(**given, logits=torch.zeros(1, 2), step=0, epoch=0) == 0
    assert relabeler.update(**given, logits=torch.tensor([[0.0, 1e-3]]), step=0, epoch=0) == 1


@pytest.mark.parametrize(
    ("cooldown", "epochs"), [(0, [0, 1, 2, 3, 4, 5]), (1, [0, 2, 4]), (3, [0, 4])]
)
@pytest.mark.parametrize("soft", [False, True])
def test_a_wavering_network_takes_a_label_back_no_sooner_than_the_cool_down(cooldown, epochs, soft):
    labels = LabelStore(torch.tensor([0]), num_classes=2, soft_targets=soft)
    relabeler = Relabeler(labels, scope="all", start_epoch=0, cooldown=cooldown)
    first, changes = torch.tensor([0]), []
    for epoch in range(6):
        time = {"step": epoch, "epoch": epoch}
        against = int(labels()) == 0
        if soft:
            # Soft targets that move around the same label do not start the cooldown.
            row = torch.tensor([[0.9 - epoch / 16, 0.1 + epoch / 16]])
            assert labels.update(first, row if against else row.flip(1), **time) == 1
        logits = torch.tensor([[0.0, 5.0]] if against else [[5.0, 0.0]])
        changes += [epoch] * relabeler.update(first, logits, torch.ones(1), **time)
        figures = relabeler.figures(epoch=epoch)
        back = len(changes) % 2 == 0 < len(changes)
        assert (figures["changed"], figures["changed_back"]) == (len(changes) % 2, back)
    assert changes == epochs


def test_changes_can_be_undone():
    labels = store()
    relabeler = Relabeler(labels, scope="all", start_epoch=0)
    for epoch in range(4):
        relabeler.update(**batch(epoch), step=epoch, epoch=epoch)
        if epoch == 1:
            after = labels()
    labels.revert_to_epoch(1)
    assert torch.equal(labels(), after)
    labels.revert()
    assert torch.equal(labels(), labels.given())


@pytest.mark.parametrize("soft", [False, True])
def test_labels_that_a_person_decided_stay(soft):
    labels = LabelStore(torch.tensor([0, 1, 2, 3]), num_classes=C, soft_targets=soft)
    index = torch.tensor([0, 1, 2])
    # The person confirms row 0, changes row 1, and calls row 2 ambiguous.
    found = SimpleNamespace(index=index, label=torch.tensor([0, 2, -1]), given=index)
    labels.apply_decisions(found)
    resumed = LabelStore(torch.tensor([0, 1, 2, 3]), num_classes=C, soft_targets=soft)
    resumed.load_state_dict(labels.state_dict())
    logits = torch.tensor([[0.0, 0.0, 0.0, 9.0]]).expand(4, -1)
    for each in (labels, resumed):
        relabeler = Relabeler(each, scope="all", weighting="none", start_epoch=10)
        assert relabeler.update(torch.arange(4), logits, step=500, epoch=10) == 1
        assert each().tolist() == [0, 2, 3, 3]
        each.revert(index)
        assert relabeler.update(torch.arange(4), logits, step=900, epoch=20) == 3


def test_decided_labels_do_not_count_as_changes_of_the_relabeler():
    labels = LabelStore(torch.tensor([0, 1, 2, 0]), num_classes=C)
    truth = torch.tensor([3, 3, 3, 3])
    found = SimpleNamespace(index=torch.tensor([0, 1]), label=truth[:2], given=torch.tensor([0, 1]))
    labels.apply_decisions(found)
    relabeler = Relabeler(labels, scope="all", weighting="none", start_epoch=0)
    logits = torch.tensor([[0.0, 0.0, 0.0, 9.0]])
    assert relabeler.update(torch.tensor([2]), logits, step=0, epoch=0) == 1
    assert relabeler.figures(epoch=0, true_targets=truth) == {
        "changed": 1, "changed_back": 0, "changed_in_epoch": 1, "changed_back_in_epoch": 0,
        "precision": 1.0, "recall": 0.5,
    }  # fmt: skip


def test_labels_are_compared_with_what_they_are_now():
    labels = LabelStore(torch.tensor([0]), num_classes=3)
    relabeler = Relabeler(labels, scope="all", start_epoch=0, cooldown=0)
    sure = torch.tensor([[0.0, 5.0, 0.0]])
    for expected in (1, 0):
        changed = relabeler.update(torch.tensor([0]), sure, torch.ones(1), step=0, epoch=0)
        assert changed == expected


@pytest.mark.parametrize(
    ("size", "high_ratio", "changes"), [(1, 0.7, 0), (2, 0.7, 1), (3, 0.3, 0), (4, 0.3, 3)]
)
def test_without_a_high_group_nothing_is_relabelled(size, high_ratio, changes):
    labels = LabelStore(torch.zeros(size, dtype=torch.int64), num_classes=2)
    batch = torch.arange(size), torch.tensor([[0.0, 9.0]]).expand(size, -1), torch.ones(size)
    relabeler = Relabeler(labels, start_epoch=0, high_ratio=high_ratio)
    assert relabeler.update(*batch, step=0, epoch=0) == changes
    relabeler = Relabeler(labels, start_epoch=0, high_ratio=high_ratio, scope="all", cooldown=0)
    assert relabeler.update(*batch, step=1, epoch=1) == size - changes


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["logits", "importance"])
@pytest.mark.parametrize("options", [{}, {"weighting": "none"}, {"scope": "all"}])
def test_a_sample_that_is_not_finite_keeps_its_label(options, name, bad):
    """So sure a network would change every label but for the sample."""
    labels = LabelStore(torch.zeros(6, dtype=torch.int64), num_classes=C)
    given = {
        "index": torch.arange(6),
        "logits": torch.tensor([[0.0, 99.0, 0.0, 0.0]]).repeat(6, 1),
        "importance": torch.full((6,), 0.5),
    }
    given[name].view(6, -1)[2, 0] = bad
    relabeler = Relabeler(labels, start_epoch=0, high_ratio=0.2, **options)
    before = {key: tensor.clone() for key, tensor in given.items()}
    with check_values(), pytest.raises(ValueError, match=f"{name} must be finite, got 1 NaN"):
        relabeler.update(**given, step=0, epoch=0)
    assert not labels.changed().any()
    relabeler.update(**given, step=0, epoch=0)
    others = [0, 1, 3, 4, 5]
    if options != {"scope": "all"}:  # the most important of six, which a NaN counts for
        others = [1, 3, 4, 5] if name == "logits" else others
    assert labels.changed().nonzero()[:, 0].tolist() == others
    assert all(given[key].equal(tensor) or key == name for key, tensor in before.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": torch.tensor([0.0, float("nan"), 0.0, 0.0])}, "bias must be finite"),
        ({"index": torch.full((10,), 30)}, "index must hold rows from 0 to 29, got 30"),
        ({"importance": torch.full((10,), 1.5)}, r"importance .* must lie in \[0, 1\], got 1.5"),
    ],
)
@pytest.mark.parametrize("start_epoch", [0, 10])
def test_every_value_is_looked_at_when_asked_for(change, message, start_epoch):
    labels = store()
    with check_values(), pytest.raises((ValueError, IndexError), match=message):
        Relabeler(labels, start_epoch=start_epoch).update(**{**batch(0), **change}, step=0, epoch=0)
    assert not labels.changed().any()


def test_a_batch_of_no_rows_changes_nothing():
    for options in ({}, {"scope": "all", "weighting": "none"}):
        labels = store()
        none = {name: tensor[:0] for name, tensor in batch(0).items()}
        if options:
            del none["importance"]
        relabeler = Relabeler(labels, start_epoch=0, **options)
        assert relabeler.update(**none, step=0, epoch=0, bias=torch.zeros(C)) == 0
        assert labels.counts()["journalled"] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_decided_in_single(dtype):
    given = {name: t.to(dtype) if t.is_floating_point() else t for name, t in batch(0).items()}
    double = {n: t.double() if t.is_floating_point() else t for n, t in given.items()}
    stores = store(), store()
    for labels, arguments in zip(stores, (given, double), strict=True):
        Relabeler(labels, scope="all", start_epoch=0).update(**arguments, step=0, epoch=0)
    assert torch.equal(stores[0](), stores[1]())
    assert stores[0].changed().any()


def test_raw_logits_of_all_samples_need_no_importance():
    labels, given = store(), batch(0)
    del given["importance"]
    relabeler = Relabeler(labels, scope="all", weighting="none", start_epoch=0)
    assert relabeler.update(**given, step=0, epoch=0) > 0


def test_what_is_not_relabelled_keeps_its_soft_target():
    given = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.75, 0.0], [0.25, 0.25, 0.5]])
    labels = LabelStore(given, num_classes=3, soft_targets=True)
    relabeler = Relabeler(labels, scope="all", weighting="none", margin=0.8, start_epoch=0)
    index, logits = torch.arange(3), torch.zeros(3, 3)
    assert relabeler.update(index, logits, step=0, epoch=0) == 0
    assert torch.equal(labels.soft_target(), given)
    logits[1, 2] = 9.0
    assert relabeler.update(index, logits, step=1, epoch=1) == 1
    assert torch.equal(labels.soft_target()[1], torch.eye(3)[2])
    assert torch.equal(labels.soft_target()[[0, 2]], given[[0, 2]])
    assert labels.journal()["index"].tolist() == [1]


def test_a_store_of_soft_targets_gets_one_hot_rows():
    labels = store(soft_targets=True)
    Relabeler(labels, scope="all", start_epoch=0).update(**batch(0), step=0, epoch=0)
    rows = labels.soft_target()
    assert torch.equal(rows, torch.eye(C)[labels()])


# Figures


def test_figures_count_and_judge():
    given = torch.tensor([0, 0, 0, 0, 1, 1])
    truth = torch.tensor([1, 1, 0, 2, 1, -1])
    labels = LabelStore(given, num_classes=3)
    relabeler = Relabeler(labels)
    figures = relabeler.figures(epoch=0, true_targets=truth)
    assert math.isnan(figures.pop("precision"))  # of nothing
    assert figures == {
        "changed": 0, "changed_back": 0, "changed_in_epoch": 0, "changed_back_in_epoch": 0,
        "recall": 0.0,
    }  # fmt: skip

    def change(index, target, epoch):
        labels.update(torch.tensor(index), torch.tensor(target), step=epoch, epoch=epoch)

    change([0, 2, 4], [1, 1, 0], epoch=10)  # right, wrong, wrong
    change([2, 3, 5], [0, 1, 2], epoch=11)  # back again, wrong, nobody knows
    assert relabeler.figures(epoch=11, true_targets=truth) == {
        "changed": 4, "changed_back": 1, "changed_in_epoch": 2, "changed_back_in_epoch": 1,
        "precision": 1 / 3, "recall": 1 / 3,
    }  # fmt: skip
    assert relabeler.figures(epoch=10) == {
        "changed": 4, "changed_back": 1, "changed_in_epoch": 2, "changed_back_in_epoch": 0,
    }  # fmt: skip


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 2, st.integers(-1, 2)), min_size=1, max_size=12))
@settings(deadline=None, max_examples=40)
def test_precision_and_recall_are_shares_of_sets(rows):
    given, current, truth = (list(column) for column in zip(*rows, strict=True))
    labels = LabelStore(torch.tensor(given), num_classes=3)
    labels.update(torch.arange(len(rows)), torch.tensor(current), step=0, epoch=0)
    figures = Relabeler(labels).figures(epoch=0, true_targets=torch.tensor(truth))
    known = {n for n in range(len(rows)) if truth[n] >= 0}
    changed = {n for n in known if current[n] != given[n]}
    wrong = {n for n in known if given[n] != truth[n]}
    cured = {n for n in changed if current[n] == truth[n]}
    for name, whole in (("precision", changed), ("recall", wrong)):
        if whole:
            assert figures[name] == len(cured) / len(whole)
        else:
            assert math.isnan(figures[name])


# Several processes


# How many rows of ten process 0 has in each step; the rest is process 1's, none at times.
FIRST = (7, 10, 0, 3, 10, 7)


def parts(seed, rank):
    rows = slice(0, FIRST[seed]) if rank == 0 else slice(FIRST[seed], 10)
    return {name: tensor[rows] for name, tensor in batch(seed).items()}


def in_each_process(rank):
    labels = store()
    relabeler = Relabeler(labels, start_epoch=0)
    changed = [relabeler.update(**parts(seed, rank), step=seed, epoch=seed) for seed in range(6)]
    none = {name: tensor[:0] for name, tensor in batch(0).items()}
    assert relabeler.update(**none, step=6, epoch=6) == 0
    own = store()
    alone = Relabeler(own, start_epoch=0)
    changed_alone = alone.update(**parts(0, rank), step=0, epoch=0, gather=False)
    return changed, labels.state_dict(), changed_alone, own()


def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    results = run_in_processes(in_each_process, tmp_path)
    labels = store()
    relabeler = Relabeler(labels, start_epoch=0)
    changed = [relabeler.update(**batch(seed), step=seed, epoch=seed) for seed in range(6)]
    assert sum(changed) > 3
    expected = labels.state_dict()
    for rank, (counts, state, changed_alone, own) in enumerate(results):
        assert counts == changed
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, equal_nan=True, msg=name)
        single = store()
        update = Relabeler(single, start_epoch=0).update
        assert changed_alone == update(**parts(0, rank), step=0, epoch=0)
        assert torch.equal(own, single())


# Refusals


def bad_updates():
    good = batch(0)
    yield {"index": good["index"].int()}, "index must be int64"
    yield {"index": good["index"][:9]}, "index has B=9 but logits has B=10"
    yield {"logits": good["logits"][:, :3]}, r"logits must have shape \(B, 4\), got \(10, 3\)"
    yield {"logits": good["logits"].long()}, "logits must have a floating-point dtype"
    yield {"importance": good["importance"][:9]}, "importance has B=9 but logits has B=10"
    yield {"importance": None}, "importance must be a tensor for scope='low_importance'"
    yield {"bias": torch.zeros(3)}, "bias has C=3 but logits has C=4"
    yield {"step": -1}, "step must be a whole number from 0 to"
    yield {"epoch": 0.5}, "epoch must be a whole number from 0 to 32767, got 0.5"


@pytest.mark.parametrize("start_epoch", [0, 10])
@pytest.mark.parametrize(("change", "message"), list(bad_updates()))
def test_refuses_what_does_not_fit_and_changes_nothing(change, message, start_epoch):
    labels = store()
    arguments = {**batch(0), "step": 0, "epoch": 0, **change}
    with pytest.raises(ValueError, match=message):
        Relabeler(labels, start_epoch=start_epoch).update(**arguments)
    assert labels.counts()["journalled"] == 0


def test_refuses_a_row_outside_the_data_set():
    given = {**batch(0), "index": torch.full((10,), 30)}
    with pytest.raises(IndexError, match="index must hold rows from 0 to 29, got 30"):
        Relabeler(store(), start_epoch=0).update(**given, step=0, epoch=0)


@pytest.mark.parametrize("label", [-2, 4])
def test_refuses_a_truth_that_is_no_class(label):
    truth = torch.zeros(30, dtype=torch.int64)
    truth[3] = label
    with pytest.raises(ValueError, match=f"true_targets .* got {label} at position 3"):
        Relabeler(store()).figures(epoch=0, true_targets=truth)
    with pytest.raises(ValueError, match="epoch must be a whole number"):
        Relabeler(store()).figures(epoch=2**40)


def test_gather_is_no_word():
    with pytest.raises(TypeError, match="gather must be True or False, got 'off'"):
        Relabeler(store()).update(**batch(0), step=0, epoch=0, gather="off")


@pytest.mark.parametrize("truth", [torch.zeros(29, dtype=torch.int64), torch.zeros(30)])
def test_refuses_a_truth_of_other_samples(truth):
    with pytest.raises(ValueError, match=r"true_targets must be int64 of shape \(30\), got"):
        Relabeler(store()).figures(epoch=0, true_targets=truth)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 1.0}, r"margin must lie in \[0, 1\), got 1.0"),
        ({"scope": "low"}, "scope must be 'low_importance' or 'all', got 'low'"),
        ({"weighting": "scaled"}, "weighting must be 'importance' or 'none', got 'scaled'"),
        ({"high_ratio": 0.0}, r"high_ratio must lie in \(0, 1\), got 0.0"),
        ({"start_epoch": -1}, "start_epoch must be a whole number from 0 to 32767, got -1"),
        ({"cooldown": 0.5}, "cooldown must be a whole number from 0 to 32767, got 0.5"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        Relabeler(store(), **options)


def test_refuses_a_plain_tensor_for_a_store():
    with pytest.raises(TypeError, match="labels must be a LabelStore, got Tensor"):
        Relabeler(torch.zeros(3))


def test_shows_its_options():
    assert "scope='low_importance', weighting='importance'" in repr(Relabeler(store()))
