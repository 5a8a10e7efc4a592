"""The conformance kit: one line that holds every part of a plug-in to what its kind promises.

    from modkit.testing import parametrize_parts

    @parametrize_parts("acme")
    def test_part(check):
        check()

The table `CASES` says for each kind which types its parts are built from, how they are called and which checks apply.
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
