"""What `cl-adapters new` writes: sound examples under the names that it replaces."""
