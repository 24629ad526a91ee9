"""TensorBoard event files, written at once.

TensorBoardX's own writer hands events to a thread. If the disk is full, that thread dies, and the training would wait
for it forever.
"""

from __future__ import annotations

import os
import pathlib
import socket
import struct
import time
from typing import Any

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from jaxcryo.training.append_log import AppendLog


class EventFile:
    """One event file of a run; it hides events of earlier files from `first_step` on."""

    def __init__(self, folder: pathlib.Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._log = AppendLog(folder / name)
        self._add(file_version="brain.Event:2")
        self._add(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Values of one step by their tags."""
        for tag, value in values.items():
            self._add(step=step, summary=scalar(tag, value))

    def flush(self) -> None:
        """Raises as `AppendLog.flush` does."""
        self._log.flush()

    def _add(self, **fields: Any) -> None:
        data = Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        self._log.add(length + _masked_crc(length) + data + _masked_crc(data))


def _masked_crc(data: bytes) -> bytes:
    """The checksum of the TFRecord format."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
