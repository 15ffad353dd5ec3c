"""Start accuracy runs from a backbone pre-trained on face recognition, as the papers do.

The network is dlib's residual network. Its weights are in the folder ``ROBUSTFER_FACE_WEIGHTS``: a
manifest and a file of 8-bit values, as face-api ships them. They are only for measuring, and are
not part of this repository.

    python -m examples.train ce --data ferplus:PATH --reader.size 96 \
        --backbone benchmarks.face_backbone:pretrained
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The network subtracts this mean colour from images in [0, 1], and does not scale them.
MEAN = (122.782 / 255, 117.001 / 255, 104.298 / 255)
STD = (1.0, 1.0, 1.0)

# The first values of the descriptor of a ramp from 0 to 1, from the notes of the weights.
_KNOWN = (-0.09223, 0.17873, 0.05286, -0.13123, -0.05601, 0.03924)

# Each stage: its output channels, the stride of its maps, and its blocks. The trained network also
# halves the maps in conv256_down, but at 96 pixels that would leave maps of 2x2.
_STAGES = (
    (32, 4, ("conv32_1", "conv32_2", "conv32_3")),
    (64, 8, ("conv64_down", "conv64_1", "conv64_2", "conv64_3")),
    (128, 16, ("conv128_down", "conv128_1", "conv128_2")),
    (256, 16, ("conv256_down", "conv256_1", "conv256_2")),
)
_HALVES = ("conv64_down", "conv128_down")

# Batches to compute means and variances from.
_BATCHES_SEEN = 8


class ChannelAffine(nn.Module):
    """Scale and shift each channel: a folded batch normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.weight[:, None, None] + self.bias[:, None, None]


class Block(nn.Module):
    """Two convolutions and a shortcut.

    A block that halves the maps does not pad its first convolution, and averages 2x2 cells in its
    shortcut. Missing channels, rows and columns are zeros.
    """

    def __init__(self, inputs: int, outputs: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        stride, padding = (2, 0) if down else (1, 1)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=padding)
        self.norm1: nn.Module = ChannelAffine(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2: nn.Module = ChannelAffine(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        out = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(maps)))))
        shortcut = F.avg_pool2d(maps, 2) if self.down else maps
        shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, out.shape[1] - shortcut.shape[1]))
        height, width = (max(out.shape[axis], shortcut.shape[axis]) for axis in (2, 3))
        return F.relu(_padded(out, height, width) + _padded(shortcut, height, width))


class FaceBackbone(nn.Module):
    """Compute maps (B, 256, H, W) of face images: 5x5 at 96 pixels, 6x6 at 112.

    Attributes have timm's names.

    Attributes:
        num_features: channels of the maps.
        pretrained_cfg: the images that it expects.
        feature_info: its stages. LA-Net's landmark branch uses them.
    """

    num_features = 256
    pretrained_cfg: ClassVar[dict[str, Any]] = {
        "mean": MEAN,
        "std": STD,
        "input_size": (3, 96, 96),
    }

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 7, stride=2), ChannelAffine(32), nn.ReLU(), nn.MaxPool2d(3, stride=2)
        )
        self.feature_info: list[dict[str, Any]] = []
        inputs = 32
        for number, (outputs, stride, names) in enumerate(_STAGES, 1):
            stage = nn.Sequential()
            for name in names:
                stage.add_module(name, Block(inputs, outputs, down=name in _HALVES))
                inputs = outputs
            self.add_module(f"stage{number}", stage)
            self.feature_info.append(
                {"num_chs": outputs, "reduction": stride, "module": f"stage{number}"}
            )

    def forward(self, images: Tensor) -> Tensor:
        for stage in self.children():
            images = stage(images)
        return images

    def prepare(self, batches: Iterable[Tensor]) -> None:
        """Compute statistics of some training faces, see :func:`normalize_batches`."""
        normalize_batches(self, islice(batches, _BATCHES_SEEN))


class FaceRecognition(nn.Module):
    """The backbone with the layers that give a face's 128 numbers, to check the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = FaceBackbone()
        self.conv256_down_out = Block(256, 256, down=True)
        self.fc = nn.Linear(256, 128, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        descriptor: Tensor = self.fc(self.conv256_down_out(self.backbone(images)).mean(dim=(2, 3)))
        return descriptor


def face_backbone(folder: Path) -> FaceBackbone:
    """Build the backbone with the weights of a folder.

    Raises:
        ValueError: a weight is missing, or the network's numbers for a known image are wrong.
    """
    values = read_weights(folder)
    model = FaceRecognition().eval()
    state = {}
    for name in model.state_dict():
        stored = _stored_name(name)
        if stored not in values:
            raise ValueError(f"{folder} has no tensor {stored}, which {name} needs")
        value = values[stored]
        # Kernels are stored as (height, width, in, out), the last layer as (in, out).
        state[name] = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.t()
    model.load_state_dict(state)
    image = torch.linspace(0, 1, 3 * 150 * 150).reshape(1, 3, 150, 150)
    with torch.no_grad():
        found = model(image - torch.tensor(MEAN)[:, None, None])[0, : len(_KNOWN)]
    if not torch.allclose(found, torch.tensor(_KNOWN), atol=2e-5):
        raise ValueError(
            f"{folder}: the known image must give {list(_KNOWN)}, got {found.tolist()}; use the "
            "weights of face-api"
        )
    return model.backbone


def read_weights(folder: Path) -> Mapping[str, Tensor]:
    """Read the tensors of a folder. 8-bit values are scaled, and others are float32."""
    manifests = sorted(folder.glob("*weights_manifest.json"))
    if len(manifests) != 1:
        raise ValueError(f"{folder} must have one *weights_manifest.json, got {len(manifests)}")
    values: dict[str, Tensor] = {}
    for group in json.loads(manifests[0].read_text()):
        raw = b"".join((folder / name).read_bytes() for name in group["paths"])
        start = 0
        for entry in group["weights"]:
            packed = entry.get("quantization")
            kind = np.dtype(np.uint8 if packed else "<f4")
            count = math.prod(entry["shape"])
            flat = np.frombuffer(raw, kind, count, start).astype(np.float32)
            start += count * kind.itemsize
            if packed:
                flat = flat * packed["scale"] + packed["min"]
            values[entry["name"]] = torch.from_numpy(flat.astype(np.float32)).reshape(
                entry["shape"]
            )
    return values


def pretrained(folder: str | None = None) -> FaceBackbone:
    """Build the backbone for training, with batch normalisation. ``prepare`` sets its statistics.

    Args:
        folder: folder of the weights. Default: ``ROBUSTFER_FACE_WEIGHTS``.

    Raises:
        ValueError: as for :func:`face_backbone`, or no folder is given.
    """
    folder = folder or os.environ.get("ROBUSTFER_FACE_WEIGHTS")
    if not folder:
        raise ValueError("folder is not given; set ROBUSTFER_FACE_WEIGHTS to that of the weights")
    backbone = face_backbone(Path(folder))
    add_batch_norm(backbone)
    return backbone


@torch.no_grad()
def add_batch_norm(backbone: nn.Module) -> None:
    """Replace each fixed scale by batch normalisation, without changing outputs in eval mode."""
    for owner, attribute, scale in list(_scales(backbone)):
        norm = nn.BatchNorm2d(len(scale.weight)).to(scale.weight)
        norm.running_var.fill_(1 - norm.eps)
        norm.weight.copy_(scale.weight)
        norm.bias.copy_(scale.bias)
        setattr(owner, attribute, norm)


@torch.no_grad()
def normalize_batches(backbone: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set batch normalisation to the statistics of images, without changing outputs in eval mode.

    Weight and bias compensate the new running means and variances.

    Args:
        backbone: a network with batch normalisation. It is changed in place, and left in eval mode.
        batches: normalised training faces, each (B, 3, H, W).
    """
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    sums = {norm: torch.zeros(2, norm.num_features, dtype=torch.float64) for norm in norms}
    counts = dict.fromkeys(norms, 0)

    def watch(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        maps = inputs[0].double()
        sums[norm] += torch.stack([maps.sum((0, 2, 3)), maps.square().sum((0, 2, 3))]).cpu()
        counts[norm] += maps.numel() // maps.shape[1]

    handles = [norm.register_forward_pre_hook(watch) for norm in norms]
    backbone.eval()
    for batch in batches:
        backbone(batch)
    for handle in handles:
        handle.remove()
    for norm in norms:
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        shift = norm.bias.double() - norm.running_mean.double() * scale
        mean, square = (sums[norm] / counts[norm]).to(scale)
        variance = square - mean.square()
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.bias.copy_(shift + scale * mean)


def _scales(backbone: nn.Module) -> Iterator[tuple[nn.Module, str, ChannelAffine]]:
    for owner in backbone.modules():
        for attribute, child in owner.named_children():
            if isinstance(child, ChannelAffine):
                yield owner, attribute, child


def _stored_name(name: str) -> str:
    """Translate a name of the state dict to the manifest's.

    ``stage1.conv32_1.norm2.bias`` is stored as ``conv32_1/conv2/scale/biases``.
    """
    if name == "fc.weight":
        return "fc"
    *path, layer, kind = name.split(".")
    in_stem = path[-1] == "stem"  # layer 0 is its convolution, layer 1 its scale
    if layer == "1" if in_stem else layer.startswith("norm"):
        part = "scale/weights" if kind == "weight" else "scale/biases"
    else:
        part = "conv/filters" if kind == "weight" else "conv/bias"
    return f"conv32_down/{part}" if in_stem else f"{path[-1]}/conv{layer[-1]}/{part}"


def _padded(maps: Tensor, height: int, width: int) -> Tensor:
    return F.pad(maps, (0, width - maps.shape[3], 0, height - maps.shape[2]))
