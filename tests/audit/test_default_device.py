"""An audit stays on the CPU, whatever torch's default device is."""

import numpy as np
import torch

from robustfer.audit import audit, find_duplicates, write_review
from robustfer.noise import transition_from_verified


def test_made_under_another_default_device(tmp_path):
    images = torch.randint(256, (6, 3, 20, 20), dtype=torch.uint8)
    images[5] = images[1]
    rows = np.random.default_rng(0).dirichlet(np.ones(3), size=6)
    given = np.array([0, 1, 2, 0, 1, 2])
    with torch.device("meta"):
        result = audit(given, rows, embeddings=rows)
        found = find_duplicates(images)
        estimate = transition_from_verified(given, given, num_classes=3, given_counts=[2, 2, 2])
        verified = audit(given, rows, transition=estimate)
        write_review(tmp_path / "a.html", result, images, duplicates=found, stratified=True)
    assert found.second.tolist() == [5]
    for tensor in (
        result.ranking,
        result.neighbor_disagreement,
        estimate.shares_low,
        verified.score,
    ):
        assert tensor.device.type == "cpu"
