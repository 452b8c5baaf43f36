"""Artifacts of lower precision."""
