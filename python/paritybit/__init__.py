"""Writes and reads paritybit traces: what a model computed, op by op. `Tracer` and `record` need PyTorch, the rest only NumPy."""
from paritybit.reader import Trace
from paritybit.record import Manifest, Record, Step, TraceError
from paritybit.sketch import Sketch
from paritybit.writer import Writer

__version__ = "0.1.0"
__all__ = ["Manifest", "Record", "Sketch", "Step", "Trace", "TraceError", "Tracer", "Writer", "maps", "record_trace"]


def __getattr__(name):
    # PyTorch is loaded by those who trace, not by those who read.
    if name in ("Tracer", "record_trace"):
        from paritybit import tracer

        return getattr(tracer, name)
    if name == "maps":
        import importlib

        return importlib.import_module("paritybit.maps")
    raise AttributeError(f"module 'paritybit' has no attribute {name!r}")
