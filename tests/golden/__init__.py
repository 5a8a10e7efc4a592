"""Golden files: what every example, host and malformed spec says and makes, written before a change, checked after it.

    python -m tests.golden write FOLDER [--only PATTERN]
    python -m tests.golden check FOLDER [--only PATTERN]

`write` runs from the base commit, `check` from the changed tree in the same environment. Each case is a file: its spec
and overrides; what `modkit check --json` prints, with messages at their `file:line:column`; the resolved spec; SHA-256
of each initial weight; losses of three steps; SHA-256 of each trained weight; four samples. The run of an example is
kept beside them: `check` loads it as well, with at most one warning, and draws the same samples. `check` plays the
specs of the files and, where an example has changed, the example as well. `tests/golden/moved.py` lists what moves on
purpose.
The files are not kept in git.
"""
