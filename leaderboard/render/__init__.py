"""Rendering: templates, exports, JSON documents."""
