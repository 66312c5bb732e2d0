"""Names to objects, and checks of a stranger's objects."""
