"""What a network costs, counted, and how fast it trains here, measured: before any training."""
