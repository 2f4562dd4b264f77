"""The scoring worker and its supervisor."""
