"""Tasks that begin as they are made, as `asyncio.eager_task_factory` has them."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

needs_eager_tasks = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="Python has no eager tasks"
)


@contextmanager
def eager_tasks() -> Iterator[None]:
    """Have the running loop make no other tasks for the length of the block."""
    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        yield
    finally:
        loop.set_task_factory(factory)
