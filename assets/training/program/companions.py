"""Detects the end of a rank on another machine at once, by connections that the kernel closes with a process.

A collective operation waits ten minutes for a missing rank. Every rank is connected to rank 0: the end of any of them
ends rank 0, and the end of rank 0 ends them all. A machine that stops responding closes nothing; TCP keep-alive detects
it after half a minute.
"""

import secrets
import selectors
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread

__all__ = ["together"]

_GREETING = struct.Struct("!QI")
_GOODBYE = b"."
_KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds of silence, seconds between probes, and probes without an answer."""


@contextmanager
def together(
    address: str, rank: int, tell: Callable[[int, int], tuple[int, int]], lost: Callable[[int], None]
) -> Iterator[None]:
    """Inside, a thread calls `lost` with a rank that ends before it has reached the end of this block.

    address: of rank 0, on which it listens; tell: gives rank 0's two integers, each below 2**62, to every rank.
    Connections without the number that `tell` has distributed are ignored.
    """
    peers: list[socket.socket] = []
    if rank == 0:
        door = socket.create_server((address, 0))
        _, token = tell(door.getsockname()[1], secrets.randbits(62))
        Thread(target=_watch_all, args=(door, token, peers, lost), daemon=True).start()
    else:
        port, token = tell(0, 0)
        peers.append(_kept_alive(socket.create_connection((address, port))))
        peers[0].sendall(_GREETING.pack(token, rank))
        Thread(target=_watch, args=(peers[0], lost), daemon=True).start()
    yield
    for peer in list(peers):
        with suppress(OSError):  # it has already left
            peer.sendall(_GOODBYE)


def _watch(leader: socket.socket, lost: Callable[[int], None]) -> None:
    if _receive(leader, 1) != _GOODBYE:
        lost(0)


def _watch_all(door: socket.socket, token: int, peers: list[socket.socket], lost: Callable[[int], None]) -> None:
    ranks: dict[socket.socket, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(door, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                peer = key.fileobj
                assert isinstance(peer, socket.socket)
                if peer is door:
                    selector.register(_kept_alive(door.accept()[0]), selectors.EVENT_READ)
                elif peer in ranks:
                    selector.unregister(peer)
                    if _receive(peer, 1) != _GOODBYE:
                        lost(ranks[peer])
                elif (rank := _greeted(peer, token)) is not None:
                    ranks[peer] = rank
                    peers.append(peer)
                else:
                    selector.unregister(peer)
                    peer.close()


def _greeted(peer: socket.socket, token: int) -> int | None:
    """The rank of a peer by its greeting, if it knows the token."""
    said = _receive(peer, _GREETING.size)
    if len(said) != _GREETING.size:
        return None
    known, rank = _GREETING.unpack(said)
    return int(rank) if known == token else None


def _receive(peer: socket.socket, size: int) -> bytes:
    """The bytes that a peer has sent; empty if it is gone."""
    try:
        return peer.recv(size)
    except OSError:
        return b""


def _kept_alive(connection: socket.socket) -> socket.socket:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
