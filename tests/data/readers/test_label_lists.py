import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.data.readers.label_lists import (
    Entry,
    aligned_name,
    plain_name,
    read_label_list,
    write_label_list,
)


def written(tmp_path, text):
    path = tmp_path / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_separators(tmp_path):
    text = "\ufeffa.jpg 5\r\n\nb.jpg\t0\n/my faces/c.jpg 3\nd.jpg,2\n"
    assert read_label_list(written(tmp_path, text)) == [
        Entry(1, "a.jpg", 5),
        Entry(3, "b.jpg", 0),
        Entry(4, "/my faces/c.jpg", 3),
        Entry(5, "d.jpg", 2),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg 5\nb.jpg\n", r"list\.txt, line 2: must be a name and a whole number, .* 'b\.jpg'"),
        ("5\n", "line 1: must be a name"),
        ("a.jpg -1\n", "line 1: must be a name and a whole number"),
        ("a.jpg 1.5\n", "line 1: must be a name and a whole number"),
        ("", r"list\.txt is empty"),
        (
            "a.jpg 5\nb.jpg 6\n".encode("utf-16"),
            r"list\.txt, line 1: it is not text; save .* UTF-8",
        ),
        ("a.jpg5\n", "line 1: must be a name and a whole number, .* got 'a.jpg5'"),
        ("a.jpg 5,\n", "line 1: must be a name"),
        (", 5\n", "line 1: must be a name"),
        ("a.jpg \u0665\n", "line 1: must be a name"),
        ("b.jpg 1\na.jpg " + "9" * 30 + "\n", r"list\.txt, line 2: a label must .* got '9{30}'"),
        (
            "a.jpg " + "9" * 5000 + "\n",
            r"list\.txt, line 1: a label must .* got '9{59}\.\.\. \(5002",
        ),
        ("b.jpg 0\n. 5\n", r"list\.txt, line 2: '\.' is not the name of a file"),
        ("/ 5\n", r"line 1: '/' is not the name of a file"),
        ("\\ 5\n", r"line 1: '/' is not the name of a file"),
        ("_aligned.jpg 5\n", r"line 1: '_aligned\.jpg' is not the name of a file"),
    ],
)
def test_bad_lists(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_label_list(written(tmp_path, text))


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt does not exist"):
        read_label_list(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Doe, J 01.jpg 1", "Doe, J 01.jpg"),
        ("Doe, J 01.jpg,1", "Doe, J 01.jpg"),
        ("Doe, J 01.jpg\t , 1", "Doe, J 01.jpg"),
        ("a\tb.jpg\t1", "a\tb.jpg"),
        ("a b.jpg  \t 1", "a b.jpg"),
        ("img,,1", "img,"),
        ("12 1", "12"),
    ],
)
def test_the_number_is_the_last_word(tmp_path, line, name):
    assert read_label_list(written(tmp_path, line + "\n")) == [Entry(1, name, 1)]


def test_round_trip(tmp_path):
    rows = [("a b.jpg", 3), ("1/c.jpg", 0), ("Doe, J 01.jpg", 1), ("a\tb.jpg", 2), ("a\\b.jpg", 2),
            ("7", 7), (",a 3", 5), ("\N{SNOWMAN}.jpg", 6)]  # fmt: skip
    path = tmp_path / "new" / "list.txt"
    write_label_list(path, rows)
    assert [entry[1:] for entry in read_label_list(path)] == rows
    assert path.read_bytes().startswith(b"a b.jpg 3\n1/c.jpg 0\nDoe, J 01.jpg 1\n")


# Names that a disk may have, lone surrogates and all.
NAMES = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=6) | st.text(
    " ,\t\\/._a1\r\n\u2028\ufeff\udce9\ud800", min_size=1, max_size=6
)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(NAMES, st.integers(-1, 12)), min_size=1, max_size=3))
def test_what_is_written_can_be_read_or_nothing_is_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("lists") / "list.txt"
    refused = ""
    try:
        write_label_list(path, rows)
    except ValueError as error:
        refused = str(error)
    if refused:
        assert any(repr(name) in refused for name, _ in rows)
        assert list(path.parent.iterdir()) == []
    else:
        assert [entry[1:] for entry in read_label_list(path)] == rows


def test_names_that_are_not_utf_8(tmp_path):
    name = os.fsdecode(b"\xc0\xb6_0.png")
    path = tmp_path / "list.txt"
    write_label_list(path, [(name, 3)])
    assert path.read_bytes() == b"\xc0\xb6_0.png 3\n"
    assert read_label_list(path) == [Entry(1, name, 3)]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            " a.jpg",
            "a.jpg ",
            "a\nb.jpg",
            "a\u2028b.jpg",
            "img,",
            "img, ",
            ".",
            "/",
            "\\",
            "\0",
        ),
        *("\ud800.jpg", "\udcc3\udca9.jpg", "\ufeffa.jpg", "\r"),
    ],
)
def test_names_that_cannot_be_written_leave_no_file(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be written to a label list") as caught:
        write_label_list(tmp_path / "list.txt", [("a.jpg", 1), (name, 2)])
    assert repr(name) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_negative_labels_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"the label of 'b\.jpg' must be 0 or more, got -1"):
        write_label_list(tmp_path / "list.txt", [("a.jpg", 1), ("b.jpg", -1)])
    assert list(tmp_path.iterdir()) == []


def test_names_of_aligned_copies():
    assert plain_name("1/train_1_aligned.jpg") == "1/train_1.jpg"
    assert plain_name("unaligned.jpg") == "unaligned.jpg"
    assert aligned_name("1/train_1.jpg") == "1/train_1_aligned.jpg"
    assert aligned_name("1/train_1_aligned.jpg") == "1/train_1_aligned.jpg"
