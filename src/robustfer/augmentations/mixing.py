"""Mix each image of a batch with another: mixup and cutmix."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustfer._checks import (
    check_class_index,
    check_floating,
    check_int64,
    check_probabilities,
    check_range,
    check_shapes,
    check_whole_number,
    values_are_checked,
)
from robustfer.augmentations._pixels import check_generator, to_device, uniform
from robustfer.augmentations.erasing import box_mask
from robustfer.functional._cross_entropy import name_label


class MixedBatch(NamedTuple):
    """A batch of mixed images, with the partner and the share of each.

    Attributes:
        images: the mixed images ``(B, channels, H, W)``.
        target: the mixed targets, probabilities ``(B, C)``, float32 or float64.
        index: rows of the images in their data set ``(B)``, unchanged.
        partner: rows of the images mixed in ``(B)``.
        weight: share of the image itself ``(B)``, float32; 1 for an unmixed image.
    """

    images: Tensor
    target: Tensor
    # The field hides tuple.index.
    index: Tensor  # type: ignore[assignment]
    partner: Tensor
    weight: Tensor


class _Mixing(nn.Module):
    """Shared by both: options, pairs, weights and targets.

    kornia's mixup draws the share uniformly, not from a beta distribution, and neither of its two
    takes a generator or probabilities as labels. The tests hold the mixed images to kornia's.
    """

    __call__: Callable[..., MixedBatch]

    def __init__(self, *, num_classes: int, alpha: float, probability: float) -> None:
        super().__init__()
        self.num_classes = check_whole_number("num_classes", num_classes, 2)
        self.alpha = check_range("alpha", alpha, 0.0, open_low=True)
        self.probability = check_range("probability", probability, 0.0, 1.0)

    @torch.no_grad()
    def forward(
        self,
        images: Tensor,
        target: Tensor,
        index: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> MixedBatch:
        self._check(images, target, index)
        check_generator(generator)
        soft = target
        if target.ndim == 1:
            try:
                soft = F.one_hot(target, self.num_classes).float()
            except RuntimeError as error:
                name_label(target, self.num_classes, error)
                raise
        soft = soft.to(torch.promote_types(soft.dtype, torch.float32))
        if not self.training:
            return MixedBatch(images, soft, index, index, soft.new_ones(len(soft)).float())
        pairs = torch.randperm(len(images), generator=generator, device="cpu")
        # The ratio of two gamma variables is a beta variable.
        alpha = torch.full((len(images), 2), self.alpha, dtype=torch.float64, device="cpu")
        gamma = torch._standard_gamma(alpha, generator=generator).clamp_(min=1e-300)
        share = gamma[:, 0] / gamma.sum(dim=1)
        chosen = uniform(len(images), generator=generator) < self.probability
        # With itself as partner a sample is not mixed, so its weight is 1.
        chosen &= pairs != torch.arange(len(images), device="cpu")
        share = share.where(chosen, 1.0)
        pairs = to_device(pairs, images.device)
        mixed, weight = self._mixed(images, images[pairs], share, generator)
        own = weight[:, None].to(soft.dtype)
        target = own * soft + (1 - own) * soft[pairs]
        return MixedBatch(mixed, target, index, index[pairs], weight)

    def _mixed(
        self, images: Tensor, others: Tensor, share: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed images, and the share of the image itself in each."""
        raise NotImplementedError

    def _check(self, images: Tensor, target: Tensor, index: Tensor) -> None:
        soft = isinstance(target, Tensor) and target.ndim == 2
        shape = f"B {self.num_classes}" if soft else "B"
        check_shapes(images=(images, "B C H W"), target=(target, shape), index=(index, "B"))
        check_int64(index=index)
        check_floating(images=images)
        if soft:
            check_probabilities(target=target)
            return
        check_int64(target=target)
        if values_are_checked():
            check_class_index(self.num_classes, target=target)

    def extra_repr(self) -> str:
        names = ("num_classes", "alpha", "probability")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


class MixUp(_Mixing):
    r"""Mix each image and its target with those of another sample of the batch.

    .. math::
        \lambda_i \sim \operatorname{Beta}(\alpha, \alpha), \qquad
        \tilde x_i = \lambda_i x_i + (1 - \lambda_i) x_{\pi(i)}, \qquad
        \tilde y_i = \lambda_i y_i + (1 - \lambda_i) y_{\pi(i)}

    The partners :math:`\pi` are a random order of the batch. A sample that is its own partner is
    not mixed. In ``eval()`` nothing is mixed.

    Mix a view just before the network, and look up the labels of a ``LabelStore`` before that. The
    prediction for a mixed image says little about the sample. Give state, such as
    :class:`robustfer.state.TrainingDynamics`, only rows with ``weight`` 1 or predictions of an
    unmixed view.

    Args:
        num_classes: number of classes C.
        alpha: :math:`\alpha`; smaller values mix less.
        probability: probability that a sample is mixed.

    Shape:
        images ``(B, channels, H, W)`` floating-point; target ``(B)`` int64, or ``(B, C)``
        probabilities; index ``(B)`` int64 -> a :class:`MixedBatch`. The images keep their dtype.

    Raises:
        ValueError: an option is out of its range, or a tensor does not fit.

    Reference:
        Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.

    >>> mix = MixUp(num_classes=7, alpha=0.4)
    >>> images, target = torch.rand(4, 3, 48, 48), torch.tensor([0, 3, 6, 3])
    >>> mixed = mix(images, target, torch.arange(4), generator=torch.Generator().manual_seed(0))
    >>> mixed.target.sum(1)
    tensor([1., 1., 1., 1.])
    """

    def __init__(self, *, num_classes: int, alpha: float = 0.2, probability: float = 1.0) -> None:
        super().__init__(num_classes=num_classes, alpha=alpha, probability=probability)

    def _mixed(
        self, images: Tensor, others: Tensor, share: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        weight = to_device(share.float(), images.device)
        own = weight[:, None, None, None]
        # Half images are mixed in float32, because 1 - weight would lose digits.
        wide = torch.promote_types(images.dtype, torch.float32)
        mixed = own * images.to(wide) + (1 - own) * others.to(wide)
        return mixed.to(images.dtype), weight


class CutMix(_Mixing):
    r"""Paste a box of another sample into each image, and mix the targets by its area.

    .. math::
        \lambda_i \sim \operatorname{Beta}(\alpha, \alpha), \qquad
        (h_i, w_i) = \lfloor \sqrt{1 - \lambda_i} \, (H, W) \rfloor, \qquad
        \tilde y_i = y_i + \frac{h_i w_i}{H W} (y_{\pi(i)} - y_i)

    The box lies anywhere inside the image, at the same place in both. Everything else is as in
    :class:`MixUp`.

    Args:
        num_classes: number of classes C.
        alpha: :math:`\alpha`; with 1 the area of the box is uniform.
        probability: probability that a sample is mixed.

    Shape:
        the same as for :class:`MixUp`.

    Raises:
        ValueError: the same as for :class:`MixUp`.

    Reference:
        Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
        Features, ICCV 2019.

    >>> mix = CutMix(num_classes=7)
    >>> images, target = torch.rand(4, 3, 48, 48), torch.tensor([0, 3, 6, 3])
    >>> mixed = mix(images, target, torch.arange(4), generator=torch.Generator().manual_seed(0))
    >>> mixed.partner
    tensor([0, 1, 3, 2])
    """

    def __init__(self, *, num_classes: int, alpha: float = 1.0, probability: float = 1.0) -> None:
        super().__init__(num_classes=num_classes, alpha=alpha, probability=probability)

    def _mixed(
        self, images: Tensor, others: Tensor, share: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        size = torch.tensor(images.shape[:1:-1], dtype=torch.float64, device="cpu")  # (W, H)
        cut = ((1 - share).sqrt()[:, None] * size).floor()
        place = uniform(len(images), 2, generator=generator, dtype=torch.float64)
        corner = (place * (size + 1 - cut)).floor()
        boxes = torch.cat((corner, corner + cut), dim=1).long()
        weight = (1 - cut.prod(dim=1) / size.prod()).float()
        return others.where(box_mask(images, boxes), images), to_device(weight, images.device)
