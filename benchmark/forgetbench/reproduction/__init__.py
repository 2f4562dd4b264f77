"""Reference results: recording them and running them again."""
