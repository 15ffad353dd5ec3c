"""The program learns: faces that are seen often are known by heart."""

from examples.train.engine import train
from examples.train.methods import METHODS
from examples.train.options import parse
from robustfer.checkpoint import load_resume
from robustfer.data import DemoFaces
from robustfer.noise import with_symmetric_noise
from tests.examples.train.runs import FEW, run


def test_faces_are_learnt_by_heart(tmp_path):
    """Chance is 14 %."""
    faces = DemoFaces(64, size=32)
    outcome = run(
        "lanet", "--second-space=coordinates", "--queue=256", "--noise=none",
        "--batch-size=32", "--epochs=16", "--learning-rate=0.01",
        f"--output={tmp_path}/run", faces=(faces, faces),
    )  # fmt: skip
    assert outcome.history.last["accuracy"] > 0.45


def test_the_loss_of_a_plugin_learns_which_labels_are_wrong(tmp_path):
    """SOP by its name: it learns the classes from noisy labels, and doubts the wrong ones more."""
    clean = DemoFaces(140, size=32)
    noisy = with_symmetric_noise(clean, rate=0.3, seed=0)
    options = [
        *(*FEW, "--noise=none", "--batch-size=20", "--epochs=16", "--learning-rate=0.01"),
        *("--loss=sparse_over_parameterization=1,lr_u=1", f"--output={tmp_path}/run"),
    ]
    settings = parse("compose", METHODS["compose"].load().Options, options)
    outcome = train(settings, (noisy, clean))
    learned = load_resume(tmp_path / "run/resume.pt")["method"]["criterion.losses.0.u"]
    doubt = learned.square().clamp(max=1)
    wrong = noisy.targets != noisy.true_targets
    assert outcome.history.last["accuracy"] > 0.25  # chance is 14 %
    assert doubt[wrong].mean() > 1.3 * doubt[~wrong].mean()
