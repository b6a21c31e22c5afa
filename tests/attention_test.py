"""What attention reads: projections that are one tensor, caches that overflow or hold blocks, attention as one op; what cannot be compared
op by op is named, and garbage in it is found all the same. Two CPU libraries of llama.cpp, of models that nobody else here reads."""
import json
import math
import random
import struct

from driver import SILU, Case, main, run
from tiny_gguf import BOOL, F32, U32, tiny, vector

PROMPT = "and the other end of them all"
H, S = "llama.cpp,cpu.library=haswell", "llama.cpp,cpu.library=sandybridge"
TERNARY = SILU / "tiny-bitnet-silu-tq2_0.gguf"
CONTEXT = "attn_context"


def stack(*tensors):
    """Matrices of equal columns, one below the other."""
    whole = tensors[0]
    for t in tensors[1:]:
        whole.data += t.data
        whole.shape[1] += t.shape[1]
    return whole


def fused(arch, kind="F16", biases=False, layers=2, d=256, heads=4, kv_heads=2, gate=True):
    """A model whose queries, keys and values are one tensor, and whose gate and up projection are one too, where it has a gate."""
    file = tiny(arch, layers=layers, d=d, ff=512, heads=heads, kv_heads=kv_heads, weights=kind, tied=False)
    rng = random.Random(7)
    for i in range(layers):
        block = f"blk.{i}."
        parts = [file.tensors.pop(block + f"attn_{n}.weight") for n in "qkv"]
        file.tensors[block + "attn_qkv.weight"] = stack(*parts)
        n = file.tensors[block + "attn_qkv.weight"].shape[1]
        if biases:
            file.tensors[block + "attn_qkv.bias"] = vector([rng.gauss(0, 0.3) for _ in range(n)])
        if gate:
            file.tensors[block + "ffn_up.weight"] = stack(file.tensors.pop(block + "ffn_gate.weight"),
                                                          file.tensors.pop(block + "ffn_up.weight"))
    return file


def gptneox(parallel):
    """LayerNorm and biases everywhere, no gate; attention and feed-forward network beside each other, or one after the other."""
    file = fused("gptneox", biases=True, gate=False, kv_heads=4)
    rng = random.Random(3)
    file.set("gptneox.attention.layer_norm_epsilon", F32, 1e-5)
    file.set("gptneox.use_parallel_residual", BOOL, parallel)
    widths = {"attn_norm": 256, "ffn_norm": 256, "attn_output": 256, "ffn_up": 512, "ffn_down": 256}
    biases = [(f"blk.{i}.{name}", n) for i in range(2) for name, n in widths.items()] + [("output_norm", 256)]
    for i in range(2):
        file.drop(f"blk.{i}.ffn_gate.weight")
    for name, n in biases:
        file.tensors[name + ".bias"] = vector([rng.gauss(0, 0.1) for _ in range(n)])
    return file


class Attention(Case):
    def write(self, file, name="m.gguf"):
        return file.write(self.folder / name)

    def compared(self, path, *args, candidate=H, reference=S):
        return self.crossval("--model", path, "--candidate", candidate, "--reference", reference, "--prompt", PROMPT, *args)

    def stages(self, result):
        return {p["stage"] for p in result.json["points"]}


class Fused(Attention):
    def test_queries_keys_and_values_of_one_tensor_are_split_and_judged(self):
        """phi3, and chatglm with biases behind the product: values reach the f16 cache with other last bits in either library."""
        phi3 = fused("phi3")
        phi3.set("phi3.attention.sliding_window", U32, 128)
        phi3.set("phi3.rope.scaling.original_context_length", U32, 512)
        for name, file in (("phi3", phi3), ("chatglm", fused("chatglm", biases=True))):
            with self.subTest(name):
                result = self.compared(self.write(file, f"{name}.gguf"), "--max-tokens", "2")
                self.expect(result, "match", 0)
                self.assertLessEqual({"q_proj", "k_proj", "v_proj", CONTEXT, "gate_proj", "up_proj", "ffn_gated", "attn_out",
                                      "attn_residual"}, self.stages(result))
                self.assertEqual([u.split(":")[0] for u in result.json["coverage"]["unobservable"]], ["ffn_act"])

    def test_a_defect_in_each_part_is_placed_there(self):
        """One weight of the fused tensor is another in the candidate's file: the row says which projection it is."""
        good = fused("phi3")
        path = self.write(good, "good.gguf")
        q, kv = 256, 128
        for stage, row in (("q_proj", 3), ("k_proj", q + 5), ("v_proj", q + kv + 9)):
            with self.subTest(stage):
                bad = fused("phi3")
                at = bad.row("blk.1.attn_qkv.weight", row)
                bad.tensors["blk.1.attn_qkv.weight"].data[at.start:at.start + 2] = struct.pack("<e", 4.0)
                result = self.compared(self.write(bad, "bad.gguf"), "--reference-model", path)
                self.expect(result, "diverged", 1)
                place = result.json["first_divergence"]
                first = {"q_proj": row, "k_proj": row - q, "v_proj": row - q - kv}[stage]
                self.assertEqual((place["layer"], place["stage"], place["feature"]), (1, stage, first), result)
        for stage, row in (("gate_proj", 11), ("up_proj", 512 + 11)):
            with self.subTest(stage):
                bad = fused("phi3")
                at = bad.row("blk.0.ffn_up.weight", row)
                bad.tensors["blk.0.ffn_up.weight"].data[at.start:at.start + 2] = struct.pack("<e", 4.0)
                result = self.compared(self.write(bad, "bad.gguf"), "--reference-model", path)
                place = result.json["first_divergence"]
                self.assertEqual((place["layer"], place["stage"], place["feature"]), (0, stage, 11), result)

    def test_quantised_and_without_a_gate(self):
        """Other types, and an architecture whose feed-forward network has no gate: what is not seen is named, nothing is a false alarm."""
        self.expect(self.compared(self.write(fused("phi3", "Q8_0"))), "match", 0)
        for parallel in (False, True):
            result = self.compared(self.write(gptneox(parallel)))
            self.assertEqual(result.code, 0, result)
            self.assertLessEqual({"attn_norm", "v_proj", CONTEXT, "attn_out", "up_proj", "down_proj", "final_norm"}, self.stages(result))
            # One value of the table that GELU is read from, in half precision, is another in libraries without fused products.
            self.assertNotIn("ffn_gated", self.stages(result))
            hidden = [u for u in result.json["coverage"]["unobservable"] if u.startswith("ffn_gated")]
            self.assertIn("not judged by its own error: neither engine shows all ops", hidden[0])
            # less the layer's hidden stages and what reads them
            self.assertEqual(result.json["coverage"]["compared"], result.json["coverage"]["expected"])


def mpt(largest):
    """Positions told by a bias of the scores, ALiBi, as steep as `largest` says; LayerNorm, no gate."""
    file = fused("mpt", gate=False, d=384, heads=6, kv_heads=6)
    file.set("mpt.attention.layer_norm_epsilon", F32, 1e-5)
    file.set("mpt.attention.max_alibi_bias", F32, largest)
    for i in range(2):
        file.drop(f"blk.{i}.ffn_gate.weight")
    return file


class PositionBias(Attention):
    """ALiBi (Press, Smith, Lewis 2022): the softmax adds a bias that falls by a slope with the distance; the slopes of six heads are those
    of four, and every second one of eight."""
    SLOPES = [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]

    def recorded(self, folder, stage):
        """(layer, position, shape, values) of a stage's records."""
        for line in (folder / "records.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record.get("stage") == stage:
                name, at = record["payload"]
                values = struct.unpack_from(f"<{record['num_elements']}f", (folder / name).read_bytes(), at)
                yield record["layer"], record["position"], record["shape"], values

    def test_scores_and_softmax_are_what_the_paper_says(self):
        kept = self.folder / "kept"
        result = self.compared(self.write(mpt(8.0)), "--max-tokens", "2", "--keep-traces", kept)
        self.expect(result, "match", 0)
        judged = {(p["stage"], p["layer"]) for p in result.json["points"] if p["bound"] > 0}
        self.assertLessEqual({(stage, layer) for stage in ("attn_scores", "attn_scores_softmax", CONTEXT) for layer in (0, 1)}, judged)
        for side in ("candidate", "reference"):
            scores = {place[:2]: place for place in self.recorded(kept / side, "attn_scores")}
            n = 0
            for layer, first, (rows, heads, p), weights in self.recorded(kept / side, "attn_scores_softmax"):
                _, _, shape, read = scores[layer, first]
                self.assertEqual((shape, heads), ([rows, heads, p], len(self.SLOPES)))
                for at in range(0, len(weights), p):
                    row, head = divmod(at // p, heads)
                    seen = first + row + 1
                    self.assertTrue(all(math.isinf(s) for s in read[at + seen:at + p]) and not any(weights[at + seen:at + p]))
                    biased = [read[at + j] - self.SLOPES[head] * (seen - 1 - j) for j in range(seen)]
                    powers = [math.exp(s - max(biased)) for s in biased]
                    for weight, power in zip(weights[at:], powers):
                        self.assertAlmostEqual(weight, power / sum(powers), delta=1e-6)
                        n += 1
            self.assertGreater(n, 1000)

    def test_other_slopes_are_found_in_the_softmax(self):
        result = self.compared(self.write(mpt(4.0), "bad.gguf"), "--reference-model", self.write(mpt(8.0), "good.gguf"))
        self.expect(result, "diverged", 1)
        place = result.json["first_divergence"]
        self.assertEqual((place["layer"], place["stage"]), (0, "attn_scores_softmax"), result)


class Overflow(Attention):
    def model(self, key=True):
        """Keys (or values) of layer 1 are beyond what f16 holds; queries make up for it."""
        file = tiny("llama", layers=2, d=256, ff=512, weights="F32")
        up, down = ("attn_k", "attn_q") if key else ("attn_v", "attn_output")
        for name, factor in ((up, 60000.0), (down, 1 / 60000.0)):
            tensor = file.tensors[f"blk.1.{name}.weight"]
            values = struct.unpack(f"<{len(tensor.data) // 4}f", tensor.data)
            tensor.data[:] = struct.pack(f"<{len(values)}f", *(v * factor for v in values))
        return self.write(file)

    def test_the_cache_is_named_with_its_engine_and_the_cure(self):
        for key, stage in ((True, "attn_scores"), (False, CONTEXT)):
            path = self.model(key)
            result = self.crossval("--model", path, "--set", "kv.type=f32", "--reference", H, "--prompt", PROMPT)
            self.expect(result, "invalid", 3, "kv-cache-overflow")
            first = result.json["first_divergence"]
            self.assertEqual((result.json["blame"], first["layer"], first["stage"]), ("reference", 1, stage), result)
            reason = result.json["reasons"][0]["text"]
            for part in ("f16 KV cache of the reference", "kv.type=f32 mends it", "keys" if key else "values"):
                self.assertIn(part, reason)
            self.assertNotIn("captured", "\n".join(result.json["notes"]))
            self.assertIn("--set-reference kv.type=f32", result.json["next"][0])
            both = self.crossval("--model", path, "--reference", H, "--prompt", PROMPT)
            self.expect(both, "invalid", 3, "kv-cache-overflow")
            self.assertEqual(both.json["blame"], "both")
            quiet = run("crossval", "-q", "--model", path, "--reference", H, "--prompt", PROMPT)
            self.assertIn("KV cache of both engines overflows", quiet.out)
            mended = self.crossval("--model", path, "--set", "kv.type=f32", "--reference", H, "--set-reference", "kv.type=f32",
                                   "--prompt", PROMPT)
            self.expect(mended, "match", 0)

    def test_an_audit_has_one_finding(self):
        path = self.model()
        for engine in (H, "native"):
            result = run("audit", "--format", "json", "--model", path, "--engine", engine, "--prompt", PROMPT)
            self.expect(result, "invalid", 3, "kv-cache-overflow")
            findings = result.json["findings"]
            self.assertEqual(len(findings), 1, result)
            self.assertIn("f16 KV cache overflows", findings[0]["sentence"])
            self.assertIn("kv.type=f32", findings[0]["sentence"])
            self.assertNotIn("of finite inputs", result.out)
            self.assertEqual(result.json["blame"], "engine")
            mended = run("audit", "--format", "json", "--model", path, "--engine", engine, "--set", "kv.type=f32", "--prompt", PROMPT)
            self.expect(mended, "match", 0)


class Flash(Attention):
    def test_rounding_is_drift_and_garbage_diverges(self):
        result = self.compared(TERNARY, candidate=H + ",attn.flash=on", reference=H)
        self.expect(result, "drift", 0, "fused-attention")
        hidden = " ".join(result.json["coverage"]["unobservable"])
        self.assertIn("attn_scores:", hidden)
        self.assertIn("attn_scores_softmax:", hidden)
        self.assertIn(CONTEXT, self.stages(result))
        for limit in result.json["limits"]:
            self.assertIn("attn.flash differs", limit["origin"])
        alone = self.compared(TERNARY, "--scope", "logits-only", candidate=H + ",attn.flash=on", reference=H)
        self.expect(alone, "drift", 0, "fused-attention")
        same = self.compared(TERNARY, candidate=H + ",attn.flash=on", reference=S + ",attn.flash=on")
        self.assertEqual(same.code, 0, same)
        self.assertNotIn("fused-attention", same.codes())

    def test_an_engine_that_is_wrong_inside_the_one_op(self):
        """The native engine with attention as one op: nothing between keys and context can be seen."""
        fused_native = "mutant,attn.flash=on"
        good = self.compared(TERNARY, candidate=fused_native, reference=H)
        self.expect(good, "drift", 0, "fused-attention")
        for defect, stage in (("kv_stale", CONTEXT), ("mask_future", "attn_scores"), ("scores_unscaled", "attn_scores")):
            with self.subTest(defect):
                bad = f"{fused_native},mutant.defect={defect},mutant.stage={stage},mutant.layer=2"
                result = self.compared(TERNARY, candidate=bad, reference=H)
                self.expect(result, "diverged", 1)
                place = result.json["first_divergence"]
                self.assertEqual(place["layer"], 2, result)
                self.assertIn(place["stage"], (CONTEXT, stage), result)  # at the hidden op where a variation of it explains all
                self.assertEqual(result.json["blame"], "candidate", result)
                alone = self.compared(TERNARY, "--scope", "logits-only", candidate=bad, reference=H)
                self.assertEqual(alone.code, 1, alone)


    def test_libraries_that_sum_otherwise_in_the_one_op_drift(self):
        """Heads of 4 values: vectors of 8 floats do not divide them, so that haswell sums in f16 where sse42 sums in float32. In a model
        of float32 that is far more than noise, and what the arbiter predicts of it."""
        model = self.folder / "narrow.gguf"
        made = run("gen-fixtures", "--out", model, "--layers", "2", "--d-model", "64", "--d-ff", "128", "--heads", "16", "--kv-heads", "8",
                   "--head-dim", "4", "--weights", "F32", "--embedding", "F32")
        self.assertEqual(made.code, 0, made)
        prompt = ("--prompt", " ".join(["And God said, Let there be light: and there was light."] * 3))
        haswell, sse42 = H + ",attn.flash=on", "llama.cpp,cpu.library=sse42,attn.flash=on"
        for candidate, reference in ((haswell, sse42), (sse42, haswell)):
            receipt = self.folder / f"{candidate[22:27]}.json"
            result = run("crossval", "--format", "json", "--model", model, "--candidate", candidate, "--reference", reference, *prompt,
                         "--receipt", receipt)
            self.expect(result, "drift", 0, "fused-attention")
            self.assertIn("kl.mean.precision", {limit["name"] for limit in result.json["limits"]})
            checked = run("verify-receipt", receipt)
            self.assertIn("the verdict, drift, follows from the figures", " ".join(checked.out.split()))
        # The same library twice rounds alike.
        same = run("crossval", "--format", "json", "--model", model, "--candidate", haswell, "--reference", haswell, *prompt)
        self.expect(same, "match", 0)
        # What is wrong inside the op is found where it is.
        wrong = "mutant,attn.flash=on,mutant.defect=scores_factor_1.05,mutant.stage=attn_scores,mutant.layer=1"
        result = run("crossval", "--format", "json", "--model", model, "--candidate", wrong, "--reference", haswell, *prompt)
        self.expect(result, "diverged", 1)
        self.assertEqual((result.json["first_divergence"]["layer"], result.json["first_divergence"]["stage"]), (1, CONTEXT), result)
        self.assertEqual(result.json["blame"], "candidate", result)


class CacheTypes(Attention):
    def test_every_type_of_two_libraries_agrees(self):
        for kv in ("bf16", "q8_0", "q4_0"):
            with self.subTest(kv):
                result = self.compared(TERNARY, "--set", f"kv.type={kv}", "--set-reference", f"kv.type={kv}", "--max-tokens", "2")
                self.assertEqual(result.code, 0, result)
                for engine in result.json["engines"]:
                    self.assertIn(kv, str(engine["session_facts"]))

    def test_what_cannot_be_is_refused_by_name(self):
        off = self.compared(TERNARY, "--set", "kv.type=q8_0", "--set", "attn.flash=off")
        self.expect(off, "incomplete", 3, "unsupported")
        self.assertIn("it needs attn.flash=on", off.out)
        unknown = run("crossval", "--model", TERNARY, "--candidate", H, "--reference", S, "--prompt", PROMPT, "--set", "kv.type=q3_k")
        self.assertEqual(unknown.code, 2, unknown)
        self.assertIn("f16 f32 bf16 q8_0 q5_1 q5_0 q4_1 q4_0", unknown.err)
        native = self.compared(TERNARY, "--set", "kv.type=q8_0", candidate="native", reference=H)
        self.expect(native, "incomplete", 3)
        self.assertIn("kv.type=q8_0", native.out)
        narrow = self.write(tiny("llama", d=64, heads=4))
        blocks = self.compared(narrow, "--set", "kv.type=q8_0", "--set-reference", "kv.type=q8_0")
        self.expect(blocks, "incomplete", 3, "unsupported")
        self.assertIn("32 values", blocks.out)

    def test_different_types_are_settings_that_differ(self):
        result = self.compared(TERNARY, "--set", "kv.type=bf16")
        self.expect(result, "incomplete", 3, "settings-differ")
        self.assertIn("kv.type", result.json["reasons"][0]["text"])


class Confidence(Attention):
    def test_distances_below_the_resolution_are_ties(self):
        """Six short prompts, native against a library: means of some 1e-14 nats, which nothing can tell from equal."""
        for prompt in ("hi there", "a", "And God", "one two", "the end", "x y z"):
            result = self.crossval("--model", TERNARY, "--reference", H, "--prompt", prompt, "--confidence", "0.95", "--scope", "logits-only")
            kls = [row["kl"] for row in result.json["positions"]]
            if max(kls) < 1e-12:
                self.expect(result, "match", 0)
                self.assertEqual(result.json["distance"]["p"], 1)


if __name__ == "__main__":
    main()
