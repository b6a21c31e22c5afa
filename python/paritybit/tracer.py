"""Records what a PyTorch model computes as a trace: forward hooks where a name map says."""
import functools
import hashlib
import inspect
import os
import sys
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np
import torch

from paritybit import blake3, vocabulary
from paritybit.maps import Call, Input, NameMap, Output, Source, Step
from paritybit.reader import Trace
from paritybit.record import Fact, Manifest, TraceError
from paritybit.writer import Folder, Writer

_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16"}
_Key = Tuple[str, int]  # stage, layer


def _to_rows(tensor: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).contiguous().numpy(), "<f4")


class _Functions:
    """Plain functions replaced by ones that show their arguments and results to those who asked, and put back."""

    def __init__(self) -> None:
        self._replaced: List[Tuple[Any, str, Any]] = []
        self._watchers: Dict[Tuple[int, str], List[Callable[[Any, Any], None]]] = {}

    def watch(self, owner: Any, name: str, watcher: Callable[[Any, Any], None]) -> None:
        """`owner`: a dict of globals or a Python module. watcher(arguments, None) before, watcher(None, result) after a call."""
        found = self._watchers.setdefault((id(owner), name), [])
        found.append(watcher)
        if len(found) > 1:
            return
        original = owner[name] if isinstance(owner, dict) else getattr(owner, name)
        signature = inspect.signature(original)

        @functools.wraps(original)
        def shown(*args: Any, **kwargs: Any) -> Any:
            arguments = signature.bind(*args, **kwargs).arguments
            for each in found:
                each(arguments, None)
            result = original(*args, **kwargs)
            for each in found:
                each(None, result)
            return result

        self._set(owner, name, shown)
        self._replaced.append((owner, name, original))

    @staticmethod
    def _set(owner: Any, name: str, value: Any) -> None:
        if isinstance(owner, dict):
            owner[name] = value
        else:
            setattr(owner, name, value)

    def restore(self) -> None:
        while self._replaced:
            self._set(*self._replaced.pop())
        self._watchers.clear()


class Tracer:
    """Traces every evaluation of a model while it is entered (`with Tracer(model, folder, name_map): ...`).

    The first evaluation is the prompt; each further one must continue the sequence through the model's own cache. One sequence
    a trace, batches of one. Leaving by an exception leaves a trace that is incomplete and says why. Functions that the map
    names are replaced while the tracer is entered, so no other thread may evaluate a model meanwhile. `model_path` is the file
    that engines are compared on; its sha256 says which model the trace is of. `prompt` is the text of the tokens.
    """

    def __init__(self, model: torch.nn.Module, folder: Folder, name_map: NameMap, level: str = "sketch", per_row: bool = False,
                 engine: str = "pytorch", prompt: str = "", model_path: Folder = "", model_sha256: str = "") -> None:
        if model.training:
            raise TraceError("the model is in training mode, where dropout is drawn anew; call model.eval() first")
        self._model, self._map = model, name_map
        self._expected = {(s, n) for s in name_map.points for n in (range(name_map.n_layers) if _per_layer(s) else (-1,))}
        for stage, layer in sorted(self._expected):
            self._find_module(_path(name_map.points[stage], layer), stage)
        self._refuse_more_layers()
        session = name_map.session_facts + [("map", name_map.name, "set")]
        self._writer = Writer(folder, Manifest(level=level, per_row=per_row, engine=engine, engine_facts=_engine_facts(model),
                                               model_facts=name_map.model_facts, session_facts=session,
                                               unobservable=dict(name_map.unobservable), prompt=prompt,
                                               model_path=os.fspath(model_path),
                                               model_sha256=model_sha256 or _sha256(model_path)))
        self.folder = self._writer.folder
        self._hooks: List[Any] = []
        self._functions = _Functions()
        self._step: Optional[Step] = None
        self._n_positions = 0
        self._seen: Set[_Key] = set()
        self._running: List[torch.nn.Module] = []  # modules that functions are watched in, the innermost last
        self._logits = blake3.new()
        self._all_logits = True
        self._untapped = ""
        self._error: Optional[str] = None

    # ---- hooks ----

    def __enter__(self) -> "Tracer":
        try:
            tokens = self._find_module(self._map.tokens, "the token ids")
            self._hooks.append(tokens.register_forward_pre_hook(self._guarded(lambda _m, args: self._begin(_first(args)))))
            for stage, layer in sorted(self._expected):
                self._install(stage, layer, self._map.points[stage])
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _find_module(self, path: str, what: str) -> torch.nn.Module:
        module: Any = self._model
        for part in path.split("."):
            module = module._modules.get(part)
            if module is None:
                raise TraceError(f'map {self._map.name}: the model has no module "{path}" ({what})')
        return module

    def _refuse_more_layers(self) -> None:
        for stage, source in self._map.points.items():
            beyond = _path(source, self._map.n_layers)
            if beyond != _path(source, 0) and self._has_module(beyond):
                raise TraceError(f'map {self._map.name}: {self._map.n_layers} layers, but the model has "{beyond}" too ({stage})')

    def _has_module(self, path: str) -> bool:
        try:
            self._find_module(path, "")
        except TraceError:
            return False
        return True

    def _guarded(self, hook: Callable[..., None]) -> Callable[..., None]:
        """Remembers the first error, whoever may catch it: the trace is not whole then."""

        def guarded(*args: Any) -> None:
            try:
                hook(*args)
            except BaseException as error:
                self._error = self._error or str(error) or type(error).__name__
                raise

        return guarded

    def _install(self, stage: str, layer: int, source: Source) -> None:
        module = self._find_module(_path(source, layer), stage)
        if isinstance(source, Output):
            hook = self._guarded(lambda _m, _args, out: self._record(stage, layer, _pick(out, 0), source))
            self._hooks.append(module.register_forward_hook(hook))
        elif isinstance(source, Input):
            before = self._guarded(lambda _m, args: self._record(stage, layer, _first(args), source))
            self._hooks.append(module.register_forward_pre_hook(before))
        else:
            self._install_call(stage, layer, source, module)

    def _install_call(self, stage: str, layer: int, source: Call, module: torch.nn.Module) -> None:
        owner, name = _owner(source.function, module)

        def watch(arguments: Any, result: Any) -> None:
            if not self._running or self._running[-1] is not module:
                return
            if source.argument and arguments is not None:
                self._record(stage, layer, arguments[source.argument], source)
            elif not source.argument and arguments is None:
                self._record(stage, layer, _pick(result, source.pick), source)

        self._functions.watch(owner, name, self._guarded(watch))
        if not any(getattr(hook, "module", None) is module for hook in self._hooks):
            self._hooks.append(_Running(module, self._running))

    def _begin(self, ids: Any) -> None:
        self._end_step()
        self._running.clear()
        tokens = ids.detach().cpu().reshape(-1).tolist()
        if ids.dim() > 1 and ids.numel() != ids.shape[-1]:
            raise TraceError(f"token ids of shape {tuple(ids.shape)}: a trace holds one sequence, a batch of one")
        self._step = Step(len(tokens), self._n_positions)
        self._writer.begin_step(self._n_positions, tokens)
        self._n_positions += len(tokens)

    def _end_step(self) -> None:
        missing = sorted(self._expected - self._seen, key=lambda k: (k[1], k[0])) if self._step else []
        if missing:
            names = ", ".join(stage if layer < 0 else f"{stage} of layer {layer}" for stage, layer in missing[:5])
            raise TraceError(f"{len(missing)} points of map {self._map.name} never came: {names}{', ...' if missing[5:] else ''}")
        self._seen.clear()

    def _record(self, stage: str, layer: int, tensor: Any, source: Source) -> None:
        where = f"{stage} of layer {layer}" if layer >= 0 else stage
        if self._step is None:
            raise TraceError(f'{where} came before any call of "{self._map.tokens}"')
        if (stage, layer) in self._seen:
            raise TraceError(f"{where} came twice in one evaluation")
        if not isinstance(tensor, torch.Tensor) or tensor.dtype not in _DTYPES:
            raise TraceError(f"{where} is {getattr(tensor, 'dtype', type(tensor).__name__)}, no tensor of floats")
        self._seen.add((stage, layer))
        try:
            values = _to_rows(source.transform(tensor, self._step))
        except (TraceError, RuntimeError) as error:
            raise TraceError(f"{where}: {error}") from None
        n, late = len(values), self._step.n_tokens - len(values)
        if late and not (stage == "logits" and 0 < n < self._step.n_tokens):
            raise TraceError(f"{where} has {n} rows, {self._step.n_tokens} tokens are evaluated")
        self._writer.append(stage, layer, values, self._step.first_position + late, _DTYPES[tensor.dtype])
        if stage == "logits":
            self._all_logits = self._all_logits and not late
            self._logits.update(memoryview(values).cast("B"))

    # ---- the end ----

    def logits_digest(self) -> str:
        """Of all logits rows so far, as the manifest has it; empty where a step gave its last rows alone."""
        return self._logits.hexdigest() if self._all_logits and "logits" in self._map.points else ""

    def set_untapped(self, logits_blake3: str) -> None:
        """The digest of all logits rows of the same evaluations without a tracer: proof that looking changed nothing."""
        self._untapped = logits_blake3

    def abandon(self, reason: str) -> None:
        """Leaves the trace incomplete, instead of entering the tracer."""
        self._writer.abandon(reason)

    def __exit__(self, kind: Any, error: Any, _traceback: Any) -> None:
        self._functions.restore()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        reason = self._error
        if kind is not None:
            reason = reason or str(error) or kind.__name__
        elif reason is None:
            try:
                self._end_step()
                if self._step is None:
                    raise TraceError("nothing was evaluated")
            except TraceError as found:
                self._writer.abandon(str(found))
                raise
        if reason is None:
            self._writer.finish(self.logits_digest(), self._untapped)
        else:
            self._writer.abandon(reason)


class _Running:
    """Keeps a module on the stack while it runs."""

    def __init__(self, module: torch.nn.Module, stack: List[torch.nn.Module]) -> None:
        self.module = module
        self._stack = stack
        self._hooks = [module.register_forward_pre_hook(self._push), module.register_forward_hook(self._pop)]

    def _push(self, module: torch.nn.Module, _args: Any) -> None:
        self._stack.append(module)

    def _pop(self, _module: torch.nn.Module, _args: Any, _output: Any) -> None:
        self._stack.pop()

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _sha256(path: Folder) -> str:
    """Of the file; empty where none is named."""
    if not os.fspath(path):
        return ""
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            hasher.update(block)
    return hasher.hexdigest()


def _per_layer(stage: str) -> bool:
    found = vocabulary.find(stage)
    return found is not None and found.per_layer


def _path(source: Source, layer: int) -> str:
    return (source.inside if isinstance(source, Call) else source.module).replace("{layer}", str(layer))


def _first(args: Sequence[Any]) -> Any:
    if not args:
        raise TraceError("a module was called with keywords alone, which a hook does not see")
    return args[0]


def _pick(result: Any, index: int) -> Any:
    return result[index] if isinstance(result, (tuple, list)) else result


def _owner(function: str, module: torch.nn.Module) -> Tuple[Any, str]:
    """Where a function is looked up when it is called, and its name there."""
    if function.startswith("."):
        names = inspect.unwrap(type(module).forward).__globals__
        if function[1:] not in names:
            raise TraceError(f'{type(module).__name__}.forward knows no function "{function[1:]}": another version of the model\'s code?')
        return names, function[1:]
    package, name = function.rsplit(".", 1)
    if not hasattr(sys.modules.get(package), name):
        raise TraceError(f'there is no function "{function}"')
    return sys.modules[package], name


def _engine_facts(model: torch.nn.Module) -> List[Fact]:
    facts = [("name", "pytorch", "observed"), ("version", torch.__version__, "observed"),
             ("threads", str(torch.get_num_threads()), "observed")]
    package = type(model).__module__.split(".")[0]
    if package not in ("torch", "__main__") and hasattr(sys.modules.get(package), "__version__"):
        facts.append((f"version.{package}", str(sys.modules[package].__version__), "observed"))
    return facts


Forward = Callable[[torch.nn.Module, torch.Tensor, Any], Tuple[torch.Tensor, Any]]


def hf_forward(model: torch.nn.Module, ids: torch.Tensor, state: Any) -> Tuple[torch.Tensor, Any]:
    """One evaluation of a Hugging Face causal language model: ids (1, n) and the cache, to logits (1, n, n_vocab) and the cache."""
    out = model(input_ids=ids, past_key_values=state, use_cache=True)
    return out.logits, out.past_key_values


def _evaluate(model: torch.nn.Module, tokens: Sequence[int], n_prompt: int, forward: Forward) -> str:
    """The prompt, then token by token; the digest of all logits rows."""
    hasher, state = blake3.new(), None
    device = next(model.parameters()).device
    steps = [tokens[:n_prompt]] + [[t] for t in tokens[n_prompt:]]
    with torch.no_grad():
        for ids in steps:
            logits, state = forward(model, torch.tensor([list(ids)], device=device), state)
            hasher.update(memoryview(_to_rows(logits.reshape(-1, logits.shape[-1]))).cast("B"))
    return hasher.hexdigest()


def record_trace(model: torch.nn.Module, folder: Folder, name_map: NameMap, tokens: Sequence[int], n_prompt: Optional[int] = None,
                 forward: Forward = hf_forward, **options: Any) -> Trace:
    """Traces a whole sequence: the first n_prompt tokens (default: all) at once, then each further one as a decode step. Runs
    it without taps first, so that the trace proves whether looking changes the logits. `options` as Tracer's."""
    n_prompt = len(tokens) if n_prompt is None else n_prompt
    if not 0 < n_prompt <= len(tokens):
        raise TraceError(f"a prompt of {n_prompt} of {len(tokens)} tokens")
    tracer = Tracer(model, folder, name_map, **options)
    try:
        tracer.set_untapped(_evaluate(model, tokens, n_prompt, forward))
    except BaseException as error:
        tracer.abandon(f"before the traced run: {error}")
        raise
    with tracer:
        digest = _evaluate(model, tokens, n_prompt, forward)
        if tracer.logits_digest() not in ("", digest):
            raise TraceError(f"the logits of map {name_map.name} are not those that the model returns")
    return Trace.open(folder)
