"""What goes wrong between this machine and the Hub, in one sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RevisionNotFoundError

from modkit_hf.address import Address

__all__ = ["explain_failures"]

_TOKEN = "set HF_TOKEN or run `hf auth login`"


@contextmanager
def explain_failures(address: Address, done: str) -> Iterator[None]:
    """Turns the errors of huggingface_hub into one sentence each.

    Args:
        address: Which repository is read or written.
        done: What could not be done with it: `downloaded` or `pushed`.

    Raises:
        ValueError: If the Hub refuses: there is no such repository or revision, or no right to it.
        OSError: If it cannot be reached, or the connection is cut.
    """
    try:
        yield
    except RevisionNotFoundError as error:
        raise ValueError(f"{address} cannot be {done}: {address.repo} has no revision {address.revision}") from error
    except GatedRepoError as error:
        reason = f"its authors have not granted you access; ask at {constants.ENDPOINT}/{address.repo}"
        raise ValueError(f"{address} cannot be {done}: {reason}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        reasons = {
            401: f"the Hub expects a token with access to it, got none or one that is not valid: {_TOKEN}",
            403: f"your token does not have the right to: {_TOKEN}, with a token that has",
            404: f"{constants.ENDPOINT} has no model {address.repo} that you may read; for a private one {_TOKEN}",
        }
        if status in reasons:
            raise ValueError(f"{address} cannot be {done}: {reasons[status]}") from error
        raise OSError(f"{address} cannot be {done}: the Hub answers {status}: {_shorten(str(error))}") from error
    except ValueError:
        raise
    except Exception as error:  # whatever the network provokes, wrapped or not
        cause = error.__cause__ or error
        reason = f"{type(cause).__name__}: {_shorten(str(cause))}"
        raise OSError(f"{address} cannot be {done}: the exchange with {constants.ENDPOINT} failed: {reason}") from error


def _shorten(text: str) -> str:
    return " ".join(text.split())[:300]
