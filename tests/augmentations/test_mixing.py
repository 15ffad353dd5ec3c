import warnings

import kornia.augmentation as K
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.geometry.bbox import bbox_generator

from robustfer.augmentations import CutMix, MixUp
from robustfer.losses import check_values
from robustfer.state import LabelStore
from robustfer.testing._host_synchronisation import refused_host_synchronisation
from tests.augmentations.test_erasing import OnTheGPU
from tests.other_device import DEVICE, OtherDevice

BOTH = pytest.mark.parametrize("kind", [MixUp, CutMix])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(size=16, classes=5, height=12, width=9, dtype=torch.float32, soft=False, seed=0):
    generator = seeded(seed)
    images = torch.rand(size, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)
    target = torch.randint(classes, (size,), generator=generator)
    if soft:
        target = torch.rand(size, classes, generator=generator).softmax(1)
    return images, target, torch.randperm(2000, generator=generator)[:size]


def rows_of(mixed, index):
    """Which row of the batch each partner is."""
    place = {number: row for row, number in enumerate(index.tolist())}
    return [place[number] for number in mixed.partner.tolist()]


def slow_targets(mixed, target, index, classes):
    found = torch.zeros(len(index), classes, dtype=torch.float64)
    for row, other in enumerate(rows_of(mixed, index)):
        weight = float(mixed.weight[row])
        for source, share in ((row, weight), (other, 1 - weight)):
            if target.ndim == 1:
                found[row, target[source]] += share
            else:
                found[row] += share * target[source]
    return found


@BOTH
@settings(deadline=None, max_examples=20)
@given(st.data())
def test_targets_follow_weights_and_partners(kind, data):
    size, classes = data.draw(st.integers(1, 9)), data.draw(st.integers(2, 6))
    images, target, index = batch(size, classes, soft=data.draw(st.booleans()))
    given_images, given_target = images.clone(), target.clone()
    mix = kind(
        num_classes=classes, alpha=data.draw(st.floats(0.01, 8)),
        probability=data.draw(st.floats(0, 1)),
    )  # fmt: skip
    mixed = mix(images, target, index, generator=seeded(data.draw(st.integers(0, 99))))
    assert torch.equal(mixed.index, index)
    assert sorted(mixed.partner.tolist()) == sorted(index.tolist())
    assert bool(((mixed.weight >= 0) & (mixed.weight <= 1)).all())
    # State may learn from an image that is its own partner.
    assert bool((mixed.weight[mixed.partner == index] == 1).all())
    slow = slow_targets(mixed, target, index, classes)
    torch.testing.assert_close(mixed.target.double(), slow, atol=1e-6, rtol=0)
    assert torch.equal(images, given_images)
    assert torch.equal(target, given_target)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mixup_is_kornias_with_the_same_parameters(dtype):
    images, target, index = batch(dtype=dtype)
    mixed = MixUp(num_classes=5, alpha=1.0)(images, target, index, generator=seeded())
    parameters = {
        "mixup_pairs": torch.tensor(rows_of(mixed, index)),
        "mixup_lambdas": 1 - mixed.weight.to(dtype),
    }
    expected = K.RandomMixUpV2().apply_transform(images, parameters)
    torch.testing.assert_close(mixed.images, expected)


def boxes_of(images, mixed, pairs):
    """The box of each image, found by what has changed: left, top, width, height."""
    found = []
    for row, other in enumerate(pairs):
        changed = (mixed.images[row] != images[row]).any(0)
        assert torch.equal(mixed.images[row][:, changed], images[other][:, changed])
        if not changed.any():
            found.append((0, 0, 0, 0))
            continue
        rows, columns = changed.any(1).nonzero()[:, 0], changed.any(0).nonzero()[:, 0]
        height, width = len(rows), len(columns)
        assert int(changed.sum()) == height * width  # a rectangle without a hole
        assert rows[-1] - rows[0] + 1 == height
        found.append((int(columns[0]), int(rows[0]), width, height))
    return found


def test_cutmix_is_kornias_with_the_same_boxes():
    images, target, index = batch(40)
    mixed = CutMix(num_classes=5)(images, target, index, generator=seeded())
    pairs = rows_of(mixed, index)
    boxes = torch.tensor(boxes_of(images, mixed, pairs))
    kept = (torch.tensor(pairs) != torch.arange(40)) & (boxes[:, 2] > 0)
    assert int(kept.sum()) > 25
    area = (boxes[:, 2] * boxes[:, 3])[kept] / (12 * 9)
    torch.testing.assert_close(mixed.weight[kept], 1 - area.float())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        operation = K.RandomCutMixV2(use_correct_lambda=True)
    parameters = {
        "mix_pairs": torch.tensor(pairs)[None],
        "crop_src": bbox_generator(*boxes.float().unbind(1))[None],
    }
    expected = operation.apply_transform(images, parameters)
    assert torch.equal(mixed.images[kept], expected[kept])


def test_boxes_lie_anywhere_and_are_as_large_as_the_weight_says():
    size = 4000
    images = torch.arange(size, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 8, 6)
    index = torch.arange(size)
    mixed = CutMix(num_classes=2)(images, index % 2, index, generator=seeded())
    changed = mixed.images[:, 0] != images[:, 0]
    own = mixed.partner != index
    torch.testing.assert_close(
        changed[own].double().mean((1, 2)), 1 - mixed.weight[own].double(), atol=1e-6, rtol=0
    )
    often = changed.double().mean(0)
    assert float(often.min()) > 0.1  # corners too
    torch.testing.assert_close(often, often.flip(0), atol=0.03, rtol=0)
    torch.testing.assert_close(often, often.flip(1), atol=0.03, rtol=0)


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 3.0])
def test_weights_are_a_beta_variable(alpha):
    size = 20_000
    images, index = torch.zeros(size, 1, 1, 1), torch.arange(size)
    mix = MixUp(num_classes=2, alpha=alpha)
    weight = mix(images, index % 2, index, generator=seeded()).weight.double()
    assert float(weight.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(weight.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


@BOTH
def test_the_probability_is_of_each_sample(kind):
    images, target, index = batch(2000, height=4, width=4)
    never = kind(num_classes=5, probability=0.0)(images, target, index)
    assert torch.equal(never.images, images)
    assert bool((never.weight == 1).all())
    options = {"num_classes": 5, "alpha": 1.0, "probability": 0.3}
    some = kind(**options)(images, target, index, generator=seeded())
    share = float((some.weight < 1).double().mean())
    # Boxes of this size round down to nothing now and then.
    assert share == pytest.approx(0.3 if kind is MixUp else 0.28, abs=0.04)


@BOTH
def test_nothing_is_mixed_in_evaluation(kind):
    images, target, index = batch()
    mixed = kind(num_classes=5).eval()(images, target, index)
    assert torch.equal(mixed.images, images)
    assert torch.equal(mixed.target.argmax(1), target)
    assert torch.equal(mixed.partner, index)
    assert mixed.weight.tolist() == [1.0] * 16


@BOTH
def test_one_generator_decides_all(kind):
    arguments = batch()
    mix = kind(num_classes=5)
    first, again, other = (mix(*arguments, generator=seeded(seed)) for seed in (1, 1, 2))
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first.images, other.images)
    torch.manual_seed(5)
    first = mix(*arguments)
    torch.manual_seed(5)
    assert torch.equal(mix(*arguments).images, first.images)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_images_stay_half(kind, dtype):
    images, target, index = batch(dtype=dtype)
    mix = kind(num_classes=5, alpha=1.0)
    mixed = mix(images, target, index, generator=seeded())
    assert mixed.images.dtype == dtype
    assert (mixed.target.dtype, mixed.weight.dtype) == (torch.float32, torch.float32)
    exact = mix(images.double(), target, index, generator=seeded()).images
    torch.testing.assert_close(mixed.images, exact.to(dtype))
    soft = batch(soft=True)[1].to(dtype)
    assert mix(images, soft, index).target.dtype == torch.float32


@BOTH
@pytest.mark.parametrize("soft", [False, True])
def test_compiles_whole(kind, soft):
    torch.compiler.reset()
    images, target, index = batch(soft=soft)
    mix = torch.compile(kind(num_classes=5, alpha=1.0), fullgraph=True, backend="aot_eager")
    mixed = mix(images, target, index)
    slow = slow_targets(mixed, target, index, 5)
    torch.testing.assert_close(mixed.target.double(), slow, atol=1e-6, rtol=0)
    assert 0 < float((mixed.images != images).double().mean()) <= 1


@BOTH
def test_another_device_gets_what_the_cpu_gets(kind):
    arguments = batch()
    expected = kind(num_classes=5)(*arguments, generator=seeded())
    with OtherDevice():
        moved = [tensor.to(DEVICE) for tensor in arguments]
        mixed = kind(num_classes=5)(*moved, generator=seeded())
        for one, two in zip(mixed, expected, strict=True):
            assert one.device.type == DEVICE.type
            torch.testing.assert_close(one.cpu(), two)


@BOTH
@pytest.mark.parametrize("soft", [False, True])
def test_no_gpu_is_waited_for(kind, soft):
    arguments = batch(soft=soft)
    with refused_host_synchronisation():
        kind(num_classes=5)(*arguments, generator=seeded())


@BOTH
def test_labels_that_training_changed_are_mixed(kind):
    images, target, _ = batch()
    index = torch.arange(16)
    labels = LabelStore(target, num_classes=5)
    changed = (target + 1) % 5
    labels.update(index, changed, step=0, epoch=0)
    mixed = kind(num_classes=5)(images, labels(index), index, generator=seeded())
    torch.testing.assert_close(
        mixed.target.double(), slow_targets(mixed, changed, index, 5), atol=1e-6, rtol=0
    )
    whole = kind(num_classes=5, probability=0.5)(images, labels(index), index, generator=seeded(1))
    assert torch.equal(whole.images[whole.weight == 1], images[whole.weight == 1])


@BOTH
def test_what_does_not_fit_is_refused(kind):
    images, target, index = batch()
    mix = kind(num_classes=5)
    for options, name in (
        ({"num_classes": 1}, "num_classes"),
        ({"num_classes": 5, "alpha": 0.0}, "alpha"),
        ({"num_classes": 5, "probability": 1.5}, "probability"),
    ):
        with pytest.raises(ValueError, match=name):
            kind(**options)
    with pytest.raises(TypeError, match=r"target must be a torch.Tensor, got list"):
        mix(images, target.tolist(), index)
    with pytest.raises(ValueError, match="images"):
        mix((images * 255).to(torch.uint8), target, index)
    with pytest.raises(ValueError, match=r"index has B=15 but images has B=16"):
        mix(images, target, index[:15])
    with pytest.raises(ValueError, match="target must have shape"):
        mix(images, torch.full((16, 4), 0.25), index)
    with pytest.raises(ValueError, match="target must be int64"):
        mix(images, target.int(), index)
    with pytest.raises(ValueError, match="index must be int64"):
        mix(images, target, index.int())
    with pytest.raises(ValueError, match="generator must be on the CPU"):
        mix(images, target, index, generator=OnTheGPU())
    for label in (-1, 5):
        with pytest.raises(IndexError, match=f"0 to 4, got {label} at position 0. If your labels"):
            mix(images, target.clone().fill_(label), index)
    with check_values(), pytest.raises(ValueError, match="class indices from 0 to 4, got 7"):
        mix(images, target.clamp(min=7), index)
