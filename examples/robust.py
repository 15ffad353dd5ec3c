"""The recipe: train, verify a hundred labels, correct the others, train again. Synthetic faces.

python examples/robust.py
"""

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from robustfer.audit import corrected_labels
from robustfer.augmentations import KorniaPipeline, SingleView
from robustfer.data import load
from robustfer.metrics import History, accuracy, confusion_matrix, correct_predictions
from robustfer.models import CAMClassifier
from robustfer.noise import rows_to_verify, transition_from_verified, with_class_noise
from robustfer.state import ModelEMA, TrainingDynamics

EPOCHS, TRAIN_FACES, TEST_FACES = 12, 1500, 500
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

# As in real data sets, some classes lose more faces to others: half of the neutral ones here.
confusions = {"neutral": {"sadness": 0.3, "fear": 0.2}, "disgust": {"anger": 0.4}}
train_set = with_class_noise(load("demo", num_samples=TRAIN_FACES), confusions, rate=1.0, seed=0)
test_set = load("demo", split="test", num_samples=TEST_FACES)
loader = DataLoader(train_set, batch_size=64, shuffle=True, drop_last=True)
print(train_set.summary())

small = {"channels": (16, 32, 64, 128), "stem_width": 16}  # a ResNet for images of 48 pixels
pipeline = KorniaPipeline(K.RandomCrop((48, 48), padding=4), K.RandomHorizontalFlip())
views = SingleView(pipeline=pipeline)
plain = SingleView().eval()  # to predict: normalised, nothing random

test_images, train_images = (
    plain(torch.stack([face["image"] for face in faces]).to(device))
    for faces in (test_set, train_set)
)

given = train_set.targets
labels = F.one_hot(given, 7).float()
for training in (1, 2):
    model = CAMClassifier("resnet10t", num_classes=7, model_options=small).to(device)
    # The average only predicts, so it is in eval mode. Its batch norm has averaged statistics.
    average = ModelEMA(model, decay=0.99, buffers="ema").eval()
    dynamics = TrainingDynamics(len(given), num_classes=7)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
    steps = EPOCHS * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    history = History()
    for _ in range(EPOCHS):
        model.train()
        for batch in loader:
            index = batch["index"]
            logits = model(views(batch["image"].to(device))).logits
            loss = F.cross_entropy(logits, labels[index].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update(model)
            dynamics.update(index, logits.detach().cpu())
        # The averaged weights predict, from the image and its mirror image.
        both = [average(view).logits.softmax(1) for view in (test_images, test_images.flip(-1))]
        predicted = (both[0] + both[1]).cpu() / 2
        confusion = confusion_matrix(predicted.argmax(1), test_set.targets, num_classes=7)
        history.add({"accuracy": accuracy(confusion)})
    print(f"training {training}, {history.summary('accuracy')}")
    if training == 1:
        # A person looks at a hundred faces, on the page that `robustfer audit` makes.
        rows, counts = rows_to_verify(given, 100), given.bincount(minlength=7)
        true = train_set.true_targets[rows]
        estimate = transition_from_verified(true, given[rows], num_classes=7, given_counts=counts)
        print(estimate.text(train_set.classes))
        # What they tell also corrects the predictions of this network.
        said = correct_predictions(predicted, estimate.matrix, estimate.shares).argmax(1)
        print(f"predictions corrected, accuracy: {(said == test_set.targets).double().mean():.4f}")
        believed = (dynamics.probabilities() + average(train_images).logits.softmax(1).cpu()) / 2
        labels = corrected_labels(given, believed, transition=estimate).float()
        labels[rows] = F.one_hot(true, 7).float()
