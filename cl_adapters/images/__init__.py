"""Images: from encoded bytes to upright RGB pixels, and from pixels to a network's input."""
