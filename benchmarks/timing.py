"""How benchmarks take times."""

import statistics
import time
from collections.abc import Callable, Sequence


def medians(steps: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Milliseconds per call; the steps take turns, and the first two rounds do not count."""
    times: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + 2):
        for step, each in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            if number >= 2:
                each.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(each) for each in times]
