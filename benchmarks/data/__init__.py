"""Where images come from, how they are kept and read, and how they become pixels."""
