"""Train once for each seed, each run in its own folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lightning_fabric.utilities.rank_zero import rank_zero_only

from examples.train.engine import Outcome, train
from examples.train.options import Refused, Settings
from examples.train.run_folder import CONFIG, RESUME, check_folder, is_finished, path_of


def settings_of_each(settings: Settings) -> list[Settings]:
    """Return the settings of each seed. With ``--output`` its folder is OUTPUT/seed-N."""
    run = settings.run
    if run.seeds == 1:
        return [settings]
    made = []
    for seed in range(run.seed, run.seed + run.seeds):
        output = None if run.output is None else str(Path(run.output, f"seed-{seed}"))
        made.append(replace(settings, run=replace(run, seed=seed, seeds=1, output=output)))
    return made


def train_each_seed(settings: Settings) -> list[Outcome]:
    """Train with each seed, skip finished runs, and return the new results.

    Raises:
        Refused: a run's folder cannot be used. All seeds are checked before the first is trained.
    """
    each = settings_of_each(settings)
    noise = settings.noise
    drawn = noise.noise not in (None, "none", "list") and noise.noise_seed is None
    first = getattr(settings.own, "first", None)
    if len(each) > 1 and drawn and first:
        raise Refused(
            f"--first is one run, but each of {len(each)} seeds draws other noise; add "
            "--noise-seed with the seed of that run, or train each seed with its own --first"
        )
    for one in each:
        check_folder(one)
    outcomes = []
    for number, one in enumerate(each, 1):
        # A finished run without its state has nothing to write anew.
        without_state = not (path_of(one) / RESUME).exists()
        finished = (len(each) > 1 or without_state) and is_finished(one)
        if rank_zero_only.rank == 0 and (finished or len(each) > 1):
            what = "finished already" if finished else "training"
            print(f"seed {one.run.seed} ({number} of {len(each)}): {what}, {path_of(one)}")
        if finished:
            continue
        try:
            outcomes.append(train(one))
        except Refused as error:
            left = ", ".join(str(other.run.seed) for other in each[number:])
            if not left or not (path_of(one) / CONFIG).is_file():  # the training has not begun
                raise
            raise Refused(f"{error}; not trained yet: the seeds {left}") from error
    return outcomes
