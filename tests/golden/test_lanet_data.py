"""LA-Net's label noise and its sampler.

The file has one more level than others: kind, name of the case, array. A test takes the cases that
have the arrays it needs.
"""

import numpy as np
import torch

from robustfer.data import ProgressiveBalancedSampler
from robustfer.data.classes import class_order
from robustfer.noise.matrices import LANET_CONFUSIONS, noise_matrix
from robustfer.noise.models import class_noise, symmetric_noise
from tests.golden.conftest import _file

NEEDS = {
    "test_confusion_map": ("asym", {"map"}),
    "test_symmetric_draws": ("sym", {"seed", "rate", "before", "after"}),
    "test_class_dependent_draws": ("asym", {"seed", "rate", "before", "after"}),
    "test_sampler_counts": ("sampler", {"class_sizes", "max_epoch", "counts"}),
    "test_sampler_occurrences": ("sampler", {"class_sizes", "max_epoch", "occurrence_min_max"}),
}


def pytest_generate_tests(metafunc):
    path = _file("lanet_data")
    if path is None:
        metafunc.parametrize("case", [None], ids=["missing"], indirect=True)
        return
    kind, needed = NEEDS[metafunc.function.__name__]
    groups = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            name, _, array = key.rpartition("/")
            if name.partition("/")[0] == kind:
                groups.setdefault(name, {})[array] = arrays[key]
    found = {name: group for name, group in groups.items() if needed <= group.keys()}
    metafunc.parametrize("case", list(found.values()), ids=list(found), indirect=True)


def labels_of(array):
    return torch.from_numpy(array.astype(np.int64))


def options_of(case):
    ids = [str(row) for row in range(len(case["before"]))]
    return ids, {"rate": float(case["rate"]), "seed": int(case["seed"]), "variant": "official"}


def test_confusion_map(case):
    ours = noise_matrix(LANET_CONFUSIONS, class_order("lanet"))
    assert ours.sum(1).tolist() == [1.0] * 7
    np.testing.assert_array_equal(ours.argmax(1).numpy(), case["map"])


def test_symmetric_draws(case):
    ids, options = options_of(case)
    noisy = symmetric_noise(labels_of(case["before"]), ids, num_classes=7, **options)
    assert torch.equal(noisy, labels_of(case["after"]))


def test_class_dependent_draws(case):
    ids, options = options_of(case)
    matrix = noise_matrix(LANET_CONFUSIONS, class_order("lanet"))
    noisy = class_noise(labels_of(case["before"]), ids, confusions=matrix, **options)
    assert torch.equal(noisy, labels_of(case["after"]))


def sampler_of(case):
    sizes = case["class_sizes"].tolist()
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    max_epoch = int(case["max_epoch"])
    sampler = ProgressiveBalancedSampler(
        labels, num_classes=len(sizes), max_epoch=max_epoch, variant="official"
    )
    return labels, sampler


def test_sampler_counts(case):
    _, sampler = sampler_of(case)
    for epoch, counts in enumerate(case["counts"].tolist()):
        sampler.set_epoch(epoch)
        assert sampler.class_counts() == counts


def test_sampler_occurrences(case):
    labels, sampler = sampler_of(case)
    for epoch, expected in enumerate(case["occurrence_min_max"].tolist()):
        sampler.set_epoch(epoch)
        times = torch.tensor(list(sampler)).bincount(minlength=len(labels))
        found = [times[labels == number] for number in range(len(expected))]
        assert [[int(t.min()), int(t.max())] for t in found] == expected
