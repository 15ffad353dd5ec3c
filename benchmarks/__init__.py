"""Measure speed and memory (``make bench``), and accuracy under label noise."""
