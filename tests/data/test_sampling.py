import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from torch import distributed
from torch.utils.data import DataLoader

from robustfer.data import DemoFaces, ProgressiveBalancedSampler
from robustfer.state import LabelStore

sizes_of_classes = st.lists(st.integers(0, 30), min_size=1, max_size=9).filter(any)


def labels_of(sizes):
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def sampler_of(sizes, epoch=0, max_epoch=10, **options):
    sampler = ProgressiveBalancedSampler(
        labels_of(sizes), num_classes=len(sizes), max_epoch=max_epoch, **options
    )
    sampler.set_epoch(epoch)
    return sampler


@settings(deadline=None, max_examples=50)
@given(sizes_of_classes, st.integers(0, 14))
def test_counts_by_the_equation(sizes, epoch):
    total, present = sum(sizes), sum(size > 0 for size in sizes)
    counts = sampler_of(sizes, epoch).class_counts()
    assert sum(counts) == total
    done = Fraction(min(epoch, 10), 10)
    last = max(number for number, size in enumerate(sizes) if size)
    for number, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        share = (1 - done) * size + done * total / present if size else 0
        if number != last and sum(counts[: number + 1]) < total:
            assert count == math.ceil(share)
        assert (count > 0) <= (size > 0)
        assert count >= share - present


@pytest.mark.parametrize("sizes", [[354, 412, 253, 136, 145, 406, 189], [49, 9], [3, 3, 3]])
def test_shares_that_are_whole_numbers_are_not_rounded_up(sizes):
    assert sampler_of(sizes).class_counts() == sizes
    assert sampler_of([300, 100, 200], epoch=5).class_counts() == [250, 150, 200]


@settings(deadline=None, max_examples=50)
@given(sizes_of_classes, st.integers(0, 12), st.integers(0, 3))
def test_an_epoch_has_the_counts_and_whole_copies(sizes, epoch, seed):
    sampler, labels = sampler_of(sizes, epoch, seed=seed), labels_of(sizes)
    drawn = torch.tensor(list(sampler))
    assert len(drawn) == len(sampler) == len(labels)
    counts = sampler.class_counts()
    times = drawn.bincount(minlength=len(labels))
    for number, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        of_class = times[labels == number]
        assert int(of_class.sum()) == count
        if size:
            assert int(of_class.min()) == count // size
            assert int(of_class.max()) == math.ceil(count / size)


def test_the_first_epoch_is_every_sample_once_and_the_last_every_class_alike():
    assert sorted(sampler_of([9, 1, 5])) == list(range(15))
    assert sampler_of([9, 1, 5], epoch=10).class_counts() == [5, 5, 5]
    assert sampler_of([9, 1, 5], epoch=99).class_counts() == [5, 5, 5]


def test_the_order_follows_from_seed_and_epoch():
    order = list(sampler_of([20, 20], 3))
    assert order == list(sampler_of([20, 20], 3))
    assert order != list(sampler_of([20, 20], 4))
    assert order != list(sampler_of([20, 20], 3, seed=1))
    assert order != sorted(order)
    assert list(sampler_of([20, 20], 3, seed=1)) != list(sampler_of([20, 20], 4, seed=0))


@settings(deadline=None, max_examples=25)
@given(sizes_of_classes, st.integers(0, 12), st.integers(1, 5))
def test_processes_share_the_order_of_one(sizes, epoch, processes):
    whole = list(sampler_of(sizes, epoch))
    parts = [sampler_of(sizes, epoch, num_replicas=processes, rank=r) for r in range(processes)]
    shares = [list(part) for part in parts]
    assert {len(share) for share in shares} == {len(parts[0])}
    joined = [index for step in zip(*shares, strict=True) for index in step]
    assert joined[: len(whole)] == whole
    assert len(joined) - len(whole) < processes
    assert set(joined[len(whole) :]) <= set(whole)


def test_the_processes_of_torch_distributed(monkeypatch):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(distributed, "get_rank", lambda: 2)
    sampler = sampler_of([6, 3])
    assert (sampler.num_replicas, sampler.rank, len(sampler)) == (3, 2, 3)


def test_processes_that_meet_after_it_was_made(monkeypatch):
    sampler, whole = sampler_of([6, 3]), list(sampler_of([6, 3]))
    assert (sampler.num_replicas, len(sampler)) == (1, 9)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    assert len(sampler) == 5
    assert list(sampler) == [*whole[1::2], whole[0]]
    assert (sampler.num_replicas, sampler.rank, sampler.total_size) == (2, 1, 10)


def _draw_under_lightning(fabric, sampler, folder):
    loader = fabric.setup_dataloaders(DataLoader(range(32), batch_size=4, sampler=sampler))
    drawn = torch.cat(list(loader)).tolist()
    (folder / f"{fabric.global_rank}.txt").write_text(" ".join(map(str, drawn)))


def labels_drawn(rows, sizes):
    return labels_of(sizes)[rows].bincount(minlength=len(sizes)).tolist()


def test_lightning_balances_over_processes_from_the_start(tmp_path):
    sampler = sampler_of([26, 6], max_epoch=0)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_fork")
    fabric.launch(_draw_under_lightning, sampler, tmp_path)
    first, second = (
        list(map(int, file.read_text().split())) for file in sorted(tmp_path.iterdir())
    )
    joined = [row for step in zip(first, second, strict=True) for row in step]
    assert joined == list(sampler_of([26, 6], max_epoch=0))
    assert labels_drawn(joined, [26, 6]) == [16, 16]


def test_lightning_takes_each_sample_once(tmp_path):
    sampler = sampler_of([20, 12])  # before its processes are there
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_fork")
    fabric.launch(_draw_under_lightning, sampler, tmp_path)
    drawn = [list(map(int, file.read_text().split())) for file in sorted(tmp_path.iterdir())]
    assert drawn == [list(sampler_of([20, 12], num_replicas=2, rank=rank)) for rank in (0, 1)]
    assert sorted(drawn[0] + drawn[1]) == list(range(32))


def drawn_by_all(loaders):
    return sorted(index for loader in loaders for batch in loader for index in batch.tolist())


@pytest.mark.parametrize("batch_size", [1, 4])
def test_accelerate_splits_the_order_of_one_process(batch_size):
    samplers = [sampler_of([20, 12], num_replicas=1, rank=0) for _ in range(2)]
    loaders = [
        prepare_data_loader(
            DataLoader(range(32), batch_size=batch_size, sampler=sampler),
            num_processes=2,
            process_index=rank,
            put_on_device=False,
        )
        for rank, sampler in enumerate(samplers)
    ]
    assert drawn_by_all(loaders) == list(range(32))
    for loader in loaders:
        loader.set_epoch(10)  # reaches the sampler: both classes alike
    drawn = torch.tensor(drawn_by_all(loaders))
    assert (drawn < 20).int().bincount().tolist() == [16, 16]


@pytest.mark.parametrize("workers", [0, 1])
def test_balances_by_the_labels_that_training_has_made(workers):
    faces = DemoFaces(num_samples=28, size=16)
    store = LabelStore(faces.targets, num_classes=7)
    sampler = ProgressiveBalancedSampler(store, num_classes=7, max_epoch=1)
    loader = DataLoader(
        faces, batch_size=7, sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )
    sampler.set_epoch(1)
    before = torch.cat([batch["index"] for batch in loader])
    assert store(before).bincount(minlength=7).tolist() == [4] * 7
    happy = (faces.targets == 3).nonzero()[:, 0]
    store.update(happy, torch.zeros(4, dtype=torch.int64), step=1, epoch=1)
    after = torch.cat([batch["index"] for batch in loader])
    # Six classes are left: 28 / 6 each, rounded up, and the rest for the last.
    assert store(after).bincount(minlength=7).tolist() == [5, 5, 5, 0, 5, 5, 3]
    assert set(happy.tolist()) & set(after.tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a whole number from 1 on, got 0"),
        ({"num_classes": 2}, "labels must hold class indices from 0 to 1, got 2"),
        ({"max_epoch": -1}, "max_epoch must be a whole number from 0 on, got -1"),
        ({"max_epoch": 5.0}, "max_epoch must be a whole number from 0 on, got 5.0"),
        ({"variant": "float"}, "variant must be 'paper' or 'official', got 'float'"),
        ({"seed": -1}, "seed must be a whole number from 0 to .*, got -1"),
        ({"num_replicas": 0}, "num_replicas must be a whole number from 1 on, got 0"),
        ({"num_replicas": 2, "rank": 2}, "rank must be a whole number from 0 to 1, got 2"),
        ({"labels": torch.eye(3)}, r"labels must have shape \(N\), got \(3, 3\)"),
        ({"labels": [True, False, True]}, "labels must hold whole numbers, got torch.bool"),
        ({"labels": torch.zeros(0, dtype=torch.int64)}, "labels is empty along N"),
    ],
)
def test_bad_arguments(options, message):
    arguments = {"labels": torch.tensor([0, 1, 2]), "num_classes": 3, "max_epoch": 5} | options
    with pytest.raises(ValueError, match=message):
        ProgressiveBalancedSampler(arguments.pop("labels"), **arguments)


def test_bad_epoch():
    with pytest.raises(ValueError, match="epoch must be a whole number from 0 on, got -1"):
        sampler_of([3, 3], epoch=-1)


@settings(deadline=None, max_examples=25)
@given(
    sizes_of_classes, st.integers(0, 12), st.integers(1, 5), st.sampled_from(["paper", "official"])
)
def test_without_a_start_every_epoch_is_balanced(sizes, epoch, processes, variant):
    options = {"max_epoch": 0, "variant": variant}
    always = sampler_of(sizes, epoch, **options)
    late = sampler_of(sizes, epoch + 10, max_epoch=10, variant=variant)
    assert always.class_counts() == late.class_counts()
    present = [count for count in always.class_counts() if count]
    assert max(present) - min(present) < len(sizes)
    # Each process draws its part of the one order, equally many, with equal counts up to padding.
    parts = [
        sampler_of(sizes, epoch, num_replicas=processes, rank=rank, **options)
        for rank in range(processes)
    ]
    shares = [list(part) for part in parts]
    joined = [index for step in zip(*shares, strict=True) for index in step]
    assert joined[: sum(sizes)] == list(always)
    assert labels_drawn(joined[: sum(sizes)], sizes) == always.class_counts()


@pytest.mark.parametrize("kind", [list, np.array, lambda rows: np.array(rows[::-1])[::-1]])
def test_labels_of_numpy_and_lists(kind):
    rows = [0, 1, 1, 2, 0, 0]
    options = {"num_classes": 3, "max_epoch": 2}
    wanted = list(ProgressiveBalancedSampler(torch.tensor(rows), **options))
    assert list(ProgressiveBalancedSampler(kind(rows), **options)) == wanted
    assert list(ProgressiveBalancedSampler(lambda: kind(rows), **options)) == wanted
    with pytest.raises(TypeError, match=r"labels must be a torch\.Tensor, a numpy array or a list"):
        ProgressiveBalancedSampler(["happy", "sad"], **options)
