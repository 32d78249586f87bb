"""What a check found, in plain words and in numbers."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class CheckReport:
    """Filled in by the checks.

    Attributes:
        lines: everything measured, and what cannot be told, for a person.
        faults: why it failed, by kind: classes, own_class, input; dimension, space, agreement.
        warnings: by kind: names, labels, loss, crowded, input, contrast; pairs.
        values: the measurements as numbers, for --json.
    """

    lines: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """False when training, or probing, would go wrong."""
        return not self.faults

    def text(self) -> str:
        """The whole report, one finding a line, the verdict last."""
        verdict = "check passed" if self.passed else "check FAILED"
        warnings = [f"warning: {w}" for w in self.warnings.values()]
        return "\n".join([*self.lines, *warnings, *(f"fault: {f}" for f in self.faults.values()), verdict])

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, "faults": self.faults, "warnings": self.warnings, **self.values}
