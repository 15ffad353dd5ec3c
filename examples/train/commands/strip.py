"""Write a trained network's weights for plain timm, after a check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from safetensors.torch import save

from examples.train.commands.outputs import check_file
from examples.train.files import write_whole
from examples.train.options import Refused
from examples.train.trained import Trained, load_trained, refuse_own_backbone
from robustfer.models import CAMClassifier, strip_for_inference

WEIGHTS = "timm.safetensors"


@dataclass(frozen=True)
class Options:
    """strip

    Args:
        run: folder of a finished run
        output: file to write, named *.safetensors; default: RUN/timm.safetensors
    """

    run: str
    output: str | None = None


def run(options: Options) -> None:
    """Write the weights, and print how timm loads them."""
    refuse_own_backbone(options.run, "strip", "use export --onnx FILE instead")
    trained = load_trained(options.run)
    path = Path(options.output or trained.path / WEIGHTS).expanduser()
    if path.is_dir() or path.suffix != ".safetensors":
        raise Refused(f"--output must be a file named *.safetensors, got {path}")
    check_file("--output", path, trained.path)
    if trained.classifier.head_kind == "replaced":
        raise Refused(
            f"plain timm cannot load this network: the head of {trained.settings['backbone']} was "
            "replaced, because it has no class maps; use export --onnx FILE instead"
        )
    content = stripped(trained)
    write_whole(path, content)
    views = trained.views.normalize
    print(f"weights written to {path}; load them with")
    print(f"timm.create_model({', '.join(call(trained, path))})")
    print(f"images: {trained.views.size}, mean {views.mean}, std {views.std}")
    print(f"classes: {', '.join(trained.classes)}")


def stripped(trained: Trained) -> bytes:
    """Return the content of a safetensors file, after loading it with timm.

    Raises:
        Refused: the network that timm loads has other logits.
    """
    network = strip_for_inference(trained.classifier)
    tensors = {name: value.clone().contiguous() for name, value in network.state_dict().items()}
    content: bytes = save(tensors, {"format": "pt", **trained.metadata()})
    images = torch.randn(2, 3, *trained.views.size, generator=torch.Generator().manual_seed(0))
    name, options = timm_model(trained.classifier)
    with TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder, WEIGHTS)
        path.write_bytes(content)
        again = timm.create_model(
            name, num_classes=len(trained.classes), checkpoint_path=path, **options
        )
        same = torch.equal(again.eval()(images), network(images))
    if not same:
        raise Refused(
            f"timm {timm.__version__} loads another network for {name}, so nothing is written; "
            "use export --onnx FILE instead"
        )
    return content


def timm_model(classifier: CAMClassifier) -> tuple[str, dict[str, Any]]:
    """Return the timm name and the options of the network."""
    architecture = classifier.architecture
    assert architecture is not None  # a run's backbone is made by name
    return architecture["backbone"], architecture["model_options"]


def call(trained: Trained, path: Path) -> list[str]:
    """Return the arguments of timm.create_model, as Python code."""
    name, options = timm_model(trained.classifier)
    given = {"num_classes": len(trained.classes), **options, "checkpoint_path": str(path)}
    return [repr(name), *(f"{key}={value!r}" for key, value in given.items())]
