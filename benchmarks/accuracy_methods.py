"""List the methods of the accuracy protocol, and the settings to tune them over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method and its settings.

    Attributes:
        command: its command in ``examples.train``.
        passes: image passes per step.
        title: its name in tables.
        grid: settings to tune over.
        arguments: arguments of all its runs.
        losses: losses of the command ``compose``. A setting of this name is the loss's weight, or
            its weight and options, such as ``"1,decay=0.9"``.
        parts: changes of the tuned setting for an ablation, one at a time.
        told: what the training knows besides the given labels: ``"100 verified"`` or ``"votes"``.
        again: whether it is a second training, after the reported run of cross entropy with the
            same task, seed and epochs.
    """

    title: str
    command: str
    passes: int
    grid: tuple[Mapping[str, float | str], ...]
    arguments: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    parts: Mapping[str, Mapping[str, float | str]] = field(default_factory=dict)
    told: str = ""
    again: bool = False

    @property
    def name(self) -> str:
        """Its title, and what its training knows besides the given labels."""
        return f"{self.title}, {self.told}" if self.told else self.title

    def arguments_of(self, setting: Mapping[str, float | str], root: Path) -> list[str]:
        """Return the arguments of the command for a setting."""
        own = [f"--loss={name}={setting.get(name, 1)}" for name in self.losses]
        others = [f"--{name}={value}" for name, value in setting.items() if name not in self.losses]
        return [*(text.format(root=root) for text in self.arguments), *own, *others]


_SMALL: Mapping[str, float | str] = {"learning-rate": 0.004, "weight-decay": 0.5}

METHODS = {
    "ce": Method(
        title="cross entropy",
        command="ce",
        passes=1,
        grid=(
            {"learning-rate": 0.002},
            {"learning-rate": 0.004},
            {"learning-rate": 0.002, "weight-decay": 0.5},
            {"learning-rate": 0.002, "label-smoothing": 0.2},
            {"learning-rate": 0.004, "weight-decay": 0.5},
        ),
    ),
    "eac": Method(
        title="EAC",
        command="eac",
        passes=2,
        grid=(
            {"learning-rate": 0.002, "consistency-weight": 1.0},
            {"learning-rate": 0.004, "consistency-weight": 1.0},
            {"learning-rate": 0.004, "consistency-weight": 0.3},
            {"learning-rate": 0.004, "consistency-weight": 5.0},
            {"learning-rate": 0.004, "consistency-weight": 1.0, "weight-decay": 0.5},
        ),
    ),
    "scn": Method(
        title="SCN",
        command="scn",
        passes=1,
        grid=(
            {"learning-rate": 0.002, "weight-decay": 0.5},
            {"learning-rate": 0.004, "weight-decay": 0.5},
            {"learning-rate": 0.002, "weight-decay": 0.5, "relabel-from": 20},
            {"learning-rate": 0.002, "weight-decay": 0.5, "relabel-margin": 0.5},
            {"learning-rate": 0.002, "weight-decay": 0.5, "rank-weight": 0.1},
            {
                "learning-rate": 0.002,
                "weight-decay": 0.5,
                "relabel-from": 20,
                "relabel-margin": 0.5,
            },
        ),
    ),
    # The teacher adds a forward pass, which is not counted.
    "gsmc": Method(
        title="GSMC",
        command="gsmc",
        passes=2,
        grid=(
            {"learning-rate": 0.002, "weight-decay": 0.5},
            {"learning-rate": 0.004, "weight-decay": 0.5},
            {"learning-rate": 0.004, "weight-decay": 0.5, "decay": 0.99},
            {"learning-rate": 0.004, "weight-decay": 0.5, "consistency-weight": 1.0},
            {"learning-rate": 0.004, "weight-decay": 0.5, "distillation-weight": 0.3},
        ),
    ),
    # Attention consistency, self-distillation and relabelling, each from another method.
    "composition": Method(
        title="EAC + GSMC + relabelling",
        command="compose",
        losses=("cross_entropy", "attention_consistency", "self_distillation"),
        arguments=("--relabel-margin=0.5", "--relabel-from=20"),
        passes=2,
        grid=(
            {
                "learning-rate": 0.004,
                "weight-decay": 0.5,
                "decay": 0.99,
                "attention_consistency": 0.3,
                "self_distillation": 0.9,
            },
            {
                "learning-rate": 0.004,
                "weight-decay": 0.5,
                "decay": 0.99,
                "attention_consistency": 1.0,
                "self_distillation": 0.9,
            },
            {
                "learning-rate": 0.004,
                "weight-decay": 0.5,
                "decay": 0.99,
                "attention_consistency": 0.3,
                "self_distillation": 3.0,
            },
        ),
    ),
    # The keys need a forward pass more, which is not counted.
    "lanet": Method(
        title="LA-Net",
        command="lanet",
        arguments=("--landmarks=file:{root}/landmarks68.npz", "--landmarks-size=48"),
        passes=1,
        grid=(
            {"learning-rate": 0.002, "weight-decay": 0.5},
            {"learning-rate": 0.004, "weight-decay": 0.5},
            {"learning-rate": 0.002, "weight-decay": 0.5, "distribution-weight": 3.0},
            {"learning-rate": 0.002, "weight-decay": 0.5, "landmark-weight": 0.1},
        ),
        parts={
            "without label distributions": {"distribution-weight": 0.0},
            "without heat maps": {"landmark-weight": 0.0},
            "without contrast": {"contrast-weight": 0.0},
            "coordinates, no branch": {"second-space": "coordinates"},
        },
    ),
    # Losses of plugins, by name.
    "symmetric_cross_entropy": Method(
        title="symmetric cross entropy",
        command="compose",
        losses=("symmetric_cross_entropy",),
        passes=1,
        grid=(
            {
                "learning-rate": 0.002,
                "weight-decay": 0.5,
                "symmetric_cross_entropy": "1,cross_entropy_weight=1,reverse_weight=0.3",
            },
            {
                "learning-rate": 0.004,
                "weight-decay": 0.5,
                "symmetric_cross_entropy": "1,cross_entropy_weight=0.5,reverse_weight=1",
            },
        ),
    ),
    "early_learning_regularization": Method(
        title="ELR",
        command="compose",
        losses=("early_learning_regularization",),
        passes=1,
        grid=(
            {
                "learning-rate": 0.002,
                "weight-decay": 0.5,
                "early_learning_regularization": "1,weight=3,decay=0.7",
            },
            {
                "learning-rate": 0.002,
                "weight-decay": 0.5,
                "early_learning_regularization": "1,weight=1,decay=0.7",
            },
        ),
    ),
    "extra_knowledge": Method(
        title="MEK",
        command="compose",
        losses=("extra_knowledge",),
        passes=2,
        grid=(
            {**_SMALL, "extra_knowledge": "1,smoothing=0.3"},
            {**_SMALL, "extra_knowledge": "1,smoothing=0.3,consistency_weight=0.5"},
            {**_SMALL, "extra_knowledge": "1,smoothing=0.1,consistency_weight=0.5"},
        ),
    ),
    # Mixes labels with the network's own predictions from the start.
    "memory_targets": Method(
        title="memory targets",
        command="compose",
        losses=("memory_targets",),
        passes=1,
        grid=(
            {**_SMALL, "memory_targets": "1,weight=0.5,decay=0.9"},
            {**_SMALL, "memory_targets": "1,weight=0.7,decay=0.9"},
            {**_SMALL, "memory_targets": "1,weight=0.9,decay=0.7"},
        ),
    ),
    # The same with a teacher's predictions. Their weight rises later.
    "memory_of_teacher": Method(
        title="memory of a teacher",
        command="teacher",
        passes=1,
        grid=(
            {**_SMALL, "distillation-weight": 0, "memory-weight": 0.5},
            {**_SMALL, "distillation-weight": 0, "memory-weight": 0.7},
            {**_SMALL, "distillation-weight": 0, "memory-weight": 0.7, "memory-decay": 0.9},
        ),
    ),
    # The crowd's votes contain the true labels.
    "vote_cross_entropy": Method(
        title="cross entropy",
        told="votes",
        command="compose",
        losses=("vote_cross_entropy",),
        passes=1,
        grid=(
            {**_SMALL, "vote_cross_entropy": "1,smoothing=0"},
            {**_SMALL, "vote_cross_entropy": "1,smoothing=0.3"},
            {**_SMALL, "vote_cross_entropy": "1,smoothing=0,drop_single=True"},
        ),
    ),
    "drawn_vote": Method(
        title="drawn vote",
        told="votes",
        command="compose",
        losses=("drawn_vote",),
        passes=1,
        grid=(
            {**_SMALL, "drawn_vote": "1,drop_single=False"},
            {**_SMALL, "drawn_vote": "1,drop_single=True"},
            {**_SMALL, "drawn_vote": "1,drop_single=True,weighted=True"},
        ),
    ),
    "partial_label": Method(
        title="partial labels",
        told="votes",
        command="compose",
        losses=("partial_label",),
        passes=1,
        grid=(
            {**_SMALL, "partial_label": "1,min_share=0.3"},
            {**_SMALL, "partial_label": "1,min_share=0,drop_single=True"},
            {**_SMALL, "partial_label": "1,min_share=0.1"},
        ),
    ),
    "relative_uncertainty": Method(
        title="RUL",
        command="compose",
        losses=("relative_uncertainty",),
        passes=1,
        grid=(
            {"learning-rate": 0.002, "weight-decay": 0.5},
            {"learning-rate": 0.004, "weight-decay": 0.5},
        ),
    ),
    "generalized_cross_entropy": Method(
        title="GCE",
        command="compose",
        losses=("generalized_cross_entropy",),
        passes=1,
        grid=(
            {
                "learning-rate": 0.004,
                "weight-decay": 0.5,
                "generalized_cross_entropy": "1,q=0.4",
            },
            {
                "learning-rate": 0.004,
                "weight-decay": 0.5,
                "generalized_cross_entropy": "1,q=0.7",
            },
        ),
    ),
    # With the paper's start value, the first one does almost nothing for most of a run.
    "sparse_over_parameterization": Method(
        title="SOP",
        command="compose",
        losses=("sparse_over_parameterization",),
        passes=1,
        grid=(
            {**_SMALL, "sparse_over_parameterization": "1,init_std=1e-8,lr_u=10"},
            {**_SMALL, "sparse_over_parameterization": "1,init_std=0.01,lr_u=10"},
            {**_SMALL, "sparse_over_parameterization": "1,init_std=0.01,lr_u=1"},
        ),
    ),
    "sparse_over_parameterization_plus": Method(
        title="SOP+",
        command="compose",
        losses=("sparse_over_parameterization_plus",),
        passes=2,
        grid=(
            {**_SMALL, "sparse_over_parameterization_plus": "1,init_std=0.01,lr_u=10"},
            {**_SMALL, "sparse_over_parameterization_plus": "1,init_std=0.01,lr_u=1"},
            {
                **_SMALL,
                "sparse_over_parameterization_plus": "1,init_std=0.01,lr_u=1,balance_weight=0",
            },
        ),
    ),
    "noise_aware_weighting": Method(
        title="NLA",
        command="compose",
        losses=("noise_aware_weighting",),
        passes=2,
        grid=(
            {**_SMALL, "noise_aware_weighting": "1,label_weight=0.5"},
            {**_SMALL, "noise_aware_weighting": "1,label_weight=0.2"},
            {**_SMALL, "noise_aware_weighting": "1,label_weight=0.5,agreed_weight=4"},
        ),
    ),
    # A teacher adds a forward pass, which is not counted.
    "teacher": Method(
        title="EMA teacher",
        command="teacher",
        passes=1,
        grid=({**_SMALL, "distillation-weight": 0.5},),
    ),
    # Of the looks, a setting that gained on both tasks.
    "teacher-landmarks": Method(
        title="EMA teacher, landmarks",
        command="teacher",
        arguments=("--landmarks=file:{root}/landmarks68.npz", "--landmarks-size=48"),
        passes=1,
        grid=({**_SMALL, "landmark-weight": 1, "distillation-weight": 0.5, "decay": 0.99},),
    ),
    "forward": Method(
        title="forward correction",
        told="100 verified",
        command="forward",
        arguments=("--verified=100",),
        passes=1,
        grid=(
            _SMALL,
            {**_SMALL, "distillation-weight": 0.5},
            {**_SMALL, "distillation-weight": 0.3, "q": 0.5},
        ),
    ),
    "teacher-verified": Method(
        title="forward correction, EMA teacher",
        told="100 verified",
        command="teacher",
        arguments=("--verified=100", "--transition=verified"),
        passes=1,
        grid=({**_SMALL, "distillation-weight": 0.3, "verified-draw": "stratified"},),
    ),
    "teacher-landmarks-verified": Method(
        title="EMA teacher, landmarks",
        told="100 verified",
        command="teacher",
        arguments=(
            "--landmarks=file:{root}/landmarks68.npz", "--landmarks-size=48",
            "--verified=100", "--transition=verified",
        ),
        passes=1,
        grid=(
            {
                **_SMALL,
                "landmark-weight": 1,
                "distillation-weight": 0.3,
                "decay": 0.99,
                "verified-draw": "stratified",
            },
        ),
    ),
    # Both trainings count.
    "retrain": Method(
        title="second training",
        command="retrain",
        passes=2,
        again=True,
        grid=({"learning-rate": 0.002, "weight-decay": 0.5, "evidence": 0.25},),
    ),
    "retrain-choices": Method(
        title="second training, own choices",
        command="retrain",
        arguments=("--own-choices=true",),
        passes=2,
        again=True,
        grid=({"learning-rate": 0.002, "weight-decay": 0.5, "evidence": 0.25},),
    ),
    "retrain-verified": Method(
        title="second training",
        told="100 verified",
        command="retrain",
        arguments=("--verified=100",),
        passes=2,
        again=True,
        grid=({"learning-rate": 0.002, "weight-decay": 0.5, "evidence": 0.5},),
    ),
}  # fmt: skip
BASELINE = "ce"

#: The settings to tune over with the pre-trained backbone. A single one is not tuned there: it has
#: the weights that were best for the small network, and cross entropy's learning rate.
FACE_GRIDS: dict[str, tuple[Mapping[str, float | str], ...]] = {
    "ce": ({},),
    "eac": ({"consistency-weight": 1.0},),
    "scn": ({"relabel-from": 5, "relabel-margin": 0.5},),
    "gsmc": ({"decay": 0.995, "distillation-weight": 0.3},),
    "lanet": ({},),
    "generalized_cross_entropy": ({"generalized_cross_entropy": "1,q=0.4"},),
    "early_learning_regularization": ({"early_learning_regularization": "1,weight=1,decay=0.7"},),
    "forward": (
        {"verified-draw": "stratified"},
        {"verified-draw": "stratified", "distillation-weight": 1.0, "decay": 0.995},
    ),
    "teacher": ({"distillation-weight": 1.0, "decay": 0.995},),
    "teacher-landmarks": ({"landmark-weight": 1, "distillation-weight": 1.0, "decay": 0.995},),
    "teacher-verified": (
        {"verified-draw": "stratified", "distillation-weight": 1.0, "decay": 0.995},
    ),
    "retrain": ({"evidence": 0.25},),
    "retrain-choices": ({"evidence": 0.25},),
    "retrain-verified": ({"evidence": 0.5},),
}
