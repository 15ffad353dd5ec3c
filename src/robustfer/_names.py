"""Names that the command line offers, apart from what they name: they import no torch."""

from __future__ import annotations

from typing import Literal

#: Kinds of data set that :func:`robustfer.data.load` takes.
DATA_SETS = ("demo", "rafdb", "ferplus", "fer2013", "affectnet", "folder", "table")

#: Keys of :data:`robustfer.data.NUMBERINGS`.
NUMBERINGS = ("rafdb", "affectnet", "ferplus", "fer2013", "lanet")

#: How :func:`robustfer.noise.with_symmetric_noise` draws the samples.
NoiseVariant = Literal["exact", "bernoulli", "official"]

#: Models of ``robustfer noise make`` -> what they do.
NOISE_MODELS = {
    "symmetric": "every other class is equally likely",
    "symmetric-included": "every class is equally likely, the true one too",
    "lanet": "the confusions of LA-Net's protocol",
    "crowd": "as single people disagree with the majority (data with votes)",
    "instance": "what each sample looks like, by --probabilities",
    "profile": "like measured noise, by --profile; no --rate",
}
