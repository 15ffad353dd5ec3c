"""The whole plugin contract: components, and the hooks that return them.

A plugin is a module that a distribution names under the entry-point group ``robustfer``. It
implements some of the hooks below, marked with ``robustfer.hookimpl``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pluggy

from robustfer import _shown

Kind = Literal["losses", "augmentations"]
KINDS: tuple[Kind, ...] = get_args(Kind)

hookspec = pluggy.HookspecMarker("robustfer")
hookimpl = pluggy.HookimplMarker("robustfer")

#: Greatest number of characters.
LIMITS = {"name": 100, "summary": 200, "reference": 500}


@dataclass(frozen=True, kw_only=True)
class Component:
    """Something that a plugin offers by name.

    Args:
        name: snake_case, at most 100 characters, unique within its plugin.
        factory: class or function that makes an ``nn.Module`` from keyword options, or its place as
            text, ``"package.module:attribute"``. Text keeps listings fast: it is imported only when
            the component is shown, described, created or checked.
        summary: one line for listings, at most 200 characters.
        reference: paper, venue, year, on one line of at most 500 characters.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument does not have the form above.

    >>> Component(
    ...     name="margin",
    ...     factory="robustfer_acme.losses:MarginLoss",
    ...     summary="Cross entropy with a margin",
    ...     reference="Doe, Margins, ICCV 2031",
    ... ).name
    'margin'
    """

    name: str
    factory: Callable[..., Any] | str
    summary: str
    reference: str

    def __post_init__(self) -> None:
        for field, limit in LIMITS.items():
            value = getattr(self, field)
            if not isinstance(value, str):
                raise TypeError(f"{field} of a Component must be text, got {_shown.value(value)}")
            if len(value) > limit:
                raise ValueError(
                    f"{field} of a Component must have at most {limit} characters, got "
                    f"{len(value)}: {_shown.value(value)}"
                )
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"name of a Component must be in snake_case, got {self.name!r}")
        for field in ("summary", "reference"):
            value = getattr(self, field)
            if not value.strip():
                raise ValueError(f"{field} of component {self.name!r} must not be empty")
            if value.splitlines() != [value] or any(map(_shown.is_control, value)):
                raise ValueError(
                    f"{field} of component {self.name!r} must be one line without control "
                    f"characters, got {value!r}"
                )
        if isinstance(self.factory, str):
            if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", self.factory):
                raise ValueError(
                    f"factory of component {self.name!r} must be a callable or the text "
                    f"'package.module:attribute', got {self.factory!r}"
                )
        elif not callable(self.factory):
            raise TypeError(
                f"factory of component {self.name!r} must be a callable or the text "
                f"'package.module:attribute', got {_shown.value(self.factory)}"
            )


@hookspec
def robustfer_losses() -> list[Component]:
    """Return the losses that the plugin offers."""
    return []


@hookspec
def robustfer_augmentations() -> list[Component]:
    """Return the GPU augmentations that the plugin offers."""
    return []
