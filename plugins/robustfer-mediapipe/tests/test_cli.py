import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustfer_mediapipe import __version__, cli

SOURCES = sorted((Path(__file__).parents[1] / "src").rglob("*.py"))


class Mesh:
    """Stands in for the mesh: finds the middle of the picture 68 times."""

    def __init__(self, *, margin, confidence):
        self.options = (margin, confidence)

    def __call__(self, pixels):
        if pixels.max() == 0:
            return None
        return np.full((68, 2), (pixels.shape[1] / 2, pixels.shape[0] / 2), dtype=np.float32)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run the command in a folder with three images, one of them without a face."""
    monkeypatch.setattr(cli, "FaceMesh", Mesh)
    monkeypatch.setattr(cli, "version", lambda _: "0.10.21")
    monkeypatch.chdir(tmp_path)
    Path("faces").mkdir()
    for name, colour in (("a", "red"), ("b", "green"), ("c", "black")):
        Image.new("RGB", (8, 6), colour).save(f"faces/{name}.png")
    return lambda *arguments: cli.main([str(argument) for argument in arguments])


def test_a_run(command, capsys):
    assert command("faces", "points.npz") == 0
    assert capsys.readouterr() == (
        "points.npz: 3 images, 3 of them new; a face in 2 (66.7%)\n",
        "",
    )
    assert command("faces", "points.npz") == 0
    assert "0 of them new" in capsys.readouterr().out


def test_unreadable_images_are_listed(command, capsys):
    for number in range(25):
        Path("faces", f"x{number:02}.png").write_text("no image")
    assert command("faces", "points.npz") == 1
    shown = capsys.readouterr()
    assert "3 images" in shown.out
    assert "25 images cannot be read:\n  x00.png: " in shown.err
    assert shown.err.endswith("  and 5 more\n")
    assert Path("points.npz").exists()


def test_other_options_are_other_settings(command, capsys):
    assert command("faces", "points.npz", "--margin", "0") == 0
    assert command("faces", "points.npz") == 1
    assert "made with margin 0.0, not 0.25" in capsys.readouterr().err
    assert command("faces", "points.npz", "--confidence", "0.3", "--margin", "0") == 1
    assert "made with confidence 0.5, not 0.3" in capsys.readouterr().err


def test_the_options_reach_the_mesh_and_the_file(command, monkeypatch):
    meshes = []
    monkeypatch.setattr(
        cli, "FaceMesh", lambda **options: meshes.append(options) or Mesh(**options)
    )
    assert command("faces", "points.npz", "--margin", "0.1", "--confidence", "0.9") == 0
    assert meshes == [{"margin": 0.1, "confidence": 0.9}]
    with np.load("points.npz") as arrays:
        settings = json.loads(str(arrays["settings"]))
    assert settings == {
        "robustfer-mediapipe": __version__, "mediapipe": "0.10.21", "layout": "ibug-68",
        "margin": 0.1, "confidence": 0.9,
    }  # fmt: skip


def test_a_changed_image_is_looked_at_again_even_if_its_time_is_the_same(command, capsys):
    assert command("faces", "points.npz") == 0
    image = Path("faces/a.png")
    time = image.stat().st_mtime_ns
    Image.new("RGB", (80, 60), "blue").save(image)
    os.utime(image, ns=(time, time))
    capsys.readouterr()
    assert command("faces", "points.npz") == 0
    assert "1 of them new" in capsys.readouterr().out


def test_interrupted(command, capsys, monkeypatch):
    def stop(self, pixels):
        raise KeyboardInterrupt

    monkeypatch.setattr(Mesh, "__call__", stop)
    assert command("faces", "points.npz") == 130
    assert "stopped; 0 of 3 images are kept in points.npz.partial" in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError("the disk is full"), ImportError("no libGL.so.1")])
def test_an_error_of_the_system_is_one_line(command, capsys, monkeypatch, error):
    def fail(self, **options):
        raise error

    monkeypatch.setattr(Mesh, "__init__", fail)
    assert command("faces", "points.npz") == 1
    assert capsys.readouterr().err == f"robustfer-mediapipe: {error}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "points.npz"), "FOLDER must be a folder of images, got nowhere"),
        (("faces", "points.csv"), "OUTPUT must end in .npz, got points.csv"),
        (("faces", "nowhere/points.npz"), "the folder nowhere of OUTPUT does not exist"),
        (("faces", "points.npz", "--margin", "-1"), "must be a number from 0 to 4, got '-1'"),
        (("faces", "points.npz", "--margin", "wide"), "must be a number from 0 to 4, got 'wide'"),
        (("faces", "points.npz", "--confidence", "2"), "must be a number from 0 to 1, got '2'"),
        (("faces",), "OUTPUT"),
    ],
)
def test_wrong_use(command, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        command(*arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_images(command, capsys):
    Path("none").mkdir()
    assert command("none", "points.npz") == 1
    assert capsys.readouterr().err == "robustfer-mediapipe: none has no image\n"


def test_robustfer_and_torch_are_imported_nowhere():
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            names = [name.name for name in getattr(node, "names", [])]
            module = getattr(node, "module", None) or ""
            if isinstance(node, ast.Import | ast.ImportFrom):
                tops = {name.split(".")[0] for name in ([module] if module else names)}
                assert not tops & {"robustfer", "torch"}, source


def test_help_does_not_wait_for_mediapipe():
    code = (
        "import sys; from robustfer_mediapipe import cli\n"
        "try: cli.main(['--help'])\n"
        "finally: assert not {'mediapipe', 'torch', 'robustfer'} & set(sys.modules)"
    )
    path = str(Path(__file__).parents[1] / "src")
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("usage: robustfer-mediapipe")
