"""The findings of a check, in words and in numbers."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class CheckReport:
    """The findings of a check, which the checks add.

    Attributes:
        lines: all measurements as text, and the limits of what they can tell.
        faults: the reasons of failure, by kind: classes, own_class, input; dimension, space, agreement.
        warnings: by kind: names, labels, loss, crowded, input, contrast; pairs.
        values: the measurements as numbers, for --json.
    """

    lines: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """False if training, or probing, would go wrong."""
        return not self.faults

    def text(self) -> str:
        """Return the whole report, one finding per line, the verdict last."""
        verdict = "check passed" if self.passed else "check FAILED"
        warnings = [f"warning: {w}" for w in self.warnings.values()]
        return "\n".join([*self.lines, *warnings, *(f"fault: {f}" for f in self.faults.values()), verdict])

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, "faults": self.faults, "warnings": self.warnings, **self.values}
