"""Flat training scripts, one a method; the demo runs them."""
