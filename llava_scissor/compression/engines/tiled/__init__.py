"""The engine that looks at similarities a tile at a time."""
