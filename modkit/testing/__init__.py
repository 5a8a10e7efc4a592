"""The conformance kit: one decorator that tests every part of a plug-in against its kind.

    from modkit.testing import parametrize_parts

    @parametrize_parts("acme")
    def test_part(check):
        check()

The table `CASES` lists for each kind the types that its parts are built from, a reference call, and the checks that
apply.
"""

from __future__ import annotations

from modkit.cases import CASES
from modkit.cases.case import Case, Emitted, Example
from modkit.cases.probe import Probe
from modkit.cases.subject import Subject
from modkit.testing.battery import Check, find_subjects, make_battery, parametrize_parts
from modkit.testing.bench import Bench, Flaw

__all__ = [
    "CASES",
    "Bench",
    "Case",
    "Check",
    "Emitted",
    "Example",
    "Flaw",
    "Probe",
    "Subject",
    "make_battery",
    "parametrize_parts",
    "find_subjects",
]
