"""Turn the votes of several people into a label, by the rules of FERPlus's authors."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from robustfer._checks import check_choice, check_shapes
from robustfer.data.classes import EXPRESSIONS_WITH_CONTEMPT

#: The columns of a table of votes: the classes in robustfer's order, then the other answers.
VOTE_COLUMNS: tuple[str, ...] = (*EXPRESSIONS_WITH_CONTEMPT, "unknown", "NF")

VoteRule = Literal["majority", "probability", "crossentropy", "multi_target"]


def judge(votes: Tensor, *, num_classes: int, rule: VoteRule) -> tuple[Tensor, Tensor]:
    """Return the shares of the classes by a rule, and the leading column.

    Shares are probabilities, float32 (N, C), or zeros if no class leads. The leader, int64 (N), is
    a class, a later column, or -1 if the votes are too divided. Columns with a single vote are
    dropped first, as probable mistakes. The rules are:

    - ``"majority"``: take the column with more than half of the votes.
    - ``"probability"`` and ``"crossentropy"``: take columns in the order of their votes, equal ones
      together. Stop when they have three quarters of the votes, are three, or the next column is
      not a class. They must have more than half of the votes and be at most three. Shares are their
      relative votes. They are the target of ``"crossentropy"``. For ``"probability"`` the training
      loop draws a class from them at each visit (:func:`torch.multinomial`).
    - ``"multi_target"``: take the columns with at least three tenths of the votes. Together they
      must have more than half. The classes among them get equal shares. The authors' loss accepts
      any class with ``shares > 0``.

    Args:
        votes: number of votes for each column, classes first, integers (N, V).
        num_classes: number of columns that are classes, C.
        rule: the rule.

    Reference:
        Barsoum et al., Training Deep Networks for Facial Expression Recognition with
        Crowd-Sourced Label Distribution, ICMI 2016, and its authors' program.

    >>> votes = torch.tensor([[6, 4, 0], [5, 5, 0], [2, 0, 8]])
    >>> shares, leader = judge(votes, num_classes=2, rule="majority")
    >>> leader
    tensor([ 0, -1,  2])
    """
    check_choice("rule", rule, get_args(VoteRule))
    check_shapes(votes=(votes, "N V"))
    kept = votes.where(votes > 1, 0)
    if not 1 <= num_classes <= votes.shape[1]:
        raise ValueError(f"num_classes must lie in [1, {votes.shape[1]}], got {num_classes}")
    total = kept.sum(dim=1)
    taken = kept
    if rule == "majority":
        decided = 2 * kept.amax(dim=1) > total
        taken = kept * (2 * kept > total[:, None])
    elif rule == "multi_target":
        taken = kept * (10 * kept >= 3 * total[:, None])
        decided = 2 * taken.sum(dim=1) > total
    else:
        taken, decided = _greatest(kept, num_classes)
    # The first of equal columns leads, so a class comes before a column that is not one.
    first_greatest = (taken == taken.amax(dim=1, keepdim=True)).to(torch.int64).argmax(dim=1)
    leader = first_greatest.where(decided, -1)

    wanted = taken[:, :num_classes].float()
    if rule == "multi_target":
        wanted = (wanted > 0).float()
    wanted = wanted * ((leader >= 0) & (leader < num_classes))[:, None]
    return wanted / wanted.sum(dim=1, keepdim=True).clamp(min=1), leader


def _greatest(kept: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the votes that the rule "probability" takes, and whether they decide."""
    total = kept.sum(dim=1)
    taken = torch.zeros_like(kept)
    goes_on = total > 0
    for _ in range(3):  # each round takes at least one column
        rest = kept - taken
        most = rest.amax(dim=1)
        equals = (rest == most[:, None]) & goes_on[:, None]
        classes = equals.clone()
        classes[:, num_classes:] = False
        taken = taken + kept * classes
        # A column that is not a class leads if no class has as many votes.
        outside = equals & ~classes
        outside &= outside.cumsum(dim=1) == 1
        ends = outside.any(dim=1)
        leads = ends & (taken.sum(dim=1) == 0)
        taken = taken + kept * (outside & leads[:, None])
        enough = (4 * taken.sum(dim=1) >= 3 * total) | ((taken > 0).sum(dim=1) >= 3)
        goes_on = goes_on & ~ends & ~enough
    columns = (taken[:, :num_classes] > 0).sum(dim=1)
    return taken, (2 * taken.sum(dim=1) > total) & (columns <= 3)
