"""One run, from its recipe to its record; several of them in one process."""
