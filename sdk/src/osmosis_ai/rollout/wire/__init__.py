"""HTTP with a trainer: the client of a rollout, its connections, its patience, and what it refuses to call."""
