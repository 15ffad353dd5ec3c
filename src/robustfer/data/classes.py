"""The names and the order of the expression classes, the same for every data set."""

from __future__ import annotations

#: The seven basic expressions in the order that ``target`` means everywhere in robustfer.
EXPRESSIONS: tuple[str, ...] = (
    "surprise",
    "fear",
    "disgust",
    "happiness",
    "sadness",
    "anger",
    "neutral",
)

#: The same with contempt, which some data sets label too.
EXPRESSIONS_WITH_CONTEMPT: tuple[str, ...] = (*EXPRESSIONS, "contempt")
