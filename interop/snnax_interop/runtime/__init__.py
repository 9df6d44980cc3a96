"""The converted network, and how it runs."""
