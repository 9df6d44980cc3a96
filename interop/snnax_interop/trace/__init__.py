"""One run of a torch module as a tape: what was called, on which values, from which line."""
