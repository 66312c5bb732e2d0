"""What frozen parts of a network compute, kept on disk."""
