"""Makes one machine's SSH reachable on the loopback network, for every user and without a route.

Run as a program, one process for each machine: it listens only while the machine accepts connections, so that
one that is off refuses them, and ends with the machine's QEMU. People have a port of their own, as on the machine.
"""

import argparse
import asyncio
import contextlib
import ctypes
import os
import socket
from collections.abc import Sequence

_CLONE_NEWNET = 0x40000000


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


class Relay:
    """Carries connections from an address outside to one inside the namespace.

    Args:
        outside: address and port to listen on.
        inside: address and port of the machine, or several: the first one that accepts is taken each time.
        namespace: path of the lab's network namespace.
    """

    def __init__(self, outside: tuple[str, int], inside: Sequence[tuple[str, int]], namespace: str) -> None:
        self._outside = outside
        self._inside = inside
        self._host = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._lab = os.open(namespace, os.O_RDONLY)
        self._lost = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for endpoint in self._inside[:-1]:
            with contextlib.suppress(OSError, TimeoutError):
                return await self._connect_to(endpoint)
        return await self._connect_to(self._inside[-1])

    async def _connect_to(self, endpoint: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        # A socket belongs for ever to the namespace in which it was made.
        _enter(self._lab)
        try:
            made = socket.socket()
        finally:
            _enter(self._host)
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(made, endpoint), 3)
        except (OSError, TimeoutError):
            made.close()
            raise
        return await asyncio.open_connection(sock=made)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        try:
            inner_reader, inner_writer = await self._connect()
        except (OSError, TimeoutError):
            writer.transport.abort()
            self._lost.set()
            return
        try:
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        finally:
            inner_writer.close()
            writer.close()

    async def run(self) -> None:
        """Listen whenever the machine accepts connections, for ever."""
        while True:
            try:
                _, writer = await self._connect()
            except (OSError, TimeoutError):
                await asyncio.sleep(0.3)
                continue
            writer.transport.abort()
            self._lost.clear()
            async with await asyncio.start_server(self._accept, *self._outside):
                await self._lost.wait()


async def _main(relays: Sequence[Relay], qemu: int) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(os.pidfd_open(qemu), ended.set)
    tasks = [asyncio.create_task(relay.run()) for relay in relays]
    for task in tasks:
        task.add_done_callback(lambda _: ended.set())
    await ended.wait()
    for task in tasks:
        if task.done():
            task.result()


def _endpoint(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    return address, int(port)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outside", type=_endpoint, required=True)
    parser.add_argument("--inside", type=_endpoint, required=True, action="append")
    parser.add_argument("--people", type=_endpoint, nargs=2, metavar=("OUTSIDE", "INSIDE"))
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--qemu", type=int, required=True)
    arguments = parser.parse_args()
    ways = [(arguments.outside, arguments.inside)]
    if arguments.people:
        ways.append((arguments.people[0], arguments.people[1:]))
    asyncio.run(_main([Relay(*way, arguments.namespace) for way in ways], arguments.qemu))
