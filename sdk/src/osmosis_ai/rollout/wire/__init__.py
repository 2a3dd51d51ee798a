"""HTTP with a trainer: the client of a rollout, the channel of its calls, its patience, and whom it refuses to call."""
