"""What fails one host alone, where pyinfra would end the whole run and name no host, or wait for an answer for ever."""

from __future__ import annotations

import os
from getpass import getpass

from paramiko import SSHException
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.connectors import util
from pyinfra.connectors.ssh import SSHConnector

__all__ = ["install"]

_NOBODY = (
    "sudo asks for a password, and there is no terminal to ask at: let it ask this user for none (NOPASSWD), or set "
    "_sudo_password"
)


def install() -> None:
    """For this process: a key that is not there, is no key, or has another password; a sudo that asks nobody."""
    connect = SSHConnector.connect

    def connect_or_fail(connector: SSHConnector) -> None:
        try:
            connect(connector)
        except ConnectError:
            raise
        except (PyinfraError, SSHException, OSError, ValueError) as error:
            raise ConnectError(_said(error)) from error

    SSHConnector.connect = connect_or_fail  # type: ignore[method-assign, assignment]
    util.getpass = _ask_who_is_there  # type: ignore[assignment]


def _ask_who_is_there(prompt: str) -> str:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))  # where getpass asks; without one it would wait for standard input
    except OSError:
        raise PyinfraError(_NOBODY) from None
    return getpass(prompt)


def _said(error: Exception) -> str:
    # pyinfra's words: after "private key", a file's name is masked as if it was one.
    return str(error).replace("private key file: ", "SSH key: ") or type(error).__name__
