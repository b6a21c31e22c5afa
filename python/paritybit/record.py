"""What a trace holds, and its JSON: a manifest, steps and records (docs/format_trace.md is the grammar)."""
import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from paritybit import blake3, vocabulary
from paritybit.sketch import BUCKETS, BYTES, SEED, TABLES, Sketch, Sketcher

SCHEMA = "paritybit.trace/0"
MANIFEST, RECORDS = "manifest.json", "records.jsonl"
LEVELS = ("digest", "sketch", "full")
_MAX_ELEMENTS, _MAX_DIMS, _INT32 = 1 << 48, 8, 2**31 - 1

Fact = Tuple[str, str, str]  # key, value, origin, as an engine's facts (docs/plugin_abi.md)


class TraceError(Exception):
    """A trace that cannot be read or written: the message says where (file, byte) and why."""


@dataclass
class Manifest:
    level: str = "sketch"
    per_row: bool = False  # records have row_blake3 and, from level sketch on, row_sketch
    complete: bool = False  # False: the writer was cut, or gave up for `reason`
    reason: str = ""
    engine: str = ""
    engine_facts: List[Fact] = field(default_factory=list)
    model_facts: List[Fact] = field(default_factory=list)
    session_facts: List[Fact] = field(default_factory=list)
    # Stages that the engine computes inside another op, with its reason: they have no records.
    unobservable: Dict[str, str] = field(default_factory=dict)
    model_path: str = ""
    model_sha256: str = ""
    prompt: str = ""
    tokens: List[int] = field(default_factory=list)  # every id evaluated, prompt first
    n_prompt: int = 0
    filter: str = ""  # which points were asked for; empty: all
    sketch_seed: int = SEED
    n_records: int = 0
    # All logits rows in order of position, f32 little-endian: of the traced run, and of one without taps. Empty: not known.
    logits_blake3: str = ""
    logits_blake3_untapped: str = ""

    def to_json(self) -> str:
        fields: Dict[str, Any] = {"schema": SCHEMA, "state": "complete" if self.complete else "incomplete"}
        if self.reason:
            fields["reason"] = self.reason
        fields.update(level=self.level, per_row=self.per_row, n_records=self.n_records, engine=self.engine,
                      engine_facts=self.engine_facts, model={"path": self.model_path, "sha256": self.model_sha256},
                      model_facts=self.model_facts, session_facts=self.session_facts, unobservable=self.unobservable,
                      prompt=self.prompt, n_prompt=self.n_prompt, tokens=self.tokens)
        if self.filter:
            fields["filter"] = self.filter
        fields.update(sketch={"seed": self.sketch_seed, "tables": TABLES, "buckets": BUCKETS},
                      logits_blake3=self.logits_blake3, logits_blake3_untapped=self.logits_blake3_untapped)
        return json.dumps(fields, indent=1) + "\n"


@dataclass
class Step:
    """One evaluation: tokens from first_position on."""

    seq: int
    first_position: int
    tokens: List[int]

    def to_json(self) -> str:
        return f'{{"seq":{self.seq},"position":{self.first_position},"tokens":[{",".join(map(str, self.tokens))}]}}'


@dataclass
class Record:
    """One tracepoint of one step. shape[0] are token rows."""

    name: str
    shape: Tuple[int, ...]
    dtype: str  # of the engine's tensor, before conversion to f32
    blake3: str  # of the row-major values as f32 little-endian
    rms: float  # over finite values, as every size here
    num_elements: int
    seq: int
    layer: int
    stage: str
    position: int  # of row 0
    row_rms: Optional[np.ndarray] = None  # (rows) of f32; None: not known
    nan: int = 0
    inf: int = 0
    neg_inf: int = 0
    sketch: Optional[Sketch] = None
    row_top: bytes = b""  # of logits, each row: rest f32, then (id i32, logit f32) of its likeliest tokens
    row_blake3: List[str] = field(default_factory=list)
    row_sketch: List[Sketch] = field(default_factory=list)
    payload_file: str = ""  # beside the manifest; empty: no payload
    payload_offset: int = 0

    def to_json(self) -> str:
        known = vocabulary.find(self.stage)
        parts = [f'{{"name":{_quote(self.name)},"shape":[{",".join(map(str, self.shape))}],"dtype":{_quote(self.dtype)}',
                 f'"blake3":"{self.blake3}","rms":{self.rms:.10g},"num_elements":{self.num_elements}',
                 f'"seq":{self.seq},"layer":{self.layer},"stage":{_quote(self.stage)}']
        if known:
            parts.append(f'"order":{known.level}')
        parts.append(f'"position":{self.position}')
        if self.row_rms is not None and len(self.row_rms):
            parts.append(f'"row_rms":"{_base64(self.row_rms.astype("<f4").tobytes())}"')
        parts += [f'"{key}":{n}' for key, n in (("nan", self.nan), ("inf", self.inf), ("neg_inf", self.neg_inf)) if n]
        if self.sketch:
            parts.append(f'"sketch":"{_base64(self.sketch.to_bytes())}"')
        if self.row_top:
            parts.append(f'"row_top":"{_base64(self.row_top)}"')
        if self.row_blake3:
            parts.append('"row_blake3":["' + '","'.join(self.row_blake3) + '"]')
        if self.row_sketch:
            parts.append(f'"row_sketch":"{_base64(b"".join(s.to_bytes() for s in self.row_sketch))}"')
        if self.payload_file:
            parts.append(f'"payload":[{_quote(self.payload_file)},{self.payload_offset}]')
        return ",".join(parts) + "}"


def _quote(text: str) -> str:
    return json.dumps(text)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def point_name(seq: int, layer: int, stage: str, position: int, step_position: int) -> str:
    """"t0/blk3/q_proj"; a tensor that does not begin where its step begins ends in "@POSITION"."""
    name = f"t{seq}/blk{layer}/{stage}" if layer >= 0 else f"t{seq}/{stage}"
    return name if position == step_position else f"{name}@{position}"


# ---- what records say of a tensor ----------------------------------------------------------------------------------------


def _row_sums(rows: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Sum of squares of each row's finite values in fp64, over eight lanes and in the order of src/trace/measure.cc."""
    n, width = rows.shape
    sums = np.empty(n)
    step = max(1, (1 << 20) // max(1, width))
    for start in range(0, n, step):
        part, good = rows[start:start + step], finite[start:start + step]
        squares = np.zeros((len(part), -(-width // 8) * 8))
        squares[:, :width] = np.where(good, part, np.float32(0)).astype(np.float64) ** 2
        lanes = np.add.accumulate(squares.reshape(len(part), -1, 8), axis=1)[:, -1]  # one after the other, as sum does not
        pairs = lanes[:, 0::2] + lanes[:, 1::2]
        sums[start:start + step] = (pairs[:, 0] + pairs[:, 1]) + (pairs[:, 2] + pairs[:, 3])
    return sums


def measure(values: np.ndarray) -> Dict[str, Any]:
    """blake3, rms, row_rms, nan, inf, neg_inf of values (rows, ...) of float32. Sizes are over the finite values alone."""
    rows = values.reshape(len(values), -1)
    finite = np.isfinite(rows)
    sums, counts = _row_sums(rows, finite), finite.sum(axis=1)
    total, count = float(np.add.accumulate(sums)[-1]), int(counts.sum())
    found = {"blake3": blake3.digest(values), "rms": float(np.sqrt(total / count)) if count else 0.0,
             "row_rms": np.sqrt(sums / np.maximum(counts, 1)).astype(np.float32)}
    if count < rows.size:
        found.update(nan=int(np.isnan(rows).sum()), inf=int(np.isposinf(rows).sum()), neg_inf=int(np.isneginf(rows).sum()))
    return found


TOP_TOKENS = 10


def top_tokens(rows: np.ndarray) -> bytes:
    """Record.row_top of logits (rows, vocabulary): the largest first, of equals the lowest id."""
    out = []
    for row in rows:
        k = min(TOP_TOKENS, len(row))
        if not np.isfinite(row).all():
            out.append(np.float32("nan").tobytes() + (np.int32(-1).tobytes() + np.float32("nan").tobytes()) * k)
            continue
        best = np.argsort(-row, kind="stable")[:k]
        weights = np.exp(row.astype(np.float64) - float(row[best[0]]))
        weights[best] = 0
        pairs = b"".join(np.int32(i).tobytes() + row[i].tobytes() for i in best)
        out.append(np.float32(np.add.accumulate(weights)[-1]).tobytes() + pairs)
    return b"".join(out)


def sketch_heads(stage: str, shape: Tuple[int, ...]) -> int:
    return shape[1] if stage in vocabulary.BY_POSITION and len(shape) == 3 else 1


def describe(manifest: Manifest, sketcher: Sketcher, step: Step, stage: str, layer: int, position: int, values: np.ndarray,
             dtype: str) -> Record:
    """The record of one tensor at the manifest's level; values (rows, ...) of float32, C-contiguous."""
    record = Record(name=point_name(step.seq, layer, stage, position, step.first_position), shape=values.shape, dtype=dtype,
                    num_elements=values.size, seq=step.seq, layer=layer, stage=stage, position=position, **measure(values))
    heads, sketched = sketch_heads(stage, values.shape), manifest.level != "digest"
    if sketched:
        record.sketch = sketcher.sketch(values, position, heads)
        record.row_top = top_tokens(values.reshape(len(values), -1)) if stage == "logits" else b""
    if manifest.per_row:
        record.row_blake3 = blake3.digest_rows(values.reshape(len(values), -1))
        if sketched:
            record.row_sketch = sketcher.sketch_rows(values, position, heads)
    return record


# ---- parsing: hostile input, so every type, length and count is checked --------------------------------------------------


class _Fields:
    """A JSON object whose fields are asked for by type; errors name the field."""

    def __init__(self, value: Any) -> None:
        if not isinstance(value, dict):
            raise TraceError("no JSON object")
        self.value = value

    def _get(self, key: str, needed: bool) -> Any:
        found = self.value.get(key)
        if found is None and needed:
            raise TraceError(f'field "{key}" is missing')
        return found

    def text(self, key: str, needed: bool = False) -> str:
        found = self._get(key, needed)
        if found is not None and not isinstance(found, str):
            raise TraceError(f'field "{key}" is no text')
        return found or ""

    def integer(self, key: str, lowest: int, highest: int, default: Optional[int] = None) -> int:
        found = self._get(key, default is None)
        if found is None:
            return default  # type: ignore[return-value]
        if type(found) is not int or not lowest <= found <= highest:
            raise TraceError(f'field "{key}" is no integer in range')
        return found

    def integers(self, key: str, lowest: int, highest: int) -> List[int]:
        found = self._get(key, True)
        if not isinstance(found, list) or any(type(v) is not int or not lowest <= v <= highest for v in found):
            raise TraceError(f'field "{key}" is no list of integers in range')
        return found

    def boolean(self, key: str) -> bool:
        found = self._get(key, False)
        if found is not None and not isinstance(found, bool):
            raise TraceError(f'field "{key}" is not true or false')
        return bool(found)

    def digest(self, key: str, needed: bool) -> str:
        found = self.text(key, needed)
        if (found or needed) and not _is_digest(found):
            raise TraceError(f'field "{key}" is not 64 lower-case hexadecimal digits')
        return found

    def binary(self, key: str) -> Optional[bytes]:
        found = self.text(key)
        if key not in self.value:
            return None
        try:
            return base64.b64decode(found, validate=True)
        except (binascii.Error, ValueError):
            raise TraceError(f'field "{key}" is no base64') from None

    def facts(self, key: str) -> List[Fact]:
        found = self._get(key, False)
        if found is None:
            return []
        good = isinstance(found, list) and all(isinstance(f, list) and len(f) == 3 and all(isinstance(t, str) for t in f)
                                               for f in found)
        if not good:
            raise TraceError(f'field "{key}" is no list of [key, value, origin]')
        return [(f[0], f[1], f[2]) for f in found]


def _is_digest(text: Any) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _parse_json(text: str) -> _Fields:
    try:
        return _Fields(json.loads(text, parse_constant=_no_constant))
    except (ValueError, RecursionError):
        raise TraceError("no valid JSON") from None


def parse_line(text: str) -> Any:
    """A line of records.jsonl: a Step (no "name") or a Record."""
    fields = _parse_json(text)
    if "name" in fields.value:
        return _parse_record(fields)
    return Step(fields.integer("seq", 0, _INT32), fields.integer("position", 0, _INT32), fields.integers("tokens", -_INT32 - 1, _INT32))


def _parse_record(f: _Fields) -> Record:
    shape = tuple(f.integers("shape", 0, _MAX_ELEMENTS))
    if not 1 <= len(shape) <= _MAX_DIMS:
        raise TraceError('field "shape" is no list of 1 to 8 sizes')
    n = 1
    for size in shape:
        n *= size
    if n != f.integer("num_elements", 0, _MAX_ELEMENTS):
        raise TraceError(f'"num_elements" is {f.value["num_elements"]}, the product of "shape" is {n}')
    rms = f.value.get("rms", "")
    if rms is not None and (isinstance(rms, bool) or not isinstance(rms, (int, float))):
        raise TraceError('field "rms" is no number')
    record = Record(name=f.text("name", True), shape=shape, dtype=f.text("dtype", True), blake3=f.digest("blake3", True),
                    rms=float("nan") if rms is None else float(rms), num_elements=n, seq=f.integer("seq", 0, _INT32),
                    layer=f.integer("layer", -_INT32 - 1, _INT32), stage=f.text("stage", True),
                    position=f.integer("position", 0, _INT32), nan=f.integer("nan", 0, n, 0), inf=f.integer("inf", 0, n, 0),
                    neg_inf=f.integer("neg_inf", 0, n, 0))
    _parse_rows(f, record)
    _parse_payload(f, record)
    return record


def _parse_rows(f: _Fields, record: Record) -> None:
    n_rows = record.shape[0]
    rms, sketch, rows = f.binary("row_rms"), f.binary("sketch"), f.binary("row_sketch")
    if rms is not None:
        if len(rms) != 4 * n_rows:
            raise TraceError('field "row_rms" is no list of one value a row')
        record.row_rms = np.frombuffer(rms, "<f4").astype(np.float32)
    try:
        record.sketch = None if sketch is None else Sketch.from_bytes(sketch)
        if rows is not None:
            if len(rows) != BYTES * n_rows:
                raise ValueError('field "row_sketch" is no sketch for each row')
            record.row_sketch = [Sketch.from_bytes(rows[i:i + BYTES]) for i in range(0, len(rows), BYTES)]
    except ValueError as error:
        raise TraceError(str(error)) from None
    top = f.binary("row_top") or b""
    if n_rows and (len(top) % n_rows or (top and (len(top) // n_rows < 4 or (len(top) // n_rows - 4) % 8))):
        raise TraceError('field "row_top" is no list of the likeliest tokens of each row')
    record.row_top = top
    digests = f.value.get("row_blake3")
    if digests is not None:
        if not isinstance(digests, list) or len(digests) != n_rows or not all(map(_is_digest, digests)):
            raise TraceError('field "row_blake3" is no list of one digest a row')
        record.row_blake3 = digests


def _parse_payload(f: _Fields, record: Record) -> None:
    payload = f.value.get("payload")
    if payload is None:
        return
    good = isinstance(payload, list) and len(payload) == 2 and isinstance(payload[0], str) and type(payload[1]) is int
    if not good or not 0 <= payload[1] < 1 << 64:
        raise TraceError('field "payload" is no pair of file name and offset')
    name = payload[0]
    if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name:  # nothing that leads out of the folder
        raise TraceError('field "payload" is no file name within the trace')
    record.payload_file, record.payload_offset = name, payload[1]


def parse_manifest(text: str) -> Manifest:
    f = _parse_json(text)
    if f.text("schema", True) != SCHEMA:
        raise TraceError(f'schema "{f.text("schema")}"; this version reads {SCHEMA}')
    state, level = f.text("state", True), f.text("level", True)
    if state not in ("complete", "incomplete"):
        raise TraceError('field "state" is not "complete" or "incomplete"')
    if level not in LEVELS:
        raise TraceError(f'trace level "{level}" is none of {", ".join(LEVELS)}')
    model, unobservable = _Fields(f.value.get("model") or {}), f.value.get("unobservable") or {}
    if not isinstance(unobservable, dict) or not all(isinstance(reason, str) for reason in unobservable.values()):
        raise TraceError('field "unobservable" is no object of stage and reason')
    sketch = _Fields(f.value.get("sketch"))
    if (sketch.integer("tables", 0, _INT32), sketch.integer("buckets", 0, _INT32)) != (TABLES, BUCKETS):
        raise TraceError(f"sketches of another size; this version reads {TABLES} x {BUCKETS}")
    return Manifest(level=level, per_row=f.boolean("per_row"), complete=state == "complete", reason=f.text("reason"),
                    engine=f.text("engine", True), engine_facts=f.facts("engine_facts"), model_facts=f.facts("model_facts"),
                    session_facts=f.facts("session_facts"), unobservable=unobservable, model_path=model.text("path"), model_sha256=model.text("sha256"),
                    prompt=f.text("prompt"), tokens=f.integers("tokens", -_INT32 - 1, _INT32),
                    n_prompt=f.integer("n_prompt", 0, _INT32), filter=f.text("filter"), sketch_seed=sketch.integer("seed", 0, (1 << 64) - 1),
                    n_records=f.integer("n_records", 0, (1 << 63) - 1), logits_blake3=f.text("logits_blake3"),
                    logits_blake3_untapped=f.text("logits_blake3_untapped"))
