import sys

import pytest
import torch
from PIL import Image

from robustfer.data import DemoFaces
from robustfer.noise import NoiseReport, noise_report, with_symmetric_noise


def report():
    return NoiseReport(classes=("sad", "glad"), counts=torch.tensor([[3, 1], [0, 4]]))


def test_numbers():
    found = report()
    assert (found.samples, found.changed, found.rate) == (8, 1, 0.125)
    assert found.matrix.tolist() == [[0.75, 0.25], [0, 1]]
    assert "1 of 8 labels differ from the true ones: 12.50 %" in found.text()
    assert "glad   0.0 100.0      4      5   0.0 %" in found.text()


def test_a_report_of_no_labels_has_no_rate():
    empty = NoiseReport(classes=("sad", "glad"), counts=torch.zeros(2, 2, dtype=torch.int64))
    assert (empty.samples, empty.changed) == (0, 0)
    for ask in (lambda: empty.rate, empty.text):
        with pytest.raises(ValueError, match="counts must count at least one label, got none"):
            ask()


def test_of_a_data_set():
    faces = DemoFaces(num_samples=20)
    found = noise_report(with_symmetric_noise(faces, rate=0.5, seed=0))
    assert found.rate == 0.5
    with pytest.raises(ValueError, match="has no true_targets"):
        noise_report(faces)
    soft = faces.with_targets(torch.full((20, 7), 1 / 7))
    with pytest.raises(ValueError, match="dataset must have one class per sample"):
        noise_report(soft)


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "pictures" / "noise.png"
    report().plot(path, title="one of eight")
    with Image.open(path) as picture:
        assert min(picture.size) > 200
        assert len(picture.convert("RGB").getcolors(2**16)) > 20


def test_without_matplotlib(tmp_path, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install 'robustfer\[examples\]'"):
        report().plot(tmp_path / "noise.png")
    assert not (tmp_path / "noise.png").exists()


@pytest.mark.parametrize("name", ["noise.foo", "noise", "noise.png.txt"])
def test_a_picture_of_an_unknown_format(tmp_path, name):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=rf"path must end in one of .*\.png.*, got .*{name}$"):
        report().plot(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
