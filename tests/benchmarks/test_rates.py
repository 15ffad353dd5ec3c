from benchmarks.accuracy_methods import METHODS
from benchmarks.accuracy_tables import TASKS, ablation_table, rate_table


def row(method, rate, accuracy, *, seed=1, epochs=8):
    figures = {"accuracy_ema_mirrored": accuracy, "mean_class_accuracy_ema_mirrored": accuracy / 2}
    return {
        "method": method, "task": f"symmetric{rate}", "seed": seed, "epochs": epochs,
        "phase": "report", "scale": "face", "setting": {}, "last": figures,
    }  # fmt: skip


def cells_of(table):
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_the_same_seeds_and_epochs_are_compared():
    rows = [row("ce", rate, 0.9 - rate / 100) for rate in (10, 20, 30)]
    rows += [row("ce", 30, 0.1, seed=2), row("ce", 30, 0.2, epochs=12)]  # no row at a lower rate
    rows += [row("eac", 10, 0.85), row("eac", 30, 0.5, seed=2), row("gsmc", 20, 0.99)]
    first, second, third = cells_of(rate_table(rows))
    assert (first["method"], second["method"]) == ("EAC", "cross entropy")
    # A method without the lowest rate follows. A rate that nothing was run with has no column.
    assert third["method"] == "GSMC"
    assert third[TASKS["symmetric20"]] == "99.0 / 49.5 (+29.0)"
    assert TASKS["symmetric0"] not in first
    assert second[TASKS["symmetric10"]] == "80.0 / 40.0"
    assert second[TASKS["symmetric30"]] == "60.0 / 30.0"
    assert first[TASKS["symmetric10"]] == "85.0 / 42.5 (+5.0)"
    assert first[TASKS["symmetric20"]] == first[TASKS["symmetric30"]] == "not run"
    assert (first["epochs"], first["seeds"]) == ("8", "1")


def test_nothing_was_run():
    assert rate_table([row("ce", 30, 0.5)]) == "Not run yet.\n"


def test_a_method_without_a_part_is_compared_with_the_whole_one_of_the_same_scale():
    name, change = next(iter(METHODS["lanet"].parts.items()))
    figures = {"accuracy": 0.7, "mean_class_accuracy": 0.5}
    part = {
        **row("lanet", 30, 0.0, epochs=30), "phase": "ablation", "scale": "cpu",
        "setting": change, "last": figures, "best": figures,
    }  # fmt: skip
    whole = {**part, "phase": "report", "setting": {}, "last": {**figures, "accuracy": 0.8}}
    others = [{**whole, **other} for other in ({"scale": "face"}, {"epochs": 60}, {"seed": 2})]
    shown = cells_of(ablation_table([whole, *others, part]).strip())
    by_part = {cells["part"]: (cells["last epoch"], cells["seeds"]) for cells in shown}
    assert by_part["whole"] == ("80.0", "1")
    assert by_part[name] == ("70.0", "1")
