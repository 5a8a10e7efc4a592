import pytest
from modkit_hf.address import Address

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    "text, repo, revision",
    [
        ("hf://me/vae", "me/vae", "main"),
        ("me/vae@v1.0", "me/vae", "v1.0"),
        ("hf://A_b/c.d-e@refs/pr/3", "A_b/c.d-e", "refs/pr/3"),
        (f"me/vae@{COMMIT}", "me/vae", COMMIT),
    ],
)
def test_an_address_is_a_repository_at_a_revision(text, repo, revision):
    found = Address.parse(text)
    assert found == (repo, revision) and Address.parse(str(found)) == found
    assert found.pinned == (revision == COMMIT)


@pytest.mark.parametrize(
    "text",
    [
        "", "hf://", "me", "me/", "/vae", "me/vae/x", "../vae", "me/..", "me/vae@", "me/vae@../../refs", "me/vae@a//b",
        "me/vae@-x", "me/vae@a/../b", "hf:///etc/passwd", "hf://me/vae@x y", "me/vae\n", "me/vae@main\0", "me/vae.git",
        "hf://me/vaé", "me/vae@a@b", "http://me/vae", "me/vae?x=1", "me/a--b", "me/vae@main/", "x" * 97 + "/y",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r"expected an address like hf://USER/NAME@REVISION, got "):
        Address.parse(text)
