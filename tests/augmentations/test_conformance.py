"""The public conformance kit on the core's own augmentations."""

import kornia.augmentation as K

from robustfer.augmentations import KorniaPipeline, MirroredPair, SingleView
from robustfer.testing import AugmentationConformance


class TestSingleView(AugmentationConformance):
    def make_augmentation(self):
        return SingleView(noise_std=0.1, size=20)


class TestMirroredPair(AugmentationConformance):
    def make_augmentation(self):
        return MirroredPair(noise_std=0.1)


class TestSharedMirroredPair(AugmentationConformance):
    def make_augmentation(self):
        return MirroredPair(erase="shared")


class TestKorniaPipeline(AugmentationConformance):
    test_tensors_are_parameters_or_buffers = None  # kornia's samplers hold their bounds so

    def make_augmentation(self):
        return KorniaPipeline(K.RandomRotation(20.0, p=0.5), K.ColorJitter(0.2, 0.2, p=0.5))


class TestMirroredPairWithPipeline(TestKorniaPipeline):
    def make_augmentation(self):
        return MirroredPair(size=20, pipeline=super().make_augmentation())
