"""Names that the command line offers. They stand here because it lists them without torch."""

from __future__ import annotations

from typing import Literal

#: Kinds of data set that :func:`robustfer.data.load` takes.
DATA_SETS = ("demo", "rafdb", "ferplus", "fer2013", "affectnet", "folder", "table")

#: Keys of :data:`robustfer.data.NUMBERINGS`.
NUMBERINGS = ("rafdb", "affectnet", "ferplus", "fer2013", "lanet")

#: How :func:`robustfer.noise.with_symmetric_noise` draws the samples.
NoiseVariant = Literal["exact", "bernoulli", "official"]

#: Noise models of ``robustfer noise make`` -> which wrong labels they give.
NOISE_MODELS = {
    "symmetric": "every other class is equally likely",
    "symmetric-included": "every class is equally likely, also the true one",
    "lanet": "the confusions of LA-Net's protocol",
    "crowd": "the wrong labels that single people chose (data with votes)",
    "instance": "classes that the sample resembles, see --probabilities",
    "profile": "measured noise, see --profile (without --rate)",
}
