"""Time reading a csv file of a million images, before the first image is read."""

import pytest
from PIL import Image

from robustfer.data import LabelTable

FOLDERS = IMAGES = 1000
WORDS = ("happy", "Sad", "angry", "fear", "disgust", "surprise", "neutral")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Write names of a million files with only a thousand files: folders link to the first."""
    root = tmp_path_factory.mktemp("faces")
    first = root / "0000"
    first.mkdir()
    names = [f"{number:04d}.png" for number in range(IMAGES)]
    for name in names:
        (first / name).touch()
    Image.new("RGB", (48, 48)).save(first / names[0])
    for number in range(1, FOLDERS):
        (root / f"{number:04d}").symlink_to(first)
    rows = (
        f"{folder:04d}/{name},{WORDS[row % len(WORDS)]}"
        for folder in range(FOLDERS)
        for row, name in enumerate(names)
    )
    path = root / "faces.csv"
    path.write_text("\n".join(["path,label", *rows]))
    return path


def test_label_table(benchmark, table):
    benchmark.group = f"label table of {FOLDERS * IMAGES:,} rows, cpu"
    benchmark.extra_info["column"] = "ours"
    faces = benchmark.pedantic(LabelTable, args=(table,), rounds=3, iterations=1)
    assert len(faces) == FOLDERS * IMAGES
