"""Data sets and images: which there are, how they are read, kept and augmented."""
