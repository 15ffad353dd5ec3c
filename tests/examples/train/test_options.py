"""Options as people write them: hyphens, flags, repetition, files; and the name of a run."""

import dataclasses

import pytest
import yaml

from examples.train.__main__ import main, overview
from examples.train.methods import METHODS
from examples.train.options import (
    FREE,
    GROUPS,
    Refused,
    as_yaml,
    parse,
)


def settings(method, *options):
    return parse(method, METHODS[method].load().Options, options)


@pytest.mark.parametrize("method", METHODS)
def test_no_two_groups_have_an_option_of_one_name(method):
    names = [
        field.name
        for group in (METHODS[method].load().Options, *GROUPS.values())
        for field in dataclasses.fields(group)
    ]
    assert len(set(names)) == len(names)
    assert set(names) >= FREE
    assert "method" not in names


def test_hyphens_flags_and_repetition():
    made = settings(
        "compose",
        *("--learning-rate", "0.5", "--batch_size=8", "--resume", "--compile", "--workers", "2"),
        *("--loss", "cross_entropy", "--loss=attention_consistency=0.5,variant=a-b"),
        *("--reader.size", "48", "--backbone-options.drop_rate=0.1", "--class-weights", "balanced"),
        *("--noise-confusions", "{fear: surprise}", "--erase-scale", "[0.1, 0.2]"),
    )
    assert made.optimizer.learning_rate == 0.5
    assert made.optimizer.batch_size == 8
    assert (made.run.resume, made.run.compile, made.model.pretrained) == (True, True, False)
    assert made.own.loss == ["cross_entropy", "attention_consistency=0.5,variant=a-b"]
    assert made.data.reader == {"size": 48}
    assert made.model.backbone_options == {"drop_rate": 0.1}
    assert made.data.class_weights == "balanced"
    assert made.noise.noise_confusions == {"fear": "surprise"}
    assert made.views.erase_scale == (0.1, 0.2)
    assert settings("compose", "--loss=[mse, cross_entropy]").own.loss == ["mse", "cross_entropy"]
    assert settings("ce", "--class-weights=[1, 2.5]").data.class_weights == [1.0, 2.5]


def test_a_list_of_the_command_line_replaces_that_of_the_file(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("loss: [cross_entropy]\nseed: 4\n")
    made = settings("compose", "--config", str(file), "--loss", "mse", "--loss=l1", "--seed=5")
    assert (made.own.loss, made.run.seed) == (["mse", "l1"], 5)
    assert settings("compose", "--config", str(file)).own.loss == ["cross_entropy"]
    assert settings("compose", "--config", str(file), "--loss=[]").own.loss == []
    names = ["[x].csv", "a, b.csv", "1"]
    given = [word for name in names for word in ("--decisions", name)]
    assert settings("forward", *given).own.decisions == names


def test_numbers_are_plain_numbers():
    """A checkpoint holds no others, and an optimizer keeps what it is given."""
    made = settings(
        "ce", "--weight-decay=0.1", "--learning-rate=0.2", "--class-weights=[1, 2]", "--crop=3",
        "--label-smoothing=0.1", "--erase-scale=[0.1, 0.2]", "--seed=4", "--noise-rate=0.5",
    )  # fmt: skip
    flat = [value for group in vars(made).values() if hasattr(group, "__dict__")
            for value in vars(group).values()]  # fmt: skip
    flat += [inner for value in flat if isinstance(value, list | tuple) for inner in value]
    kinds = {type(value) for value in flat if isinstance(value, int | float)}
    assert kinds == {int, float, bool}


@pytest.mark.parametrize("method", METHODS)
def test_what_is_saved_is_read_again(method, tmp_path):
    own = METHODS[method].load().Options
    made = settings(method, "--seed=3", "--noise=symmetric", "--noise-rate=0.25", "--crop=2")
    path = tmp_path / "config.yaml"
    path.write_text(as_yaml(made, own))
    again = settings(method, "--config", str(path))
    assert again == made
    assert yaml.safe_load(path.read_text()) == made.flat()
    changed = settings(method, f"--config={path}", "--seed=4")
    assert (changed.run.seed, changed.views.crop) == (4, 2)


def test_the_name_of_a_run_follows_from_what_decides_its_result():
    first = settings("eac", "--data=folder:/faces", "--seed=7")
    assert first.name().startswith("folder-eac-7-")
    same = ["--workers=3", "--keep=files", "--resume", "--stop-after=1", "--output=here",
            "--device=cpu"]  # fmt: skip
    assert settings("eac", "--data=folder:/faces", "--seed=7", *same).name() == first.name()
    for other in ("--learning-rate=1", "--reader.size=9", "--consistency-weight=1",
                  "--precision=bf16-mixed", "--epochs=3", "--noise-seed=1",
                  "--accumulate=2", "--devices=2", "--nodes=2"):  # fmt: skip
        name = settings("eac", "--data=folder:/faces", "--seed=7", other).name()
        assert name[:-8] == first.name()[:-8]
        assert name != first.name()


def test_help_names_every_option_and_every_method(capsys):
    assert main(["scn", "--help"]) == 0
    shown = capsys.readouterr().out
    for group in (METHODS["scn"].load().Options, *GROUPS.values()):
        for field in dataclasses.fields(group):
            assert f"--{field.name}" in shown
    assert main(["--help"]) == 0
    assert all(name in capsys.readouterr().out or name in overview() for name in METHODS)
    assert main([]) == 2


BAD = {
    "unknown option": ("--bogus=3", ["bogus is not an option of ce", "--help"]),
    "misspelt option": ("--lerning-rate=3", ["lerning-rate", "did you mean learning-rate"]),
    "rate inf": ("--learning-rate=inf", ["--learning-rate", "finite number above 0", "got inf"]),
    "rate nan": ("--learning-rate=nan", ["--learning-rate", "got nan"]),
    "decay nan": ("--weight-decay=nan", ["--weight-decay", "finite number, 0 or more", "got nan"]),
    "negative decay": ("--weight-decay=-1", ["--weight-decay", "got -1"]),
    "no epoch": ("--epochs=0", ["--epochs", "whole number above 0", "got 0"]),
    "half an epoch": ("--epochs=1.5", ["--epochs", "whole number above 0", "got 1.5"]),
    "text for a number": ("--crop=x", ["--crop", "whole number, 0 or more", "got x"]),
    "no value": ("--epochs", ["--epochs"]),
    "not one of": ("--precision=8", ["--precision", "32, 64, bf16-mixed, 16-mixed", "got 8"]),
    "rate above 1": ("--noise-rate=1.2", ["--noise-rate", "from 0 to 1", "got 1.2"]),
    "negative seed": ("--seed=-1", ["--seed", "0 or more", "got -1"]),
    "pair of one": ("--erase-scale=[0.1]", ["--erase-scale", "2 numbers"]),
    "no such file": ("--config=nowhere.yaml", ["--config", "nowhere.yaml"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_option_is_named_in_one_line(name, capsys, elsewhere):
    option, facts = BAD[name]
    assert main(["ce", option]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert all(fact in err for fact in facts), err
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("lerning_rate: 3", "did you mean learning-rate"),
        ("learning_rate: .inf", "--learning-rate must be a finite number above 0"),
        ("learning_rate: [1", "config"),
        ("method: eac", "--method must be one of ce, got eac"),
        ("- 1", "config"),
    ],
)
def test_a_wrong_configuration_is_named_in_one_line(text, fact, tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert main(["ce", f"--config={path}"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert fact in err


def test_an_unknown_method_is_named_with_the_known_ones(capsys):
    assert main(["dividemix", "--epochs=1"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "dividemix" in err
    assert all(name in err for name in METHODS)


def test_refusals_keep_their_cause():
    with pytest.raises(Refused) as caught:
        settings("ce", "--epochs=0")
    assert caught.value.__cause__ is not None
