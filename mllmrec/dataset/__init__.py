"""Files -> Dataset: readers, cleaning, splits, and the folder they end in."""
