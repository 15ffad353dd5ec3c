"""How well points agree with those of the mirrored or enlarged image, and with those of a file.

All distances are shares of the distance between the outer corners of the eyes::

    python draw_faces.py DRAWN                         # in robustfer's environment
    python accuracy.py DRAWN --file DRAWN/points.npz
    python accuracy.py FOLDER --images 300 --margin 0  # any folder of faces: no file is needed
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
from PIL import Image

from robustfer_mediapipe.ibug import PARTS, SWAP
from robustfer_mediapipe.images import find_images, read_image
from robustfer_mediapipe.mesh import FaceMesh


def mirrored_back(mesh, pixels):
    """Points found in the mirrored image, mirrored back."""
    points = mesh(np.ascontiguousarray(pixels[:, ::-1]))
    return None if points is None else (pixels.shape[1] - 1, 0) + points[SWAP] * (-1, 1)


def of_enlarged(mesh, pixels, factor):
    """Points found in the enlarged image, scaled back."""
    size = (pixels.shape[1] * factor, pixels.shape[0] * factor)
    points = mesh(np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)))
    return None if points is None else (points + 0.5) / factor - 0.5


def between_eyes(points):
    """Distance between the outer corners of the eyes."""
    return np.linalg.norm(points[..., 36, :] - points[..., 45, :], axis=-1)


def show(title, found, other):
    """Print the distances of points by part, and what they have in common, in pixels."""
    found, other = np.array(found), np.array(other)
    shares = np.linalg.norm(found - other, axis=-1) / between_eyes(other)[:, None]
    parts = "  ".join(f"{name} {shares[:, part].mean():.4f}" for name, part in PARTS.items())
    x, y = (found - other).mean(axis=(0, 1))
    print(f"{title}, {len(found)} faces: mean {shares.mean():.4f}  median {np.median(shares):.4f}")
    print(f"  {parts}")
    print(f"  mean of the differences: {x:+.2f} and {y:+.2f} pixels")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("--file", type=Path, help="npz with image and landmarks of the same names")
parser.add_argument("--images", type=int, help="take so many at random")
parser.add_argument("--enlarge", type=int, metavar="N", help="enlarge images N times, too")
parser.add_argument("--margin", type=float, default=0.25)
options = parser.parse_args()

names = find_images(options.folder)
if options.images:
    names = sorted(random.Random(0).sample(names, options.images))
mesh = FaceMesh(margin=options.margin)
images = {name: read_image(options.folder / name) for name in names}
found = {name: points for name in names if (points := mesh(images[name])) is not None}
print(f"faces found in {len(found)} of {len(names)} images ({len(found) / len(names):.1%})")


def compare(title, others):
    """Show the points found against others of the same images, where both are known."""
    both = [name for name in found if others.get(name) is not None]
    show(title, [found[name] for name in both], [others[name] for name in both])


compare("against the mirrored image", {n: mirrored_back(mesh, images[n]) for n in found})
if options.enlarge:
    enlarged = {name: of_enlarged(mesh, images[name], options.enlarge) for name in names}
    count = sum(points is not None for points in enlarged.values())
    print(f"enlarged, faces found in {count} of {len(names)} images ({count / len(names):.1%})")
    compare("against the enlarged image", enlarged)
if options.file:
    with np.load(options.file) as arrays:
        rows = zip(arrays["image"].tolist(), arrays["landmarks"].astype(float), strict=True)
        known = {name: points for name, points in rows if np.isfinite(points).all()}
    compare(f"against {options.file.name}", known)
