"""The command line in this process."""

from click.testing import CliRunner

from modkit.cli.app import app

__all__ = ["run"]


def run(*arguments, status=0):
    """Runs `modkit ARGUMENTS`, which ends with `status`; returns what it prints on stdout and on stderr."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.stdout, result.stderr
