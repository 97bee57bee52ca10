"""What every exchange over the network goes through: limits, retries, and addresses that may be called.

Knows neither models nor pictures. Whatever lies on the other side is hostile until checked.
"""
