"""Ending a task of the event loop, and knowing that it has ended."""

import asyncio

_AGAIN_SECONDS = 0.5


async def cancel(task: "asyncio.Task[None]") -> None:
    """End another task; return when it has ended, whatever it does with the cancellation.

    Once may not be enough: what ends at the very same moment can take a cancellation for its own.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_AGAIN_SECONDS)
