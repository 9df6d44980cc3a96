"""The time loops on a tape: where they are, and one time step of each."""
