"""Train with cross entropy: the loop that every other page starts from.

The data are synthetic faces. 30 % of their training labels are wrong.

python examples/cross_entropy.py
"""

import kornia.augmentation as K
import torch
from torch import nn
from torch.utils.data import DataLoader

from robustfer.augmentations import KorniaPipeline, SingleView
from robustfer.data import load
from robustfer.metrics import History, accuracy, confusion_matrix
from robustfer.models import CAMClassifier
from robustfer.noise import with_symmetric_noise

EPOCHS, TRAIN_FACES, TEST_FACES = 10, 1200, 500
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

# For your own faces use load("rafdb:PATH"), load("folder:PATH") and so on.
train_set = with_symmetric_noise(load("demo", num_samples=TRAIN_FACES), rate=0.3, seed=0)
test_set = load("demo", split="test", num_samples=TEST_FACES)
loader = DataLoader(train_set, batch_size=64, shuffle=True, drop_last=True)
print(train_set.summary())

# A small ResNet for images of 48 pixels. Any timm network works.
small = {"channels": (16, 32, 64, 128), "stem_width": 16, "output_stride": 8}
model = CAMClassifier("resnet10t", num_classes=7, model_options=small).to(device)
crop = K.RandomCrop((48, 48), padding=4)
views = SingleView(pipeline=KorniaPipeline(crop, K.RandomHorizontalFlip()))
# For evaluation: only normalises, nothing is random.
plain = SingleView().eval()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, max_lr=2e-3, total_steps=EPOCHS * len(loader)
)
history = History()

for epoch in range(1, EPOCHS + 1):
    model.train()
    for batch in loader:
        images, target = batch["image"].to(device), batch["target"].to(device)
        output = model(views(images))
        loss = criterion(output.logits, target)
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
