"""What a comparison of two sides found."""

import dataclasses

from ..errors import EquivalenceError
from ..runtime.report import table


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One compared array. `difference` is relative to the largest magnitude in it (absolute for spikes)."""

    kind: str
    name: str
    difference: float
    tolerance: float
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.difference <= self.tolerance


@dataclasses.dataclass(frozen=True)
class EquivalenceReport:
    """What was compared, and how it came out. `silent` names spiking layers that never spiked in this run.

    `vacuous` says why the run proves nothing, where that is so; `alone` what torch does otherwise with a single sample.
    """

    comparisons: tuple[Comparison, ...]
    spikes: int
    silent: tuple[str, ...]
    vacuous: str = ""
    alone: str = ""

    @property
    def ok(self) -> bool:
        """Whether everything agrees, and the run was one that could have shown a difference."""
        return not self.vacuous and all(each.ok for each in self.comparisons)

    def raise_if_failed(self) -> None:
        """Raise `EquivalenceError` with this report unless `ok`."""
        if not self.ok:
            raise EquivalenceError(str(self), report=self)

    def __str__(self) -> str:
        rows = []
        for kind in dict.fromkeys(each.kind for each in self.comparisons):
            group = [each for each in self.comparisons if each.kind == kind]
            worst = max(group, key=lambda each: each.difference / each.tolerance if each.tolerance else each.difference)
            verdict = "equal" if all(each.ok for each in group) else "DIFFERENT"
            rows.append((kind, str(len(group)), f"{worst.difference:.1e}", f"{worst.tolerance:.0e}", verdict))
        lines = [f"equivalence in float64: {'ok' if self.ok else 'FAILED'}, {self.spikes} spikes"]
        lines += table(("compared", "arrays", "largest difference", "allowed", ""), rows)
        lines += [f"{each.kind} '{each.name}' differs by {each.difference:.3e}{each.detail}" for each in self.failed]
        if self.silent:
            lines.append(f"silent in this run (their spikes prove nothing): {', '.join(self.silent)}")
        if self.alone:
            lines.append(f"on one sample alone, forward {self.alone}; the conversion does as it does for several")
        if self.vacuous:
            lines.append(f"vacuous: {self.vacuous}")
        return "\n".join(lines)

    @property
    def failed(self) -> tuple[Comparison, ...]:
        """The comparisons that are out of tolerance, in the order of computation."""
        return tuple(each for each in self.comparisons if not each.ok)
