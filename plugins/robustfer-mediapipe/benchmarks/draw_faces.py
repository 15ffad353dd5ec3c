"""Draw robustfer's demo faces into a folder and write where their points are.

The one file here that needs robustfer: run it in robustfer's environment, and then ``accuracy.py``
in this package's. ``tests/drawn`` was made by::

    python draw_faces.py tests/drawn --faces 14 --size 128 --suffix .jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from robustfer.data import DemoFaces
from robustfer.landmarks import DatasetLandmarks

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path, help="written: the images and points.npz")
parser.add_argument("--faces", type=int, default=210, help="how many")
parser.add_argument("--size", type=int, default=192, help="side in pixels")
parser.add_argument("--suffix", choices=(".png", ".jpg"), default=".png")
options = parser.parse_args()

options.folder.mkdir(parents=True, exist_ok=True)
faces = DemoFaces(options.faces, split="test", size=options.size)
names = [name + options.suffix for name in faces.ids]
for row, name in enumerate(names):
    pixels = faces[row]["image"].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(options.folder / name, quality=90)
points, _ = DatasetLandmarks(faces)(faces.ids)
np.savez(options.folder / "points.npz", image=np.array(names), landmarks=points.numpy())
