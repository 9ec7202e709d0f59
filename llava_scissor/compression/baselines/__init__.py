"""Other ways to keep an exact number of visual tokens, for comparison."""
