"""The sections of the page: each gathers the tables and figures of one topic for one group."""
