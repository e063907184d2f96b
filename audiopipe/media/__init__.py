"""Fetch, open, decode and encode audio."""
