"""Build the item graph from vectors and training interactions."""
