"""What the watch over a part counts as reaching outside."""

import pytest

from modkit.testing.isolated import _Watch


@pytest.mark.parametrize(
    ("event", "arguments", "seen"),
    [
        ("subprocess.Popen", ("lscpu", ["lscpu", "--parse=core"], None, None), False),
        ("subprocess.Popen", ("curl", ["curl", "https://host"], None, None), True),
        ("socket.connect", (None, ("host", 80)), True),
        ("open", ("notes.txt", "w", 0), True),
        ("open", ("notes.txt", "r", 0), False),
    ],
)
def test_a_part_may_count_cores_and_read(tmp_path, event, arguments, seen):
    watch = _Watch(tmp_path)
    watch(event, arguments)
    assert not watch.seen
    watch.on = True
    watch(event, arguments)
    assert bool(watch.seen) is seen
