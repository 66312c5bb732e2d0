"""Studies whose tables stand in the docs: each repeats what a claim there rests on."""
