"""Exchange data over the network: limits, retries, and the addresses that may be called.

Knows neither models nor pictures. Whatever lies on the other side is hostile until checked.
"""
