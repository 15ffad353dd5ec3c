"""A folder becomes a file, whatever happens on the way. No mediapipe is needed for it."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from robustfer_mediapipe.collect import collect
from robustfer_mediapipe.table import Table

SETTINGS = {"margin": 0.25}


def draw(folder, name, colour, size=(9, 7)):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour, 0, 0)).save(path)


class Finder:
    """Stands in for the mesh: all points lie at (colour, width); there is no face in black."""

    def __init__(self, stop_after=None):
        self.seen = []
        self.stop_after = stop_after

    def __call__(self, pixels):
        if len(self.seen) == self.stop_after:
            raise KeyboardInterrupt
        colour = int(pixels[0, 0, 0])
        self.seen.append(colour)
        if not colour:
            return None
        return np.full((68, 2), (colour, pixels.shape[1]), dtype=np.float32)


@pytest.fixture
def folder(tmp_path):
    for colour in (1, 2, 0, 4):
        draw(tmp_path / "faces", f"{colour % 2}/{colour}.png", colour)
    return tmp_path / "faces"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "landmarks.npz"


def run(folder, output, *, settings=SETTINGS, stop_after=None, seconds=1e9):
    finder = Finder(stop_after)
    return collect(folder, output, lambda: finder, settings, seconds=seconds), finder.seen


def load(path):
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def assert_same(path, other):
    one, two = load(path), load(other)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_the_file(folder, output):
    summary, seen = run(folder, output)
    assert (summary.images, summary.faces, summary.new, summary.unreadable) == (4, 3, 4, {})
    assert seen == [0, 2, 4, 1]
    arrays = load(output)
    assert arrays["image"].tolist() == ["0/0.png", "0/2.png", "0/4.png", "1/1.png"]
    assert arrays["landmarks"].shape == (4, 68, 2)
    assert arrays["landmarks"].dtype == np.float32
    assert arrays["landmarks"][1:, 30].tolist() == [[2, 9], [4, 9], [1, 9]]
    assert np.isnan(arrays["landmarks"][0]).all()
    assert arrays["detected"].tolist() == [False, True, True, True]
    assert json.loads(str(arrays["settings"])) == SETTINGS
    assert {path.name for path in output.parent.iterdir()} == {"faces", output.name}


def test_nothing_left_to_do(folder, output):
    run(folder, output)
    before = output.stat()

    def make_finder():
        pytest.fail("the mesh was loaded")

    summary = collect(folder, output, make_finder, SETTINGS)
    assert (summary.images, summary.faces, summary.new) == (4, 3, 0)
    assert output.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_a_stopped_run_goes_on(folder, output, tmp_path, stop_after):
    with pytest.raises(KeyboardInterrupt, match=f"stopped; {stop_after} of 4 images are kept in"):
        run(folder, output, stop_after=stop_after)
    assert not output.exists()
    summary, seen = run(folder, output)
    assert seen == [0, 2, 4, 1][stop_after:]
    assert (summary.images, summary.new) == (4, 4 - stop_after)
    assert {path.name for path in tmp_path.iterdir()} == {"faces", output.name}
    run(folder, tmp_path / "at_once.npz")
    assert_same(output, tmp_path / "at_once.npz")


def test_what_was_found_is_kept_from_time_to_time(folder, output, monkeypatch):
    """A run that is killed cannot write anything any more."""
    written = []
    write = Table.write

    def spy(table, path, settings):
        written.append((path.name, int(table.done.sum())))
        write(table, path, settings)

    monkeypatch.setattr(Table, "write", spy)
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("robustfer_mediapipe.collect.time.monotonic", lambda: next(clock))
    run(folder, output, seconds=15)
    # The clock, 10 s further at every look, says that writing took 10 s: no more for 200 s then.
    assert written == [("landmarks.npz.partial", 2), ("landmarks.npz", 4)]


def test_a_killed_run_goes_on(folder, output, monkeypatch):
    finder = Finder()

    def die(pixels):
        if len(finder.seen) == 3:
            raise SystemExit
        return finder(pixels)

    with pytest.raises(SystemExit):
        collect(folder, output, lambda: die, SETTINGS, seconds=0)
    assert len(load(output.with_name("landmarks.npz.partial"))["image"]) == 1  # then too costly
    assert run(folder, output)[1] == [2, 4, 1]


def test_new_changed_and_vanished_images(folder, output, tmp_path):
    run(folder, output)
    draw(folder, "0/3.png", 3)
    draw(folder, "1/1.png", 7, size=(20, 20))
    (folder / "0/2.png").unlink()
    summary, seen = run(folder, output)
    assert seen == [3, 7]
    assert (summary.images, summary.faces, summary.new) == (4, 3, 2)
    run(folder, tmp_path / "afresh.npz")
    assert_same(output, tmp_path / "afresh.npz")


def test_a_vanished_image_alone(folder, output):
    run(folder, output)
    (folder / "0/4.png").unlink()
    assert run(folder, output)[1] == []
    assert load(output)["image"].tolist() == ["0/0.png", "0/2.png", "1/1.png"]


def test_an_image_written_anew_is_looked_at_again(folder, output):
    """Same size in bytes, same name: the time tells."""
    run(folder, output)
    os.utime(folder / "0/2.png", ns=(1, 1))
    assert run(folder, output)[1] == [2]


def test_a_stopped_update_keeps_the_finished_file(folder, output):
    run(folder, output)
    before = output.read_bytes()
    draw(folder, "0/3.png", 3)
    draw(folder, "0/5.png", 5)
    with pytest.raises(KeyboardInterrupt):
        run(folder, output, stop_after=1)
    assert output.read_bytes() == before
    assert run(folder, output)[1] == [5]
    assert len(load(output)["image"]) == 6


def test_unreadable_images_are_named_and_left_out(folder, output):
    (folder / "0/2.png").write_bytes(b"")
    (folder / "0/broken.png").write_text("no image")
    summary, seen = run(folder, output)
    assert seen == [0, 4, 1]
    assert list(summary.unreadable) == ["0/2.png", "0/broken.png"]
    assert all(summary.unreadable.values())
    assert (summary.images, summary.new) == (3, 3)
    assert load(output)["image"].tolist() == ["0/0.png", "0/4.png", "1/1.png"]
    draw(folder, "0/2.png", 2)  # mended: the next run finds it
    assert run(folder, output)[1] == [2]


def test_no_image_can_be_read(tmp_path, output):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"none of the 1 images can be read; a\.png: "):
        run(tmp_path, output)
    assert not output.exists()


def test_no_image(tmp_path, output):
    with pytest.raises(ValueError, match="has no image"):
        run(tmp_path, output)


@pytest.mark.parametrize("name", ["landmarks.npz", "landmarks.npz.partial"])
def test_other_settings_are_refused(folder, output, name):
    run(folder, output)
    output.rename(output.with_name(name))
    with pytest.raises(ValueError, match=r"made with margin 0\.25, not 0\.5; remove it, or write"):
        run(folder, output, settings={"margin": 0.5})


def write_foreign(path, kind):
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("mine")
        case "npy":
            with path.open("wb") as file:
                np.save(file, np.zeros(3))
        case "other npz":
            np.savez(path, image=np.array(["0/2.png"]), landmarks=np.zeros((1, 68, 2)))
        case "pickled":
            np.savez(path, **dict.fromkeys(("image", "landmarks"), np.array([{}], dtype=object)))


@pytest.mark.parametrize("kind", ["empty", "text", "npy", "other npz", "pickled"])
def test_files_of_others_are_left_alone(folder, output, kind):
    write_foreign(output, kind)
    before = output.read_bytes()
    with pytest.raises(ValueError, match="is not a file of this program and stays unchanged"):
        run(folder, output)
    assert output.read_bytes() == before


def test_a_failed_write_leaves_nothing_behind(folder, output, monkeypatch):
    run(folder, output)
    before = output.read_bytes()
    draw(folder, "0/3.png", 3)

    def fail(file, **arrays):
        file.write(b"half of it")
        raise OSError("the disk is full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="the disk is full"):
        run(folder, output)
    assert output.read_bytes() == before
    assert {path.name for path in output.parent.iterdir()} == {"faces", output.name}


def test_a_link_and_the_mode_are_kept_and_a_rest_is_taken_over(folder, output, tmp_path):
    elsewhere = tmp_path / "disk" / "points.npz"
    elsewhere.parent.mkdir()
    output.symlink_to(elsewhere)
    run(folder, output)
    elsewhere.chmod(0o600)
    (elsewhere.parent / f".{elsewhere.name}.tmp").write_bytes(b"of a run that was killed")
    draw(folder, "new.png", 8)
    run(folder, output)
    assert output.is_symlink()
    assert list(elsewhere.parent.iterdir()) == [elsewhere]
    assert elsewhere.stat().st_mode & 0o777 == 0o600
    assert len(load(output)["image"]) == 5
