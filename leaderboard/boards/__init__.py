"""Queries and views of boards and entries."""
