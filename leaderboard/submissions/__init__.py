"""Receiving submissions: uploads, checks, moderation, verification."""
