"""Judge models by full ranking: metrics, the protocol, intervals."""
