"""Write a trained network as ONNX, after a check with onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from examples.train.commands.outputs import check_file
from examples.train.files import write_whole
from examples.train.options import Refused
from examples.train.trained import Trained, load_trained
from robustfer.models import CAMClassifier, strip_for_inference

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Options:
    """export

    Args:
        run: folder of a finished run
        onnx: file to write
        maps: add the class maps as a second output
        backbone: package.module:function of the run, if its backbone is a function of yours; the
            command imports it
    """

    run: str
    onnx: str | None = None
    maps: bool = False
    backbone: str | None = None


def run(options: Options) -> None:
    """Export the network, compare outputs, and write the file."""
    if options.onnx is None:
        raise Refused("export needs a file to write; add --onnx FILE, such as --onnx model.onnx")
    path = Path(options.onnx).expanduser()
    trained = load_trained(options.run, options.backbone)
    check_file("--onnx", path, trained.path)
    network: nn.Module = LogitsAndMaps(trained.classifier)
    if not options.maps:
        network = strip_for_inference(trained.classifier)
    content, error = exported(network.requires_grad_(False), trained, maps=options.maps)
    write_whole(path, content)
    outputs = "logits and class maps" if options.maps else "logits"
    height, width = trained.views.size
    print(
        f"{path}: images (batch, 3, {height}, {width}) float32, normalised -> {outputs}; "
        f"onnxruntime differs by {error:.1e} at most"
    )


class LogitsAndMaps(nn.Module):
    """Return the logits and the class maps of a classifier."""

    def __init__(self, classifier: CAMClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        output = self.classifier(images)
        return output.logits, output.attention


def exported(network: nn.Module, trained: Trained, *, maps: bool) -> tuple[bytes, float]:
    """Return the file's content and the largest difference of an output in several batches.

    Raises:
        Refused: a package for ONNX is not installed, or the outputs differ from the network's.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise Refused(f"export needs {error.name}: pip install 'robustfer[onnx]'") from error
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(n, 3, *trained.views.size, generator=generator) for n in (2, 1, 5)]
    names = ["logits", "maps"][: 1 + maps]
    with quiet():
        program = torch.onnx.export(
            network.eval(),
            (batches[0],),
            input_names=["images"],
            output_names=names,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65536)},),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, trained.metadata())
    content: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    largest = 0.0
    for images in batches:
        with torch.no_grad():
            expected = network(images)
        found = session.run(names, {"images": images.numpy()})
        for one, other in zip((expected,) if not maps else expected, found, strict=True):
            largest = max(largest, float((one - torch.from_numpy(other)).abs().max()))
    if not largest <= TOLERANCE:
        raise Refused(
            f"the outputs of onnxruntime {onnxruntime.__version__} differ by {largest:.1e}, more "
            f"than {TOLERANCE:.0e}; nothing is written; try another version of torch or onnxruntime"
        )
    return content, largest


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the warnings and logs of torch's exporter."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
