"""Files of the program: whole, also when two write one at once, and as private as before."""

import stat
from concurrent.futures import ThreadPoolExecutor

from examples.train.files import write_whole
from examples.train.methods.cross_entropy import Options
from examples.train.run_folder import open_folder
from tests.examples.train.runs import settings_of


def test_two_who_write_one_file_at_once(tmp_path):
    path = tmp_path / "new/file.txt"
    contents = [bytes([number]) * 1000 for number in range(60)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda content: write_whole(path, content), contents))
    assert path.read_bytes() in contents
    assert list(path.parent.iterdir()) == [path]


def test_a_replaced_file_keeps_its_mode(tmp_path):
    path = tmp_path / "file.txt"
    path.write_bytes(b"old")
    for mode in (0o664, 0o600, 0o640):
        path.chmod(mode)
        write_whole(path, b"new")
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_bytes() == b"new"


def test_what_killed_writes_left_of_the_averaged_weights_is_cleared(tmp_path):
    left_over = tmp_path / f"run/ema/.model.safetensors.{'0' * 32}.tmp"
    settings = settings_of("ce", f"--output={tmp_path}/run", "--resume")
    open_folder(settings, Options).close()
    left_over.parent.mkdir()
    left_over.write_bytes(b"half")
    open_folder(settings, Options).close()
    assert list(left_over.parent.iterdir()) == []
