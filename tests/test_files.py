"""Files that are there whole or not at all."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from robustfer._files import no_formula, write_whole
from robustfer.audit import audit, read_probabilities
from robustfer.checkpoint import (
    load_model,
    load_resume,
    read_model_info,
    save_model,
    save_resume,
)


def write_text(file):
    file.write(b"text")


def failing(file):
    file.write(b"half")
    raise KeyboardInterrupt


def test_a_file_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "deep" / "file.txt"
    write_whole(path, lambda file: file.write(b"first"))
    write_whole(path, lambda file: file.write(b"then"))
    assert path.read_bytes() == b"then"
    assert list(path.parent.iterdir()) == [path]


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_resume("~/run/resume.pt", {"epoch": 3})
    assert load_resume("~/run/resume.pt") == {"epoch": 3}
    model = nn.Linear(1, 2)
    path = save_model("~/run", model, classes=["sad", "glad"], settings={})
    assert path == tmp_path / "run" / "model.safetensors"
    assert read_model_info("~/run").classes == ("sad", "glad")
    assert load_model("~/run", model, classes=["sad", "glad"]) is model
    probabilities = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    audit([0, 1], probabilities, classes=["sad", "glad"]).write("~/ranking.csv")
    assert (tmp_path / "ranking.csv").is_file()
    (tmp_path / "p.csv").write_text("sad,glad\n0.75,0.25\n0.5,0.5\n")
    assert torch.equal(read_probabilities("~/p.csv").probabilities.float(), probabilities)


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


def test_a_replaced_file_keeps_its_mode(tmp_path):
    path = tmp_path / "file.txt"
    path.write_bytes(b"old")
    for mode in (0o600, 0o640, 0o666):
        path.chmod(mode)
        write_whole(path, write_text)
        assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("there", [True, False], ids=["file", "dangling"])
def test_a_link_stays_a_link(tmp_path, there):
    target, link = tmp_path / "disk" / "file.txt", tmp_path / "run" / "link.txt"
    target.parent.mkdir()
    link.parent.mkdir()
    if there:
        target.write_bytes(b"old")
    link.symlink_to(Path("..", "disk", "file.txt"))
    write_whole(link, write_text)
    assert link.is_symlink()
    assert target.read_bytes() == b"text"
    assert [*link.parent.iterdir(), *target.parent.iterdir()] == [link, target]


def write_protected(path):
    path.write_bytes(b"old")
    path.chmod(0o444)


def link_to_nowhere(path):
    path.symlink_to(path.parent / "missing" / "file.txt")


def link_to_itself(path):
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "error", "reason"),
    [
        (write_protected, PermissionError, "write-protected"),
        (os.mkfifo, OSError, "not a regular file"),
        (Path.mkdir, IsADirectoryError, "folder"),
        (link_to_nowhere, FileNotFoundError, "No such file"),
        (link_to_itself, OSError, "symbolic links"),
    ],
)
def test_what_cannot_be_replaced_stays_and_is_named(tmp_path, make, error, reason):
    path = tmp_path / "file.txt"
    make(path)
    before = path.lstat()
    with pytest.raises(error, match=reason) as raised:
        write_whole(path, write_text)
    assert raised.value.filename == str(path)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert list(tmp_path.iterdir()) == [path]


WRITE_SLOWLY = """
import sys, time
from pathlib import Path
from robustfer._files import write_whole
def write(file):
    file.write(b"x" * 1000); file.flush(); print("writing", flush=True)
    sys.stdin.read()
write_whole(Path(sys.argv[1]), write)
"""


@pytest.fixture
def processes():
    """Start Python code that says a line and waits; all is killed at the end."""
    started = []

    def start(code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def kill(process):
    process.kill()
    process.wait()


def test_what_a_killed_write_left_is_removed_by_the_next(tmp_path, processes):
    path = tmp_path / "file.txt"
    others = [tmp_path / f".file.txt.{'g' * 32}.tmp", tmp_path / f".file2txt.{'a' * 32}.tmp"]
    for other in others:
        other.write_bytes(b"not ours")
    for process in [processes(WRITE_SLOWLY, path) for _ in range(2)]:
        kill(process)
    assert len(list(tmp_path.iterdir())) == 4
    write_whole(path, write_text)
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_what_another_process_is_writing_is_left_to_it(tmp_path, processes):
    path = tmp_path / "file.txt"
    writer = processes(WRITE_SLOWLY, path)
    write_whole(path, write_text)
    assert len(list(tmp_path.iterdir())) == 2
    writer.communicate()
    assert writer.returncode == 0
    assert path.read_bytes() == b"x" * 1000
    assert list(tmp_path.iterdir()) == [path]


FULL = """
import errno, resource, signal, sys
from pathlib import Path
from robustfer._files import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
path = Path(sys.argv[1])
def hidden(file):
    try:
        file.write(bytes(9000))
    finally:
        raise RuntimeError("as torch does")
for write in (lambda file: file.write(bytes(2000)), lambda file: file.write(bytes(9000)), hidden):
    try:
        write_whole(path, write)
    except OSError as error:
        assert (error.errno, error.filename) == (errno.EFBIG, str(path)), error
        assert "File too large" in str(error)
    else:
        raise AssertionError("no error")
"""


def test_a_full_disk_says_so(tmp_path):
    path = tmp_path / "file.txt"
    path.write_bytes(b"old")
    finished = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("cell", ["=1+1", "+49", "-a", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_begins_as_a_formula(cell):
    assert no_formula(cell) == f"'{cell}"
    assert no_formula(f"a{cell}") == f"a{cell}"
    assert no_formula("") == ""


def test_an_error_the_caller_handles_is_not_blamed(tmp_path):
    try:
        raise OSError(errno.ENOENT, "of the caller")
    except OSError:
        with pytest.raises(KeyboardInterrupt):
            write_whole(tmp_path / "file.txt", failing)
