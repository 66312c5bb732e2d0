"""A trained model by itself: loaded from a run or a bundle, it answers images."""
