"""The frozen network, and where things plug in."""
