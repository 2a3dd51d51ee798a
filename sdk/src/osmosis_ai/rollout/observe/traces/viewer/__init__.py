"""A page that shows traces: served on the loopback interface, or written as one file."""
