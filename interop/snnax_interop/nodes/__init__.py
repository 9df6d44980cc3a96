"""Equinox modules that only conversions use."""
