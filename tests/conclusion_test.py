"""What findings come to: where, which part, when, what; and the sentence that says so, in crossval, audit and diagnose.

Defects are committed by plugins/mutant, which knows nothing of the hypotheses, or by editing the bytes of a file.
"""
import shutil

import defects
from driver import SILU, Case, main, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
PROMPT = "And God said, Let there be light: and there was light."


def mutant(defect, stage, layer=1, when="always"):
    return f"mutant,mutant.defect={defect},mutant.stage={stage},mutant.layer={layer},mutant.when={when}"


def fault(text, stage, layer=1, when="always"):
    layer = "" if layer is None else f",mutant.layer={layer}"
    return f"mutant,mutant.fault={text},mutant.stage={stage}{layer},mutant.when={when}"


class Concluding(Case):
    def conclude(self, *args):
        """(JSON, conclusion) of a comparison that finds something."""
        result = run(*args, "--format", "json")
        self.assertEqual(result.code, 1, result)
        finding = result.json["findings"][0] if args[0] == "audit" else result.json["diagnosis"]
        self.assertIsNotNone(finding, result)
        return finding, finding["conclusion"]

    def compared(self, candidate, *args, reference="native"):
        return self.conclude("diagnose", "--model", MODEL, "--candidate", candidate, "--reference", reference, "--prompt", PROMPT,
                             "--max-tokens", "2", "--no-perplexity", "--no-inject", *args)

    def expect(self, candidate, text):
        finding, conclusion = self.compared(candidate)
        self.assertEqual(conclusion["text"], text, finding)
        return finding


class Conclusion(Concluding):
    def test_columns_of_any_number(self):
        finding = self.expect(mutant("tail_columns_8", "down_proj", when="decode"),
                              "where=product part=columns:504-511/512 when=decode what=absent")
        self.assertIn("the candidate leaves out the last 8 of 512 columns of K in the product, in decode only;",
                      finding["sentence"])

    def test_quantisers(self):
        self.expect(mutant("quant_clamp_63", "up_proj"), "where=codes part=all when=always what=saturation:63")
        self.expect(mutant("quant_truncates", "up_proj", when="prefill"), "where=codes part=all when=prefill what=truncation")

    def test_parts_of_an_output(self):
        self.expect(mutant("head_scaled", "attn_context"), "where=formula part=heads:1/4 when=always what=factor:1.02")
        self.expect(mutant("tail_rows_8", "up_proj"), "where=product part=features:504-511/512 when=always what=absent")

    def test_values_that_end_or_are_added_to(self):
        self.expect(fault("saturated:0.25", "q_rope"), "where=formula part=all when=always what=saturation:0.25")
        self.expect(fault("offset:1", "layer_out", 2, "decode"), "where=formula part=all when=decode what=offset:1")

    def test_a_column_whose_code_is_zero_in_some_rows_is_wrong_always(self):
        self.expect(fault("code_absent@145", "q_proj", 5), "where=product part=columns:145/256 when=always what=absent")

    def test_a_factor_of_one_value_is_none(self):
        # A code that is off by one in one row is that code times something.
        self.expect(fault("codes_off@201:-1", "attn_out", 0, "decode"), "where=codes part=columns:201/256 when=decode")

    def test_missing_ops_and_caches(self):
        self.expect(mutant("norm_missing", "ffn_norm"), "where=formula part=all when=always what=absent")
        self.expect(mutant("rope_none", "k_rope", when="decode"), "where=formula part=all when=decode what=absent")
        self.expect(mutant("kv_stale", "attn_context"), "where=cache-read part=all when=always what=stale")

    def test_cells_and_heads_of_a_cache(self):
        # Position 0 is not rotated; the last position has none behind it; one query head of a group reads what is right.
        self.expect(fault("unrotated", "attn_scores", when="decode"), "where=cache-read part=all when=decode what=absent")
        self.expect(fault("cell_of_next@3", "attn_context", when="odd_batch:2"),
                    "where=cache-written part=positions:3/15 when=odd-batch:2 what=other-part")
        self.expect(fault("head_unwritten@1", "attn_context"), "where=cache-written part=heads:1/2 when=always what=absent")
        self.expect(fault("other_head@2", "attn_scores"), "where=cache-read part=heads:2/4 when=always what=other-part")

    def test_formulas_of_which_a_part_is_left_out(self):
        self.expect(fault("squares_without@248-255", "ffn_norm"),
                    "where=formula part=columns:248-255/256 when=always what=absent")
        self.expect(fault("eps_outside", "attn_norm", 0),
                    "where=formula part=all when=always what=variation:norm.eps_outside=1")
        self.expect(fault("unweighted@252-255", "ffn_norm"),
                    "where=formula part=features:252-255/256 when=always what=variation:norm.unweighted=1")
        # Position 0 is not rotated: that it is right makes no part of the others.
        self.expect(fault("pair_frequency:1", "k_rope"),
                    "where=formula part=all when=always what=variation:rope.pair_shift=1")
        self.expect(fault("pairs_left:1", "q_rope"),
                    "where=formula part=all when=always what=variation:rope.pairs_left=1")

    def test_columns_of_heads_that_are_left_out(self):
        self.expect(fault("head_columns_absent@56-63", "attn_scores", when="decode"),
                    "part=columns:56-63/64 when=decode what=absent")

    def test_group_sums_lower_ternary_codes(self):
        self.expect(fault("group_sums_without@240-255", "down_proj"),
                    "where=sums part=code:240-255/256 when=always what=absent")
        # Of one block all sums left out are codes that are one more: nothing tells them apart.
        _, conclusion = self.compared(fault("group_sums_without@0-255", "up_proj"))
        self.assertRegex(conclusion["text"], "^part=all when=always what=variation:weight.offset=")

    def test_masks(self):
        self.expect(fault("window:3", "attn_scores_softmax"), "where=mask when=always what=absent")
        self.expect(fault("position_hidden@2", "attn_scores_softmax", when="from_batch:12"),
                    "where=mask part=positions:2/15 when=from-batch:12 what=absent")
        # In one row alone this is a window as well; other passes tell.
        self.expect(fault("position_hidden@0", "attn_scores", when="decode"),
                    "where=mask part=positions:0/16 when=decode what=absent")

    def test_attention_in_one_op(self):
        """Of equal queries, keys and values: nothing between these and the context is shown."""
        def expect(candidate, text, words):
            finding, conclusion = self.compared(candidate + ",attn.flash=on", reference="mutant,attn.flash=on")
            self.assertEqual((finding["place"]["stage"], conclusion["text"]), ("attn_context", text), finding)
            self.assertIn(f"the candidate {words}", finding["sentence"])

        expect(fault("cell_of_before@4", "attn_context", when="from_batch:4"),
               "where=cache-written part=positions:4/15 when=from-batch:4 what=stale",
               "reads the values of the position before in position 4 of 15 of the keys, with 4 tokens at once and more only;")
        expect(fault("cell_absent@3", "attn_scores"), "where=cache-written part=positions:3/15 when=always what=absent",
               "reads zeros in place of keys in position 3")
        expect(fault("other_head@2", "attn_scores"), "where=cache-read part=heads:2/4 when=always what=other-part",
               "reads the keys of another KV head in head 2 of 4 alone;")
        expect(fault("own_of_before", "attn_scores"), "where=cache-read part=all when=always what=stale",
               "reads a stale key at its own position;")
        expect(fault("position_hidden@2", "attn_scores"), "where=mask part=positions:2/15 when=always what=absent", "hides position 2")
        expect(fault("window:3", "attn_scores_softmax"), "where=mask when=always what=absent", "sees the last 3 positions alone;")
        expect(fault("mask_shifted:2", "attn_scores", when="prefill"),
               "where=mask when=prefill what=variation:mask.shift=-2", "hides the last 2 positions")
        expect(mutant("scores_unscaled", "attn_scores"),
               "where=formula part=all when=always what=variation:attn.scale=none", "does not divide scores by sqrt(head_dim);")
        for amount, name, words in ((1, "values", "values"), (2, "sum", "exponentials")):
            expect(fault(f"not_rescaled:{amount}", "attn_scores_softmax"),
                   f"where=formula part=all when=always what=variation:softmax.running={name},1",
                   f"does not rescale its sum of {words} where a larger score comes;")

    def test_times_that_rows_tell(self):
        self.expect(fault("left_out", "ffn_norm", when="from_position:5"),
                    "where=formula part=all when=from-position:5 what=absent")
        self.expect(fault("mask_shifted:1", "attn_scores", when="not_repeatable"),
                    "where=mask part=all when=not-repeatable what=variation:mask.shift=-1")
        self.expect(fault("columns_absent@1", "logits", None, "up_to_batch:3"),
                    "where=product part=columns:1/256 when=up-to-batch:3 what=absent")

    def test_one_pass_is_enough_where_others_can_be_made(self):
        result = run("crossval", "--model", MODEL, "--candidate", mutant("factor_1.05", "up_proj"), "--reference", "native",
                     "--prompt", PROMPT, "--format", "json")
        self.assertEqual(result.json["diagnosis"]["conclusion"]["text"], "where=product part=all when=always what=factor:1.05",
                         result)

    def test_an_audit_says_the_same(self):
        finding, conclusion = self.conclude("audit", "--model", MODEL, "--engine", mutant("tail_columns_8", "down_proj"),
                                            "--prompt", PROMPT, "--max-tokens", "2")
        # It sees the passes of its prompt alone, one of 9 tokens and two of one: not enough for "always".
        self.assertEqual(conclusion["text"], "where=product part=columns:504-511/512 what=absent", finding)
        self.assertIsNotNone(finding["codes"], finding)

    def test_all_paths_tell_the_time(self):
        for when, text in (("few_rows", "up-to-batch:3"), ("many_rows", "from-batch:32"), ("odd_rows", "odd-batch:4")):
            with self.subTest(when):
                result = run("crossval", "--model", MODEL, "--candidate", mutant("factor_1.05", "up_proj", when=when),
                             "--reference", "native", "--prompt", "And God said", "--paths", "all", "--format", "json")
                self.assertEqual(result.code, 1, result)
                self.assertEqual(result.json["diagnosis"]["conclusion"]["when"], text, result)


class Products(Concluding):
    """Quantisers, sums and weights of types with a minimum; each defect as mutant.fault spells it."""

    def expect_of(self, weights, *faults):
        model = self.folder / f"{weights}.gguf"
        made = run("gen-fixtures", "--out", model, "--weights", weights, "--d-model", "512", "--d-ff", "512", "--heads", "8",
                   "--kv-heads", "4", "--layers", "1", "--vocab", "777", "--distribution", "gaussian")
        self.assertEqual(made.code, 0, made)
        for fault, when, text in faults:
            with self.subTest(fault):
                candidate = f"mutant,mutant.fault={fault},mutant.stage=k_proj,mutant.layer=0,mutant.when={when}"
                finding, conclusion = self.conclude(
                    "diagnose", "--model", model, "--candidate", candidate, "--reference", "native", "--prompt", PROMPT, "--max-tokens", "2",
                    "--no-perplexity", "--no-inject")
                # 127 / 126 = 1.007937; scales in f16 give its first digits.
                self.assertEqual(conclusion["text"][:len(text)], text, finding)
                self.assertTrue(conclusion["text"] == text or "factor" in text, finding)

    def test_sums_that_the_engine_does_not_tell(self):
        self.expect_of("Q4_K", ("sums_without@64-255", "always", "where=sums part=code:64-255/256 when=always what=absent"),
                       ("sums_shifted", "decode", "where=sums part=all when=decode what=other-part"),
                       ("group_sums_saturated:60", "always", "where=sums part=all when=always what=saturation:60"),
                       # Its own sums with the minima of other groups come to the sums of other groups with its own minima.
                       ("minima_of:1", "always", "when=always"),
                       ("others_scale", "always", "where=weights part=all when=always what=other-part"),
                       ("nibbles@64-127", "prefill", "where=weights part=features:64-127/256 when=prefill what=other-part"),
                       ("columns_repeated@480-495", "decode", "where=product part=columns:480-495/512 when=decode what=other-part"),
                       # Of two features two decode steps are too few to solve for columns of K.
                       ("lanes_lost@254-255:16", "decode", "where=product part=features:254-255/256 when=decode what=absent"))

    def test_weights_without_some_bits_or_by_another_groups_scale(self):
        # Bytes 128 to 191 of a block hold the codes' high bits, 192 to 207 the scales of groups of 16.
        self.expect_of("Q6_K", ("bits_lost@128-191:128", "always", "where=weights part=code:96-127/128 when=always what=absent"),
                       ("group_scale@192-207:-2", "decode", "where=weights part=code:32-255/256 when=decode what=other-part"),
                       ("group_sums_without@240-255", "always", "where=sums part=code:240-255/256 when=always what=absent"))

    def test_sums_and_scales_that_it_tells(self):
        self.expect_of("Q4_1", ("sums_without@8-31", "decode", "where=sums part=code:8-31/32 when=decode what=absent"),
                       ("sums_absent", "always", "where=sums part=all when=always what=absent"),
                       ("scales_truncated", "always", "where=scales part=all when=always what=truncation"),
                       ("levels:126", "prefill", "where=scales part=all when=prefill what=factor:1.0079"),
                       ("weight_block@7:5", "always", "where=weights part=features:5/256 when=always what=absent"),
                       ("lanes_lost@64-67:8", "always", "where=product part=features:64-67/256 when=always what=absent"),
                       # Of one feature it is a place of each block: the product's lane, not its weights.
                       ("lanes_lost@191:32", "odd_batch:2", "where=product part=features:191/256 when=odd-batch:2 what=absent"),
                       ("weight_block@3:36", "decode", "where=weights part=features:36/256 when=decode what=absent"),
                       ("levels:64", "from_position:3", "where=scales part=all when=from-position:3 what=factor:1.98"))


class Files(Concluding):
    """A file whose columns are not those of the good one."""

    def spoiled(self, columns):
        model = defects.Model(MODEL)
        _, _, n_rows, _, _ = model.matrix("blk.2.ffn_up.weight")
        for row in range(n_rows):
            for column in columns:
                model.set_ternary("blk.2.ffn_up.weight", row, column, 0)
        path = self.folder / "spoiled.gguf"
        model.save(path)
        shutil.copy(SILU / "config.json", self.folder)
        return path

    def test_columns_blocks_and_orders(self):
        for columns, part in (((253, 254, 255), "columns:253-255/256"), (range(3, 256, 4), "columns:3-255%4/256"),
                              ((40, 41, 42), "columns:40-42/256"), ((17,), "columns:17/256")):
            with self.subTest(part):
                finding, conclusion = self.conclude("diagnose", "--model", self.spoiled(columns), "--reference-model", MODEL,
                                                    "--candidate", "native", "--reference", "native", "--prompt", PROMPT,
                                                    "--max-tokens", "2", "--no-perplexity", "--no-inject")
                self.assertEqual(conclusion["text"], f"where=weights part={part} when=always what=absent", finding)
                self.assertEqual(finding["blame"], "model-file")


if __name__ == "__main__":
    main()
