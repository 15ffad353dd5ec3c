"""Time the training program's loop against its bare step, and its views against others.

``plain`` is only the step: forward, backward and optimizer on prepared tensors. ``ours`` is the
whole loop over the same number of images: order, views, figures, schedule and step, with images in
memory. The views are compared with transforms per sample.
"""

import functools

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from examples.train.engine import Training
from examples.train.methods import METHODS
from examples.train.options import parse
from robustfer.data import DemoFaces

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = {"tiny, 48": ("tiny", 48, 64, 8), "resnet18, 112": ("resnet18", 112, 16, 2)}


@pytest.fixture(scope="module")
def folder_of_faces(tmp_path_factory):
    folders = {}

    def make(size, number):
        if size not in folders:
            folders[size] = tmp_path_factory.mktemp("faces")
            for split, count in (("train", number), ("test", 7)):
                faces = DemoFaces(count, split=split, size=size)
                for row in range(count):
                    path = folders[size] / split / faces.classes[faces.targets[row]] / f"{row}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(faces.load_image(row).permute(1, 2, 0).numpy()).save(path)
        return folders[size]

    return make


@pytest.fixture
def training(folder_of_faces, device, tmp_path):
    begun = []

    def begin(method, backbone, size, batch, steps, *data):
        data = data or [f"--data=folder:{folder_of_faces(size, batch * steps)}"]
        options = [
            *data, f"--backbone={backbone}", f"--batch-size={batch}", f"--device={device}",
            "--progress=false", "--epochs=10000", f"--output={tmp_path}/{len(begun)}",
        ]  # fmt: skip
        begun.append(Training(parse(method, METHODS[method].load().Options, options)))
        begun[-1].begin()
        return begun[-1]

    yield begin
    for one in begun:
        one.end()


@pytest.mark.parametrize("method", ["ce", "eac"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("column", ["plain", "ours"])
def test_loop(compare, training, method, shape, column):
    *sizes, steps = SHAPES[shape]
    made = training(method, *sizes, steps)
    batch = next(made._batches(1))
    if method == "ce":
        views = (made.method.views.single(batch),)
    else:
        views = made.method.views.pair(batch, mirror=False, erase="independent")

    def bare():
        for _ in range(steps):
            output, *flipped = [made.network(*views)] if method == "ce" else made.network(*views)
            inputs = [output.logits, batch.target]
            inputs += [] if method == "ce" else [output.attention, flipped[0].attention]
            loss = made.method.criterion(*inputs)
            made.optimizer.zero_grad()
            made.fabric.backward(loss)
            made.optimizer.step()

    def loop():
        made._train_epoch(1)

    call = bare if column == "plain" else loop
    group = f"training loop, {method}, {shape}"
    compare(call, group=group, column=column, plain=bare, min_rounds=5)


@pytest.mark.parametrize("column", ["plain", "ours"])
def test_lanet(compare, training, column):
    """Here ``plain`` is cross entropy and ``ours`` LA-Net. 0.4 means 2.5 times the time."""
    shape = SHAPES["tiny, 48"]
    faces = ["--data=demo", f"--reader.num_samples={shape[2] * shape[3]}"]  # these have landmarks
    faces += ["--evaluate-reader.num_samples=7"]
    calls = {
        column: functools.partial(training(method, *shape, *faces)._train_epoch, 1)
        for column, method in (("plain", "ce"), ("ours", "lanet"))
    }
    group = "training loop, lanet beside ce, tiny, 48"
    compare(calls[column], group=group, column=column, plain=calls["plain"], min_rounds=5)


class PerSample(Dataset):
    """Transform each image in the worker that loads it, as is usual."""

    def __init__(self, images):
        self.images = images
        self.transform = v2.Compose(
            [
                v2.RandomCrop(48, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
                v2.RandomErasing(0.5, (0.02, 0.25)),
            ]
        )

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.transform(self.images[row])


@pytest.mark.parametrize("column", ["plain", "ours"])
def test_views(compare, training, device, column):
    made = training("ce", *SHAPES["tiny, 48"])
    images = torch.stack([face["image"] for face in made.faces])

    def per_sample():
        for batch in DataLoader(PerSample(images), batch_size=64, shuffle=True):
            batch.to(device)

    def at_once():
        for batch in made._batches(1):
            made.method.views.single(batch)

    call = per_sample if column == "plain" else at_once
    compare(call, group="views of an epoch, 48", column=column, plain=per_sample)
