"""Image sources, streams of experiences, the pixel pipeline and the runner."""
