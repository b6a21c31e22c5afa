"""Name maps: where in a PyTorch model each tracepoint of the vocabulary appears, and how it becomes canonical.

A point is a module's output, a module's input, or what a plain function takes or gives inside a module (the rotation of q and
k and the softmax are no modules in Hugging Face's models). What can be seen in no such place is declared unobservable, with
the reason. Nothing is guessed: a name that the model lacks, a point that never comes or comes twice, and a shape that does
not fit are errors.
"""
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Union

from paritybit import vocabulary
from paritybit.record import Fact, TraceError


class Step(NamedTuple):
    """What a transform may know of the evaluation at hand."""

    n_tokens: int
    first_position: int


Transform = Callable[[Any, Step], Any]  # the module's tensor -> token rows first


class Output(NamedTuple):
    """What a module returns. "{layer}" in the path stands for the layer's number; of a tuple, the first."""

    module: str
    transform: Transform


class Input(NamedTuple):
    """A module's first argument, before it runs."""

    module: str
    transform: Transform


class Call(NamedTuple):
    """A plain function, seen while the module `inside` runs. "torch.nn.functional.softmax": by its full name. ".rotate": by
    the name under which the module's own forward() finds it. `argument`: what it takes under this name; else what it returns,
    of a tuple the element `pick`."""

    function: str
    inside: str
    transform: Transform
    argument: str = ""
    pick: int = 0


Source = Union[Output, Input, Call]


# ---- transforms ------------------------------------------------------------------------------------------------------------


def rows(x: Any, step: Step) -> Any:
    """(1, n, width) or (n, width) -> (n, width)."""
    return _one_sequence(x, 2)


def last_rows(x: Any, step: Step) -> Any:
    """As rows; a model may give the last rows alone, or one without an axis of its own."""
    return _one_sequence(x, 2)


def heads(n_heads: int, interleave: bool = False) -> Transform:
    """(1, n, n_heads * head_dim) -> (n, n_heads, head_dim)."""

    def transform(x: Any, step: Step) -> Any:
        x = _one_sequence(x, 2)
        return _order(x.reshape(x.shape[0], n_heads, -1), interleave)

    return transform


def heads_first(interleave: bool = False) -> Transform:
    """(1, n_heads, n, head_dim) -> (n, n_heads, head_dim)."""

    def transform(x: Any, step: Step) -> Any:
        return _order(_one_sequence(x, 3).transpose(0, 1), interleave)

    return transform


def scores(x: Any, step: Step) -> Any:
    """(1, n_heads, n, positions) -> (n, n_heads, p), p = first_position + n. A mask that adds the lowest number of the type
    becomes -inf; columns beyond p (the room of a static cache) must be hidden and are cut."""
    import torch

    x = _one_sequence(x, 3).transpose(0, 1)
    x = x.masked_fill(x <= torch.finfo(x.dtype).min / 2, float("-inf"))
    return _cut(x, step, float("-inf"))


def probabilities(x: Any, step: Step) -> Any:
    """As scores, after the softmax: 0 where hidden."""
    return _cut(_one_sequence(x, 3).transpose(0, 1), step, 0.0)


def _one_sequence(x: Any, n_dims: int) -> Any:
    if x.dim() == n_dims + 1 and x.shape[0] == 1:
        return x[0]
    if x.dim() != n_dims:
        raise TraceError(f"shape {tuple(x.shape)}, {n_dims} axes behind a batch of one are expected")
    return x


def _order(x: Any, interleave: bool) -> Any:
    """Hugging Face rotates (0, d/2), (1, d/2 + 1) ...; a GGUF file of architecture llama holds those rows as pairs (0, 1) ..."""
    if not interleave:
        return x
    n, n_heads, head_dim = x.shape
    return x.reshape(n, n_heads, 2, head_dim // 2).transpose(2, 3).reshape(n, n_heads, head_dim)


def _cut(x: Any, step: Step, hidden: float) -> Any:
    p = step.first_position + step.n_tokens
    if x.shape[-1] < p:
        raise TraceError(f"attention sees {x.shape[-1]} positions, the trace is at {p}: evaluated without the cache of the steps before?")
    if bool((x[..., p:] != hidden).any()):
        raise TraceError(f"attention sees positions beyond {p}, which are not evaluated yet")
    return x[..., :p]


# ---- maps ------------------------------------------------------------------------------------------------------------------


@dataclass
class NameMap:
    """`points`: stage -> where. `unobservable`: stage -> reason. Optional stages in neither do not exist in the model."""

    name: str
    n_layers: int
    tokens: str  # path of the module whose input are the token ids: its call begins a step
    points: Dict[str, Source]
    unobservable: Dict[str, str] = field(default_factory=dict)
    model_facts: List[Fact] = field(default_factory=list)
    session_facts: List[Fact] = field(default_factory=list)

    def __post_init__(self) -> None:
        for stage in list(self.points) + list(self.unobservable):
            if not vocabulary.find(stage):
                raise TraceError(f'map {self.name}: "{stage}" is no stage of the vocabulary')
        for stage in vocabulary.STAGES:
            if not stage.optional and stage.name not in self.points and stage.name not in self.unobservable:
                raise TraceError(f"map {self.name}: {stage.name} is neither mapped nor declared unobservable")
        both = set(self.points) & set(self.unobservable)
        if both:
            raise TraceError(f"map {self.name}: {sorted(both)} are mapped and declared unobservable")


_LAYER = "model.layers.{layer}."
_ATTENTION, _MLP = _LAYER + "self_attn", _LAYER + "mlp"


def _get(config: Any, name: str, default: Any = None) -> Any:
    found = getattr(config, name, None)
    return default if found is None else found


def _hf_points(config: Any, interleave: bool, context: str, gated: str) -> Dict[str, Source]:
    """What LlamaForCausalLM and BitNetForCausalLM have in common. `context`, `gated`: modules that take these as their input."""
    n_heads = config.num_attention_heads
    n_kv_heads = _get(config, "num_key_value_heads", n_heads)
    return {
        "embeddings": Output("model.embed_tokens", rows),
        "attn_norm": Output(_LAYER + "input_layernorm", rows),
        "q_proj": Output(_ATTENTION + ".q_proj", heads(n_heads, interleave)),
        "k_proj": Output(_ATTENTION + ".k_proj", heads(n_kv_heads, interleave)),
        "v_proj": Output(_ATTENTION + ".v_proj", heads(n_kv_heads)),
        "q_rope": Call(".apply_rotary_pos_emb", _ATTENTION, heads_first(interleave), pick=0),
        "k_rope": Call(".apply_rotary_pos_emb", _ATTENTION, heads_first(interleave), pick=1),
        "attn_scores": Call("torch.nn.functional.softmax", _ATTENTION, scores, argument="input"),
        "attn_scores_softmax": Call("torch.nn.functional.softmax", _ATTENTION, probabilities),
        "attn_context": Input(context, heads(n_heads)),
        "attn_out": Output(_ATTENTION + ".o_proj", rows),
        "attn_residual": Input(_LAYER + "post_attention_layernorm", rows),
        "ffn_norm": Output(_LAYER + "post_attention_layernorm", rows),
        "gate_proj": Output(_MLP + ".gate_proj", rows),
        "up_proj": Output(_MLP + ".up_proj", rows),
        "ffn_act": Output(_MLP + ".act_fn", rows),
        "ffn_gated": Input(gated, rows),
        "down_proj": Output(_MLP + ".down_proj", rows),
        "layer_out": Output(_LAYER[:-1], rows),
        "final_norm": Output("model.norm", rows),
        "logits": Output("lm_head", last_rows),
    }


def _hf_map(name: str, model: Any, architecture: str, points: Dict[str, Source], pairing: str) -> NameMap:
    config = model.config
    attention = _get(config, "_attn_implementation", "eager")
    unobservable = {}
    if attention != "eager":
        for stage in ("attn_scores", "attn_scores_softmax"):
            unobservable[stage] = f"attention runs as one op (attn_implementation={attention}); load the model with eager to see it"
            del points[stage]
    n_heads = config.num_attention_heads
    head_dim = _get(config, "head_dim", config.hidden_size // n_heads)
    numbers = dict(n_layers=config.num_hidden_layers, d_model=config.hidden_size, d_ff=config.intermediate_size, n_heads=n_heads,
                   n_kv_heads=_get(config, "num_key_value_heads", n_heads), head_dim=head_dim, n_vocab=config.vocab_size,
                   n_ctx_train=config.max_position_embeddings)
    facts = [("architecture", architecture, "observed")] + [(k, str(v), "config.json") for k, v in numbers.items()]
    facts += _rope_facts(config, head_dim, pairing)
    facts += [("norm.eps", f"{config.rms_norm_eps:g}", "config.json"),
              ("ffn.activation", config.hidden_act, "config.json"),
              ("output.tied", "yes" if model.lm_head.weight is model.model.embed_tokens.weight else "no", "observed")]
    dtype = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}.get(str(model.lm_head.weight.dtype).split(".")[-1], "other")
    session = [("act.quant", _activation_scheme(model, dtype), "observed"), ("kv.type", dtype, "observed"),
               ("attn.flash", "off" if attention == "eager" else "on", "observed")]
    return NameMap(name, config.num_hidden_layers, "model.embed_tokens", points, unobservable, facts, session)


def _rope_facts(config: Any, head_dim: int, pairing: str) -> List[Fact]:
    rope = _get(config, "rope_parameters") or _get(config, "rope_scaling", {})
    base = float(rope.get("rope_theta", _get(config, "rope_theta", 10000.0)))
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    facts = [("rope.dims", str(head_dim), "config.json"), ("rope.pairing", pairing, "observed"),
             ("rope.base", str(int(base)) if base.is_integer() else repr(base), "config.json")]
    return facts + ([] if kind == "default" else [("rope.scaling", kind, "config.json")])


def _activation_scheme(model: Any, dtype: str) -> str:
    """How the layers' products round their inputs, by the class that computes them."""
    kinds = {type(getattr(part, name)).__name__ for layer in model.model.layers
             for part, names in ((layer.self_attn, ("q_proj", "k_proj", "v_proj", "o_proj")),
                                 (layer.mlp, ("gate_proj", "up_proj", "down_proj"))) for name in names}
    if kinds <= {"BitLinear", "AutoBitLinear"}:
        return "bitnet"
    if kinds == {"Linear"}:
        return "none" if dtype == "f32" else dtype
    return "+".join(sorted(kinds))


def hf_llama(model: Any, gguf_order: bool = True) -> NameMap:
    """LlamaForCausalLM of Hugging Face transformers (names of 4.30.2 to 5.23.0). With gguf_order the head rows of q and k
    stand as in a GGUF file of architecture llama; without, as in the model."""
    points = _hf_points(model.config, gguf_order, _ATTENTION + ".o_proj", _MLP + ".down_proj")
    return _hf_map("hf-llama", model, "llama", points, "adjacent" if gguf_order else "halves")


def hf_bitnet(model: Any) -> NameMap:
    """BitNetForCausalLM of Hugging Face transformers (names of 4.57.1 to 5.23.0). GGUF files of it keep the model's order of rows."""
    points = _hf_points(model.config, False, _ATTENTION + ".attn_sub_norm", _MLP + ".ffn_sub_norm")
    points["attn_sub_norm"] = Output(_ATTENTION + ".attn_sub_norm", rows)
    points["ffn_sub_norm"] = Output(_MLP + ".ffn_sub_norm", rows)
    return _hf_map("hf-bitnet", model, "bitnet", points, "halves")


def for_model(model: Any) -> NameMap:
    """The map of a Hugging Face model, by its class."""
    known = {"LlamaForCausalLM": hf_llama, "BitNetForCausalLM": hf_bitnet}
    name: Optional[str] = type(model).__name__
    if name not in known:
        raise TraceError(f"no map for {name}; those of {', '.join(sorted(known))} exist, others are written as paritybit.maps.NameMap")
    return known[name](model)
