"""Readers of data sets: what lies on a disk as labelled faces."""
