"""Traces: one JSONL file a rollout, one line an event."""
