"""What a compressor costs, and the numbers of the paper."""
