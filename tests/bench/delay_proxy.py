#!/usr/bin/env python3
"""delay_proxy.py LISTEN_HOST:PORT TARGET_HOST:PORT RTT_MS: a TCP proxy that makes a link as long as RTT_MS.

Each byte leaves half of that after it came, in both directions; the first of a connection a whole one later still, as
the handshake would have taken it. What a direction holds is bounded, so that a slow reader slows the sender. It has no
slow start: distances show, the growth of a real far connection does not."""
import asyncio
import os
import signal
import sys

HELD = 8 << 20  # bytes under way in one direction of a connection
PIECE = 256 << 10


async def carry(reader, writer, delay, first):
    """Bytes of one direction: read at once, written when they are due. Ends at the end, or when nobody takes them."""
    loop = asyncio.get_running_loop()
    queue, held, room = asyncio.Queue(), 0, asyncio.Event()

    async def write():
        nonlocal held
        try:
            while True:
                due, data = await queue.get()
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                if not data:
                    break
                writer.write(data)
                await writer.drain()
                held -= len(data)
                room.set()
            writer.write_eof()
        except OSError:
            held = 0  # and what else comes is thrown away
        finally:
            room.set()

    task = asyncio.create_task(write())
    while not task.done():
        try:
            data = await reader.read(PIECE)
        except OSError:
            data = b""
        queue.put_nowait((loop.time() + delay + first, data))
        held += len(data)
        first = 0
        if not data:
            break
        while held > HELD and not task.done():
            room.clear()
            await room.wait()
    await task


async def main(listen, target, rtt):
    async def serve(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(*target, limit=PIECE)
        except OSError:
            writer.close()
            return
        ways = [carry(reader, far_writer, rtt / 2, rtt), carry(far_reader, writer, rtt / 2, 0)]
        ways = {asyncio.create_task(w) for w in ways}
        for end in (asyncio.FIRST_COMPLETED, asyncio.ALL_COMPLETED):  # one side has ended: so does the other
            await asyncio.wait(ways, return_when=end)
            for w in (writer, far_writer):
                w.close()

    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, os._exit, 0)  # nothing here is worth an orderly end
    server = await asyncio.start_server(serve, *listen, limit=PIECE)
    async with server:
        await server.serve_forever()


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    asyncio.run(main(address(sys.argv[1]), address(sys.argv[2]), float(sys.argv[3]) / 1000))
