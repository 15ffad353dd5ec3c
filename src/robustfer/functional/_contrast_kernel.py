"""The contrast with two queues: value and gradient in one pass.

It is a custom operator, which a compiled graph calls once for queues of any length. Temporaries
follow a byte budget: it reads the queues in chunks, with a running log-sum-exp, and a large batch
in blocks of rows.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustfer.functional._budget import byte_budget
from robustfer.functional._known_gradient import check_first, only_once
from robustfer.functional._precision import without_autocast

UNFILLED = torch.iinfo(torch.int64).min
"""Label of a queue slot that is not filled yet."""

_NEVER = -float("inf")
# Greatest logit, sum of exponentials, sum of the queue's rows weighted by them.
_Sums = tuple[Tensor, Tensor, Tensor]


@torch.library.custom_op(
    "robustfer::contrast_with_queues",
    mutates_args=(),
    # torch cannot infer the schema: the annotations are strings here.
    schema="(Tensor expression_query, Tensor landmark_query, Tensor expression_key, "
    "Tensor landmark_key, Tensor pseudo_label, "
    "Tensor expression_queue, Tensor landmark_queue, Tensor queue_label, "
    "float temperature, bool mask_unfilled, bool with_gradient) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def contrast_with_queues(
    expression_query: Tensor,
    landmark_query: Tensor,
    expression_key: Tensor,
    landmark_key: Tensor,
    pseudo_label: Tensor,
    expression_queue: Tensor,
    landmark_queue: Tensor,
    queue_label: Tensor,
    temperature: float,
    mask_unfilled: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the loss and its gradients by the first four arguments.

    The gradients are empty without ``with_gradient``.
    """
    loss, dtype, batch = expression_query.new_zeros(()), expression_query.dtype, len(pseudo_label)
    likes = (expression_query, landmark_query, expression_key, landmark_key)
    gradients = [torch.zeros_like(like) if with_gradient else like.new_empty(0) for like in likes]
    rows, columns = _block(expression_query)
    with without_autocast(expression_query):
        for start in range(0, batch, rows):
            block = slice(start, start + rows)
            queries = expression_query[block] / temperature, landmark_query[block] / temperature
            queues, keys = (landmark_queue, expression_queue), (landmark_key, expression_key)
            sums = [_nothing(query) for query in queries]
            for first in range(0, len(queue_label), columns):
                chunk = slice(first, first + columns)
                excluded = pseudo_label[block, None] == queue_label[chunk]
                if mask_unfilled:
                    excluded |= queue_label[chunk] == UNFILLED
                bias = torch.where(excluded, _NEVER, 0.0).to(dtype)
                for side in (0, 1):
                    part = queues[side][chunk].to(dtype)
                    sums[side] = _absorb(sums[side], queries[side], part, bias, with_gradient)
            positive = pseudo_label[block, None] == pseudo_label
            share = positive.to(dtype) / (positive.sum(1, keepdim=True) * batch)
            for side in (0, 1):
                greatest, total, pull = sums[side]
                margin = queries[side] @ keys[side].T - (greatest + total.log())
                loss -= (share * F.logsigmoid(margin)).sum()
                if with_gradient:
                    push = share * torch.sigmoid(-margin)
                    # A total is at least 1, unless all negatives are masked: then push is zero.
                    mean_negative = pull / total.clamp_min(1.0)
                    towards = push.sum(1, keepdim=True) * mean_negative - push @ keys[side]
                    gradients[side][block] = towards / temperature
                    gradients[3 - side] -= push.T @ queries[side]
    return (loss, *gradients)  # type: ignore[return-value]


def _block(like: Tensor) -> tuple[int, int]:
    """Return how many rows of the batch and columns of a queue fit into the byte budget."""
    budget, batch, size = byte_budget(like.device.type), len(like), like.element_size()
    # share, margin and push, and room for one more
    rows = max(1, min(batch, budget // (4 * size * batch)))
    # logits, bias and mask
    return rows, max(1, budget // (rows * (2 * size + 1)))


def _nothing(query: Tensor) -> _Sums:
    column = query.new_full((len(query), 1), _NEVER)
    return column, torch.zeros_like(column), torch.zeros_like(query)


def _absorb(sums: _Sums, query: Tensor, queue: Tensor, bias: Tensor, with_pull: bool) -> _Sums:
    greatest, total, pull = sums
    logits = torch.addmm(bias, query, queue.T)
    higher = torch.maximum(greatest, logits.amax(dim=1, keepdim=True))
    # Where all are masked so far, the greatest is -inf.
    base = higher.masked_fill(higher == _NEVER, 0.0)
    # Exponentials of -inf are slow on CPUs. Beside the greatest term, 1, the floor adds nothing.
    weights = logits.sub_(base).clamp_min_(-80.0).exp_()
    shrink = (greatest - base).exp()
    total = total * shrink + weights.sum(dim=1, keepdim=True)
    return higher, total, pull * shrink + weights @ queue if with_pull else pull


@contrast_with_queues.register_fake
def _(*given: Any) -> tuple[Tensor, ...]:
    likes, with_gradient = given[:4], given[-1]
    made = (torch.empty_like(like) if with_gradient else like.new_empty(0) for like in likes)
    return (likes[0].new_empty(()), *made)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])
    only_once(ctx)


def _scale(ctx: Any, gradient: Tensor | None, *second: Tensor | None) -> tuple[Tensor | None, ...]:
    check_first("the contrast of expressions and landmarks", *second)
    made = [None] * 4 if gradient is None else [gradient * each for each in ctx.saved_tensors]
    return (*made, *([None] * 7))


contrast_with_queues.register_autograd(_scale, setup_context=_keep)
