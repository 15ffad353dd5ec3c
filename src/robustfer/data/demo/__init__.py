"""Drawn faces with known labels and landmarks, for trials without a data set."""
