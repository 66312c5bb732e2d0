"""From images to a stream of experiences: what comes when, and what changes on the way."""
