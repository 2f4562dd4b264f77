"""Builders that tests of several packages share."""
