"""What a run shows while it trains: on the screen, in files, and how fast it is."""
