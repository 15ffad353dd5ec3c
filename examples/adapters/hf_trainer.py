"""EAC and relabelling in the Trainer of Hugging Face.

Copy all three: the collator keeps the row of each sample, `EACTrainer` computes the loss of both
views, and `Relabelling` does what comes after the optimizer's step. Trainer must be told
`TrainingArguments(remove_unused_columns=False, label_names=["target"])`: it drops what the model's
`forward` does not name, the rows among it, and evaluates on "labels". No loss may need this
file: it only says where things go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from robustfer.augmentations import MirroredPair
from robustfer.checkpoint import load_resume, save_resume
from robustfer.losses import EACLoss
from robustfer.state import Relabeler


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Batch what is needed of the samples; both views are made later, of the whole batch."""
    return default_collate([{k: s[k] for k in ("image", "target", "index")} for s in samples])


class Relabelling(TrainerCallback):
    """Change labels after each step of the optimizer, and write them beside each checkpoint."""

    def __init__(self, relabeler: Relabeler) -> None:
        self.relabeler = relabeler
        self.seen: list[tuple[Tensor, Tensor]] = []  # several while gradients are accumulated

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The optimizer has made its step."""
        for index, logits in self.seen:
            epoch = math.ceil(state.epoch)  # a fraction: after all steps of the first, 1.0
            self.relabeler.update(index, logits, step=state.global_step, epoch=epoch)
        self.seen.clear()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Labels go into the folder of the checkpoint."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            save_resume(folder / "labels.pt", self.relabeler.labels.state_dict())


class EACTrainer(Trainer):
    """Trainer with two views of each image and labels that may change."""

    def __init__(
        self,
        *args: Any,
        relabeler: Relabeler,
        views: MirroredPair | None = None,
        criterion: EACLoss | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **{"data_collator": collate, **options})
        self.views = (views or MirroredPair()).to(self.args.device)
        self.criterion = criterion or EACLoss()
        self.labels = relabeler.labels.to(self.args.device)
        self.relabelling = Relabelling(relabeler)
        self.add_callback(self.relabelling)

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Any:
        """Train on the store's labels, evaluate with those of the data set."""
        if model.training:
            inputs["target"] = self.labels(inputs["index"])  # the labels as they are now
        view, view_flipped = self.views.train(model.training)(inputs["image"])
        output, flipped = model(view), model(view_flipped)
        loss = self.criterion(output.logits, inputs["target"], output.attention, flipped.attention)
        if model.training:
            self.relabelling.seen.append((inputs["index"], output.logits.detach()))
        return (loss, {"logits": output.logits}) if return_outputs else loss

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """As Trainer's; a resumed run goes on with the labels of its checkpoint."""
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)
        if folder:
            self.labels.load_state_dict(load_resume(Path(folder, "labels.pt")))
        return super().train(resume_from_checkpoint, **options)
