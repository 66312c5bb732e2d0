"""Parameter-efficient modules, and how sets of them are kept, merged, mixed and chosen."""
