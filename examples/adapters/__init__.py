"""Use robustfer in other libraries' trainers: one file per trainer, to copy and change.

No loss needs these files. Each loss is a plain module that takes tensors.
"""
