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
    """Bytes of one direction: read at once, written when they are due."""
    loop = asyncio.get_running_loop()
    queue, held, room = asyncio.Queue(), 0, asyncio.Event()

    async def write():
        nonlocal held
        while True:
            due, data = await queue.get()
            wait = due - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            if not data:
                break
            writer.write(data)
            await writer.drain()
            held -= len(data)
            room.set()
        if writer.can_write_eof():
            writer.write_eof()

    task = asyncio.create_task(write())
    try:
        extra = first
        while not task.done():
            data = await reader.read(PIECE)
            queue.put_nowait((loop.time() + delay + extra, data))
            held += len(data)
            extra = 0
            if not data:
                break
            while held > HELD and not task.done():
                room.clear()
                await room.wait()
        await task
    except OSError:
        pass
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def main(listen, target, rtt):
    async def serve(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(*target, limit=PIECE)
        except OSError:
            writer.close()
            return
        await asyncio.gather(carry(reader, far_writer, rtt / 2, rtt), carry(far_reader, writer, rtt / 2, 0), return_exceptions=True)
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
