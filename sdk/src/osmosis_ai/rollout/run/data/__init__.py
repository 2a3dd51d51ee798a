"""Datasets, and the requests their rows become."""
