"""Measuring: what a compressor costs."""
