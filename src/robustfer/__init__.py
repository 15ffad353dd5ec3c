"""Losses, regularizers and GPU augmentations for learning facial expressions from noisy labels.

Importing this package is cheap: it loads neither torch nor any plugin. The parts live in
``robustfer.functional`` (the mathematics), ``robustfer.losses``, ``robustfer.models``,
``robustfer.augmentations`` and ``robustfer.data``.
"""

__version__ = "0.1.0"
