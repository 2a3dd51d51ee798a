"""Policies that are not a trainer's: hosted models, endpoints, scripted ones."""
