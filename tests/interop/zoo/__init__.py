"""Many short networks in torch's idioms, in groups: `CASES` holds those of all groups by name."""

from . import batch, joined, layers, loops, memory, state, structure, tensors, time, wild


GROUPS = [time, loops, state, memory, joined, structure, tensors, layers, batch, wild]
CASES = {name: case for group in GROUPS for name, case in group.CASES.items()}
