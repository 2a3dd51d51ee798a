"""The file of a rollout's events: its format, its lines, and who writes them."""
