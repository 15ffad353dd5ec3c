import subprocess
import sys

import pytest
import torch

from robustfer import experiment
from robustfer.data import DemoFaces
from robustfer.metrics import History


def settings(*arguments, methods=("ce", "eac")):
    parser = experiment.argument_parser("A test.", methods=methods)
    return experiment.parse(parser, [*arguments, "--device", "cpu"])


def test_folder_and_device_are_filled_in():
    made = settings("--method", "ce")
    assert made.output.as_posix() == "runs/ce"
    assert made.device == "cpu"
    assert str(experiment.choose_device("auto"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--batch-size", "-3"], "--batch-size must be at least 1, got -3"),
        (["--noise", "1.5"], r"--noise must lie in [0, 1], got 1.5"),
        (["--workers", "-1"], "--workers must be at least 0, got -1"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--num-samples", "0"], "--num-samples must be at least 1, got 0"),
        (["--weight-decay", "-0.1"], "--weight-decay must be at least 0, got -0.1"),
        (["--learning-rate", "-1"], "--learning-rate must be above 0, got -1"),
        (["--method", "dividemix"], "invalid choice: 'dividemix'"),
    ],
)
def test_bad_arguments_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        settings(*arguments)
    assert message in capsys.readouterr().err


def test_settings_are_shown_one_a_line():
    shown = experiment.show_settings(settings("--seed", "3")).splitlines()
    assert "seed" in [line.split()[0] for line in shown]
    assert next(line for line in shown if line.startswith("seed")).split() == ["seed", "3"]


def test_order_and_random_numbers_follow_from_seed_and_epoch():
    faces = DemoFaces(40)
    chosen = settings("--batch-size", "8", "--seed", "5")
    loader = experiment.train_loader(faces, chosen)

    def epoch(number):
        generator = experiment.start_epoch(number, loader, chosen)
        order = torch.cat([batch["index"] for batch in loader])
        return order, torch.rand(3), torch.rand(3, generator=generator)

    first, second, again = epoch(0), epoch(1), epoch(0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert first[0].sort().values.tolist() == list(range(40))


def test_a_data_set_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="batch_size 64 is more than the 8 training samples"):
        experiment.train_loader(DemoFaces(8), settings())


def test_data_with_noise_keeps_the_true_labels():
    train, test = experiment.load_data(settings("--num-samples", "50", "--noise", "0.3"))
    assert int((train.targets != train.true_targets).sum()) == 15
    assert len(test) == 50
    assert not set(train.ids) & set(test.ids)


def test_progress_of_other_settings_or_parts_is_refused(tmp_path):
    history = History()
    history.add({"accuracy": 0.5})
    before = settings("--output", str(tmp_path), "--seed", "1")
    experiment.save_progress(before, history=history)

    found = History()
    same = settings("--output", str(tmp_path), "--seed", "1", "--resume", "--workers", "2")
    experiment.load_progress(same, history=found)
    assert found.epochs == history.epochs

    other = settings("--output", str(tmp_path), "--seed", "2", "--resume")
    with pytest.raises(ValueError, match="run with other settings: seed was 1, is 2"):
        experiment.load_progress(other, history=found)
    with pytest.raises(ValueError, match=r"holds \['history'\], this run needs \['model'\]"):
        experiment.load_progress(same, model=torch.nn.Linear(1, 1))
    nothing = settings("--output", str(tmp_path / "none"), "--resume")
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        experiment.load_progress(nothing, history=found)
    assert not nothing.output.exists()


@pytest.mark.parametrize("name", ["resume.pt", "model.safetensors"])
def test_a_folder_that_holds_a_run_is_not_begun_anew(tmp_path, name):
    begun = settings("--output", str(tmp_path / "run"))
    experiment.load_progress(begun, history=History())  # nothing there: nothing is loaded
    existing = tmp_path / "run" / name
    existing.write_bytes(b"hours of work")
    message = f"{name} already exists: .* --resume, or choose another folder by --output"
    with pytest.raises(FileExistsError, match=message):
        experiment.load_progress(begun, history=History())
    assert existing.read_bytes() == b"hours of work"


USE = """
import sys
from pathlib import Path
from robustfer._files import claim_folder
claim_folder(Path(sys.argv[1])); print("claimed", flush=True)
sys.stdin.read()
"""


def test_a_folder_in_use_is_left_to_its_run(tmp_path):
    begun = settings("--output", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", USE, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline()
        for use in (experiment.load_progress, experiment.save_progress):
            with pytest.raises(BlockingIOError, match="another running process"):
                use(begun, history=History())
        other.communicate()
    experiment.load_progress(begun, history=History())
    experiment.save_progress(begun, history=History())


def test_tables_need_a_row():
    with pytest.raises(ValueError, match="at least one row"):
        experiment.table([])


@pytest.mark.parametrize("text", ["q", "q=0.5,,a=1", "=3"])
def test_options_without_a_value_or_a_name_are_refused(text):
    with pytest.raises(ValueError, match="options must be OPTION=VALUE"):
        experiment.parse_options(text)


@pytest.mark.parametrize("word", ["false", "False", "no", "NO", "off", "true", "yes", "On"])
def test_a_word_switches_on_or_off(word):
    expected = word.lower() in ("true", "yes", "on")
    for switches in ((), ["gather"]):
        assert experiment.parse_options(f"gather={word}", switches=switches) == {"gather": expected}


def test_a_number_is_a_switch_where_one_is_asked_for():
    found = experiment.parse_options("gather=0,deep=1,seed=0", switches=["gather", "deep"])
    assert [repr(value) for value in found.values()] == ["False", "True", "0"]
    with pytest.raises(ValueError, match="gather must be one of true, .*, got 'maybe'"):
        experiment.parse_options("gather=maybe", switches=["gather"])


def test_a_loader_of_another_order_is_refused():
    loader = torch.utils.data.DataLoader([1, 2, 3])
    with pytest.raises(TypeError, match="must come from train_loader, got one with a Sequential"):
        experiment.start_epoch(0, loader, settings())


def test_help_shows_defaults_and_the_commands_a_line_each(capsys):
    text = "What it does.\n\npython one.py\npython two.py\n"
    parser = experiment.argument_parser(text, methods=["ce"])
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    shown = capsys.readouterr().out
    assert "python one.py\npython two.py\n" in shown
    without_default = {"--num-samples", "--labels", "--resume", "--help"}
    for action in parser._actions:
        assert action.help, action.option_strings
        if not without_default & set(action.option_strings) and action.default is not None:
            assert str(action.default) in shown
