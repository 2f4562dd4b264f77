"""Hyper-parameter search with oracle-free and oracle selectors."""
