"""Train the networks: negatives, the loop, checkpoints."""
