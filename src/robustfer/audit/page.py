"""Write the review page, one file that a person opens in a browser."""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from PIL import Image
from torch import Tensor

from robustfer._checks import check_whole_number
from robustfer._files import write_whole
from robustfer.audit.decisions import rows_in_file
from robustfer.audit.duplicates import Duplicates, Images, image_of
from robustfer.audit.ranking import Audit
from robustfer.noise import rows_to_verify

# Bytes of a file name that are not UTF-8.
_UNDECODED = re.compile("[\ud800-\udfff]")
_MOST_DUPLICATES, _MOST_LEAKS = 500, 100


def write_review(
    path: str | Path,
    result: Audit,
    images: Images,
    *,
    random: int = 100,
    stratified: bool = True,
    suspects: int = 500,
    duplicates: Duplicates | None = None,
    leaks: tuple[Images, Duplicates] | None = None,
    seed: int = 0,
    thumbnail: int = 96,
    title: str = "Review of labels",
) -> None:
    """Write a page on which people review the labels of an audit.

    The first part is a random draw of faces to label blind: the given label and the suggestion are
    hidden. Only these faces show how labels go wrong. Then come the most suspicious labels,
    duplicates with different labels, and an overview of the classes.

    The page is one file. It opens from the disk, contacts no server, and works with the keyboard.
    Decisions stay in the browser until they are downloaded as a csv file for
    :func:`robustfer.audit.read_decisions`.

    Args:
        path: the page to write. An existing file is replaced.
        result: the result of :func:`robustfer.audit.audit`.
        images: the audited data set, in the same order.
        random: number of faces to draw at random.
        stratified: draw equally many of each given label. This gives better estimates for rare
            classes and for the class shares.
        suspects: number of the most suspicious labels to show.
        duplicates: the result of :func:`robustfer.audit.find_duplicates` for these images. Pairs
            with different labels are shown, at most 500. The page says how many there are.
        leaks: another data set, and the duplicates found ``against`` it. At most 100 pairs are
            shown. The page says how many there are.
        seed: seed of the random draw.
        thumbnail: longer side of an image in the page, in pixels.
        title: heading of the page.

    Raises:
        TypeError: ``stratified`` is not a bool.
        OSError: the file cannot be written.
        ValueError: an option or the number of images does not fit, an image has another form, or a
            name cannot be written to a file of decisions.
    """
    size = len(result.given)
    if len(images) != size:
        raise ValueError(
            f"images must be those of the {size} audited samples, got {len(images)}; pass the same "
            "data set"
        )
    rows_in_file("ids", result.ids)
    rows_in_file("classes", result.classes)
    random = min(size, check_whole_number("random", random, 0))
    suspects = min(size, check_whole_number("suspects", suspects, 0))
    thumbnail = check_whole_number("thumbnail", thumbnail, 8, 1024)
    drawn = rows_to_verify(result.given, random, stratified=stratified, seed=seed).tolist()
    pictures: dict[int, str] = {}

    def face(row: int) -> dict[str, object]:
        return _face(result, images, row, thumbnail, pictures)

    data = {
        "audit": result.fingerprint,
        "classes": result.classes,
        "drawn": "stratified" if stratified else "random",
        "random": list(map(face, drawn)),
        "suspects": list(map(face, result.ranking[:suspects].tolist())),
        "duplicates": [
            {**face(one), "twin": face(other), "similarity": round(alike, 4)}
            for one, other, alike in _contradicting(duplicates, result.given)
        ],
        # The page shows only the first of many pairs.
        "totals": {
            "duplicates": 0 if duplicates is None else int(_differ(duplicates, result.given).sum()),
            "leaks": 0 if leaks is None else len(leaks[1].first),
        },
        "leaks": [] if leaks is None else _leaks(leaks, face, thumbnail),
        "table": [vars(row) for row in result.table],
    }
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    text = environment.get_template("review.html").render(data=data, title=title)
    content = text.encode("utf-8", "replace")
    write_whole(Path(path), lambda file: file.write(content))


def _contradicting(
    duplicates: Duplicates | None, given: Tensor
) -> Iterator[tuple[int, int, float]]:
    """Yield pairs with different labels, most similar first."""
    if duplicates is None:
        return
    differ = _differ(duplicates, given)
    chosen = (column[differ][:_MOST_DUPLICATES].tolist() for column in duplicates)
    yield from zip(*chosen, strict=True)


def _differ(duplicates: Duplicates, given: Tensor) -> Tensor:
    return given[duplicates.first] != given[duplicates.second]


def _leaks(
    leaks: tuple[Images, Duplicates], face: Callable[[int], dict[str, object]], thumbnail: int
) -> list[dict[str, object]]:
    others, found = leaks
    names = getattr(others, "ids", None)
    pairs = []
    columns = found.first[:_MOST_LEAKS].tolist(), found.second[:_MOST_LEAKS].tolist()
    for row, other in zip(*columns, strict=True):
        name = str(other) if names is None else names[other]
        pairs.append(
            {**face(row), "twin": {"id": name, "image": _picture(others[other], thumbnail)}}
        )
    return pairs


def _face(
    result: Audit, images: Images, row: int, thumbnail: int, pictures: dict[int, str]
) -> dict[str, object]:
    if _UNDECODED.search(result.ids[row]):
        raise ValueError(
            f"the name {result.ids[row]!r} cannot be written to a file of decisions, which is "
            "UTF-8; rename it"
        )
    if row not in pictures:
        pictures[row] = _picture(images[row], thumbnail)
    face: dict[str, object] = {
        "id": result.ids[row],
        "image": pictures[row],
        "given": int(result.given[row]),
        "suggestion": int(result.suggestion[row]),
        "wrong": round(float(result.wrong_probability[row]), 4),
    }
    if result.neighbor_disagreement is not None:
        face["neighbors"] = round(float(result.neighbor_disagreement[row]), 4)
    return face


def _picture(sample: Any, thumbnail: int) -> str:
    picture = Image.fromarray(image_of(sample).permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((thumbnail, thumbnail))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
