"""What became of each module, for people to read."""

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportRow:
    """What is shown of one module of the source: its path, its class, what it became, its options, and notes."""

    path: str
    source: str
    target: str
    options: str = ""
    notes: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """How a network was converted; `str(report)` shows the tree of its modules beside what they became, and the models.

    `modules` are the modules that were taken whole, `containers` those whose forward was recorded, `order` the paths of
    all modules as torch lists them, `models` the nodes of each model with their sources. `notes` holds what concerns
    the whole network, `caveats` what modules do against expectation, `verification` the comparison on the example.

    It is text for people: what code reads is on the plan of the conversion.
    """

    modules: tuple[ReportRow, ...]
    containers: tuple[ReportRow, ...]
    order: tuple[str, ...]
    models: tuple[str, ...]
    notes: tuple[str, ...]
    caveats: tuple[str, ...]
    verification: str = ""

    def __len__(self) -> int:
        return len(self.modules)

    def __iter__(self) -> Iterator[ReportRow]:
        return iter(self.modules)

    def __str__(self) -> str:
        header = ("module", "source", "snnax", "options", "notes")
        places = {path: place for place, path in enumerate(self.order)}
        listed = sorted([*self.containers, *self.modules], key=lambda each: places.get(each.path, len(places)))
        rows = [(m.path or "(network)", m.source, m.target, m.options, m.notes) for m in listed]
        lines = [*table(header, rows), *self.models]
        lines += [f"caveat: {caveat}" for caveat in self.caveats]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *([self.verification] if self.verification else [])])


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as lines of equal columns; columns without content are left out."""
    columns = [index for index in range(len(header)) if any(row[index] for row in rows)]
    cells = [[line[index] for index in columns] for line in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
