"""Train with EAC and relabelling in Hugging Face's Trainer.

Copy all three parts. `collate` keeps the row of each sample. `EACTrainer` computes the loss of both
views. `Relabelling` changes labels after the optimizer's step.

Pass `TrainingArguments(remove_unused_columns=False, label_names=["target"])`. By default Trainer
drops columns that the model's `forward` does not name, such as the rows, and evaluates on "labels".
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
    """Batch images, targets and rows. The views are made later, for the whole batch."""
    return default_collate([{k: s[k] for k in ("image", "target", "index")} for s in samples])


class Relabelling(TrainerCallback):
    """Change labels after each step of the optimizer, and save them with each checkpoint."""

    def __init__(self, relabeler: Relabeler) -> None:
        self.relabeler = relabeler
        # More than one batch per step when gradients are accumulated.
        self.seen: list[tuple[Tensor, Tensor]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Change labels after the optimizer's step."""
        for index, logits in self.seen:
            # A fraction: it is 1.0 after the last step of the first epoch.
            epoch = math.ceil(state.epoch)
            self.relabeler.update(index, logits, step=state.global_step, epoch=epoch)
        self.seen.clear()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save the labels in the checkpoint's folder."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            save_resume(folder / "labels.pt", self.relabeler.labels.state_dict())


class EACTrainer(Trainer):
    """Trainer with two views of each image and labels that can change."""

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
        """Train on the store's current labels, evaluate on the data set's labels."""
        if model.training:
            inputs["target"] = self.labels(inputs["index"])
        view, view_flipped = self.views.train(model.training)(inputs["image"])
        output, flipped = model(view), model(view_flipped)
        loss = self.criterion(output.logits, inputs["target"], output.attention, flipped.attention)
        if model.training:
            self.relabelling.seen.append((inputs["index"], output.logits.detach()))
        return (loss, {"logits": output.logits}) if return_outputs else loss

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """Train as Trainer does. A resumed run also loads the labels of its checkpoint."""
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)
        if folder:
            self.labels.load_state_dict(load_resume(Path(folder, "labels.pt")))
        return super().train(resume_from_checkpoint, **options)
