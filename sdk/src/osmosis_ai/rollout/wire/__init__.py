"""HTTP with a trainer: the client of a rollout, the channel that carries its calls, its patience, and what it refuses to call."""
