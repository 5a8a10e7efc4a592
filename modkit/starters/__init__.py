"""Worked parts, one of each kind: what `modkit new-plugin` starts a plug-in with.

Each `KIND.py` is copied as it stands; beside it lie `test_KIND.py`, which holds its values to what is known in closed
form, and `KIND.yaml`, a spec that uses it. They are written as a plug-in's author would, on public names only.
"""
