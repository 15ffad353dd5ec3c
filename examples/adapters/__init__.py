"""Losses of robustfer in the trainers of others: a file each, to copy and change.

No loss needs one: each is a plain module that is called with tensors.
"""
