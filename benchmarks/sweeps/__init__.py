"""Many runs: grids and searches over processes of this machine or a Ray cluster."""
