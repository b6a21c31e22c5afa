#!/usr/bin/env python3
"""Architectures beside llama and BitNet: the native engine against the reference on the same file, op by op, and what goes wrong in
ports of them.

architectures_test.py BUILD_DIRECTORY"""
import pathlib
import struct
import tempfile

import driver
from driver import paste, run
from gguf_edit import F16, F32, UINT32, Gguf, rewrite

REFERENCE = "llama.cpp,cpu.library=haswell"
PROMPT = "the quick brown fox jumps over the lazy dog and runs away from all of them"
EXPERTS = ("router_logits", "expert_ids", "expert_weights", "expert_gate", "expert_up", "expert_gated", "expert_down", "expert_sum")
# What gen-fixtures is asked for, and ops that the architecture adds.
MODELS = {
    "qwen2": (("--architecture", "qwen2", "--weights", "Q8_0"), ()),
    "qwen3": (("--architecture", "qwen3", "--head-dim", "96", "--weights", "Q6_K", "--d-model", "512", "--heads", "8"), ("q_norm", "k_norm")),
    "phi3": (("--architecture", "phi3", "--weights", "Q8_0", "--head-dim", "96", "--d-model", "384"), ()),
    "llama3": (("--llama3-rope", "--weights", "Q4_K"), ()),
    # A window of 8 positions, so that the prompt crosses it.
    "gemma2": (("--architecture", "gemma2", "--weights", "Q8_0"), ("attn_post_norm", "ffn_post_norm")),
    "gemma3": (("--architecture", "gemma3", "--weights", "Q4_0", "--layers", "6"), ("q_norm", "attn_post_norm", "ffn_post_norm")),
    "olmo2": (("--architecture", "olmo2", "--weights", "Q8_0"), ("q_norm", "attn_post_norm", "ffn_post_norm")),
    "granite": (("--architecture", "granite", "--weights", "Q8_0"), ()),
    "smollm3": (("--architecture", "smollm3", "--weights", "Q8_0", "--layers", "4"), ()),
    "mixtral": (("--experts", "8", "--weights", "Q8_0"), EXPERTS),
    "qwen2moe": (("--architecture", "qwen2moe", "--weights", "Q4_0", "--experts-used", "3"), (*EXPERTS, "gate_proj", "shared_gate", "shared_out", "ffn_out")),
    "qwen3moe": (("--architecture", "qwen3moe", "--weights", "Q6_K", "--d-model", "512", "--head-dim", "96", "--heads", "8"), (*EXPERTS, "q_norm")),
    "gpt-oss": (("--architecture", "gpt-oss", "--weights", "MXFP4", "--rope-scaling", "yarn"), EXPERTS),
    "stablelm": (("--architecture", "stablelm", "--weights", "Q8_0"), ("ffn_norm",)),
    "stablelm-parallel": (("--architecture", "stablelm", "--weights", "Q8_0", "--parallel"), ()),
    "mistral3": (("--architecture", "mistral3", "--weights", "Q8_0", "--rope-scaling", "yarn"), ()),
    "linear": (("--weights", "Q8_0", "--rope-scaling", "linear"), ()),
    "yarn": (("--architecture", "qwen2", "--weights", "Q8_0", "--rope-scaling", "yarn"), ()),
    # Sessions of 256 positions and more have room for more than 64.
    "longrope": (("--architecture", "phi3", "--weights", "Q8_0", "--rope-scaling", "longrope", "--original-context", "64"), ()),
}


class Architectures(driver.Case):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory(prefix="paritybit-test-")
        cls.addClassCleanup(holder.cleanup)
        cls.models = {}
        for name, (shape, _) in MODELS.items():
            cls.models[name] = pathlib.Path(holder.name) / name / "model.gguf"
            made = run("gen-fixtures", "--out", cls.models[name], "--distribution", "gaussian", "--vocab", "320", *shape)
            assert made.code == 0, made

    def test_both_engines_agree_op_by_op(self):
        for name, (_, added) in MODELS.items():
            with self.subTest(name):
                result = self.crossval("--model", self.models[name], "--prompt", PROMPT, "-n", "2", "--reference", REFERENCE)
                self.assertEqual((result.code, result.json["scope"]), (0, "local"), result)
                self.assertIn("ops-within-bounds", result.codes(), result)
                stages = {point["stage"] for point in result.json["points"]}
                self.assertLessEqual(set(added), stages)

    def test_what_ports_forget_is_placed_and_named(self):
        for name, defect, stage, layer, cause in (("qwen2", "bias_missing", "k_proj", 1, "product.bias=0"),
                                                  ("qwen3", "norm_missing", "q_norm", 1, "norm.repeat=0"),
                                                  ("qwen3", "norm_unweighted", "k_norm", 0, "norm.unweighted"),
                                                  ("phi3", "scores_unscaled", "attn_scores", 1, "attn.scale=none"),
                                                  ("phi3", "factor_1.05", "v_proj", 0, "factor=1.05"),
                                                  ("llama3", "rope_unfactored", "q_rope", 0, "rope.factors=0"),
                                                  ("gemma2", "scores_uncapped", "attn_scores", 1, "attn.cap=0"),
                                                  ("gemma2", "logits_uncapped", "logits", -1, "logits.cap=0"),
                                                  ("gemma2", "norm_missing", "ffn_post_norm", 0, "norm.repeat=0"),
                                                  ("gemma3", "window_longer", "attn_scores", 0, "attn.window_shift=1"),
                                                  ("gemma3", "window_shorter", "attn_scores", 4, "attn.window_shift=-1"),
                                                  ("gemma3", "rope_exchanged", "k_rope", 5, "rope."),
                                                  ("gemma3", "norm_plus_one", "attn_post_norm", 2, "norm.weight_offset=1"),
                                                  ("gemma3", "act_gelu", "ffn_act", 1, "ffn.activation=gelu"),
                                                  ("olmo2", "norm_missing", "k_norm", 1, "norm.repeat=0"),
                                                  ("granite", "residual_unscaled", "attn_residual", 1, "residual.scale=1"),
                                                  ("granite", "scores_unscaled", "attn_scores", 0, "attn.scale=none"),
                                                  ("granite", "embeddings_unscaled", "embeddings", -1, "embeddings.unscaled"),
                                                  ("smollm3", "rope_everywhere", "q_rope", 3, "rope.everywhere=1"),
                                                  ("mixtral", "router_unnormalised", "expert_weights", 1, "router.normalise=0"),
                                                  ("mixtral", "experts_exchanged", "expert_up", 0, "experts.exchanged="),
                                                  ("qwen2moe", "router_softmax_late", "expert_weights", 0, "router."),
                                                  ("qwen2moe", "shared_ungated", "shared_out", 1, "shared.gate=0"),
                                                  ("qwen3moe", "router_unnormalised", "expert_weights", 0, "router.normalise=0"),
                                                  ("qwen3moe", "experts_from_second", "expert_ids", 1, "router.rank=1"),
                                                  ("qwen3moe", "experts_exchanged", "expert_down", 1, "experts.exchanged="),
                                                  ("gpt-oss", "router_softmax_early", "expert_weights", 1, "router.softmax=all"),
                                                  ("gpt-oss", "sinks_missing", "attn_scores_softmax", 0, "softmax.sinks=0"),
                                                  ("gpt-oss", "experts_bias_missing", "expert_gate", 1, "product.bias=0"),
                                                  ("gpt-oss", "up_not_offset", "expert_gated", 0, "ffn.gate_offset=0"),
                                                  ("gpt-oss", "window_longer", "attn_scores", 0, "attn.window_shift=1"),
                                                  ("gpt-oss", "rope_unmixed", "k_rope", 1, "rope.yarn=0"),
                                                  ("yarn", "rope_unscaled", "q_rope", 1, "rope.attention_factor=1"),
                                                  ("yarn", "rope_factor_twice", "k_rope", 0, "factor="),
                                                  ("stablelm", "norm_bias_missing", "attn_norm", 1, "product.bias=0"),
                                                  ("stablelm", "norm_uncentred", "ffn_norm", 0, "norm.centred=0"),
                                                  ("longrope", "rope_unscaled", "k_rope", 0, "rope.attention_factor=1")):
            with self.subTest(f"{name} {defect}"):
                wrong = f"mutant,mutant.defect={defect},mutant.stage={stage}" + (f",mutant.layer={layer}" if layer >= 0 else "")
                result = self.crossval("--model", self.models[name], "--prompt", PROMPT, "--candidate", wrong, "--reference", "native")
                self.assertEqual((result.json["verdict"], result.json["blame"]), ("diverged", "candidate"), result)
                place = result.json["first_divergence"]
                self.assertEqual((place["layer"], place["stage"]), (layer, stage), result)
                self.assertTrue(result.json["diagnosis"]["named"].startswith(cause), result)

    def embedding_model(self, architecture):
        """As utils/convert-bitnet-embedding-to-gguf.py of microsoft/BitNet writes it: I2_S, every norm and the embedding in F16, no output matrix,
        the way of pooling."""
        folder = self.models["qwen3"].parent.parent / f"{architecture}-embedding"
        plain, model = folder / "plain/model.gguf", folder / "model.gguf"
        if model.exists():
            return model
        made = run("gen-fixtures", "--out", plain, "--architecture", architecture, "--input-norms", "--weights", "I2_S", "--vocab", "320",
                   "--head-dim", "96")
        self.assertEqual(made.code, 0, made)
        file, halves = Gguf(plain), {}
        for name, (kind, shape, at, size) in file.tensors.items():
            if kind == F32 and len(shape) == 1:
                n = size // 4
                halves[name] = (F16, shape, struct.pack(f"<{n}e", *struct.unpack_from(f"<{n}f", file.data, at)))
        return rewrite(plain, model, keys={f"{architecture}.pooling_type": (UINT32, 1)}, tensors=halves)

    def test_an_embedding_model_with_a_norm_before_each_projection(self):
        norms = {"q_in_norm", "k_in_norm", "v_in_norm", "attn_sub_norm", "gate_in_norm", "up_in_norm", "ffn_sub_norm"}
        for architecture in ("qwen3", "gemma3"):
            model = self.embedding_model(architecture)
            with self.subTest(architecture):
                audit = run("audit", "--model", model, "--engine", "native", "--prompt", PROMPT, "-n", "2", "--format", "json")
                self.assertEqual((audit.json["verdict"], audit.code), ("match", 0), audit)
                self.assertLessEqual(norms, {point["stage"] for point in audit.json["points"]})
                self.assertTrue(any("an embedding model" in note and "pooled final norm" in note for note in audit.json["notes"]), audit)
                # llama.cpp has no such graph, and does not ignore the tensors.
                refused = self.crossval("--model", model, "--prompt", PROMPT, "--reference", REFERENCE)
                self.expect(refused, "incomplete", 3, "unsupported")
                following = paste(refused.json["next"][0])
                self.assertEqual(following.code, 0, following)
                for defect, stage, cause in (("norm_missing", "v_in_norm", "norm.repeat=0"), ("norm_twice", "up_in_norm", "norm.repeat=2"),
                                             ("norm_missing", "ffn_sub_norm", "norm.repeat=0"), ("norm_twice", "attn_sub_norm", "norm.repeat=2"),
                                             ("norm_unweighted", "q_in_norm", "norm.unweighted")):
                    result = self.crossval("--model", model, "--prompt", PROMPT, "--reference", "native", "--candidate",
                                           f"mutant,mutant.defect={defect},mutant.stage={stage},mutant.layer=1")
                    self.assertEqual((result.json["verdict"], result.json["blame"]), ("diverged", "candidate"), result)
                    place = result.json["first_divergence"]
                    self.assertEqual((place["layer"], place["stage"]), (1, stage), result)
                    self.assertTrue(result.json["diagnosis"]["named"].startswith(cause), result)

    def test_one_of_those_norms_alone_is_no_model(self):
        model = self.embedding_model("qwen3")
        named = self.models["qwen3"].parent.parent / "half/model.gguf"
        named.parent.mkdir()
        named.write_bytes(model.read_bytes().replace(b"blk.0.ffn_up_norm_in.weight", b"blk.0.ffn_up_norm_xx.weight"))
        result = run("audit", "--model", named, "--engine", "native", "--prompt", PROMPT)
        self.assertNotEqual(result.code, 0, result)
        self.assertIn("tensor blk.0.ffn_up_norm_in.weight is missing", result.out + result.err)

    def test_a_tie_between_experts_is_no_defect(self):
        """Experts 2 and 5 have one router row, so that both are right wherever one of them is chosen."""
        file = Gguf(self.models["qwen3moe"])
        routers = {}
        for layer in range(2):
            name = f"blk.{layer}.ffn_gate_inp.weight"
            kind, shape, at, size = file.tensors[name]
            raw, row = bytearray(file.data[at:at + size]), size // shape[1]
            raw[5 * row:6 * row] = raw[2 * row:3 * row]
            routers[name] = (kind, shape, bytes(raw))
        model = rewrite(self.models["qwen3moe"], self.models["qwen3moe"].parent.parent / "tie/model.gguf", tensors=routers)
        result = self.crossval("--model", model, "--prompt", PROMPT, "--candidate", "mutant,mutant.defect=benign_tie,mutant.stage=expert_ids",
                               "--reference", "native")
        self.assertEqual(result.code, 0, result)
        self.assertIn("near-tie", result.codes(), result)
        tied = [point for point in result.json["points"] if point.get("explained_by_tie")]
        self.assertTrue(tied and all(point["stage"] == "expert_ids" for point in tied), result)
        self.assertNotIn("local-error-above-bound", result.codes())
        # The arbiter leaves open which of the two it is, too.
        audit = run("audit", "--model", model, "--engine", "mutant,mutant.defect=benign_tie,mutant.stage=expert_ids", "--prompt", PROMPT, "--format", "json")
        self.assertEqual((audit.json["verdict"], audit.code), ("match", 0), audit)

    def spiked(self, name, model, factor):
        """One value of the norm before a router is that many times as large."""
        norm = "blk.0.ffn_norm.weight"
        file = Gguf(model)
        kind, shape, at, size = file.tensors[norm]
        raw = bytearray(file.data[at:at + size])
        struct.pack_into("<f", raw, 28, struct.unpack_from("<f", raw, 28)[0] * factor)
        return rewrite(model, model.parent.parent / name / "model.gguf", tensors={norm: (kind, shape, bytes(raw))})

    def test_experts_whose_exponentials_are_zero_are_tied(self):
        """Where the second best lies 104 below the best, float32 has no difference between it and the others: engines take either."""
        model = self.spiked("far", self.models["qwen3moe"], 3e4)
        result = self.crossval("--model", model, "--prompt", PROMPT, "--reference", REFERENCE)
        self.assertEqual(result.code, 0, result)
        self.assertTrue([point for point in result.json["points"] if point.get("explained_by_tie")], result)
        audit = run("audit", "--model", model, "--engine", REFERENCE, "--prompt", PROMPT, "--format", "json")
        self.assertEqual((audit.json["verdict"], audit.code), ("match", 0), audit)

    def test_what_a_router_makes_of_no_numbers_is_nobodys_fault(self):
        """Values beyond f16 make NaN of a layer's experts, and so of the next router's logits."""
        model = self.models["qwen3moe"].parent.parent / "f16/model.gguf"
        made = run("gen-fixtures", "--out", model, "--distribution", "gaussian", "--vocab", "320", "--architecture", "qwen3moe", "--weights", "F16")
        self.assertEqual(made.code, 0, made)
        model = self.spiked("nan", model, 1e6)
        result = self.crossval("--model", model, "--prompt", PROMPT, "--reference", REFERENCE)
        self.assertEqual((result.json["verdict"], result.json["blame"], result.code), ("invalid", "model-file", 3), result)
        audit = run("audit", "--model", model, "--engine", REFERENCE, "--prompt", PROMPT, "--format", "json")
        self.assertEqual((audit.json["verdict"], audit.json["blame"], audit.code), ("invalid", "model-file", 3), audit)

    def test_a_token_more_with_another_expert_is_no_divergence(self):
        """Sums in another order give one position another expert: nearly all that its prompt's mean is made of, within a position's limit."""
        result = self.crossval("--model", self.models["mixtral"], "--candidate", "mutant,mutant.defect=benign_sum_backwards", "--reference", REFERENCE,
                               "-n", "2", "--prompt", "A much longer text about nothing in particular, which goes on and on until there is nothing "
                               "left that could be said about it, and then it stops.")
        self.assertEqual(result.code, 0, result)
        kl = [position["kl"] for position in result.json["positions"] if position["phase"] == "prefill"]
        limits = {limit["name"]: limit for limit in result.json["limits"]}
        self.assertGreater(max(kl), 0.9 * sum(kl))
        self.assertIn("one position more", limits["kl.prefill.mean"]["origin"])
        self.assertLess(sum(kl) / len(kl), limits["kl.prefill.mean"]["value"])
        self.assertLess(max(kl), limits["kl.worst"]["value"])

    def test_a_ternary_model_as_the_hubs_have_it(self):
        """BitNet b1.58 with LLaMA 2's SentencePiece vocabulary and a Q6_K embedding, which is the output matrix, too."""
        vocabulary = Gguf(driver.vocabulary("llama-spm"))
        plain = self.models["qwen2"].parent.parent / "ternary/plain.gguf"
        made = run("gen-fixtures", "--out", plain, "--architecture", "bitnet", "--weights", "TQ2_0", "--embedding", "Q6_K", "--vocab", "32000")
        self.assertEqual(made.code, 0, made)
        tables = {key: vocabulary.raw(key) for key in vocabulary.values if key.startswith("tokenizer.")}
        model = rewrite(plain, plain.parent / "hub/model.gguf", keys={"tokenizer.ggml.merges": None, **tables})
        for prompt in ("The quick brown fox", "caf\u00e9 \u4f60\u597d \U0001f600  two  spaces\n\tand </s> a token"):
            result = self.crossval("--model", model, "--prompt", prompt, "-n", "2", "--reference", REFERENCE,
                                   "--set", "ffn.activation=silu")
            self.assertEqual(result.code, 0, result)
            self.assertIn("ops-within-bounds", result.codes(), result)
            self.assertEqual(result.json["prompts"][0]["tokens"][0], 1, result)  # <s>

    def test_an_audit_of_the_reference_and_a_bundle_of_a_defect(self):
        for name in MODELS:
            audit = run("audit", "--model", self.models[name], "--engine", REFERENCE, "--prompt", PROMPT, "--format", "json")
            self.assertEqual((audit.json["verdict"], audit.code), ("match", 0), audit)


if __name__ == "__main__":
    driver.main()
