"""Parts that exact top-k and exact ranking share: scores, heaps, int8 products, thresholds."""
