"""The findings of a check, in words and in numbers."""

from dataclasses import asdict, dataclass, field
from typing import Any

from facedistill.errors import printable, printable_lines

COLUMNS = ("what", "measured", "expected", "verdict")


@dataclass(frozen=True)
class Verdict:
    """A row of the table at the head of a report. `kinds`: the faults and warnings that speak against it."""

    what: str
    measured: str
    expected: str
    kinds: tuple[str, ...]


@dataclass
class CheckReport:
    """The findings of a check, which the checks add.

    Attributes:
        verdicts: what was measured, at a glance.
        lines: all measurements as text, and the limits of what they can tell.
        faults: the reasons of failure, by kind: classes, own_class, input; dimension, space, agreement.
        warnings: by kind: names, labels, loss, crowded, input, contrast; pairs.
        values: the measurements as numbers, for --json.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def add(self, what: str, measured: str, expected: str, *kinds: str) -> None:
        self.verdicts.append(Verdict(what, measured, expected, kinds))

    @property
    def passed(self) -> bool:
        """False if training, or probing, would go wrong."""
        return not self.faults

    def text(self) -> str:
        """Return the whole report: the table of verdicts, one finding per line, whether the check passed."""
        verdict = "check passed" if self.passed else "check FAILED"
        warnings = [f"warning: {w}" for w in self.warnings.values()]
        faults = [f"fault: {f}" for f in self.faults.values()]
        return printable_lines("\n".join([*self._table(), *self.lines, *warnings, *faults, verdict]))

    def to_json(self) -> dict[str, Any]:
        verdicts = [asdict(v) | {"verdict": self._verdict(v)} for v in self.verdicts]
        return {
            "passed": self.passed,
            "verdicts": verdicts,
            "faults": self.faults,
            "warnings": self.warnings,
            **self.values,
        }

    def _verdict(self, row: Verdict) -> str:
        if any(kind in self.faults for kind in row.kinds):
            return "FAILED"
        return "warning" if any(kind in self.warnings for kind in row.kinds) else "ok"

    def _table(self) -> list[str]:
        rows = [(v.what, v.measured, v.expected, self._verdict(v)) for v in self.verdicts]
        cells = [COLUMNS, *([printable(cell) for cell in row] for row in rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
        return [*lines, ""] if rows else []
