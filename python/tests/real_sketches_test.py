#!/usr/bin/env python3
"""What sketches promise, on what models really compute: above a distance of 1e-3, within +-25 % in 99 of 100 cases.

Engines trace one prompt with values and sketches. Each pair of traces differs in one setting, or in the engine; the distance that the
two sketches of a tensor or row give is held against the one of its values, in fp64. Fails, never skips, where a model is missing.
"""

import numpy as np
from support import MODELS, Case, main, paritybit

from paritybit.reader import Trace

TEXT = " ".join((MODELS / "heldout.txt").read_text().split())
FLOOR, ERROR, SHARE = 1e-3, 0.25, 0.01  # of src/trace/sketch.h


def finite(values):
    return np.where(np.isfinite(values), values, 0).astype(np.float64)


class RealSketches(Case):
    def trace(self, name, model, prompt, *arguments):
        out = self.folder / name
        paritybit("trace", "--model", model, "--prompt", prompt, "--level", "full", "--per-row", "--out", out, *arguments)
        return Trace.open(out)

    def payloads(self, trace):
        """(record, values) in order of writing. The values' digests are not looked at again: BLAKE3 in Python takes its time."""
        for r in trace.records:
            yield r, np.memmap(trace.folder / r.payload_file, "<f4", "r", r.payload_offset, tuple(r.shape))

    def errors(self, a, b):
        """Relative errors of the distances that sketches tell, of all tensors and rows that are further apart than the floor."""
        others, errors = {r.name: (r, v) for r, v in self.payloads(b)}, []

        def add(x, y, sketch_x, sketch_y):
            size, distance = np.linalg.norm(y), np.linalg.norm(x - y)
            if size > 0 and distance > FLOOR * size:
                errors.append(sketch_x.squared_distance(sketch_y) ** 0.5 / distance - 1)

        for r, values in self.payloads(a):
            # What the other engine computes inside another op, or logits that it hands over in other blocks.
            if r.name not in others or r.shape != others[r.name][0].shape:
                continue
            other, values_b = others[r.name]
            x, y = finite(values), finite(values_b)
            add(x, y, r.sketch, other.sketch)
            for i in range(len(x)):
                add(x[i], y[i], r.row_sketch[i], other.row_sketch[i])
        return np.array(errors)

    def hold(self, model, prompt, variations, least):
        base, everything = self.trace("base", model, prompt), []
        for i, arguments in enumerate(variations):
            errors = self.errors(self.trace(str(i), model, prompt, *arguments), base)
            outside = int(np.sum(np.abs(errors) > ERROR))
            print(f"{' '.join(arguments)}: {len(errors)} distances, {outside} outside, root mean square error "
                  f"{np.sqrt(np.mean(errors**2)) if len(errors) else 0:.3f}", flush=True)
            # 3.5 standard deviations of the count, were it at its limit
            self.assertLessEqual(outside, SHARE * len(errors) + 3.5 * (SHARE * len(errors)) ** 0.5 + 1, arguments)
            everything.append(errors)
        errors = np.concatenate(everything)
        self.assertGreater(len(errors), least)
        self.assertLessEqual(np.sum(np.abs(errors) > ERROR), SHARE * len(errors))

    def test_tiny_bitnet(self):
        self.hold(MODELS / "tiny-bitnet-silu" / "tiny-bitnet-silu-tq2_0.gguf", TEXT[:400],
                  [["--set", "act.quant=bitnet"], ["--set", "act.quant=f16"], ["--set", "kv.type=f32"],
                   ["--set", "ffn.activation=relu2"], ["--set", "noise.seed=3"]], 20000)

    def test_smollm2(self):
        self.hold("smollm2", TEXT[:120], [["--set", "act.quant=none"], ["--set", "noise.seed=3"], ["--engine", "llama.cpp"]], 20000)


if __name__ == "__main__":
    main()
