"""One thread in every test unless another number is asked for: busy machines do not stall."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for subprocesses

import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
