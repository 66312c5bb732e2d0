"""Parts of the recipe of the embedded backbone; `maintenance.pretrain` runs it."""
