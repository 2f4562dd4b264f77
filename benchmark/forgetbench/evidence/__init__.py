"""Evidence: the recorded logits of a run, and the reference bundle they are scored against."""
