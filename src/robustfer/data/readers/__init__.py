"""Read data sets from files."""
