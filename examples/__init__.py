"""Flat training scripts, one per method, the training program, and the demo."""
