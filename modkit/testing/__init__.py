"""The conformance kit: one decorator that tests every part of a plug-in against its kind.

    from modkit.testing import parametrize_parts

    @parametrize_parts("acme")
    def test_part(check):
        check()

The table `CASES` lists for each of modkit's kinds the types that its parts are built from, a reference call, and the
checks that apply. A plug-in's kind names its `Case`, which has the hosts in which its parts play. `find_case` finds
both. With `data="acme/discs"`, parts that read fields of their own are tested on data that have them.
"""

from __future__ import annotations

from modkit.cases import CASES, find_case
from modkit.cases.case import Case, Emitted, Example, Flow, Host, emit, emit_all, emit_scalar
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
    "Flow",
    "Host",
    "Probe",
    "Subject",
    "emit",
    "emit_all",
    "emit_scalar",
    "find_case",
    "make_battery",
    "parametrize_parts",
    "find_subjects",
]
