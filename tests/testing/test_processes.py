import pytest
import torch
import torch.distributed as dist

from robustfer.testing._processes import run_as_processes


def in_each(work, **options):
    found = {}
    run_as_processes(lambda rank: found.update({rank: work(rank)}), **options)
    return found


def gather(tensor):
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor)
    return torch.stack(parts).tolist()


def gather_joined(tensor):
    joined = tensor.new_empty(2 * len(tensor))
    dist.all_gather_into_tensor(joined, tensor)
    return joined.tolist()


def gather_objects(value):
    parts = [None] * 2
    dist.all_gather_object(parts, value)
    return parts


def test_both_see_what_both_bring_in_rank_order():
    def work(rank):
        assert dist.is_initialized()
        assert dist.get_rank() == rank
        return (
            gather(torch.tensor([rank, 5])),
            gather_joined(torch.tensor([rank])),
            gather_objects("ab"[rank]),
        )

    expected = [[0, 5], [1, 5]], [0, 1], ["a", "b"]
    assert in_each(work) == {0: expected, 1: expected}
    assert not dist.is_initialized()


def test_they_write_into_tensors_of_their_own():
    mine = torch.zeros(2)

    def work(rank):
        parts = [torch.empty(2), torch.empty(2)]
        dist.all_gather(parts, mine)
        parts[0].add_(1.0)
        return parts[1].tolist()

    assert in_each(work) == {0: [0.0, 0.0], 1: [0.0, 0.0]}
    assert mine.tolist() == [0.0, 0.0]


def test_tensors_of_different_shape_are_refused():
    with pytest.raises(AssertionError, match=r"tensors of one shape, got \[\(1,\), \(2,\)\]"):
        run_as_processes(lambda rank: gather(torch.zeros(rank + 1)))


def test_what_would_hang_is_told():
    with pytest.raises(AssertionError, match="one process gathers, the other does not"):
        run_as_processes(lambda rank: rank or gather(torch.zeros(1)), patience=0.05)


def test_the_error_of_one_is_raised_and_not_that_of_the_one_that_waits():
    def work(rank):
        if rank:
            raise KeyError("lost")
        gather(torch.zeros(1))

    with pytest.raises(KeyError, match="lost"):
        run_as_processes(work)
