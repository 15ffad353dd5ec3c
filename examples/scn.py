"""Train with SCN: importance weights and relabelling. Synthetic faces, 30 % wrong labels.

python examples/scn.py
"""

import kornia.augmentation as K
import torch
from torch.utils.data import DataLoader

from robustfer.augmentations import KorniaPipeline, SingleView
from robustfer.data import load
from robustfer.losses import SCNLoss
from robustfer.metrics import History, accuracy, confusion_matrix
from robustfer.models import CAMClassifier, ImportanceClassifier
from robustfer.noise import with_symmetric_noise
from robustfer.state import LabelStore, Relabeler

EPOCHS, TRAIN_FACES, TEST_FACES = 10, 1200, 500
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

train_set = with_symmetric_noise(load("demo", num_samples=TRAIN_FACES), rate=0.3, seed=0)
test_set = load("demo", split="test", num_samples=TEST_FACES)
loader = DataLoader(train_set, batch_size=64, shuffle=True, drop_last=True)
print(train_set.summary())

# A small ResNet for images of 48 pixels, with a head that weighs each sample.
small = {"channels": (16, 32, 64, 128), "stem_width": 16, "output_stride": 8}
classifier = CAMClassifier("resnet10t", num_classes=7, model_options=small)
model = ImportanceClassifier(classifier).to(device)
crop = K.RandomCrop((48, 48), padding=4)
views = SingleView(pipeline=KorniaPipeline(crop, K.RandomHorizontalFlip()))
# For evaluation: only normalises, nothing is random.
plain = SingleView().eval()
criterion = SCNLoss(margin=0.07)
# Changed labels are kept here: data-loader workers only hold copies of the data set.
labels = LabelStore(train_set.targets, num_classes=7).to(device)
relabeler = Relabeler(labels, margin=0.2, start_epoch=EPOCHS // 2)
optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, max_lr=2e-3, total_steps=EPOCHS * len(loader)
)
history, step = History(), 0

for epoch in range(1, EPOCHS + 1):
    model.train()
    for batch in loader:
        images, index = batch["image"].to(device), batch["index"].to(device)
        # Look up the current labels.
        batch["target"] = labels(index)
        output = model(views(images))
        loss = criterion(output.logits, batch["target"], output.importance, model.bias)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        step += 1
        relabeler.update(
            index, output.logits, output.importance, step=step, epoch=epoch, bias=model.bias
        )

    model.eval()
    confusion = torch.zeros(7, 7, dtype=torch.int64)
    with torch.no_grad():
        for batch in DataLoader(test_set, batch_size=250):
            predicted = model(plain(batch["image"].to(device))).logits.argmax(1).cpu()
            confusion += confusion_matrix(predicted, batch["target"], num_classes=7)
    figures = relabeler.figures(epoch=epoch, true_targets=train_set.true_targets)
    history.add({"accuracy": accuracy(confusion), **figures})
    print(f"epoch {epoch}, {figures['changed']:.0f} new labels, {history.summary('accuracy')}")
