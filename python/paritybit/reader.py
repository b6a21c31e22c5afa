"""Reads trace folders into NumPy: whole or cut off."""
import pathlib
from typing import Iterator, List, Optional

import numpy as np

from paritybit import blake3
from paritybit.record import MANIFEST, RECORDS, Manifest, Record, Step, TraceError, parse_line, parse_manifest
from paritybit.writer import Folder

_MAX_MANIFEST_BYTES = 64 << 20


class Trace:
    """A trace, read and checked; payloads stay on disk. Damage is a TraceError that names file and byte; the last line of a
    trace that says it is incomplete may be half: it is left out, and `notes` says so."""

    def __init__(self, folder: pathlib.Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.steps: List[Step] = []
        self.records: List[Record] = []
        self.notes: List[str] = []  # what a person should know of this trace, one sentence each

    @staticmethod
    def open(folder: Folder) -> "Trace":
        path = pathlib.Path(folder)
        if not path.is_dir():
            raise TraceError(f"{path}: no such folder, so no trace")
        if not (path / MANIFEST).is_file():
            raise TraceError(f"{path}: no {MANIFEST}; traces of other systems are read by `paritybit trace-diff`")
        if (path / MANIFEST).stat().st_size > _MAX_MANIFEST_BYTES:
            raise TraceError(f"{path / MANIFEST}: larger than {_MAX_MANIFEST_BYTES} bytes")
        try:
            trace = Trace(path, parse_manifest((path / MANIFEST).read_text(encoding="utf-8")))
        except (TraceError, UnicodeDecodeError) as error:
            raise TraceError(f"{path / MANIFEST}: {error}") from None
        trace._read_records()
        return trace

    def _read_records(self) -> None:
        path = self.folder / RECORDS
        if not path.is_file():
            if self.manifest.complete:
                raise TraceError(f"{path}: no such file")
            self.notes.append("cut off before the first record")
            return
        offset = 0
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n") and not self.manifest.complete:
                    self.notes.append(f"{RECORDS}: cut off within the line at byte {offset}, which is left out")
                    break
                self._add_line(line, f"{path}: byte {offset}")
                offset += len(line)
        if self.manifest.complete and len(self.records) != self.manifest.n_records:
            raise TraceError(f"{path}: {len(self.records)} records, the manifest says {self.manifest.n_records}")
        if not self.manifest.complete:
            self.notes.append(f"incomplete: {self.manifest.reason or 'the writer was cut off'}")
            self.manifest.tokens = [t for step in self.steps for t in step.tokens]
            self.manifest.n_prompt = len(self.steps[0].tokens) if self.steps else 0
            self.manifest.n_records = len(self.records)

    def _add_line(self, line: bytes, where: str) -> None:
        try:
            entry = parse_line(line.decode("utf-8"))
        except (TraceError, UnicodeDecodeError) as error:
            raise TraceError(f"{where}: {error}") from None
        if isinstance(entry, Step):
            self.steps.append(entry)
        elif not self.steps or entry.seq != self.steps[-1].seq:
            raise TraceError(f"{where}: record {entry.name} stands outside its step {entry.seq}")
        else:
            self.records.append(entry)

    def select(self, stage: Optional[str] = None, layer: Optional[int] = None, seq: Optional[int] = None) -> Iterator[Record]:
        """Records in order of writing, of one stage, layer and step where these are given."""
        for r in self.records:
            if stage in (None, r.stage) and layer in (None, r.layer) and seq in (None, r.seq):
                yield r

    def payload(self, record: Record) -> np.ndarray:
        """The values of a record, float32 in its shape, checked against its digest."""
        if not record.payload_file:
            raise TraceError(f"{record.name}: record has no payload; a trace of level full has")
        path, n_bytes = self.folder / record.payload_file, 4 * record.num_elements
        if not path.is_file():
            raise TraceError(f"{path}: no such file")
        size = path.stat().st_size
        if record.payload_offset + n_bytes > size:
            raise TraceError(f"{path}: tensor {record.name} needs bytes {record.payload_offset} to "
                             f"{record.payload_offset + n_bytes}, the file has {size}: cut off?")
        with open(path, "rb") as file:
            file.seek(record.payload_offset)
            data = file.read(n_bytes)
        if blake3.digest(data) != record.blake3:
            raise TraceError(f"{path}: the {n_bytes} bytes of tensor {record.name} at byte {record.payload_offset} do not "
                             "have its digest")
        return np.frombuffer(data, "<f4").astype(np.float32).reshape(record.shape)

    def rows(self, stage: str, layer: int = -1, seq: Optional[int] = None) -> np.ndarray:
        """All rows of a point in order of position: over all steps, or of one. The steps' rows must have equal shapes."""
        records = sorted(self.select(stage, layer, seq), key=lambda r: r.position)
        if not records:
            raise TraceError(f"{self.folder}: no record of {stage}, layer {layer}")
        return np.concatenate([self.payload(r) for r in records])
