"""What only maintainers use; no wheel holds it and nothing in one imports it."""
