"""The recipe: averaged weights, and the class shares of a hundred verified labels. Drawn faces.

python examples/robust.py
"""

import kornia.augmentation as K
import torch
from torch import nn
from torch.utils.data import DataLoader

from robustfer.augmentations import KorniaPipeline, SingleView
from robustfer.data import load
from robustfer.metrics import History, accuracy, adjust_to_shares, confusion_matrix
from robustfer.models import CAMClassifier
from robustfer.noise import rows_to_verify, transition_from_verified, with_class_noise
from robustfer.state import ModelEMA

EPOCHS, TRAIN_FACES, TEST_FACES = 12, 1500, 500
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

# As in real data sets, some classes lose more faces to others: half of the neutral ones here.
confusions = {"neutral": {"sadness": 0.3, "fear": 0.2}, "disgust": {"anger": 0.4}}
train_set = with_class_noise(load("demo", num_samples=TRAIN_FACES), confusions, rate=1.0, seed=0)
test_set = load("demo", split="test", num_samples=TEST_FACES)
loader = DataLoader(train_set, batch_size=64, shuffle=True, drop_last=True)
print(train_set.summary())

# A person looks at a hundred faces, on the page that `robustfer audit` makes.
given = train_set.targets
rows, counts = rows_to_verify(given, 100), given.bincount(minlength=7)
true = train_set.true_targets[rows]
estimate = transition_from_verified(true, given[rows], num_classes=7, given_counts=counts)
given_shares = counts / counts.sum()
print(estimate.text(train_set.classes))

# A small ResNet for images of 48 pixels.
small = {"channels": (16, 32, 64, 128), "stem_width": 16}
model = CAMClassifier("resnet10t", num_classes=7, model_options=small).to(device)
pipeline = KorniaPipeline(K.RandomCrop((48, 48), padding=4), K.RandomHorizontalFlip())
views = SingleView(pipeline=pipeline)
plain = SingleView().eval()  # to evaluate: normalised, nothing random
criterion, average = nn.CrossEntropyLoss(), ModelEMA(model, decay=0.99)
optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=EPOCHS * len(loader))
history = History()

for epoch in range(1, EPOCHS + 1):
    model.train()
    for batch in loader:
        images, target = batch["image"].to(device), batch["target"].to(device)
        loss = criterion(model(views(images)).logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.update(model)

    images = plain(torch.stack([face["image"] for face in test_set]).to(device))
    # The averaged weights predict, from the image and its mirror image.
    both = [average(view).logits.softmax(1).cpu() for view in (images, images.flip(-1))]
    said = (both[0] + both[1]) / 2
    adjusted = adjust_to_shares(said, given_shares, estimate.shares.float())
    given_way, true_way = (
        accuracy(confusion_matrix(found.argmax(1), test_set.targets, num_classes=7))
        for found in (said, adjusted)
    )
    history.add({"accuracy": true_way})
    print(f"epoch {epoch}, with the given shares {given_way:.4f}, {history.summary('accuracy')}")
