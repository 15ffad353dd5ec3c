"""compare: groups, paired differences, calibration, and a card in two formats."""

import dataclasses
import json
import math
import shutil
import statistics
from html.parser import HTMLParser

import pytest
import torch

from examples.train.__main__ import main
from examples.train.card.content import calibration, make_card
from examples.train.card.differences import find_baselines, find_differences, paired
from examples.train.card.render import render
from examples.train.card.runs import group_runs, read_runs
from examples.train.options import Refused
from examples.train.predictions import read_predictions
from robustfer.metrics import calibration_error
from tests.examples.train.runs import run


@pytest.fixture(scope="module")
def groups(finished):
    return group_runs(read_runs(list(map(str, finished.values()))))


@pytest.fixture(scope="module")
def card(groups):
    return make_card(groups, find_baselines(groups, None))


def epochs_of(path):
    return json.loads((path / "run.json").read_text())["epochs"]


def by_name(groups):
    return {group.name: group for group in groups}


def test_runs_that_differ_only_in_their_seed_are_a_group(groups, finished):
    names = by_name(groups)
    assert set(names) == {"eac", "ce, epochs 2", "ce, epochs 4"}
    for group in groups:
        assert [run.seed for run in group.runs] == [0, 1]
    found = group_runs(read_runs([str(finished["eac-0"].parent)]))  # stands for its seeds
    assert [run.path for run in found[0].runs] == [finished["eac-0"], finished["eac-1"]]
    assert names["eac"].last("accuracy") == [
        epochs_of(finished[name])[-1]["accuracy"] for name in ("eac-0", "eac-1")
    ]


def test_runs_whose_batch_norm_sees_other_parts_are_not_a_group(finished):
    one, other = read_runs([str(finished["ce-0"]), str(finished["ce-1"])])
    other.record["settings"]["accumulate"] = 2
    names = [group.name for group in group_runs([one, other])]
    assert names == ["ce, accumulate 1", "ce, accumulate 2"]


def test_a_run_from_before_an_option_existed(finished):
    one, other = read_runs([str(finished["ce-0"]), str(finished["ce-1"])])
    del other.record["settings"]["mirrored"]
    names = [group.name for group in group_runs([one, other])]
    assert names == ["ce, mirrored False", "ce, mirrored default"]


def test_differences_are_paired_at_equal_steps_and_equal_passes(groups, finished):
    found = {one.budget: one for one in find_differences(groups, find_baselines(groups, None))}
    assert set(found) == {"steps", "image passes"}
    for budget, name in (("steps", "ce"), ("image passes", "ce-long")):
        one = found[budget]
        assert (one.group, one.seeds) == ("eac", 2)
        assert ("epochs 2" in one.baseline) == (name == "ce")
        for figure in ("accuracy", "mean_class_accuracy"):
            differences = [
                epochs_of(finished[f"eac-{seed}"])[-1][figure]
                - epochs_of(finished[f"{name}-{seed}"])[-1][figure]
                for seed in (0, 1)
            ]
            mean = sum(differences) / 2
            error = math.sqrt(sum((d - mean) ** 2 for d in differences) / (2 - 1)) / math.sqrt(2)
            assert one.figures[figure].mean == pytest.approx(mean)
            assert one.figures[figure].error == pytest.approx(error)
        assert one.note == ""


def test_a_budget_without_a_baseline_says_what_to_train(finished):
    groups = group_runs(read_runs([str(finished[name]) for name in ("ce-0", "eac-0")]))
    steps, passes = find_differences(groups, find_baselines(groups, None))
    assert (steps.baseline, passes.baseline) == ("ce", None)
    assert steps.figures["accuracy"].error is None  # of one seed
    assert "--epochs 4" in passes.note


def test_second_trainings_are_grouped_over_seeds_and_cost_their_first_ones_too(finished, tmp_path):
    for name in ("ce", "eac"):
        for seed in (0, 1):
            first, output = finished[f"{name}-{seed}"], f"{tmp_path}/{name}/seed-{seed}"
            run("retrain", f"--seed={seed}", f"--first={first}", f"--output={output}")
    run("retrain", f"--first={tmp_path}/ce/seed-0/final.safetensors", f"--output={tmp_path}/third")
    folders = [str(finished["ce-0"].parent), *(f"{tmp_path}/{name}" for name in ("ce", "eac"))]
    groups = group_runs(read_runs([*folders, f"{tmp_path}/third"]))
    assert [len(group.runs) for group in groups] == [2, 2, 2, 1]
    ce, second, of_eac, third = (group.first for group in groups)
    assert (second.steps, second.passes) == (2 * ce.steps, 2 * ce.passes)
    assert (of_eac.steps, of_eac.passes) == (2 * ce.steps, 3 * ce.passes)
    assert (third.steps, third.passes) == (3 * ce.steps, 3 * ce.passes)
    assert second.settings["first"].startswith("ce-")
    assert of_eac.settings["first"].startswith("eac-")
    assert third.settings["first"].startswith("retrain-")
    assert third.settings["first"].endswith("/final.safetensors")
    (one, other) = find_differences(groups[:2], groups[:1])
    assert (one.baseline, other.baseline) == (None, None)
    assert "--epochs 4" in one.note
    assert "--epochs 4" in other.note
    # A second training as the baseline: only its own epochs can change.
    (one, _) = find_differences([groups[3], groups[1]], [groups[1]])
    assert "--epochs 4" in one.note
    card = make_card(groups[:2], groups[:1])
    assert any("include the first training of retrain" in note for note in card.notes)


def test_seeds_that_follow_the_seed_of_the_run_do_not_part_a_group(finished):
    def groups(*values):
        runs = read_runs([str(finished[name]) for name in ("ce-0", "ce-1")])
        for one, value in zip(runs, values, strict=True):
            one.record["settings"]["noise_seed"] = value
        return len(group_runs(runs))

    assert groups(0, 1) == groups(None, 1) == groups(0, 0) == groups(5, 5) == 1
    assert groups(0, 5) == groups(None, 0) == 2


def test_seeds_that_do_not_meet_are_not_paired(finished):
    groups = group_runs(read_runs([str(finished[name]) for name in ("ce-0", "eac-1")]))
    one, _ = find_differences(groups, find_baselines(groups, None))
    assert (one.seeds, one.figures) == (0, {})
    assert "seed" in one.note


def test_other_training_labels_are_noted(finished, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(finished["eac-0"], other)
    record = json.loads((other / "run.json").read_text())
    record["trained_on"] = "0" * 12
    (other / "run.json").write_text(json.dumps(record))
    groups = group_runs(read_runs([str(finished["ce-0"]), str(other)]))
    one, _ = find_differences(groups, find_baselines(groups, None))
    assert "other labels" in one.note


def test_the_baseline_asked_for(groups, finished):
    assert {g.method for g in find_baselines(groups, "eac")} == {"eac"}
    (one,) = find_baselines(groups, str(finished["ce-long-1"]))
    assert "epochs 4" in one.name
    with pytest.raises(Refused, match="--baseline must be ce, eac"):
        find_baselines(groups, "scn")
    # Without ce the first group is it.
    only = group_runs(read_runs([str(finished["eac-0"])]))
    assert find_baselines(only, None) == only
    assert find_differences(only, only) == []


def test_paired():
    found = paired([0.1, 0.3, 0.2])
    assert found.mean == pytest.approx(0.2)
    assert found.error == pytest.approx(statistics.stdev([0.1, 0.3, 0.2]) / math.sqrt(3))


def test_the_temperature_never_saw_the_images_it_is_judged_on(finished):
    found = read_predictions(finished["ce-0"])
    assert int(found.first_half.sum()) == 20
    result = calibration(found)
    judged = ~found.first_half
    logits, targets = found.logits[judged].double(), found.targets[judged]
    for value, temperature in ((result.before, 1.0), (result.after, result.temperature)):
        expected = calibration_error((logits / temperature).softmax(1), targets)
        assert value == pytest.approx(expected)
    changed = found._replace(logits=found.logits.clone())
    changed.logits[judged] *= -3
    assert calibration(changed).temperature == result.temperature
    other = read_predictions(finished["eac-1"])
    assert torch.equal(other.first_half, found.first_half)  # the same half in every run


def test_other_predictions_of_the_same_runs_are_shown(tmp_path):
    outcome = run("ce", "--ema-decay=0.9", "--mirrored", f"--output={tmp_path}/run")
    groups = group_runs(read_runs([f"{tmp_path}/run"]))
    card = make_card(groups, groups)
    found = {one.prediction: one.last.mean for one in card.variants}
    last = outcome.history.last
    assert found == {
        "averaged weights": last["accuracy_ema"],
        "image and mirror image": last["accuracy_mirrored"],
        "averaged weights, image and mirror image": last["accuracy_ema_mirrored"],
    }
    for content in (render(card)["card.md"], render(card)["card.html"]):
        assert b"Other predictions" in content


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.images, self.texts = [], 0, [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag in ("meta", "img", "br"):
            self.images += [dict(attributes)["src"]] if tag == "img" else []
            return
        self.open.append(tag)
        self.tables += tag == "table"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


def test_the_card_is_whole_in_both_formats(card, finished, tmp_path, capsys):
    runs = [str(path) for path in finished.values()]
    assert main(["compare", *runs, f"--output={tmp_path}/card"]) == 0
    assert "3 settings, 6 runs" in capsys.readouterr().out
    files = {path.name: path.read_bytes() for path in (tmp_path / "card").iterdir()}
    assert files == render(card)  # the same runs make the same card
    markdown = (tmp_path / "card/card.md").read_text()
    html = (tmp_path / "card/card.html").read_text()
    page = Page(html)
    assert page.tables == 3
    assert len(page.images) == 3 + 3  # two curves, reliability, a confusion for each group
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.images)
    assert "http://" not in html.replace("http://www.w3.org", "")  # self-contained
    groups = group_runs(read_runs(runs))
    shown = " ".join(page.texts)
    for group in groups:
        values = group.last("accuracy")
        text = f"{100 * statistics.fmean(values):.1f} ± {100 * statistics.stdev(values):.1f}"
        assert text in shown
        assert text in markdown
        assert group.name in shown
    for fact in ("one half", "(20, chosen by their names)", "is optimistic", "label smoothing",
                 "30.0% of the training labels are wrong", "consistency weight"):  # fmt: skip
        assert fact in " ".join(shown.split()), fact
        assert fact in " ".join(markdown.split()), fact
    named = {line.partition("](")[2].rstrip(")") for line in markdown.splitlines()
             if line.startswith("![")}  # fmt: skip
    assert named == {path.name for path in (tmp_path / "card").glob("*.svg")}
    lines = [*markdown.splitlines(), ""]
    rules = [number for number, line in enumerate(lines) if line.startswith("|---")]
    assert len(rules) == 3
    for number in rules:
        end = next(n for n in range(number, len(lines)) if not lines[n])
        assert len({line.count("|") for line in lines[number - 1 : end]}) == 1


def test_names_from_outside_cannot_break_the_page(card):
    evil = "<script>alert(1)</script>|x"
    card = dataclasses.replace(card, settings=[("data", [evil] * len(card.columns))])
    files = {name: content.decode() for name, content in render(card).items()}
    for name in ("card.html", "card.md"):
        assert "<script>" not in files[name]
    assert "|x" not in files["card.md"].replace("&#124;x", "")
