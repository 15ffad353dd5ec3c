"""Combine losses by name, from the core or from plugins. Synthetic faces, 30 % wrong labels.

python examples/compose.py
"""

import torch
from torch import nn
from torch.utils.data import DataLoader

from robustfer import registry
from robustfer.augmentations import MirroredPair, SingleView
from robustfer.data import load
from robustfer.losses import CompositeLoss, Term, param_groups
from robustfer.metrics import History, accuracy, confusion_matrix
from robustfer.models import CAMClassifier
from robustfer.noise import with_symmetric_noise

EPOCHS, TRAIN_FACES, TEST_FACES = 10, 1200, 500
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

train_set = with_symmetric_noise(load("demo", num_samples=TRAIN_FACES), rate=0.3, seed=0)
test_set = load("demo", split="test", num_samples=TEST_FACES)
loader = DataLoader(train_set, batch_size=64, shuffle=True, drop_last=True)

small = {"channels": (16, 32, 64, 128), "stem_width": 16, "output_stride": 8}
model = CAMClassifier("resnet10t", num_classes=7, model_options=small).to(device)
# `robustfer list` prints the names, `robustfer show NAME` a loss's options and tensors.
criterion = CompositeLoss(
    Term("ce", nn.CrossEntropyLoss(label_smoothing=0.1), inputs={"input": "logits"}),
    Term("attention", registry.create("attention_consistency"), weight=1.0),
).to(device)
print(f"the loss takes {', '.join(sorted(criterion.accepts))}")
views, plain = MirroredPair(), SingleView().eval()
optimizer = torch.optim.AdamW(param_groups(model, criterion), lr=2e-3, weight_decay=0.5)
history = History()

for epoch in range(1, EPOCHS + 1):
    model.train()
    for batch in loader:
        index, target = batch["index"].to(device), batch["target"].to(device)
        view, view_flipped = views(batch["image"].to(device))
        tensors = {**model(view)._asdict(), "target": target, "index": index}
        tensors["attention_flipped"] = model(view_flipped).attention
        tensors = {name: tensors[name] for name in criterion.accepts & tensors.keys()}
        proposed = criterion.propose(**tensors)  # the new state of losses that have one
        loss = criterion(**tensors, **proposed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        criterion.update(index, proposed)

    model.eval()
    confusion = torch.zeros(7, 7, dtype=torch.int64)
    for batch in DataLoader(test_set, batch_size=250):
        with torch.no_grad():
            logits = model(plain(batch["image"].to(device))).logits
        confusion += confusion_matrix(logits.argmax(1).cpu(), batch["target"], num_classes=7)
    history.add({"accuracy": accuracy(confusion)})
    print(f"epoch {epoch}, loss {loss:.3f}, {history.summary('accuracy')}")
