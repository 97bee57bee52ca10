"""The engines behind the reasoning protocols."""
