"""The audit of the metrics: known-good and known-bad contestants, and what must follow for each metric."""
