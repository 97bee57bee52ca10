"""MLLMRec, its variants, and the baselines it is judged against."""
