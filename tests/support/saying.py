"""A server that answers every login with one error, as PostgreSQL and PgBouncer word it."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SSL_REQUEST = 80877103
_GSS_REQUEST = 80877104


@contextmanager
def saying(message: str, sqlstate: str) -> Iterator[int]:
    """Yield the port of a server that refuses every login; it offers no TLS."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server, _error(message, sqlstate)))
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(server: socket.socket, error: bytes) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            while len(head := client.recv(8, socket.MSG_WAITALL)) == 8:
                length, code = struct.unpack("!ii", head)
                client.recv(length - 8, socket.MSG_WAITALL) if length > 8 else b""
                if code not in (_SSL_REQUEST, _GSS_REQUEST):
                    client.sendall(error)
                    break
                client.sendall(b"N")


def _error(message: str, sqlstate: str) -> bytes:
    fields = (("S", "FATAL"), ("V", "FATAL"), ("C", sqlstate), ("M", message))
    content = b"".join(f"{name}{value}".encode() + b"\0" for name, value in fields) + b"\0"
    return b"E" + struct.pack("!i", len(content) + 4) + content
