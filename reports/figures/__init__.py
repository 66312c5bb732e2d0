"""The figures: each function takes measured runs and returns a matplotlib figure.

`files.py` says how they look and how they are stored, `parts.py` what they share. Call everything
inside `files.figure_style()`.
"""
