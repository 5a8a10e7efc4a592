"""The conformance battery over this plug-in's parts, with trackers that keep their records on this machine."""

from importlib.util import find_spec

import pytest

from modkit.testing import parametrize_parts

LIBRARIES = ("wandb", "mlflow", "trackio")


@pytest.fixture(scope="module", autouse=True)
def _keep_records_here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("WANDB_MODE", "offline")
        patched.setenv("WANDB_ERROR_REPORTING", "false")
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patched.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patched.setenv("TRACKIO_DIR", str(folder / "trackio"))
        yield


@parametrize_parts("trackers")
def test_part(check):
    for library in LIBRARIES:
        if f"trackers/{library}:" in str(check) and not find_spec(library):
            pytest.skip(f"{library} is not installed")
    check()
