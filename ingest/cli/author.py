"""Whoever runs a command, as the audit log names them."""

import getpass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.console.auth.identity import Identity


def author() -> "Identity":
    """Return the user of this machine, who may do everything that a command does."""
    from ingest.console.auth.identity import Identity
    from ingest.console.auth.roles import Role

    return Identity(name=getpass.getuser(), role=Role.OPERATOR, via="command line")
