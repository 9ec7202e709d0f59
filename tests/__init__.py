"""A package of its own, so that no other installed one called tests is taken for it."""
