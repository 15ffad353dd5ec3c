"""Train with LA-Net: label distributions, and a contrast of faces with their landmarks.

The data are synthetic faces. 30 % of their training labels are wrong.

python examples/lanet.py
"""

import kornia.augmentation as K
import timm
import torch
from torch.utils.data import DataLoader

from robustfer.augmentations import KorniaPipeline, SingleView
from robustfer.data import load
from robustfer.functional import pseudo_labels
from robustfer.landmarks import DatasetLandmarks, landmark_layout
from robustfer.losses import LANetLoss
from robustfer.metrics import History, accuracy, confusion_matrix
from robustfer.models import CAMClassifier, LandmarkClassifier, LANetModel
from robustfer.noise import with_symmetric_noise
from robustfer.state import FeatureQueue, LabelDistributionBank, ModelEMA

EPOCHS, TRAIN_FACES, TEST_FACES = 10, 1200, 500
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

train_set = with_symmetric_noise(load("demo", num_samples=TRAIN_FACES), rate=0.3, seed=0)
test_set = load("demo", split="test", num_samples=TEST_FACES)
loader = DataLoader(train_set, batch_size=64, shuffle=True, drop_last=True)
print(train_set.summary())
# All landmarks in pixels. For your own faces: LandmarkFile("landmarks.npz")(train_set.ids).
landmarks, visible = DatasetLandmarks(train_set)(train_set.ids)
landmarks = landmarks.masked_fill(~visible[..., None], torch.nan).to(device)
layout = landmark_layout(68)

# A small ResNet for images of 48 pixels, and a branch on its first stage that finds landmarks.
# With pretrained weights leave pyramid out: the branch then copies the trained stages.
small = {"channels": (16, 32, 64, 128), "stem_width": 16, "output_stride": 8}
classifier = CAMClassifier("resnet10t", num_classes=7, model_options=small)
pyramid = timm.create_model("resnet10t", features_only=True, **small)
branch = LandmarkClassifier(classifier, num_landmarks=layout.num_points, pyramid=pyramid)
model = LANetModel(branch).to(device)
crop = K.RandomCrop((48, 48), padding=4)
views = SingleView(pipeline=KorniaPipeline(crop, K.RandomHorizontalFlip()))
# For evaluation: only normalises, nothing is random.
plain = SingleView().eval()
criterion = LANetLoss(image_size=48)
# State: label distributions, keys to contrast with, and an average of the network.
bank = LabelDistributionBank(train_set.targets, num_classes=7, decay=0.9).to(device)
queue = FeatureQueue(64, capacity=1024).to(device)
average = ModelEMA(model, decay=0.99)
optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, max_lr=4e-3, total_steps=EPOCHS * len(loader)
)
history = History()

for epoch in range(1, EPOCHS + 1):
    model.train()
    for batch in loader:
        target, index = batch["target"].to(device), batch["index"].to(device)
        view, points, visible = views.with_landmarks(
            batch["image"].to(device), landmarks[index], swap=layout.swap
        )
        output, averaged = model(view, points, index), average(view, points)
        soft_target = bank(index, output.estimate, known=output.known)
        pseudo_label = pseudo_labels(soft_target, index, threshold=0.7)
        loss = criterion(
            logits=output.logits,
            target=target,
            soft_target=soft_target,
            expression_query=output.expression_query,
            landmark_query=output.landmark_query,
            expression_key=averaged.expression_query,
            landmark_key=averaged.landmark_query,
            pseudo_label=pseudo_label,
            **queue.negatives(),
            heatmaps=output.heatmaps,
            landmarks=points,
            visible=visible,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bank.update(index, soft_target)
        queue.update(averaged.expression_query, averaged.landmark_query, pseudo_label)
        average.update(model)

    model.eval()
    confusion = torch.zeros(7, 7, dtype=torch.int64)
    with torch.no_grad():
        for batch in DataLoader(test_set, batch_size=250):
            predicted = classifier(plain(batch["image"].to(device))).logits.argmax(1).cpu()
            confusion += confusion_matrix(predicted, batch["target"], num_classes=7)
    history.add({"accuracy": accuracy(confusion)})
    changed = int((bank.distribution.argmax(1).cpu() != train_set.targets).sum())
    print(f"epoch {epoch}, {changed} labels believed wrong, {history.summary('accuracy')}")
