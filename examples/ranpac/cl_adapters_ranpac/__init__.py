"""RanPAC as a plugin of cl-adapters."""
