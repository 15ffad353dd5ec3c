"""The face network of the accuracy runs: weights read rightly, normalised without a change."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.face_backbone import (
    FaceBackbone,
    FaceRecognition,
    _stored_name,
    add_batch_norm,
    face_backbone,
    normalize_batches,
    read_weights,
)
from robustfer.models import CAMClassifier, LandmarkClassifier


def write_weights(folder, shapes):
    """Bytes 1, 2, 3 ... for every tensor, each scaled by 0.5 from -1."""
    entries = [
        {
            "name": name,
            "shape": shape,
            "dtype": "float32",
            "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0},
        }
        for name, shape in shapes.items()
    ]
    folder.mkdir()
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    (folder / "net.bin").write_bytes((np.arange(count) % 250 + 1).astype(np.uint8).tobytes())
    manifest = [{"paths": ["net.bin"], "weights": entries}]
    (folder / "net-weights_manifest.json").write_text(json.dumps(manifest))
    return folder


def random_backbone():
    torch.manual_seed(0)
    backbone = FaceBackbone().double().eval()
    with torch.no_grad():
        for name, value in backbone.named_parameters():
            if "norm" in name or name.startswith("stem.1."):
                value.uniform_(0.5, 1.5)
    return backbone


def test_values_are_scaled_in_the_manifests_order(tmp_path):
    folder = write_weights(tmp_path / "weights", {"first": [2, 2], "second": [3]})
    values = read_weights(folder)
    assert values["first"].tolist() == [[-0.5, 0.0], [0.5, 1.0]]
    assert values["second"].tolist() == [1.5, 2.0, 2.5]


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(ValueError, match=rf"{tmp_path}.*manifest"):
        face_backbone(tmp_path)


def test_a_missing_tensor_is_named(tmp_path):
    folder = write_weights(tmp_path / "weights", {"fc": [256, 128]})
    with pytest.raises(ValueError, match="conv32_down/conv/filters"):
        face_backbone(folder)


def test_other_weights_are_refused(tmp_path):
    shapes = {}
    for name, value in FaceRecognition().state_dict().items():
        shape = value.permute(2, 3, 1, 0) if value.ndim == 4 else value.t()
        shapes[_stored_name(name)] = list(shape.shape)
    folder = write_weights(tmp_path / "weights", shapes)
    with pytest.raises(ValueError, match="the known image must give .* got"):
        face_backbone(folder)


@pytest.mark.skipif(
    "ROBUSTFER_FACE_WEIGHTS" not in os.environ and "ROBUSTFER_GOLDEN_REQUIRED" not in os.environ,
    reason="ROBUSTFER_FACE_WEIGHTS names no folder of face weights",
)
def test_the_weights_give_the_numbers_they_are_known_by():
    face_backbone(Path(os.environ["ROBUSTFER_FACE_WEIGHTS"]))  # raises if they do not


def test_batch_normalisation_leaves_the_function_as_it_was():
    backbone = random_backbone()
    images = torch.rand(6, 3, 64, 64, dtype=torch.float64) - 0.5
    before = backbone(images)
    add_batch_norm(backbone)
    torch.testing.assert_close(backbone.eval()(images), before, rtol=1e-9, atol=1e-9)
    normalize_batches(backbone, images.split(4))
    assert not any(type(module).__name__ == "ChannelAffine" for module in backbone.modules())
    torch.testing.assert_close(backbone(images), before, rtol=1e-9, atol=1e-9)


def test_running_statistics_are_those_of_the_images():
    backbone = random_backbone()
    images = torch.rand(6, 3, 64, 64, dtype=torch.float64) - 0.5
    seen = backbone.stem[0](images)
    add_batch_norm(backbone)
    normalize_batches(backbone, images.split(4))
    mean = seen.mean(dim=(0, 2, 3))
    torch.testing.assert_close(backbone.stem[1].running_mean, mean)
    torch.testing.assert_close(backbone.stem[1].running_var, seen.var(dim=(0, 2, 3), correction=0))


@pytest.mark.parametrize(("size", "places"), [(96, 5), (112, 6)])
def test_maps_of_a_face(size, places):
    model = CAMClassifier(FaceBackbone(), num_classes=7).eval()
    output = model(torch.rand(2, 3, size, size) - 0.4)
    assert output.attention.shape == (2, 7, places, places)
    logits = output.attention.mean(dim=(2, 3)) + model.class_bias()
    torch.testing.assert_close(logits, output.logits)


def test_the_landmark_branch_goes_on_from_its_first_stage():
    backbone = FaceBackbone()
    add_batch_norm(backbone)
    model = LandmarkClassifier(CAMClassifier(backbone, num_classes=7), num_landmarks=5).eval()
    output = model(torch.rand(2, 3, 96, 96) - 0.4)
    assert output.attention.shape == (2, 7, 5, 5)
    assert output.heatmaps.shape == (2, 5, 22, 22)
