"""The reader of pages notices what is wrong in one."""

import pytest

from tests.docs.blocks import blocks
from tests.docs.here import Here
from tests.docs.reader import Reader

GOOD = """
A list

- of things
    that is continued

```sh
modkit list sampler               # all of them
modkit list smapler               # exit status 2
modkit sweep examples/ldm.yaml seed=0,1 --jobs 2
```

```text
ancestral … ddim
did you mean 'sampler'?
```

    python -m examples.trilemma train --quick
    python -m pip install -e 'plugins/modkit-sklearn[test]'
    and this is a sketch

```python
x = 1
```

```python
print(x)
```

```text
1
```

```yaml
# here.yaml
train: {steps: 1}
```
"""


def read(text, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(text)
    (folder := tmp_path / "folder").mkdir()
    reader = Reader(folder, Here(monkeypatch, folder, full=False))
    reader.read(str(page))
    return reader


def test_a_good_page(tmp_path, monkeypatch):
    reader = read(GOOD, tmp_path, monkeypatch)
    assert reader.wrong == []
    counts = {"commands run": 2, "commands checked": 3, "outputs compared": 2, "Python run": 2, "files written": 1}
    assert reader.count == counts
    assert (tmp_path / "folder" / "here.yaml").is_file()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("```sh\nmodkit list smapler\n```", "status 2, expected 0"),
        ("```sh\nmodkit list sampler   # exit status 2\n```", "status 0, expected 2"),
        ("```sh\nmodkit list sampler && modkit list smapler\n```", "modkit list smapler: status 2"),
        ("```sh\nmodkit list sampler\n```\n\n```text\nheun … ddim\n```", "expected the output to go on with 'ddim'"),
        ("```sh\nmodkit sweep examples/ldm.yaml seed=0,1 --job 2\n```", "No such option"),
        ("```sh\npython -m pip install -e plugins/modkit-nothing\n```", "no such path"),
        ("```sh\nrm -r .\n```", "nobody here knows what to do with it"),
        ("```sh\npython -m examples.nothing --quick\n```", "there is no module examples.nothing"),
        ("    python -m examples.trilemma --quik", "unrecognized arguments: --quik"),
        ("```\npython -m examples.trilemma [--quik]\n```", "it takes no"),
        ("```\npython -m tests.play\n```", "takes no arguments, and is not run to see"),
        ("```python\n1 / 0\n```", "ZeroDivisionError"),
        ("```python\nprint(1)\n```\n\n```text\n2\n```", "expected the output to go on with '2'"),
        ("```yaml\ntrain: {stpes: 1}\n```", "did you mean 'steps'"),
        ("```rust\nfn main() {}\n```", "no reader knows what to do with 'rust'"),
    ],
)
def test_a_wrong_page(text, wrong, tmp_path, monkeypatch):
    found = read(text, tmp_path, monkeypatch).wrong
    assert len(found) == 1 and wrong in found[0]


def test_a_fence_closes(tmp_path):
    (tmp_path / "page.md").write_text("```sh\nmodkit list\n")
    with pytest.raises(ValueError, match=r"page.md:2: expected a fence to close"):
        blocks(str(tmp_path / "page.md"))
