"""A finding of `awsha check`: one defect, of one of the kinds in the catalogue."""

from __future__ import annotations

from dataclasses import dataclass

from awsha.core.catalogue import CATALOGUE, Code, Severity

__all__ = ["Code", "Finding", "Severity", "ordered"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect. `what` is the fact; `hint` is what to type; `subject` is the node, resource or file it is about."""

    code: Code
    what: str
    subject: str = ""
    own_hint: str = ""

    @property
    def severity(self) -> Severity:
        """By its kind."""
        return CATALOGUE[self.code].severity

    @property
    def why(self) -> str:
        """Why it matters."""
        return CATALOGUE[self.code].why

    @property
    def hint(self) -> str:
        """What to do: the finding's own hint, else that of its kind."""
        return self.own_hint or CATALOGUE[self.code].hint

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {
            "code": self.code.value,
            "severity": self.severity.value,
            "subject": self.subject,
            "what": self.what,
            "why": self.why,
            "hint": self.hint,
        }


def ordered(findings: list[Finding]) -> list[Finding]:
    """As they are shown: in the order of the codes, each finding once."""
    places = {code: place for place, code in enumerate(Code)}
    return sorted(dict.fromkeys(findings), key=lambda found: (places[found.code], found.subject, found.what))
