"""What became of each module."""

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class ConvertedModule:
    """One module of the source: its path, its class, what it became, and what there is to say about it.

    `surprise` is what the module does against expectation, kept by the conversion and warned about. `settings` are all
    options of a neuron as JSON.
    """

    path: str
    source: str
    target: str
    options: str
    notes: str = ""
    surprise: str = ""
    settings: str = "{}"


@dataclasses.dataclass(frozen=True)
class ConversionReport:
    """How a network was converted; `str(report)` shows the tree of its modules beside what they became, and the models.

    `modules` are the modules that were taken whole, `containers` those whose forward was recorded, `order` the paths of
    all modules as torch lists them, `models` the nodes of each model with their sources. `notes` holds what concerns
    the whole network, `verification` the comparison on the example input.
    """

    modules: tuple[ConvertedModule, ...]
    notes: tuple[str, ...]
    verification: str = ""
    containers: tuple[ConvertedModule, ...] = ()
    order: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.modules)

    def __iter__(self) -> Iterator[ConvertedModule]:
        return iter(self.modules)

    def __str__(self) -> str:
        header = ("module", "source", "snnax", "options", "notes")
        places = {path: place for place, path in enumerate(self.order)}
        listed = sorted([*self.containers, *self.modules], key=lambda each: places.get(each.path, len(places)))
        rows = [(m.path or "(network)", m.source, m.target, m.options, m.notes) for m in listed]
        lines = [*table(header, rows), *self.models]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *([self.verification] if self.verification else [])])


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as lines of equal columns; columns without content are left out."""
    kept = [index for index in range(len(header)) if any(row[index] for row in rows)]
    cells = [[line[index] for index in kept] for line in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(kept))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
