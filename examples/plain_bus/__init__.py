"""Two services on the bus, and no saga."""
