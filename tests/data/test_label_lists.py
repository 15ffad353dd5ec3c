import pytest

from robustfer.data.label_lists import Entry, plain_name, read_label_list, write_label_list


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
        (b"a.jpg 1\n\xff\xfe 2\n", r"list\.txt, line \d: no text"),
    ],
)
def test_bad_lists(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_label_list(written(tmp_path, text))


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt is not there"):
        read_label_list(tmp_path / "none.txt")


def test_round_trip(tmp_path):
    rows = [("a b.jpg", 3), ("1/c.jpg", 0)]
    path = tmp_path / "new" / "list.txt"
    write_label_list(path, rows)
    assert [entry[1:] for entry in read_label_list(path)] == rows
    assert path.read_bytes() == b"a b.jpg 3\n1/c.jpg 0\n"


@pytest.mark.parametrize("name", ["", " a.jpg", "a\nb.jpg", "a\u2028b.jpg"])
def test_names_that_cannot_be_written_leave_no_file(tmp_path, name):
    with pytest.raises(ValueError, match="cannot stand in a label list"):
        write_label_list(tmp_path / "list.txt", [("a.jpg", 1), (name, 2)])
    assert list(tmp_path.iterdir()) == []


def test_names_of_aligned_copies():
    assert plain_name("1/train_1_aligned.jpg") == "1/train_1.jpg"
    assert plain_name("unaligned.jpg") == "unaligned.jpg"
