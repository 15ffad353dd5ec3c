"""Read data sets of labelled faces."""

from robustfer.data.classes import EXPRESSIONS
from robustfer.data.classes import NUMBERINGS as NUMBERINGS
from robustfer.data.dataset import LabeledFaces
from robustfer.data.demo.faces import DemoFaces as DemoFaces
from robustfer.data.joined import JoinedFaces
from robustfer.data.loading import load
from robustfer.data.readers.affectnet import AffectNet as AffectNet
from robustfer.data.readers.fer2013 import FER2013 as FER2013
from robustfer.data.readers.ferplus import FERPlus as FERPlus
from robustfer.data.readers.folder import ImageFolder as ImageFolder
from robustfer.data.readers.label_table import LabelTable as LabelTable
from robustfer.data.readers.rafdb import RAFDB as RAFDB
from robustfer.data.readers.wrapped import WrappedFaces
from robustfer.data.sampling import ProgressiveBalancedSampler

__all__ = [
    "EXPRESSIONS",
    "JoinedFaces",
    "LabeledFaces",
    "ProgressiveBalancedSampler",
    "WrappedFaces",
    "load",
]
