"""Whoever runs a command, as the audit log names them."""

import getpass
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.console.auth.identity import Identity


def author() -> "Identity":
    """Return the user of this machine, who may do everything that a command does."""
    from ingest.console.auth.identity import Identity
    from ingest.console.auth.roles import Role

    return Identity(name=_user(), role=Role.OPERATOR, via="command line")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name; OSError from Python 3.13 on
        return f"uid {os.getuid()}"
