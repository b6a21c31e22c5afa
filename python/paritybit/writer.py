"""Writes a trace as it comes: crash-safe, in bounded memory, byte by byte as src/trace/writer.cc does."""
import json
import os
import pathlib
import tempfile
from typing import Any, List, Optional, Sequence, Union

import numpy as np

from paritybit.record import LEVELS, MANIFEST, RECORDS, SCHEMA, Manifest, Step, TraceError, describe
from paritybit.sketch import Sketcher

Folder = Union[str, "os.PathLike[str]"]

# A shard's header is written again after every tensor, so that the file is whole at any time; these keep that cheap.
_TENSORS_PER_SHARD = 256
_SHARD_HEADER_BYTES = 160 << 10
_SHARD_BYTES = 1 << 30
_MAX_ENTRY_BYTES = 300  # of a tensor's entry in the header, beside its name


class _Shard:
    """A safetensors file (https://huggingface.co/docs/safetensors) whose header has room in advance, so that tensors go to
    disk as they come. The package `safetensors` writes whole files only."""

    def __init__(self, path: pathlib.Path) -> None:
        self.n_tensors = 0
        self._header_bytes = (_SHARD_HEADER_BYTES + 63) // 64 * 64 + 56  # data begin at a multiple of 64
        self._entries = json.dumps({"__metadata__": {"schema": SCHEMA}}, separators=(",", ":"))[:-1]
        self._data_bytes = 0
        self._file = open(path, "wb")
        self._file.write(self._header_bytes.to_bytes(8, "little") + b" " * self._header_bytes)
        self.flush()

    @property
    def file_bytes(self) -> int:
        """Size of the file, and so where the next tensor's values begin."""
        return 8 + self._header_bytes + self._data_bytes

    def has_room(self, name: str, n_bytes: int) -> bool:
        return (self.n_tensors < _TENSORS_PER_SHARD and self.file_bytes + n_bytes <= _SHARD_BYTES
                and len(self._entries) + 6 * len(name.encode()) + _MAX_ENTRY_BYTES <= self._header_bytes)

    def add(self, name: str, values: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(values, "<f4").tobytes())
        end = self._data_bytes + values.nbytes
        shape = ",".join(map(str, values.shape))
        self._entries += (f',{json.dumps(name, ensure_ascii=False)}:{{"dtype":"F32","shape":[{shape}],'
                          f'"data_offsets":[{self._data_bytes},{end}]}}')
        self._data_bytes = end
        self.n_tensors += 1
        self.flush()

    def flush(self) -> None:
        self._file.flush()  # the values before the header that names them
        self._file.seek(8)
        self._file.write((self._entries + "}").encode())
        self._file.flush()
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self._file.close()


class Writer:
    """One trace folder. Whatever cuts the process off, what was appended before is readable, and the manifest says
    "incomplete" until finish(). Holds no tensor. A folder that holds a trace already is refused: traces are never mixed."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        if manifest.level not in LEVELS:
            raise TraceError(f'trace level "{manifest.level}" is none of {", ".join(LEVELS)}')
        self.folder, self.manifest = pathlib.Path(folder), manifest
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(p.name == MANIFEST or p.suffix in (".jsonl", ".trace") for p in self.folder.iterdir()):
            raise TraceError(f"{self.folder}: holds a trace already; name another folder or remove it")
        manifest.complete, manifest.reason, manifest.n_records, manifest.tokens, manifest.n_prompt = False, "", 0, [], 0
        self._write_manifest()
        # One write a line, unbuffered: a process that is killed loses no line that was written.
        self._records = open(self.folder / RECORDS, "xb", buffering=0)
        self._sketcher = Sketcher(manifest.sketch_seed)
        self._step: Optional[Step] = None
        self._shard: Optional[_Shard] = None
        self._n_shards = 0

    def begin_step(self, first_position: int, tokens: Sequence[int]) -> None:
        """Opens the next step: an evaluation of these tokens from first_position on. The first is the prompt."""
        ids: List[int] = [int(t) for t in tokens]
        self._step = Step(self._step.seq + 1 if self._step else 0, int(first_position), ids)
        self.manifest.tokens += ids
        if self._step.seq == 0:
            self.manifest.n_prompt = len(ids)
        self._write_line(self._step.to_json())

    def append(self, stage: str, layer: int, values: Any, position: Optional[int] = None, dtype: str = "F32") -> None:
        """Records one tensor of the step: shape[0] are token rows, the first at `position` (default: where the step begins).
        `stage` is a name of the vocabulary or the engine's own; `dtype` what the engine's tensor was before float32."""
        if self._step is None:
            raise TraceError("a tensor was appended before the first step")
        array = np.asarray(values, "<f4", order="C")
        if array.ndim == 0 or array.size == 0:
            raise TraceError(f"tracepoint {stage} has shape {array.shape}: no token rows")
        position = self._step.first_position if position is None else int(position)
        record = describe(self.manifest, self._sketcher, self._step, stage, layer, position, array, dtype)
        if self.manifest.level == "full":
            record.payload_file, record.payload_offset = self._write_payload(record.name, array)
        self._write_line(record.to_json())
        self.manifest.n_records += 1

    def finish(self, logits_blake3: str = "", logits_blake3_untapped: str = "") -> None:
        """States that the trace is whole. Digests of all logits rows as the manifest defines them, empty where not known."""
        self.manifest.logits_blake3, self.manifest.logits_blake3_untapped = logits_blake3, logits_blake3_untapped
        self.manifest.complete = True
        self._close()

    def abandon(self, reason: str) -> None:
        """States why it is not. The trace stays incomplete."""
        self.manifest.reason = reason
        self._close()

    def _close(self) -> None:
        if self._shard:
            self._shard.close()
        self._records.close()
        self._write_manifest()

    def _write_payload(self, name: str, values: np.ndarray) -> "tuple[str, int]":
        if self._shard and not self._shard.has_room(name, values.nbytes):
            self._shard.close()
            self._shard = None
        if not self._shard:
            self._shard = _Shard(self.folder / f"payload-{self._n_shards:05}.safetensors")
            self._n_shards += 1
        at = self._shard.file_bytes
        self._shard.add(name, values)
        return f"payload-{self._n_shards - 1:05}.safetensors", at

    def _write_line(self, line: str) -> None:
        rest = memoryview(line.encode() + b"\n")
        while rest:
            rest = rest[self._records.write(rest):]

    def _write_manifest(self) -> None:
        """Atomically: whole or not at all."""
        handle, name = tempfile.mkstemp(dir=self.folder, prefix="." + MANIFEST)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.manifest.to_json())
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, self.folder / MANIFEST)
        except BaseException:
            os.unlink(name)
            raise
