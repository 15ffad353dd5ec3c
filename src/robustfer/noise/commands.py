"""Run ``robustfer noise make | show | verify``.

:mod:`robustfer.cli` imports this module only to run one of these commands, because it loads torch.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from robustfer._files import check_outputs
from robustfer._names import DATA_SETS
from robustfer._predictions import read_probabilities
from robustfer.data.dataset import LabeledFaces
from robustfer.data.loading import load
from robustfer.metrics import confusion_matrix
from robustfer.noise.instance import with_instance_noise, with_noise_like
from robustfer.noise.lists import NoiseList, read_noise_list, with_noise_list, write_noise_list
from robustfer.noise.matching import match_names
from robustfer.noise.matrices import crowd_counts
from robustfer.noise.models import with_class_noise, with_symmetric_noise
from robustfer.noise.profile import NoiseProfile, vote_shares
from robustfer.noise.report import NoiseReport, fingerprint, noise_report, picture_format
from robustfer.noise.verification import verify_noise_list

_OUTPUTS = ("output", "save_profile", "picture")
_INPUTS = ("data", "clean", "list", "probabilities", "profile", "decisions", "against")


def run(options: argparse.Namespace) -> int:
    """Run the command. Return 0, or 1 if a list has problems."""
    if options.picture is not None:
        picture_format(options.picture)  # checked before anything is written
    check_outputs(
        {f"--{name.replace('_', '-')}": getattr(options, name, None) for name in _OUTPUTS},
        files_read(options),
    )
    return {"make": _make, "show": _show, "verify": _verify}[options.action](options)


def _make(options: argparse.Namespace) -> int:
    dataset = load_faces(options.data, options)
    noisy = _noisy(dataset, options)
    write_noise_list(
        options.output, noisy.ids, noisy.targets, names=options.names, base=options.base
    )
    # Compare with the labels before. They can be noisy too, and have other true_targets.
    counts = confusion_matrix(noisy.targets, dataset.targets, num_classes=len(dataset.classes))
    report = NoiseReport(classes=dataset.classes, counts=counts)
    _show_report(report, options, f"{options.model}, rate {report.rate:g}")
    print(f"fingerprint {fingerprint(noisy.ids, noisy.targets, noisy.classes)}")
    print(f"written to {options.output}")
    return 0


def _noisy(dataset: LabeledFaces, options: argparse.Namespace) -> LabeledFaces:
    model, seed, rate = options.model, options.seed, options.rate
    by_sample = model in ("instance", "profile")
    if (rate is None) != (model == "profile"):
        wanted = "remove --rate, the profile has it" if rate is not None else "add --rate"
        raise ValueError(f"--model {model} got {'no rate' if rate is None else rate}; {wanted}")
    for name, needed in (("profile", model == "profile"), ("probabilities", model == "instance")):
        if needed and getattr(options, name) is None:
            raise ValueError(f"--model {model} needs {name}; add --{name}")
    if not by_sample and options.probabilities is not None:
        raise ValueError(f"--model {model} does not take --probabilities; remove it")
    if model != "profile" and options.profile is not None:
        raise ValueError(f"--model {model} does not take --profile; use --model profile")
    if by_sample:
        if options.variant != "exact":
            raise ValueError(
                f"--model {model} does not take --variant, got {options.variant}; remove it"
            )
        rows = _probabilities(dataset, options.probabilities)
        if model == "instance":
            return with_instance_noise(dataset, rows, rate=rate, seed=seed)
        profile = NoiseProfile.load(options.profile)
        return with_noise_like(dataset, profile, seed=seed, probabilities=rows)
    how = {"rate": rate, "seed": seed, "variant": options.variant}
    if model in ("symmetric", "symmetric-included"):
        true_class: Any = "excluded" if model == "symmetric" else "included"
        return with_symmetric_noise(dataset, true_class=true_class, **how)
    return with_class_noise(dataset, model, **how)


def _probabilities(dataset: LabeledFaces, source: str | None) -> Any:
    """Return the probabilities of the samples, in their order, from a file or from votes."""
    if source == "votes":
        if dataset.votes is None:
            raise ValueError(
                "--probabilities votes needs votes of several people, which the data set does not "
                "have; give a file of predictions"
            )
        return vote_shares(dataset.votes)
    if source is None:
        return None
    return read_probabilities(source).aligned(source, dataset.ids, dataset.classes).probabilities


def _show(options: argparse.Namespace) -> int:
    dataset = load_faces(options.data, options)
    if options.crowd:
        for name in ("list", "save_profile", "probabilities"):
            if getattr(options, name) is not None:
                raise ValueError(f"--crowd does not read --{name.replace('_', '-')}; remove one")
        counts, notes = crowd_counts(dataset.votes), ("the counts are votes, not faces",)
        report = NoiseReport(classes=dataset.classes, counts=counts, notes=notes)
        _show_report(report, options, "single people against the majority")
        return 0
    if options.list is not None:
        dataset = with_noise_list(dataset, options.list, **list_options(options))
    report = noise_report(dataset)
    print(f"{dataset.summary()}\n")
    _show_report(report, options, f"{100 * report.rate:.1f} % of {report.samples} labels differ")
    print(f"fingerprint {fingerprint(dataset.ids, dataset.targets, dataset.classes)}")
    if options.save_profile is not None:
        rows = _probabilities(dataset, options.probabilities)
        source = f"robustfer noise show, a data set of the kind {options.data.partition(':')[0]}"
        NoiseProfile.of(dataset, probabilities=rows, source=source).save(options.save_profile)
        print(f"profile: {options.save_profile}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    how = list_options(options)
    if options.clean.partition(":")[0] not in DATA_SETS:
        labels = read_noise_list(options.clean, base=options.clean_base, classes=options.classes)
        report = verify_noise_list(read_noise_list(options.list, clean=labels, **how), labels)
    else:
        dataset = load_faces(options.clean, options)
        noisy = read_noise_list(options.list, clean=dataset, **how)
        splits, missing = _other_splits(noisy, dataset, options)
        report = verify_noise_list(noisy, dataset, other_splits=splits)
        if report.problems:
            report = replace(report, notes=(*report.notes, *missing))
    _show_report(report, options, f"{options.list.name}: {100 * report.rate:.1f} % differ")
    return 1 if report.problems else 0


def files_read(options: argparse.Namespace) -> list[str]:
    """Return the files and folders that the options name, such as ``rafdb:PATH``."""
    given = [getattr(options, name, None) for name in _INPUTS]
    given += [value for _, value in options.reader]
    texts = [one for value in given for one in (value if isinstance(value, list) else [value])]
    return [str(text) for text in texts if isinstance(text, (str, Path))]


def list_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options for reading the list."""
    return {"base": options.base, "classes": options.order}


def _other_splits(
    noisy: NoiseList, dataset: LabeledFaces, options: argparse.Namespace
) -> tuple[list[LabeledFaces], list[str]]:
    """Return the splits whose labels a list must not change, and reasons for missing ones."""
    splits: list[LabeledFaces] = []
    missing: list[str] = []
    of_others = (match_names(noisy.path, noisy.ids, dataset.ids) < 0).any()
    if options.split == "all" or not bool(of_others):
        return splits, missing
    for split in ("validation", "test"):
        if split == options.split:
            continue
        try:
            with suppress(ValueError):  # the data set has no such split
                splits.append(load_faces(options.clean, options, split=split))
        except OSError as error:
            missing.append(f"not compared with the split {split}: {error}")
    return splits, missing


def load_faces(spec: str, options: argparse.Namespace, *, split: str | None = None) -> LabeledFaces:
    """Load a data set with the options of the command line, or another split of it."""
    wanted: Any = options.split if split is None else split
    given = {"classes": options.classes} | dict(options.reader)
    if "split" in given:
        raise ValueError(f"choose the split with --split, got --reader split={given['split']}")
    given["split"] = None if wanted == "all" else wanted
    try:
        return load(spec, **given)
    except TypeError as error:  # an option of the wrong type
        raise ValueError(str(error)) from error


def _show_report(report: NoiseReport, options: argparse.Namespace, title: str) -> None:
    print(report.text())
    if options.picture is not None:
        report.plot(options.picture, title=title)
        print(f"picture: {options.picture}")
