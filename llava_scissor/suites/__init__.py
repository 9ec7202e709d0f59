"""Many methods on the same clips and questions."""
