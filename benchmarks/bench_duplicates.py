"""Time the search for duplicates among faces, which compares all pairs."""

import pytest
import torch

from robustfer.audit import find_duplicates

SIZES = {"1,000": 1_000, "4,000": 4_000}


@pytest.mark.parametrize("column", SIZES)
def test_find_duplicates(compare, device, column):
    if device.type != "cpu":
        pytest.skip("an audit runs on the CPU")
    generator = torch.Generator().manual_seed(0)
    # Blurred noise is as smooth as faces, and has no duplicates.
    coarse = torch.rand(SIZES[column], 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=48, mode="bicubic").clamp(0, 1)
    images = (255 * images).to(torch.uint8)
    compare(
        lambda: find_duplicates(images),
        group="duplicates among faces of 48 pixels",
        column=column,
        min_rounds=1,
    )
