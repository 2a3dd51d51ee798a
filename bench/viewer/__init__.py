"""How long `osmosis view` takes over a folder of 50,000 rollouts, in a real browser."""
