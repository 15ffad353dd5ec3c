"""Files that are there whole or not at all."""

import pytest

from robustfer._files import write_whole


def failing(file):
    file.write(b"half")
    raise KeyboardInterrupt


def test_a_file_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "deep" / "file.txt"
    write_whole(path, lambda file: file.write(b"first"))
    write_whole(path, lambda file: file.write(b"then"))
    assert path.read_bytes() == b"then"
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_write_changes_nothing(tmp_path):
    path = tmp_path / "file.txt"
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, failing)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, failing)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_of_that_name_stays(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match="folder"):
        write_whole(folder, lambda file: file.write(b"text"))
    assert list(tmp_path.iterdir()) == [folder]
