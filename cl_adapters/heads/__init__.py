"""Classifiers and statistics of classes; they know no network."""
