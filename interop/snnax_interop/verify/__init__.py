"""Proof that two sides compute the same."""
