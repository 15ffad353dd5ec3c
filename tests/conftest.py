"""One thread in every test: results do not depend on the machine, and busy ones do not stall."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for subprocesses

import torch

torch.set_num_threads(1)
