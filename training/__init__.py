"""Train a small model through the rollout server: a trainer of the protocol, on the SDK's trainer library."""
