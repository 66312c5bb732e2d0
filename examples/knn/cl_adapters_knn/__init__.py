"""Nearest neighbours as a plugin of cl-adapters."""
