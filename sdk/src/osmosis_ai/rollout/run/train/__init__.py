"""``osmosis trainer``: a dataset over the whole protocol, with a trainer of our own."""
