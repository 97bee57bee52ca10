"""Train the networks: negatives, the loop, checkpoints."""

EPOCHS = "train epochs"  # the label of its progress
