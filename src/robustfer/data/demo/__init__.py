"""Draw faces with known labels and landmarks, to try things without a data set."""
