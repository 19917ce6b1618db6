"""Pictures of what a trained method does, each with its numbers as CSV."""
