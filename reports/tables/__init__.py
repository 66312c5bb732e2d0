"""The tables: rows of text for the page, and the same as CSV, Markdown and LaTeX."""
