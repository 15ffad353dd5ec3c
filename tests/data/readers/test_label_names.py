import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.data import EXPRESSIONS
from robustfer.data.classes import EXPRESSION_WORDS, EXPRESSIONS_WITH_CONTEMPT, class_name
from robustfer.data.readers.label_names import name_classes

LETTERS = string.ascii_lowercase


def one_letter_away(word):
    """All that a slip of the finger makes of a word."""
    places = range(len(word))
    yield from (word[:i] + word[i + 1 :] for i in places)
    yield from (word[:i] + letter + word[i + 1 :] for i in places for letter in LETTERS)
    yield from (word[:i] + letter + word[i:] for i in (*places, len(word)) for letter in LETTERS)
    yield from (word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in places[:-1])


def named(*labels, numbers=None, classes=None, **options):
    places = {label: f"line {number}" for number, label in enumerate(labels, start=2)}
    return name_classes(places, numbers=numbers, classes=classes, **options)


@pytest.mark.parametrize("word", EXPRESSION_WORDS)
def test_every_slip_in_a_word_is_named(word):
    for slip in sorted(set(one_letter_away(word)) - set(EXPRESSION_WORDS)):
        for written in (slip, slip.title(), f"3_{slip}"):
            with pytest.raises(ValueError, match=rf"line 3: label '{written}' .* did you mean '"):
                named("neutral", written)


@settings(deadline=None)
@given(st.sampled_from(EXPRESSION_WORDS), st.sampled_from(EXPRESSION_WORDS), st.booleans())
def test_every_spelling_of_a_word_is_the_same_class(word, other, upper):
    written = f" {word.upper() if upper else word.title()} "
    names, classes = named(written, other)
    assert names[written] == class_name(word)
    assert classes in (EXPRESSIONS, EXPRESSIONS_WITH_CONTEMPT)


@pytest.mark.parametrize(
    "labels",
    [
        ["bear", "cat", "dog", "unknown"],
        ["mad", "bored", "excited"],
        ["cherry", "toy", "boy", "ball"],
        ["confused", "happy", "sleepy"],
        ["content", "sad"],
        ["happily surprised", "sadly angry"],
    ],
)
def test_words_that_only_resemble_one_are_classes_of_their_own(labels):
    names, classes = named(*labels)
    assert set(names.values()) == set(classes)
    assert list(classes) == sorted(classes)


def test_a_class_that_is_named_needs_no_second_look():
    labels = ["mad", "sad", "nan", "Dog", "dog", "7"]
    names, classes = named(*labels, classes=labels)
    assert [names[label] for label in labels] == list(classes)
    assert classes == ("mad", "sadness", "nan", "Dog", "dog", "7")
    names, _ = named("none", "1", "2.0", numbers="classes", classes=["none", "dog", "cat"])
    assert names == {"none": "none", "1": "dog", "2.0": "cat"}


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["happy", ""], {}, "line 3: label is empty"),
        (["happy", "NaN"], {}, "line 3: label 'NaN' stands for a missing value"),
        (["happy", "n/a"], {}, "line 3: label 'n/a' stands for a missing value"),
        (["happy", "3"], {}, "line 3: label is the number '3', whose meaning differs"),
        (["happy", "inf"], {"numbers": "rafdb"}, "line 3: .* from 1 to 7, got 'inf'"),
        (["happy", "1e0"], {"numbers": "rafdb"}, "line 3: .* from 1 to 7, got '1e0'"),
        (["happy", "0"], {"numbers": "rafdb"}, "line 3: .* from 1 to 7, got '0'"),
        (
            ["7"],
            {"numbers": "affectnet", "classes": EXPRESSIONS},
            "line 2: label must be one of .* got '7'",
        ),
        (["sad", "Non-Face"], {}, "line 3: label 'Non-Face' is not an expression; leave these"),
        (["sad", "9_uncertain"], {}, "line 3: label '9_uncertain' is not an expression"),
        (["sad", "happy - Copy"], {}, "line 3: label 'happy - Copy' .* mean 'happy'"),
        (["sad", "angry_faces"], {}, "line 3: label 'angry_faces' .* mean 'angry'"),
        (["a", "A"], {}, "line 3: label 'A' is another spelling of 'a'"),
        (["a b", "a  b"], {}, "line 3: label 'a  b' is another spelling of 'a b'"),
        (["a"], {"numbers": "classes"}, "numbers='classes' needs names; pass .*classes="),
        (["a"], {"numbers": "fer"}, "numbers must be 'rafdb', "),
    ],
)
def test_labels_that_would_quietly_be_another_class(labels, options, message):
    with pytest.raises(ValueError, match=message):
        named(*labels, **options)
