"""The core's losses pass the checks that plugins are asked to pass."""

import torch
import torch.nn.functional as F
from torch import nn

from robustfer.losses import (
    AdaptiveWingLoss,
    AttentionConsistencyLoss,
    CompositeLoss,
    EACLoss,
    ExpressionLandmarkContrastiveLoss,
    ForwardCorrectionLoss,
    GSMCLoss,
    LandmarkAdaptiveWingLoss,
    LANetLoss,
    RankRegularizationLoss,
    SCNLoss,
    SelfDistillationLoss,
    Term,
)
from robustfer.testing import LossConformance, ParametricLossConformance


def maps(batch, classes, dtype, generator):
    pair = torch.randn(2, batch, classes, 3, 4, dtype=dtype, generator=generator)
    return {"attention": pair[0], "attention_flipped": pair[1]}


def with_votes(inputs, generator):
    """The same with probabilities for a target."""
    votes = torch.rand(inputs["logits"].shape, dtype=inputs["logits"].dtype, generator=generator)
    return {**inputs, "target": votes / votes.sum(1, keepdim=True)}


def class_weights(classes):
    return torch.linspace(0.5, 2.0, classes, dtype=torch.float32, device="cpu")


class TestAttentionConsistency(LossConformance):
    def make_loss(self):
        return AttentionConsistencyLoss()

    def make_inputs(self, *, batch, classes, dtype, generator):
        return maps(batch, classes, dtype, generator)


class TestAttentionConsistencyPerSample(TestAttentionConsistency):
    per_sample = True

    def make_loss(self):
        return AttentionConsistencyLoss(reduction="none")


class TestEAC(LossConformance):
    def make_loss(self):
        return EACLoss()

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "logits": torch.randn(batch, classes, dtype=dtype, generator=generator),
            "target": torch.randint(classes, (batch,), generator=generator),
            **maps(batch, classes, dtype, generator),
        }


class TestEACSoftTarget(TestEAC):
    def make_loss(self):
        return EACLoss(label_smoothing=0.1)

    def make_inputs(self, *, generator, **sizes):
        return with_votes(super().make_inputs(generator=generator, **sizes), generator)


class TestEACClassWeights(TestEAC):
    def make_loss(self):
        return EACLoss(class_weights=class_weights(self.classes))


class TestComposite(TestEAC):
    test_documents_shape_and_reference = None  # a composition has no paper of its own
    # torch's cross entropy works in the precision it is given.
    test_half_precision_is_summed_in_single = None

    def make_loss(self):
        return CompositeLoss(
            Term("ce", nn.CrossEntropyLoss(), inputs={"input": "logits"}),
            Term("attention", AttentionConsistencyLoss(), weight=5.0),
        )


def importances(batch, dtype, generator):
    """Near each other, so that the ranking is not content."""
    noise = torch.randn(batch, dtype=dtype, generator=generator)
    return {"importance": torch.sigmoid(0.1 * noise)}


class TestRankRegularization(LossConformance):
    def make_loss(self):
        return RankRegularizationLoss()

    def make_inputs(self, *, batch, classes, dtype, generator):
        return importances(batch, dtype, generator)


class TestRankRegularizationLearnt(ParametricLossConformance, TestRankRegularization):
    def make_loss(self):
        return RankRegularizationLoss(learnable_margin=True)


class TestSCN(LossConformance):
    def make_loss(self):
        return SCNLoss()

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "logits": torch.randn(batch, classes, dtype=dtype, generator=generator),
            "target": torch.randint(classes, (batch,), generator=generator),
            "bias": torch.randn(classes, dtype=dtype, generator=generator),
            **importances(batch, dtype, generator),
        }


class TestSCNSoftTarget(TestSCN):
    def make_inputs(self, *, generator, **sizes):
        return with_votes(super().make_inputs(generator=generator, **sizes), generator)


class TestSCNClassWeights(TestSCN):
    test_compiles_as_one_graph = None  # TestEACClassWeights compiles class weights

    def make_loss(self):
        return SCNLoss(class_weights=class_weights(self.classes))


class TestSCNOfficial(ParametricLossConformance, TestSCN):
    constants = (*LossConformance.constants, "bias")
    hides_nan = ("bias",)  # the authors' code weights the whole logits

    def make_loss(self):
        return SCNLoss(variant="official", learnable_margin=True)


def logits(batch, classes, dtype, generator, names):
    pair = torch.randn(2, batch, classes, dtype=dtype, generator=generator)
    return dict(zip(names, pair, strict=True))


class TestSelfDistillation(LossConformance):
    def make_loss(self):
        return SelfDistillationLoss(temperature=2.0)

    def make_inputs(self, *, batch, classes, dtype, generator):
        return logits(batch, classes, dtype, generator, ("student_logits", "teacher_logits"))


class TestSelfDistillationPerSample(TestSelfDistillation):
    per_sample = True

    def make_loss(self):
        return SelfDistillationLoss(reduction="none")


class TestGSMC(LossConformance):
    def make_loss(self):
        return GSMCLoss()

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            **logits(batch, classes, dtype, generator, ("logits", "teacher_logits")),
            "target": torch.randint(classes, (batch,), generator=generator),
            **maps(batch, classes, dtype, generator),
        }


class TestGSMCClassWeights(TestGSMC):
    test_compiles_as_one_graph = None  # TestEACClassWeights compiles class weights

    def make_loss(self):
        return GSMCLoss(class_weights=class_weights(self.classes))


class TestGSMCSoftTarget(TestGSMC):
    def make_inputs(self, *, generator, **sizes):
        return with_votes(super().make_inputs(generator=generator, **sizes), generator)


class TestForwardCorrection(LossConformance):
    def make_loss(self):
        # Each class is taken for the next: not symmetric, and with zeros.
        right = torch.eye(self.classes, dtype=torch.float32, device="cpu")
        return ForwardCorrectionLoss(transition=0.75 * right + 0.25 * right.roll(1, dims=1))

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "logits": torch.randn(batch, classes, dtype=dtype, generator=generator),
            "target": torch.randint(classes, (batch,), generator=generator),
        }


class TestForwardCorrectionRobust(TestForwardCorrection):
    per_sample = True

    def make_loss(self):
        right = torch.eye(self.classes, dtype=torch.float32, device="cpu")
        transition = 0.75 * right + 0.25 * right.roll(1, dims=1)
        return ForwardCorrectionLoss(transition=transition, q=0.5, reduction="none")

    def make_inputs(self, *, batch, generator, **sizes):
        inputs = super().make_inputs(batch=batch, generator=generator, **sizes)
        return {**inputs, "verified": torch.rand(batch, generator=generator) > 0.5}


class TestForwardCorrectionSoftTarget(TestForwardCorrectionRobust):
    def make_inputs(self, *, generator, **sizes):
        return with_votes(super().make_inputs(generator=generator, **sizes), generator)


class TestExpressionLandmarkContrast(LossConformance):
    constants = ("expression_queue", "landmark_queue")

    def make_loss(self):
        return ExpressionLandmarkContrastiveLoss(temperature=0.3)

    def make_inputs(self, *, batch, classes, dtype, generator):
        def unit(rows):
            return F.normalize(torch.randn(rows, 4, dtype=dtype, generator=generator), dim=1)

        rows = ("expression_query", "landmark_query", "expression_key", "landmark_key")
        queues = ("expression_queue", "landmark_queue")
        return {
            **{name: unit(batch) for name in rows},
            "pseudo_label": torch.randint(classes, (batch,), generator=generator),
            **{name: unit(11) for name in queues},
            "queue_label": torch.randint(classes, (11,), generator=generator),
        }


class TestExpressionLandmarkContrastOfficial(TestExpressionLandmarkContrast):
    def make_loss(self):
        return ExpressionLandmarkContrastiveLoss(temperature=0.3, variant="official")


def heatmaps(batch, dtype, generator):
    maps = torch.randn(batch, 3, 8, 6, dtype=dtype, generator=generator)
    return {"heatmaps": 0.4 * maps}


class TestAdaptiveWing(LossConformance):
    constants = ("heatmap_target", "heatmap_weights")

    def make_loss(self):
        return AdaptiveWingLoss()

    def make_inputs(self, *, batch, classes, dtype, generator):
        predicted = heatmaps(batch, dtype, generator)
        target, weights = torch.rand(2, batch, 3, 8, 6, dtype=dtype, generator=generator)
        return {**predicted, "heatmap_target": target, "heatmap_weights": weights}


class TestAdaptiveWingPerSample(TestAdaptiveWing):
    per_sample = True

    def make_loss(self):
        return AdaptiveWingLoss(reduction="none")


class TestLandmarkAdaptiveWing(LossConformance):
    constants = ("landmarks",)
    hides_nan = ("landmarks",)  # one that was not found is not learnt

    def make_loss(self):
        return LandmarkAdaptiveWingLoss(image_size=(32, 24))

    def make_inputs(self, *, batch, classes, dtype, generator):
        predicted = heatmaps(batch, dtype, generator)
        landmarks = 23 * torch.rand(batch, 3, 2, dtype=dtype, generator=generator)
        visible = torch.rand(batch, 3, generator=generator) > 0.3
        visible[:, 0] = True
        return {**predicted, "landmarks": landmarks, "visible": visible}


class TestLandmarkAdaptiveWingPerSample(TestLandmarkAdaptiveWing):
    per_sample = True

    def make_loss(self):
        return LandmarkAdaptiveWingLoss(image_size=(32, 24), reduction="none")


class TestLANet(LossConformance):
    constants = ("landmarks", "expression_queue", "landmark_queue")
    hides_nan = ("landmarks",)

    def make_loss(self):
        return LANetLoss(image_size=(32, 24))

    def make_inputs(self, *, batch, classes, dtype, generator):
        def units(count, rows):
            drawn = torch.randn(count, rows, 6, dtype=dtype, generator=generator)
            return nn.functional.normalize(drawn, dim=2)

        def labels(rows):
            return torch.randint(3, (rows,), generator=generator)

        spaces = ("expression_query", "landmark_query", "expression_key", "landmark_key")
        return {
            "logits": torch.randn(batch, classes, dtype=dtype, generator=generator),
            "target": torch.randint(classes, (batch,), generator=generator),
            "soft_target": torch.randn(batch, classes, dtype=dtype, generator=generator).softmax(1),
            **dict(zip(spaces, units(4, batch), strict=True)),
            "pseudo_label": labels(batch),
            **dict(zip(("expression_queue", "landmark_queue"), units(2, 11), strict=True)),
            "queue_label": labels(11),
            **heatmaps(batch, dtype, generator),
            "landmarks": 23 * torch.rand(batch, 3, 2, dtype=dtype, generator=generator),
        }


class TestLANetClassWeights(TestLANet):
    # TestEACClassWeights has these checks of class weights, and they are slow here.
    test_compiles_as_one_graph = None
    test_gradient_is_right = None

    def make_loss(self):
        return LANetLoss(image_size=(32, 24), class_weights=class_weights(self.classes))
