"""Where the time of a test run goes: at its end, how long all of it took, and the files that took the most.

A plugin of pytest. Seconds are wall time over all phases of all tests of a file, whichever worker ran them; beside them
the processor time, child processes included, which does not depend on what else the machine does.
"""

import collections
import dataclasses
import os
import time

import pytest


SHOWN = 10


def processor_seconds() -> float:
    """What this process and those of its children that have ended took of the processor."""
    return sum(os.times()[:4])


@dataclasses.dataclass
class Cost:
    """What the tests of a file took."""

    seconds: float = 0.0
    processor: float = 0.0
    tests: int = 0


class Timing:
    """Sums up reports. Each process times its own tests; the reports of workers arrive with their times."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.mark = processor_seconds()
        self.costs: dict[str, Cost] = collections.defaultdict(Cost)

    def pytest_runtest_logstart(self) -> None:
        self.mark = processor_seconds()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self):
        report = yield
        now = processor_seconds()
        report.processor_seconds, self.mark = now - self.mark, now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        cost = self.costs[report.nodeid.split("::")[0]]
        cost.seconds += report.duration
        # A worker that died made no report; that of its test comes from the process that started it.
        cost.processor += getattr(report, "processor_seconds", 0.0)
        cost.tests += report.when == "setup"

    def lines(self) -> list[str]:
        total = time.perf_counter() - self.started
        whole = sum(cost.processor for cost in self.costs.values())
        tests = sum(cost.tests for cost in self.costs.values())
        slowest = sorted(self.costs.items(), key=lambda each: -each[1].seconds)[:SHOWN]
        return [
            f"{tests} tests of {len(self.costs)} files took {total:.0f} s, and {whole:.0f} s of the processor",
            "   wall s  processor s  tests  file",
            *(f"{cost.seconds:9.1f}{cost.processor:13.1f}{cost.tests:7}  {file}" for file, cost in slowest),
        ]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("slowest files")
        for line in self.lines():
            terminalreporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Timing(), "timing-of-files")
