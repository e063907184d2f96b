"""Decide where to cut a video, and cut it."""
