from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.data import EXPRESSIONS, NUMBERINGS
from robustfer.data.classes import (
    EXPRESSIONS_WITH_CONTEMPT,
    class_name,
    class_order,
    classes_of,
    renumber,
)

orders = st.permutations(EXPRESSIONS)


def test_every_numbering_has_the_expressions():
    for codes in NUMBERINGS.values():
        assert sorted(codes.values()) in (sorted(EXPRESSIONS), sorted(EXPRESSIONS_WITH_CONTEMPT))
        assert list(codes) == list(range(min(codes), min(codes) + len(codes)))


def test_what_the_data_sets_say_of_themselves():
    assert class_order("rafdb") == EXPRESSIONS
    assert NUMBERINGS["rafdb"][7] == "neutral"
    assert [NUMBERINGS["affectnet"][code] for code in (0, 4, 7)] == ["neutral", "fear", "contempt"]
    assert [NUMBERINGS["ferplus"][code] for code in (0, 2, 7)] == [
        "neutral",
        "surprise",
        "contempt",
    ]
    assert [NUMBERINGS["fer2013"][code] for code in (0, 3, 6)] == ["anger", "happiness", "neutral"]
    with pytest.raises(TypeError):
        NUMBERINGS["rafdb"][1] = "fear"
    assert NUMBERINGS["lanet"] == NUMBERINGS["fer2013"]
    page = (Path(__file__).parents[2] / "docs" / "bring_your_own_data.md").read_text("utf-8")
    shown = [[cell.strip() for cell in line.split("|")] for line in page.splitlines()]
    for name in NUMBERINGS.keys() - {"lanet"}:
        codes = NUMBERINGS[name]
        assert ["", f"`{name}`", *(codes.get(code, "") for code in range(8)), ""] in shown


@pytest.mark.parametrize(
    ("word", "name"),
    [("Happy", "happiness"), (" joy ", "happiness"), ("SAD", "sadness"), ("scared", "fear")],
)
def test_synonyms(word, name):
    assert class_name(word) == name


def test_unknown_names():
    assert class_name("surprize") == "surprize"
    with pytest.raises(ValueError, match="classes must be 'rafdb', .* got 'raf'"):
        class_order("raf")
    with pytest.raises(ValueError, match="at least two names"):
        class_order(["sad"])
    with pytest.raises(ValueError, match="each class once, got 'happiness' twice"):
        class_order(["happy", "sad", "joy"])
    for unordered in ({"happy", "sad"}, [1, 2], None):
        with pytest.raises(TypeError, match="classes must be "):
            class_order(unordered)


def test_classes_of_names():
    assert classes_of(["Happy", "contempt"]) == EXPRESSIONS_WITH_CONTEMPT
    assert classes_of(["bored", "sad", "amused"]) == ("amused", "bored", "sadness")


@settings(deadline=None, max_examples=25)
@given(orders, orders, st.lists(st.integers(0, 6), min_size=1, max_size=9))
def test_renumbered_labels_name_the_same_class(source, target, labels):
    targets = torch.tensor(labels)
    moved = renumber(targets, source=source, target=target)
    assert [target[label] for label in moved] == [source[label] for label in targets]
    soft = torch.nn.functional.one_hot(targets, 7).double()
    assert torch.equal(renumber(soft, source=source, target=target).argmax(1), moved)
    assert torch.equal(renumber(moved, source=target, target=source), targets)


def test_labels_without_a_place():
    labels = torch.tensor([0, 7])
    assert renumber(labels[:1], source=EXPRESSIONS_WITH_CONTEMPT, target=EXPRESSIONS).tolist() == [
        0
    ]
    with pytest.raises(ValueError, match="labels contempt are not among"):
        renumber(labels, source=EXPRESSIONS_WITH_CONTEMPT, target=EXPRESSIONS)
    with pytest.raises(ValueError, match="targets must be labels of 7 classes, got 8"):
        renumber(labels, source=EXPRESSIONS, target=EXPRESSIONS)
