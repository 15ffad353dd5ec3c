"""Losses for crowd votes, offered to robustfer by name: listing them loads no torch."""

from __future__ import annotations

from robustfer import Component, hookimpl

_BARSOUM = (
    "Barsoum et al., Training Deep Networks for Facial Expression Recognition with Crowd-Sourced "
    "Label Distribution, ICMI 2016"
)
_JIN = "Jin and Ghahramani, Learning with Multiple Labels, NIPS 2002"


@hookimpl
def robustfer_losses() -> list[Component]:
    """Return the losses of this package."""
    return [
        Component(
            name="drawn_vote",
            factory="robustfer_votes.losses:DrawnVoteLoss",
            summary="Cross entropy with one of a face's votes, drawn anew in each step",
            reference=_BARSOUM,
        ),
        Component(
            name="partial_label",
            factory="robustfer_votes.losses:PartialLabelLoss",
            summary="Any of the classes that people voted for is right",
            reference=f"{_JIN}; {_BARSOUM}",
        ),
        Component(
            name="vote_cross_entropy",
            factory="robustfer_votes.losses:VoteCrossEntropyLoss",
            summary="Cross entropy with the shares of the votes, smoothed on request",
            reference=_BARSOUM,
        ),
    ]
