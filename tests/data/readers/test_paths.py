import ntpath
import os
from pathlib import Path, PureWindowsPath

import pytest

from robustfer.data.readers.paths import absolute_starts, check_files, check_inside


@pytest.mark.parametrize(
    "name", ["/etc/a.png", "../a.png", "a/../../b.png", r"..\a.png", r"C:\a.png", "C:a.png", "a\0b"]
)
def test_names_that_leave_the_folder(name: str) -> None:
    with pytest.raises(ValueError, match=r"t\.csv, line 4: .* leads out of the images' folder"):
        check_inside(Path("t.csv"), 4, name, absolute_starts(Path("/data")))


def test_no_name() -> None:
    with pytest.raises(ValueError, match=r"t\.csv, line 4: the name of the image is empty"):
        check_inside(Path("t.csv"), 4, "")


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("a.png", "a.png"),
        ("b/a..b.png", "b/a..b.png"),
        ("..a.png", "..a.png"),
        (r"b\a.png", "b/a.png"),
        ("./b//./a.png", "b/a.png"),
        (".a.png", ".a.png"),
        ("/data/b//a.png", "b/a.png"),
    ],
)
def test_names_that_stay(name: str, inside: str) -> None:
    assert check_inside(Path("t.csv"), 4, name, absolute_starts(Path("/data"))) == inside


def test_windows_paths_below_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "path", ntpath)
    monkeypatch.setattr(ntpath, "realpath", ntpath.abspath)
    starts = absolute_starts(PureWindowsPath(r"C:\Faces"))  # type: ignore[arg-type]
    assert check_inside(Path("t.csv"), 4, r"c:\faces\1\A.png", starts) == "1/A.png"
    with pytest.raises(ValueError, match="leads out"):
        check_inside(Path("t.csv"), 4, r"C:\Other\1\A.png", starts)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    for name in ("a.png", "1/a.png"):
        (tmp_path / name).touch()
    check_files(Path("t.csv"), tmp_path, [(2, "a.png"), (3, "1/a.png")])
    with pytest.raises(FileNotFoundError, match=r"t\.csv, line 3: .*b\.png does not exist$"):
        check_files(Path("t.csv"), tmp_path, [(2, "a.png"), (3, "1/b.png")])
    with pytest.raises(
        FileNotFoundError, match=r"line 2: .*2.a\.png does not exist \(and 1 more\)"
    ):
        check_files(Path("t.csv"), tmp_path, [(2, "2/a.png"), (3, "1/a.png"), (4, "c.png")])
