"""Stored results: read, continued and compared, without torch."""
