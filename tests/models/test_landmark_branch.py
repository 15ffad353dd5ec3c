import pytest
import timm
import torch
from torch import nn

from robustfer.losses import LandmarkAdaptiveWingLoss
from robustfer.models import LandmarkBranch
from robustfer.models.landmark_branch import LandmarkHead


def test_is_the_equation():
    torch.manual_seed(0)
    head = LandmarkHead([2, 3, 4], [2, 4, 8], num_landmarks=5, dim=6).double()
    unused, fine, coarse = (
        torch.randn(2, channels, side, side, dtype=torch.float64)
        for channels, side in ((2, 16), (3, 8), (4, 4))
    )
    up = nn.Upsample(scale_factor=2, mode="bilinear")

    def mixed(layer, maps):
        return torch.einsum("dc,bchw->bdhw", layer.weight[..., 0, 0], maps) + layer.bias.reshape(
            -1, 1, 1
        )

    merged = mixed(head.laterals[0], fine) + up(mixed(head.laterals[1], coarse))
    output = head([unused, fine, coarse])
    torch.testing.assert_close(output.heatmaps, mixed(head.heatmaps, merged))
    torch.testing.assert_close(output.embeddings, merged.mean((2, 3)))


def test_a_coarse_pyramid_is_enlarged_to_a_quarter():
    head = LandmarkHead([3, 3], [16, 16], num_landmarks=5)
    maps = torch.randn(2, 2, 3, 4, 3)
    assert head(list(maps)).heatmaps.shape == (2, 5, 16, 12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_head_has_the_dtype_and_device_of_the_pyramid(dtype):
    pyramid = timm.create_model("resnet10t", features_only=True)
    branch = LandmarkBranch(pyramid.to(dtype), num_landmarks=5)
    output = branch(torch.rand(2, 3, 64, 64, dtype=dtype))
    assert {output.heatmaps.dtype, output.embeddings.dtype} == {dtype}
    branch = LandmarkBranch(pyramid.to("meta"), num_landmarks=5)
    assert {parameter.device.type for parameter in branch.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet10t", {}),
        ("mobilenetv3_small_050", {}),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "depths": (1, 1), "embed_dim": 24,
                                          "num_heads": (1, 2), "out_indices": (0, 1)}),
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2, "out_indices": (0, 1)}),
    ],
)  # fmt: skip
def test_heat_maps_of_timm_networks(name, options):
    torch.manual_seed(0)
    branch = LandmarkBranch(name, num_landmarks=19, dim=8, model_options=options)
    images = torch.randn(2, 3, 64, 64)
    output = branch(images)
    assert output.heatmaps.shape == (2, 19, 16, 16)
    assert output.embeddings.shape == (2, 8)
    criterion = LandmarkAdaptiveWingLoss(image_size=64)
    loss = criterion(output.heatmaps, 63 * torch.rand(2, 19, 2)) + output.embeddings.sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in branch.head.parameters())
    reached = [parameter.grad is not None for parameter in branch.pyramid.parameters()]
    assert sum(reached) > 0.9 * len(reached)


def test_learns_where_a_landmark_is():
    """A bright square on a dark image: after a few steps the map's peak stands on it."""
    torch.manual_seed(0)
    pyramid = timm.create_model("resnet10t", features_only=True, out_indices=(1, 2))
    branch = LandmarkBranch(pyramid, num_landmarks=1, dim=16)
    landmarks = torch.randint(2, 14, (8, 1, 2)) * 4.0 + 1.5  # the middle of a cell
    images = torch.zeros(8, 3, 64, 64)
    for image, (x, y) in zip(images, landmarks[:, 0].int().tolist(), strict=True):
        image[:, y - 2 : y + 4, x - 2 : x + 4] = 1.0
    criterion = LandmarkAdaptiveWingLoss(image_size=64)
    optimizer = torch.optim.Adam(branch.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        criterion(branch(images).heatmaps, landmarks).backward()
        optimizer.step()
    peaks = branch(images).heatmaps[:, 0].flatten(1).argmax(1)
    found = torch.stack([peaks % 16, peaks // 16], 1) * 4 + 1.5
    assert (found - landmarks[:, 0]).abs().amax(1).median() <= 4.0


def test_compiles_whole():
    head = LandmarkHead([3, 4], [4, 8], num_landmarks=5)
    maps = [torch.randn(2, 3, 8, 8), torch.randn(2, 4, 4, 4)]
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(maps).heatmaps, head(maps).heatmaps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_landmarks": 0}, "num_landmarks must be a whole number from 1 on, got 0"),
        ({"dim": 0}, "dim must be a whole number from 1 on, got 0"),
        ({"channels": [3]}, "channels and strides must have the same length"),
        ({"strides": [8, 4]}, r"increasing strides, got \[3, 4\] and \[8, 4\]"),
        ({"strides": [1, 2]}, r"strides must hold a stride of 4 or more, got \[1, 2\]"),
    ],
)
def test_refuses_options(change, message):
    with pytest.raises(ValueError, match=message):
        LandmarkHead(**{"channels": [3, 4], "strides": [4, 8], "num_landmarks": 5, **change})


def test_refuses_maps_that_do_not_fit():
    head = LandmarkHead([3, 4], [4, 8], num_landmarks=5)
    fine, coarse = torch.zeros(2, 3, 8, 8), torch.zeros(2, 4, 4, 4)
    with pytest.raises(ValueError, match="maps must hold 2 maps, got 1"):
        head([fine])
    with pytest.raises(ValueError, match=r"maps\[1\] must have shape \(B, 4, h1, w1\)"):
        head([fine, fine])
    with pytest.raises(ValueError, match=r"maps\[1\] has B=1 but maps\[0\] has B=2"):
        head([fine, coarse[:1]])


def test_refuses_networks():
    for network in (nn.Conv2d(3, 4, 1), nn.Flatten()):
        with pytest.raises(ValueError, match="made with features_only=True, or .* got (Conv|Flat)"):
            LandmarkBranch(network, num_landmarks=5)
    with pytest.raises(ValueError, match="model_options must not hold features_only"):
        LandmarkBranch("resnet10t", num_landmarks=5, model_options={"features_only": True})
    with pytest.raises(ValueError, match="got the built network Conv2d"):
        LandmarkBranch(nn.Conv2d(3, 4, 1), num_landmarks=5, pretrained=True)
