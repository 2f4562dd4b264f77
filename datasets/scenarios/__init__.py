"""Scenarios: rules that draw the forget set."""
