"""Worked parts, one of each kind: what `modkit new-plugin` starts a plug-in with.

Each `KIND.py` is copied as it stands. Of `test_values.py`, which holds the parts' values to what is known in closed
form, the tests of that part are copied; `examples.yaml` has the spec that uses it. They are written as a plug-in's
author would, on public names only.
"""
