"""Train with EAC: the class maps of an image and of its mirror image must agree.

The data are synthetic faces. 30 % of their training labels are wrong.

python examples/eac.py
"""

import kornia.augmentation as K
import torch
from torch.utils.data import DataLoader

from robustfer.augmentations import KorniaPipeline, MirroredPair, SingleView
from robustfer.data import load
from robustfer.losses import EACLoss
from robustfer.metrics import History, accuracy, confusion_matrix
from robustfer.models import CAMClassifier
from robustfer.noise import with_symmetric_noise

EPOCHS, TRAIN_FACES, TEST_FACES = 10, 1200, 500
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

train_set = with_symmetric_noise(load("demo", num_samples=TRAIN_FACES), rate=0.3, seed=0)
test_set = load("demo", split="test", num_samples=TEST_FACES)
loader = DataLoader(train_set, batch_size=64, shuffle=True, drop_last=True)
print(train_set.summary())

# A small ResNet for images of 48 pixels. With a stride of 8 its class maps are 6x6.
small = {"channels": (16, 32, 64, 128), "stem_width": 16, "output_stride": 8}
model = CAMClassifier("resnet10t", num_classes=7, model_options=small).to(device)
# The pipeline does not flip: the mirror image is already the second view.
views = MirroredPair(pipeline=KorniaPipeline(K.RandomCrop((48, 48), padding=4)))
# For evaluation: only normalises, nothing is random.
plain = SingleView().eval()
criterion = EACLoss(consistency_weight=1.0)
optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, max_lr=4e-3, total_steps=EPOCHS * len(loader)
)
history = History()

for epoch in range(1, EPOCHS + 1):
    model.train()
    for batch in loader:
        images, target = batch["image"].to(device), batch["target"].to(device)
        view, view_flipped = views(images)
        output, flipped = model(view), model(view_flipped)
        loss = criterion(output.logits, target, output.attention, flipped.attention)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    model.eval()
    confusion = torch.zeros(7, 7, dtype=torch.int64)
    with torch.no_grad():
        for batch in DataLoader(test_set, batch_size=250):
            predicted = model(plain(batch["image"].to(device))).logits.argmax(1).cpu()
            confusion += confusion_matrix(predicted, batch["target"], num_classes=7)
    history.add({"accuracy": accuracy(confusion)})
    print(f"epoch {epoch}, loss {loss:.3f}, {history.summary('accuracy')}")
