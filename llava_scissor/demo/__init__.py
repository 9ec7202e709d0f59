"""The small model that ships in the package: its clips, its training, its evaluation."""
