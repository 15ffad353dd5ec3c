"""Losses, regularizers and GPU augmentations for learning facial expressions from noisy labels.

Importing this package is cheap: it loads neither torch nor any plugin. The parts live in
``robustfer.functional`` (the mathematics), ``robustfer.losses``, ``robustfer.state`` (what a method
remembers between steps), ``robustfer.models``, ``robustfer.augmentations``, ``robustfer.data``,
``robustfer.metrics`` and ``robustfer.checkpoint``. ``robustfer.registry`` finds losses and
augmentations by name, those of installed plugins included; ``robustfer.authoring`` and
``robustfer.testing`` are for writing plugins.
"""

from robustfer.hookspecs import Component, hookimpl

__all__ = ["Component", "__version__", "hookimpl"]

__version__ = "0.1.0"
