import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from robustfer.audit import find_duplicates
from robustfer.data import load


def drawn(count, seed=0, size=64):
    faces = load("demo", num_samples=count, seed=seed, size=size)
    return torch.stack([faces[row]["image"] for row in range(count)])


def cropped(image, top, left, bottom, right):
    height, width = image.shape[-2:]
    inner = image[None, :, top : height - bottom, left : width - right].float()
    resized = F.interpolate(inner, size=(height, width), mode="bilinear", antialias=True)
    return resized[0].round().clamp(0, 255).to(torch.uint8)


def brightened(image, factor, more=0):
    return (image.float() * factor + more).clamp(0, 255).to(torch.uint8)


def randomly_cropped(image, seed=0):
    """Up to a tenth of the side cut off at each side."""
    generator = torch.Generator().manual_seed(seed + int(image.sum()))
    most = image.shape[-1] // 10
    return cropped(image, *torch.randint(most + 1, (4,), generator=generator).tolist())


CHANGES = {
    "same": lambda image: image.clone(),
    "mirrored": lambda image: image.flip(-1),
    "brightened": lambda image: brightened(image, 1.15, 10),
    "partly white": lambda image: brightened(image, 1.3),
    "darkened": lambda image: brightened(image, 0.6),
    "partly black": lambda image: brightened(image, 1, -40),
    "another gamma": lambda image: (255 * (image / 255) ** 0.6).to(torch.uint8),
    "cropped": randomly_cropped,
    "mirrored and cropped": lambda image: randomly_cropped(image.flip(-1), seed=1),
    "cropped and partly white": lambda image: brightened(randomly_cropped(image, seed=2), 1.3),
}


def pairs_of(found):
    return set(zip(found.first.tolist(), found.second.tolist(), strict=True))


@pytest.mark.parametrize("kind", CHANGES)
def test_a_copy_is_found_and_no_other_pair(kind):
    faces = drawn(60)
    copies = torch.stack([CHANGES[kind](faces[row]) for row in range(0, 60, 6)])
    expected = {(row, 60 + place) for place, row in enumerate(range(0, 60, 6))}
    found = find_duplicates(torch.cat((faces, copies)))
    assert pairs_of(found) == expected
    assert (found.similarity >= 0.93).all()
    assert (found.similarity <= 1).all()
    assert found.similarity.tolist() == sorted(found.similarity.tolist(), reverse=True)
    across = find_duplicates(faces, against=copies)
    assert pairs_of(across) == {(row, place - 60) for row, place in expected}
    backwards = find_duplicates(copies, against=faces)
    assert pairs_of(backwards) == {(place - 60, row) for row, place in expected}


def test_data_sets_and_sizes_are_taken_as_they_are():
    faces = load("demo", num_samples=20, size=48)
    large = [F.interpolate(faces[row]["image"][None].float(), 96)[0].byte() for row in range(5)]
    found = find_duplicates(faces, against=large)
    assert pairs_of(found) == {(row, row) for row in range(5)}
    assert not len(find_duplicates(faces).first)


def test_images_that_show_nothing_are_no_duplicates():
    flat = torch.full((3, 3, 20, 20), 128, dtype=torch.uint8)
    assert not len(find_duplicates(flat).first)
    assert not len(find_duplicates(flat[:0]).first)


def test_only_a_low_threshold_finds_what_has_more_cut_off():
    faces = drawn(6)
    strong = torch.stack([cropped(face, 14, 14, 14, 14) for face in faces])
    assert not len(find_duplicates(faces, against=strong).first)
    found = find_duplicates(faces, against=strong, threshold=0.3)
    assert (found.similarity >= 0.3).all()
    assert len(found.first) > 6


def test_who_looks_alike_is_no_duplicate():
    """Nor is a face that is its own mirror image a copy of itself."""
    faces = drawn(40)
    even = torch.cat((faces[..., :32], faces[..., :32].flip(-1)), dim=-1)
    assert not len(find_duplicates(even).first)


MEMORY = """
import resource, sys, torch
from robustfer.audit import find_duplicates

class Images:
    def __len__(self):
        return 1200

    def __getitem__(self, row):
        generator = torch.Generator().manual_seed(row)
        return torch.randint(256, (1, 48, 48), generator=generator, dtype=torch.uint8)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

torch.set_num_threads(1)
find_duplicates([Images()[row] for row in range(400)])
before = peak()
find_duplicates(Images())
print((peak() - before) / 800)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak has another unit")
def test_a_large_data_set_fits_into_memory():
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    # Bytes per image, with the blocks of the work. As float32 it would be over 90 kB.
    assert float(run.stdout) < 70e3


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (torch.zeros(2, 3, 9, 9), {}, "images must be uint8 tensors .* got torch.float32"),
        ([None], {}, "images must be uint8 tensors .* got NoneType"),
        (torch.zeros(2, 2, 9, 9, dtype=torch.uint8), {}, "images must have 3 channels or 1"),
        (drawn(2), {"threshold": 0.0}, r"threshold must lie in \(0, 1\], got 0.0"),
    ],
)
def test_refuses(images, options, message):
    with pytest.raises(ValueError, match=message):
        find_duplicates(images, **options)


FERPLUS = os.environ.get("ROBUSTFER_FERPLUS")


@pytest.mark.skipif(not FERPLUS, reason="the shared faces are not here")
def test_planted_copies_of_real_faces():
    """Real faces have duplicates of their own: a wrong pair is one that joins strangers."""
    faces = load(f"ferplus:{Path(FERPLUS)}", duplicates="drop")
    originals = torch.stack([faces[row]["image"] for row in range(1000)])
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(1000, generator=generator)
    source, copies = list(range(1000)), []
    for number, change in enumerate(CHANGES.values()):
        for row in order.roll(-100 * number)[:100].tolist():
            copies.append(change(originals[row]))
            source.append(row)
    found = pairs_of(find_duplicates(torch.cat((originals, torch.stack(copies)))))
    same = {frozenset((source[one], source[other])) for one, other in found if other < 1000}
    for number, kind in enumerate(CHANGES):
        rows = range(1000 + 100 * number, 1100 + 100 * number)
        right = sum((source[row], row) in found for row in rows)
        wrong = [
            (one, other)
            for one, other in found
            if other in rows
            and source[one] != source[other]
            and frozenset((source[one], source[other])) not in same
        ]
        assert right >= 98, kind
        assert len(wrong) <= 0.01 * right, kind
