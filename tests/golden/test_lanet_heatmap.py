import numpy as np
import pytest
import torch

from robustfer.functional import render_heatmaps
from tests.golden.conftest import assert_agrees, tensor

GOLDEN = "lanet_heatmap"


def render(case, dtype):
    size = case["heatmap"].shape[-1]
    return render_heatmaps(
        tensor(case["landmarks"]).to(dtype)[None],
        image_size=int(case.get("img_size", 4 * size)),
        heatmap_size=size,
        variant="official",
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_heat_maps(case, dtype):
    ours = render(case, dtype).heatmaps[0]
    assert_agrees(ours.float(), case["heatmap"])  # the golden maps are float32
    assert torch.equal(ours == 0, torch.as_tensor(case["heatmap"] == 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights(case, dtype):
    ours = render(case, dtype).weights[0].numpy()
    np.testing.assert_array_equal(ours, case["weight"])
