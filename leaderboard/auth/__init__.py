"""Tokens, scopes and rate limits."""
