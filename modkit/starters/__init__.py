"""Example parts, one for each kind, from which `modkit new-plugin` creates a plug-in.

Each `KIND.py` is copied as it is. `test_values.py` checks the parts against values that are known in closed form, and
the tests of one part are copied with it; `examples.yaml` has the specs that use the parts. All files use public names
only, as the author of a plug-in would.
"""
