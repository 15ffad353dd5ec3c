"""Losses, regularizers and GPU augmentations for learning facial expressions from noisy labels.

Importing this package is cheap: it loads neither torch nor any plugin. The parts are
``robustfer.functional`` (the mathematics), ``robustfer.losses``, ``robustfer.state`` (what a method
remembers between steps), ``robustfer.models``, ``robustfer.augmentations``, ``robustfer.data``,
``robustfer.noise``, ``robustfer.audit``, ``robustfer.landmarks``, ``robustfer.metrics`` and
``robustfer.checkpoint``. ``robustfer.registry`` finds losses and augmentations by name, also those
of installed plugins. ``robustfer.authoring`` and ``robustfer.testing`` are for authors of plugins.
"""

from robustfer.hookspecs import Component, hookimpl

__all__ = ["Component", "__version__", "hookimpl"]

__version__ = "0.1.0"
