"""What compression costs, and what it saves: time and memory, measured side by side."""
