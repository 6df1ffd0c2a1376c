"""Writes a run's numbers as TensorBoard reads them; the only file that knows tensorboardX."""

import struct
import sys
from collections.abc import Mapping
from pathlib import Path

# tensorboardX imports torch if it is there, to know a tensor when it is given one. A hub has none, and never loads it.
_blocked = "torch" not in sys.modules
if _blocked:
    sys.modules["torch"] = None  # type: ignore[assignment]  # the import system's own word for: as if not installed
try:
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import masked_crc32c
    from tensorboardX.summary import hparams
finally:
    if _blocked:
        del sys.modules["torch"]


class EventFile:
    """One file of events; a run that is resumed, or a disk that recovers, gets a further one in the same folder."""

    def __init__(
        self, folder: Path, settings: Mapping[str, str | float], *, metric: str, first: int, at: float
    ) -> None:
        """Begin a file.

        Args:
            folder: for all files of the run.
            settings: for the table that compares runs.
            metric: the tag that stands there beside them.
            first: what older files say of this round and later ones is void.
            at: seconds since 1970.

        Raises:
            OSError: the disk fails; other methods raise it too.
        """
        folder.mkdir(exist_ok=True)
        self._file = folder / f"events.out.tfevents.{at:.6f}.fedhub"  # read in the order of their names
        self._write(Event(wall_time=at, file_version="brain.Event:2"))
        self._write(Event(wall_time=at, step=first, session_log=SessionLog(status=SessionLog.START)))
        table, start, self._end = hparams(dict(settings), [metric])
        self._write(Event(wall_time=at, summary=table))
        self._write(Event(wall_time=at, summary=start))

    def add(self, round: int, at: float, scalars: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(wall_time=at, step=round, summary=Summary(value=values)))

    def end(self, at: float, *, finished: bool) -> None:
        """Mark the run as finished, if it is."""
        if finished:
            self._write(Event(wall_time=at, summary=self._end))

    def _write(self, event: Event) -> None:
        """Append a TFRecord: length, its checksum, data, its checksum.

        tensorboardX's own writer does that in a thread of its own, and waits for ever once a full disk has ended that.
        """
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        with self._file.open("ab") as file:
            file.write(length + _checksum(length) + data + _checksum(data))


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))
