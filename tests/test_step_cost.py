"""The table of what a step of LA-Net costs is counted, not written."""

import re
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from examples.train.tables import markdown_table
from examples.train.weights import SMALL_BACKBONES
from robustfer.models import CAMClassifier, LandmarkClassifier, LANetModel

PAGE = Path(__file__).parents[1] / "docs" / "lanet.md"
IMAGES = 2
# Name on the page -> timm's name and options, side of the images, landmarks.
NETWORKS = {
    "`tiny`, 48 pixels": (*SMALL_BACKBONES["tiny"], 48, 68),
    "ResNet-18, 112 pixels": ("resnet18", {}, 112, 19),
}


def millions(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2 / IMAGES / 1e6


def cost(name, options, size, landmarks):
    """Millions of multiplications per image: cross entropy, LA-Net's trained part, its keys."""
    classifier = CAMClassifier(name, num_classes=7, model_options=options)
    images, index = torch.rand(IMAGES, 3, size, size), torch.arange(IMAGES)
    plain = millions(lambda: classifier(images).logits.sum().backward())
    model = LANetModel(LandmarkClassifier(classifier, num_landmarks=landmarks))

    def train():
        output = model(images, index=index)
        queries = output.expression_query, output.landmark_query
        trained = (output.logits, output.heatmaps, output.estimate, *queries)
        sum(each.sum() for each in trained).backward()

    with torch.no_grad():
        keys = millions(lambda: model(images))
    return plain, millions(train), keys


def table():
    rows = []
    for title, network in NETWORKS.items():
        plain, trained, keys = cost(*network)
        rows.append({
            "network": title,
            "cross entropy": f"{plain:.0f}",
            "LA-Net, classifier and branch": f"{trained:.0f}",
            "LA-Net, keys": f"{keys:.0f}",
            "LA-Net / cross entropy": f"{(trained + keys) / plain:.2f}",
        })  # fmt: skip
    return markdown_table(rows)


def test_the_table_is_that_of_the_networks():
    page = PAGE.read_text()
    shown = re.search(r"<!-- cost:start -->(.*)<!-- cost:end -->", page, flags=re.DOTALL)
    assert shown[1].strip() == table()
