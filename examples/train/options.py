"""Define every option: dataclasses that jsonargparse turns into options and YAML keys."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import blake2b
from typing import Any, Literal

import yaml
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser
from jsonargparse.typing import ClosedUnitInterval as Share
from jsonargparse.typing import NonNegativeInt, PositiveInt, restricted_number_type

PROGRAM = "python -m examples.train"

PositiveNumber = restricted_number_type(
    "PositiveNumber", float, [(">", 0), ("<", math.inf)], docstring="a finite number above 0"
)
NonNegativeNumber = restricted_number_type(
    "NonNegativeNumber", float, [(">=", 0), ("<", math.inf)], docstring="a finite number, 0 or more"
)
# 1 is excluded: an average with a decay of 1 would never move.
BelowOne = restricted_number_type(
    "BelowOne", float, [(">=", 0), ("<", 1)], docstring="a number from 0 to below 1"
)
_EXPECTED = {
    **{one.__name__: one.__doc__ for one in (PositiveNumber, NonNegativeNumber, BelowOne)},
    "ClosedUnitInterval": "a number from 0 to 1",
    "PositiveInt": "a whole number above 0",
    "NonNegativeInt": "a whole number, 0 or more",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "dict": "a mapping, such as {size: 48}",
    "list": "a list, such as [1, 2]",
}


class Refused(Exception):  # noqa: N818 - it is shown as the error's one line
    """The settings or arguments cannot be used. The message is one line for the user."""


@dataclass(frozen=True)
class DataOptions:
    """data

    Args:
        data: demo, or KIND:PATH as for robustfer.data.load, such as rafdb:PATH
        reader: options of the reader, such as --reader.size 112, or --reader.split all for data
            without splits
        evaluate_on: split to evaluate on
        evaluate_data: data set to evaluate on; default: that of --data
        evaluate_reader: options of its reader; default: those of --reader, except the kind of
            label, and only size and classes for another kind of data
        sampling: shuffled, balanced (all classes equally often), or progressive (from shuffled to
            balanced)
        class_weights: none, balanced (rare classes weigh more), or a list with one weight per class
        keep: where images stay between epochs: device, memory, or files (read again each epoch);
            auto: device if they need under a quarter of a GPU, else memory up to the limit
        memory_limit: GiB of images that auto keeps in memory
        workers: processes that read image files
    """

    data: str = "demo"
    reader: dict[str, Any] = field(default_factory=dict)
    evaluate_on: Literal["test", "validation"] = "test"
    evaluate_data: str | None = None
    evaluate_reader: dict[str, Any] = field(default_factory=dict)
    sampling: Literal["shuffled", "balanced", "progressive"] = "shuffled"
    class_weights: Literal["none", "balanced"] | list[PositiveNumber] = "none"
    keep: Literal["auto", "device", "memory", "files"] = "auto"
    memory_limit: PositiveNumber = 8.0
    workers: NonNegativeInt = 0


@dataclass(frozen=True)
class NoiseOptions:
    """label noise of the training set

    Args:
        noise: none, symmetric (to any other class), symmetric-included (to any class, also the true
            one), lanet (the confusions of LA-Net's protocol), crowd (the disagreement of single
            voters), confusions (your own), list (labels from a file); default: none
        noise_rate: share of the samples to draw for a new label
        noise_seed: seed of the noise; default: the seed of the run
        noise_variant: exact (a fixed count), bernoulli (each sample independently), or official (as
            LA-Net's program)
        noise_confusions: for confusions, such as {fear: surprise, happiness: {neutral: 0.3}}
        noise_list: for list, a file with a name and a class number per line
        noise_numbering: order of the classes in the list, such as rafdb
        noise_base: first class number in the list, 0 or 1; default: detected
    """

    noise: (
        Literal["none", "symmetric", "symmetric-included", "lanet", "crowd", "confusions", "list"]
        | None
    ) = None
    noise_rate: Share | None = None
    noise_seed: NonNegativeInt | None = None
    noise_variant: Literal["exact", "bernoulli", "official"] = "exact"
    noise_confusions: dict[str, Any] = field(default_factory=dict)
    noise_list: str | None = None
    noise_numbering: str | None = None
    noise_base: Literal[0, 1] | None = None


@dataclass(frozen=True)
class ViewOptions:
    """random views of the images

    Args:
        crop: pixels of padding before the random crop; default: a twelfth of the height
        erase_probability: probability that a box is erased in a view
        erase_scale: smallest and largest area of the box, as shares of the image
        erase_ratio: smallest and largest ratio of the box's height to its width
        mean: mean of each channel; default: that of the run of --weights, else of the backbone
        std: standard deviation of each channel; default: as for the mean
    """

    crop: NonNegativeInt | None = None
    erase_probability: Share = 0.5
    erase_scale: tuple[Share, Share] = (0.02, 0.25)
    erase_ratio: tuple[PositiveNumber, PositiveNumber] = (0.3, 3.3)
    mean: tuple[float, float, float] | None = None
    std: tuple[PositiveNumber, PositiveNumber, PositiveNumber] | None = None


@dataclass(frozen=True)
class ModelOptions:
    """network

    Args:
        backbone: small or tiny (for images of 48 pixels), any timm name, or package.module:function
            for a function of yours that returns a network
        backbone_options: options of timm.create_model or of your function, such as
            --backbone-options.drop_rate 0.1
        pretrained: start from timm's weights
        weights: start from this file: safetensors, a state_dict of torch, or the folder of a run
        allow_partial: accept weights that fill less than 90 % of the backbone
        new_head: start with a new classifier even if the file has one
    """

    backbone: str = "small"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    weights: str | None = None
    allow_partial: bool = False
    new_head: bool = False


@dataclass(frozen=True)
class OptimizerOptions:
    """optimizer and schedule

    Args:
        epochs: passes over the data
        batch_size: images per step, over all processes
        optimizer: any name of timm.optim
        learning_rate: highest learning rate of the schedule
        weight_decay: weight decay, not applied to biases and norms
        layer_decay: factor of the learning rate per layer from the top; default: none
        optimizer_options: more options, such as --optimizer-options.momentum 0.8
        schedule: onecycle (torch); cosine, step, multistep, poly, tanh, wsd, rsqrt or constant
            (timm); or none
        schedule_options: more options, such as --schedule-options.warmup_epochs 2
        clip_norm: largest norm of the gradient; default: no limit
    """

    epochs: PositiveInt = 16
    batch_size: PositiveInt = 64
    optimizer: str = "adamw"
    learning_rate: PositiveNumber = 2e-3
    weight_decay: NonNegativeNumber = 0.05
    layer_decay: PositiveNumber | None = None
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    schedule: Literal[
        "onecycle", "cosine", "step", "multistep", "poly", "tanh", "wsd", "rsqrt", "constant",
        "none",
    ] = "onecycle"  # fmt: skip
    schedule_options: dict[str, Any] = field(default_factory=dict)
    clip_norm: PositiveNumber | None = None


@dataclass(frozen=True)
class RunOptions:
    """run

    Args:
        seed: seed of weights, order and views, and of the noise unless --noise-seed is given
        seeds: number of runs, with this seed and the next ones, each in its own folder
        precision: 32, 64, bf16-mixed, or 16-mixed with a gradient scaler
        device: auto, cpu, cuda, cuda:1 or mps
        devices: processes on this machine, one per device; they share each batch, and batch norm
            takes its statistics in each
        nodes: number of machines
        accumulate: number of parts a process splits its batch into; needs less memory and a second
            forward pass; batch norm takes its statistics in each part
        ema_decay: also predict with a moving average of the weights with this decay, such as 0.999;
            saved in the folder ema of the run; default: none
        mirrored: also predict with the mean over an image and its mirror image
        dynamics: record the predictions for each training image in dynamics.safetensors, for
            robustfer audit
        compile: compile the network
        deterministic: repeat exactly on the same machine; can be slower
        output: folder of the run; default: runs/DATA-METHOD-SEED-HASH; with several seeds, the
            folder of seed-0, seed-1, ...
        resume: continue a stopped run; with several seeds, skip the finished ones
        stop_after: stop after this epoch, to resume later
        max_steps: most steps per epoch, for a quick trial or a large data set
        progress: show a progress bar
    """

    seed: NonNegativeInt = 0
    seeds: PositiveInt = 1
    precision: Literal["32", "64", "bf16-mixed", "16-mixed"] = "32"
    device: str = "auto"
    devices: PositiveInt = 1
    nodes: PositiveInt = 1
    accumulate: PositiveInt = 1
    ema_decay: BelowOne | None = None
    mirrored: bool = False
    dynamics: bool = True
    compile: bool = False
    deterministic: bool = False
    output: str | None = None
    resume: bool = False
    stop_after: PositiveInt | None = None
    max_steps: PositiveInt | None = None
    progress: bool = True


GROUPS = {
    "data": DataOptions,
    "noise": NoiseOptions,
    "views": ViewOptions,
    "model": ModelOptions,
    "optimizer": OptimizerOptions,
    "run": RunOptions,
}

# Options that change how a run is executed, but not its result. `devices`, `nodes` and `accumulate`
# are not free: batch norm takes its statistics from the part of the batch that a process runs.
FREE = {
    *("keep", "memory_limit", "workers"),
    *("device", "compile", "deterministic"),
    *("seeds", "output", "resume", "stop_after", "progress", "dynamics"),
}

# Options of one call of the program. A configuration to use again is without them.
OF_ONE_CALL = {"resume", "stop_after"}


@dataclass(frozen=True)
class Settings:
    """All options of one training, by group. ``own`` has the options of the method."""

    method: str
    data: DataOptions
    noise: NoiseOptions
    views: ViewOptions
    model: ModelOptions
    optimizer: OptimizerOptions
    run: RunOptions
    own: Any

    def flat(self) -> dict[str, Any]:
        """Return every option by name, ready for JSON."""
        groups = (*(getattr(self, name) for name in GROUPS), self.own)
        values = {name: value for group in groups for name, value in vars(group).items()}
        as_json: dict[str, Any] = json.loads(json.dumps({"method": self.method, **values}))
        return as_json

    def identity(self) -> dict[str, Any]:
        """Return the options that decide the result."""
        return {name: value for name, value in self.flat().items() if name not in FREE}

    def name(self) -> str:
        """Return the run's name, DATA-METHOD-SEED-HASH. The hash covers :meth:`identity`."""
        text = json.dumps(self.identity(), sort_keys=True)
        digest = blake2b(text.encode(), digest_size=4).hexdigest()
        kind = self.data.data.partition(":")[0]
        return f"{kind}-{self.method}-{self.run.seed}-{digest}"


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Describe which options differ."""
    return [
        f"{name} was {before.get(name)}, is {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def parser_of(method: str, own: type, description: str) -> ArgumentParser:
    """Return the parser of a method: its own options first, then the shared ones."""
    parser = ArgumentParser(
        prog=f"{PROGRAM} {method}", description=description, exit_on_error=False
    )
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with options")
    parser.add_argument(
        "--method", type=Literal[method], default=method, help="its name in a config file"
    )
    for group in (own, *GROUPS.values()):
        parser.add_class_arguments(group)
    return parser


def parse(method: str, own: type, arguments: Sequence[str], description: str = "") -> Settings:
    """Return the settings that the arguments describe.

    Raises:
        Refused: an option or its value is wrong.
    """
    parser = parser_of(method, own, description)
    try:
        found = parser.parse_args(_as_the_parser_has_them(arguments, (own, *GROUPS.values())))
    except (ArgumentError, TypeError, ValueError) as error:
        known = [f.name for group in (own, *GROUPS.values()) for f in dataclasses.fields(group)]
        raise Refused(_in_words(str(error), method, known)) from error
    made = {
        name: group(**{f.name: _plain(found[f.name]) for f in dataclasses.fields(group)})
        for name, group in {**GROUPS, "own": own}.items()
    }
    return Settings(method=method, **made)


def command_parser(command: str, kind: type, description: str) -> ArgumentParser:
    """Return the parser of a command. Fields without a default are positional arguments."""
    parser = ArgumentParser(
        prog=f"{PROGRAM} {command}", description=description, exit_on_error=False
    )
    several = {f.name for f in dataclasses.fields(kind) if "several" in f.metadata}
    for name in several:
        parser.add_argument(name, nargs="+", metavar="RUN", help="folders of finished runs")
    parser.add_class_arguments(kind, as_positional=True, skip=several)
    return parser


def parse_command(command: str, kind: type, arguments: Sequence[str]) -> Any:
    """Return the options of a command.

    Raises:
        Refused: an argument is missing, unknown or wrong.
    """
    try:
        parser = command_parser(command, kind, "")
        found = parser.parse_args(_as_the_parser_has_them(arguments, [kind]))
    except (ArgumentError, TypeError, ValueError) as error:
        known = [f.name for f in dataclasses.fields(kind)]
        raise Refused(_in_words(str(error), command, known)) from error
    return kind(**{f.name: found[f.name] for f in dataclasses.fields(kind)})


def _plain(value: Any) -> Any:
    """Convert numbers of restricted types to plain ones: a checkpoint accepts no others."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def as_yaml(settings: Settings, own: type, *, leave_out: Collection[str] = ()) -> str:
    """Return all options as YAML, for ``--config``."""
    flat = settings.flat()
    order = ["method", *(f.name for g in (own, *GROUPS.values()) for f in dataclasses.fields(g))]
    kept = {name: flat[name] for name in order if name not in leave_out}
    return yaml.safe_dump(kept, sort_keys=False)


def _as_the_parser_has_them(arguments: Sequence[str], groups: Iterable[type]) -> list[str]:
    """Translate hyphens in names, flags without a value, and repeated options for lists."""
    fields = {f.name: str(f.type) for group in groups for f in dataclasses.fields(group)}
    made: list[str] = []
    lists: dict[str, list[str]] = {}
    left = deque(arguments)
    while left:
        text = left.popleft()
        if not text.startswith("--"):
            made.append(text)
            continue
        option, equals, value = text.partition("=")
        name, dot, rest = option[2:].partition(".")
        name = name.replace("-", "_")
        following = left[0] if left else "--"
        if fields.get(name) == "bool" and not equals and following.startswith("--"):
            equals, value = "=", "true"
        if fields.get(name) == "list[str]" and (equals or left):
            lists.setdefault(name, []).extend(_texts(value if equals else left.popleft()))
        else:
            made.append(f"--{name}{dot}{rest}{equals}{value}")
    # One option for all values replaces those of a config file.
    return made + [f"--{name}={json.dumps(values)}" for name, values in lists.items()]


def _texts(value: str) -> list[str]:
    """Return the texts of a list in YAML, or else the value itself."""
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        found = value
    return [str(text) for text in found] if isinstance(found, list) else [value]


def _in_words(message: str, method: str, known: Sequence[str]) -> str:
    """Return one line with the option, its value and what was expected."""
    text = " ".join(message.split())
    unknown = re.search(
        r"unrecognized arguments: --([\w.+-]+)|[Oo]ption '([\w.]+)' is not accepted", text
    )
    if unknown:
        name = (unknown[1] or unknown[2]).rstrip("+").replace("-", "_")
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0].replace('_', '-')}? " if near else ""
        return (
            f"{name.replace('_', '-')} is not an option of {method}; {hint}"
            f"see {PROGRAM} {method} --help"
        )
    missing = re.search(r"arguments are required: (.*)", text)
    if missing:
        return f"{method} needs the argument {missing[1].upper()}; see {PROGRAM} {method} --help"
    keyed = re.match(r'Parser key "([^"]+)": (.*)', text)
    if not keyed:
        return text
    option, detail = f"--{keyed[1].replace('_', '-')}", keyed[2]
    _, _, several = detail.partition("Errors: - ")
    reasons = several.partition(" Given value type")[0].split(" - ") if several else [detail]
    expected = [_expected(reason) for reason in reasons if "NoneType" not in reason]
    if None in expected:
        return f"{option}: {detail}"
    got = re.search(
        r"(?:Got value|Given value): (.*)$|: '(.*)'$|Not of type \w+: (.+?) does not conform",
        detail,
    )
    value = next(filter(None, got.groups()), None) if got else None
    wanted = " or ".join(filter(None, expected))
    return f"{option} must be {wanted}" + (f", got {value}" if value is not None else "")


def _expected(reason: str) -> str | None:
    """Describe what the parser expected."""
    literal = re.search(r"Expected a typing\.Literal\[(.*?)\]", reason)
    if literal:
        return "one of " + literal[1].replace("'", "")
    elements = re.search(r"Expected a tuple with (\d+) elements", reason)
    if elements:
        return f"a list of {elements[1]} numbers"
    named = re.search(r"Not of type (\w+)|Expected a <class '(\w+)'>", reason)
    return _EXPECTED.get(named[1] or named[2]) if named else None
