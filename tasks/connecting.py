"""A connection that cannot even be tried fails its host alone: pyinfra would end the whole run, and name no host."""

from __future__ import annotations

from paramiko import SSHException
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.connectors.ssh import SSHConnector

__all__ = ["install"]


def install() -> None:
    """For this process: a key that is not there, is no key, or has another password."""
    connect = SSHConnector.connect

    def connect_or_fail(connector: SSHConnector) -> None:
        try:
            connect(connector)
        except ConnectError:
            raise
        except (PyinfraError, SSHException, OSError, ValueError) as error:
            raise ConnectError(_said(error)) from error

    SSHConnector.connect = connect_or_fail  # type: ignore[method-assign, assignment]


def _said(error: Exception) -> str:
    # pyinfra's words: after "private key", a file's name is masked as if it was one.
    return str(error).replace("private key file: ", "SSH key: ") or type(error).__name__
