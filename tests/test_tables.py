from pathlib import Path

import pytest

from robustfer._tables import NamedOnce, read_table, read_whole_number


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_rows_come_with_their_lines(tmp_path: Path) -> None:
    path = written(tmp_path, '\ufeffname, age ,more\na,1,x\n  \n"b\nb", 2 ,y\nc,3,z\n')
    assert list(read_table(path, ["name", "age"])) == [
        (2, {"name": "a", "age": "1", "more": "x"}),
        (5, {"name": "b\nb", "age": "2", "more": "y"}),
        (6, {"name": "c", "age": "3", "more": "z"}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"table\.csv, line 1: .*name, age missing from an empty line"),
        ("a,1\nb,2\n", r"line 1: the header must name the columns name, age; .* from a, 1"),
        ("name,old\na,1\n", r"line 1: .*age missing from name, old"),
        ("name,age,age\na,1,2\n", r"line 1: the header names age twice"),
        ("name,age,old,old\na,1,2,3\n", r"line 1: the header names old twice"),
        ("name;age\na;1\n", r"line 1: .* columns must be separated by ',', not ';'"),
        ("name,age\na,1\nb\n", r"line 3: .* each of 2 columns, got 1"),
        ("name,age\na,1,2\n", r"line 2: .* each of 2 columns, got 3"),
        ('name,age\na,1\nb,"2\n', r"table\.csv, line \d: must be csv text in UTF-8"),
        (b"name,age\n\xff\xfe,1\n", r"table\.csv, line \d: must be csv text in UTF-8"),
    ],
)
def test_mistakes_are_named_with_file_and_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        list(read_table(written(tmp_path, text), ["name", "age"]))


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist"):
        list(read_table(tmp_path / "none.csv", []))


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", 3), ("03", 3), ("+3", 3), ("3.0", 3), ("3.", 3), ("0" * 5000 + "7", 7), ("0", 0)],
)
def test_whole_numbers(text: str, number: int) -> None:
    assert read_whole_number(Path("t.csv"), 4, "anger", text) == number


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5", "x", "٣", "nan", "inf", "1e3", "1_0", "0x3", str(2**31), "9" * 5000]
)
def test_no_whole_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"t\.csv, line 4: anger must be a whole number"):
        read_whole_number(Path("t.csv"), 4, "anger", text)


def test_a_name_twice(tmp_path: Path) -> None:
    once = NamedOnce(tmp_path / "t.csv", "error")
    assert once.is_new(2, "a", 1)
    with pytest.raises(ValueError, match=r"t\.csv, line 3: a is .*, after line 2; the rows are"):
        once.is_new(3, "a", 1)
    dropping = NamedOnce(tmp_path / "t.csv", "drop")
    assert [dropping.is_new(line, "a", 1) for line in (2, 3, 4)] == [True, False, False]
    with pytest.raises(ValueError, match="line 5: a is named a second time, after line 2$"):
        dropping.is_new(5, "a", 2)
    with pytest.raises(ValueError, match="duplicates must be error or drop, got 'keep'"):
        NamedOnce(tmp_path / "t.csv", "keep")  # type: ignore[arg-type]
