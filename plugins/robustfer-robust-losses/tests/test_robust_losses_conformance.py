"""Every module keeps to what all losses must, and most do so with probabilities too."""

import torch

from robustfer.testing import LossConformance
from robustfer_robust_losses.losses import (
    ActivePassiveLoss,
    HardBootstrappingLoss,
    MeanAbsoluteErrorLoss,
    NormalizedCrossEntropyLoss,
    NormalizedGeneralizedCrossEntropyLoss,
    ReverseCrossEntropyLoss,
    SoftBootstrappingLoss,
    SymmetricCrossEntropyLoss,
    TruncatedGeneralizedCrossEntropyLoss,
)


class Classes(LossConformance):
    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "logits": torch.randn(batch, classes, dtype=dtype, generator=generator),
            "target": torch.randint(classes, (batch,), generator=generator),
        }


class Probabilities(LossConformance):
    per_sample = True  # and with it the other reduction

    def make_inputs(self, *, batch, classes, dtype, generator):
        logits, votes = torch.randn(2, batch, classes, dtype=dtype, generator=generator)
        return {"logits": logits, "target": votes.softmax(dim=1)}


class TestMeanAbsoluteError(Classes):
    def make_loss(self):
        return MeanAbsoluteErrorLoss()


class TestMeanAbsoluteErrorOfProbabilities(Probabilities):
    def make_loss(self):
        return MeanAbsoluteErrorLoss(reduction="none")


class TestTruncatedGeneralizedCrossEntropy(Classes):
    def make_loss(self):
        return TruncatedGeneralizedCrossEntropyLoss(q=0.6, threshold=0.05)


class TestReverseCrossEntropy(Classes):
    def make_loss(self):
        return ReverseCrossEntropyLoss()


class TestReverseCrossEntropyOfProbabilities(Probabilities):
    def make_loss(self):
        return ReverseCrossEntropyLoss(floor=0.1, reduction="none")


class TestSymmetricCrossEntropy(Classes):
    def make_loss(self):
        return SymmetricCrossEntropyLoss()


class TestNormalizedCrossEntropy(Classes):
    def make_loss(self):
        return NormalizedCrossEntropyLoss()


class TestNormalizedGeneralizedCrossEntropy(Classes):
    def make_loss(self):
        return NormalizedGeneralizedCrossEntropyLoss()


class TestActivePassive(Classes):
    def make_loss(self):
        return ActivePassiveLoss(active_weight=2.0, passive_weight=0.5)


class TestActivePassiveOfProbabilities(Probabilities):
    def make_loss(self):
        return ActivePassiveLoss(
            active="normalized_generalized_cross_entropy",
            passive="reverse_cross_entropy",
            reduction="none",
        )


class TestSoftBootstrapping(Classes):
    def make_loss(self):
        return SoftBootstrappingLoss()


class TestSoftBootstrappingOfProbabilities(Probabilities):
    def make_loss(self):
        return SoftBootstrappingLoss(label_weight=0.5, reduction="none")


class TestHardBootstrapping(Classes):
    def make_loss(self):
        return HardBootstrappingLoss()
