"""Train by the recipe: a hundred verified labels, and an average of the network as its teacher.

python examples/robust.py
"""

import kornia.augmentation as K
import torch
from torch.utils.data import DataLoader

from robustfer.augmentations import KorniaPipeline, SingleView
from robustfer.data import load
from robustfer.losses import ForwardCorrectionLoss, SelfDistillationLoss
from robustfer.metrics import History, accuracy, confusion_matrix
from robustfer.models import CAMClassifier
from robustfer.noise import rows_to_verify, transition_from_verified, with_class_noise
from robustfer.state import ModelEMA

EPOCHS, TRAIN_FACES, TEST_FACES = 14, 1500, 500
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

# As in real data sets, some classes have more wrong labels: half of the neutral faces here.
confusions = {"neutral": {"sadness": 0.3, "fear": 0.2}, "disgust": {"anger": 0.4}}
train_set = with_class_noise(load("demo", num_samples=TRAIN_FACES), confusions, rate=1.0, seed=0)
test_set = load("demo", split="test", num_samples=TEST_FACES)
loader = DataLoader(train_set, batch_size=64, shuffle=True, drop_last=True)
print(train_set.summary())

# A person labels a hundred faces on the page that `robustfer audit` writes.
given = train_set.targets
rows = rows_to_verify(given, 100)
true, counts = train_set.true_targets[rows], given.bincount(minlength=7)
estimate = transition_from_verified(true, given[rows], num_classes=7, given_counts=counts)
print(estimate.text(train_set.classes))
labels, verified = given.clone(), torch.zeros(TRAIN_FACES, dtype=torch.bool)
labels[rows], verified[rows] = true, True

small = {"channels": (16, 32, 64, 128), "stem_width": 16}
model = CAMClassifier("resnet10t", num_classes=7, model_options=small).to(device)
pipeline = KorniaPipeline(K.RandomCrop((48, 48), padding=4), K.RandomHorizontalFlip())
view, whole = SingleView(pipeline=pipeline), SingleView(erase_probability=0.0, pipeline=pipeline)
plain = SingleView().eval()  # for evaluation: only normalises, nothing is random
criterion = ForwardCorrectionLoss(transition=estimate.matrix.float()).to(device)
distillation, teacher = SelfDistillationLoss(), ModelEMA(model, decay=0.99)
optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=EPOCHS * len(loader))
history = History()
for epoch in range(1, EPOCHS + 1):
    model.train()
    for batch in loader:
        images, index = batch["image"].to(device), batch["index"]
        logits = model(view(images)).logits
        taught = teacher(whole(images)).logits  # a different crop, nothing erased
        loss = criterion(logits, labels[index].to(device), verified[index].to(device))
        # The teacher's weight rises: at first it knows nothing.
        loss = loss + 0.5 * epoch / EPOCHS * distillation(logits, taught)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        teacher.update(model)

    confusion = torch.zeros(7, 7, dtype=torch.int64)
    for batch in DataLoader(test_set, batch_size=250):
        images = plain(batch["image"].to(device))
        # The teacher predicts from the image and its mirror image.
        both = [teacher(view).logits.softmax(1) for view in (images, images.flip(-1))]
        confusion += confusion_matrix(sum(both).argmax(1).cpu(), batch["target"], num_classes=7)
    history.add({"accuracy": accuracy(confusion)})
    print(f"epoch {epoch}, loss {loss:.3f}, {history.summary('accuracy')}")
