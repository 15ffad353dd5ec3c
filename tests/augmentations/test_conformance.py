"""The core's augmentations pass the checks that plugins are asked to pass."""

import kornia.augmentation as K

from robustfer.augmentations import KorniaPipeline, MirroredPair, SingleView
from robustfer.testing import AugmentationConformance


class TestSingleView(AugmentationConformance):
    def make_augmentation(self):
        return SingleView(size=(16, 18), noise_std=0.1)


class TestMirroredPair(AugmentationConformance):
    def make_augmentation(self):
        return MirroredPair(noise_std=0.1)


class TestMirroredPairShared(AugmentationConformance):
    def make_augmentation(self):
        return MirroredPair(erase="shared")


class TestKorniaPipeline(AugmentationConformance):
    # kornia's operations keep what they drew last, and the bounds they draw from.
    test_forward_leaves_state_alone = None
    test_tensors_are_parameters_or_buffers = None

    def make_augmentation(self):
        return KorniaPipeline(K.RandomRotation(10.0, p=0.5), K.ColorJitter(0.2, 0.2, p=1.0))


class TestPipelineInAView(TestKorniaPipeline):
    def make_augmentation(self):
        return MirroredPair(pipeline=super().make_augmentation())
