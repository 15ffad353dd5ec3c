"""Evaluate a finished run on a data set: figures on the terminal, as JSON, and two pictures."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from examples.train.commands.outputs import count_of_images, name_of
from examples.train.correction import correction
from examples.train.data import Images, read_faces_to_judge
from examples.train.evaluation import predict
from examples.train.judgement import Judgement, judge
from examples.train.options import DataOptions, NonNegativeInt, Refused
from examples.train.pictures import draw_confusion, draw_reliability, written
from examples.train.run_folder import write_text
from examples.train.trained import Trained, load_trained, split_of
from robustfer.data import LabeledFaces


@dataclass(frozen=True)
class Options:
    """evaluation

    Args:
        run: folder of a finished run
        data: demo, or KIND:PATH; default: the evaluation set of the run
        reader: options of its reader; default size of images: that of the run
        split: split of the data; default: that of the run, or test with --data; all for data
            without splits
        backbone: package.module:function of the run, if its backbone is a function of yours; the
            command imports it
        device: auto, cpu, cuda, cuda:1 or mps
        workers: processes that read image files
        decisions: file of a review of the training labels with robustfer audit, to correct the
            predictions; repeat for each reviewer
        output: folder for the figures and pictures; default: RUN/evaluation/DATA-SPLIT, and for
            other data or options of the reader DATA-SPLIT-FOLDER-HASH
        progress: show a progress bar
    """

    run: str
    data: str | None = None
    reader: dict[str, Any] = field(default_factory=dict)
    split: Literal["train", "validation", "test", "all"] | None = None
    backbone: str | None = None
    device: str = "auto"
    workers: NonNegativeInt = 0
    decisions: list[str] = field(default_factory=list)
    output: str | None = None
    progress: bool = True


def run(options: Options) -> None:
    """Evaluate, print the figures, and write them with their pictures."""
    trained = load_trained(options.run, options.backbone)
    chosen = data_options(trained, options)
    faces = _faces_for(trained, chosen)
    correct = correction(trained, options.decisions)
    kind, _, place = (chosen.evaluate_data or chosen.data).partition(":")
    split = split_of(chosen)
    name = kind if split == "all" else f"{kind}-{split}"
    name += "-corrected" if options.decisions else ""
    reader = {key: value for key, value in options.reader.items() if key != "split"}
    facts = (options.data is not None, sorted(reader.items()))
    default = f"{name}-{name_of(place, *facts)}" if any(facts) else name
    folder = Path(options.output or trained.path / "evaluation" / default).expanduser()
    if folder.exists() and not folder.is_dir():
        raise Refused(f"--output {folder} is a file, expected a folder; choose another name")
    fabric = trained.fabric(options.device)
    images = Images(
        faces, chosen, fabric.device, title="reading the images" if options.progress else None
    )
    logits = predict(fabric, trained.classifier.to(fabric.device), trained.views, images)
    found = judge(correct(logits.softmax(1)), faces.targets, faces.classes)
    title = f"{trained.title}: {name}, {count_of_images(len(faces))}"
    print(title, found.text(), sep="\n\n")
    write(folder, found, title)
    print(f"\nfigures and pictures written to {folder}")


def write(folder: Path, found: Judgement, title: str) -> None:
    """Write figures and pictures into a folder."""
    confusion = draw_confusion(found.confusion, found.classes, title=title)
    written(folder / "confusion.png", confusion)
    written(folder / "reliability.png", draw_reliability({"": found.reliability}, title=title))
    figures = {"title": title, **found.figures()}
    write_text(folder / "evaluation.json", json.dumps(figures, indent=1) + "\n")


def data_options(trained: Trained, options: Options) -> DataOptions:
    """Return which data the run is evaluated on: its own, or that of the options."""
    chosen = dataclasses.replace(trained.group(DataOptions), workers=options.workers)
    if options.data is not None:
        height, width = trained.views.size
        size = {"size": height} if height == width else {}
        chosen = dataclasses.replace(
            chosen, data=options.data, reader={}, evaluate_on="test",
            evaluate_data=None, evaluate_reader={**size, **options.reader},
        )  # fmt: skip
    elif options.reader:
        reader = {**chosen.evaluate_reader, **options.reader}
        chosen = dataclasses.replace(chosen, evaluate_reader=reader)
    if options.split is not None:
        reader = {**chosen.evaluate_reader, "split": options.split}
        chosen = dataclasses.replace(chosen, evaluate_reader=reader)
    return chosen


def _faces_for(trained: Trained, chosen: DataOptions) -> LabeledFaces:
    faces = read_faces_to_judge(chosen)
    if faces.classes != trained.classes:
        if sorted(faces.classes) != sorted(trained.classes):
            raise Refused(
                f"the data has the classes {', '.join(faces.classes)}, expected those of the run, "
                f"{', '.join(trained.classes)}; choose data with the same classes"
            )
        faces = faces.with_classes(trained.classes)
    size = tuple(faces[0]["image"].shape[1:])
    if size != trained.views.size:
        height, width = trained.views.size
        cure = f"add --reader.size {height}"
        if height != width:
            cure = (
                "--reader.size gives squares only, so resize the files to this height and width, "
                "or train again with --reader.size"
            )
        raise Refused(
            f"the images have {size[0]} x {size[1]} pixels, expected the run's {height} x {width}; "
            f"{cure}"
        )
    return faces
