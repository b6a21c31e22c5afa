// How the error grows over the layers, against what rounding alone does.
import { scaleLinear, scaleLog } from "d3-scale";
import { area, line } from "d3-shape";
import { useState } from "preact/hooks";
import type { Part } from "./app";
import type { Growth } from "./data";
import { figure } from "./format";
import { Section } from "./section";

const W = 900, H = 280, L = 64, R = 16, T = 14, B = 34;
const finite = (v: number | null | undefined): v is number => typeof v === "number" && Number.isFinite(v) && v > 0;

export function GrowthChart({ model, select }: Part) {
  const [at, setAt] = useState<number | null>(null);
  const rows = model.report.growth ?? [];
  if (rows.length < 2) return null;
  const all = rows.flatMap((r) => [r.rel_l2, r.noise?.median, r.noise?.largest]).filter(finite);
  if (all.length === 0) return <Section id="growth" title="Growth over the layers"><p>No layer's output differs: the error is 0 in all of {rows.length}.</p></Section>;
  const low = 10 ** Math.floor(Math.log10(Math.min(...all))), high = 10 ** Math.ceil(Math.log10(Math.max(...all) * 1.0001));
  const x = scaleLinear([0, rows.length - 1], [L, W - R]), y = scaleLog([low, high], [H - B, T]);
  const clamp = (v: number) => y(Math.max(v, low));
  const band = area<Growth>().defined((r) => finite(r.noise?.median) && finite(r.noise?.largest)).x((_, i) => x(i)).y0((r) => clamp(r.noise!.median!)).y1((r) => clamp(r.noise!.largest!));
  const noise = line<Growth>().defined((r) => finite(r.noise?.largest)).x((_, i) => x(i)).y((r) => clamp(r.noise!.largest!));
  const error = line<Growth>().defined((r) => r.rel_l2 !== null).x((_, i) => x(i)).y((r) => clamp(r.rel_l2!));
  const decades: number[] = [];
  for (let e = Math.round(Math.log10(low)); e <= Math.round(Math.log10(high)); e++) decades.push(e);
  const everyDecade = Math.ceil(decades.length / 8), everyLayer = Math.ceil(rows.length / 16);
  const row = rows[at ?? rows.length - 1]!;
  const told = `layer ${row.layer}: error ${figure(row.rel_l2)}, worst token ${figure(row.worst_row)}; ${row.noise ? `noise ${figure(row.noise.median)} in the median run, ${figure(row.noise.largest)} at most` : "no noise was measured here"}`;
  const hasNoise = rows.some((r) => r.noise);
  return (
    <Section id="growth" title="Growth over the layers" about={`rel-L2 of each layer's output as it arrives${hasNoise ? "; the band is what random rounding alone makes of the reference, from the median run to the largest" : "; the noise at the layers was not measured in this run (--noise whole measures it)"}.`}>
      <figure class="chart">
        <svg viewBox={`0 0 ${W} ${H}`} role="img" aria-label={`error growth over ${rows.length} layers; ${told}`}>
          {decades.filter((_, i) => i % everyDecade === 0).map((e) => <g class="tick"><line x1={L} x2={W - R} y1={y(10 ** e)} y2={y(10 ** e)} /><text x={L - 8} y={y(10 ** e)} dy="0.32em" text-anchor="end">1e{e < 0 ? "-" : "+"}{String(Math.abs(e)).padStart(2, "0")}</text></g>)}
          {rows.map((r, i) => i % everyLayer === 0 && <text class="axis" x={x(i)} y={H - B + 18} text-anchor="middle">{r.layer}</text>)}
          <text class="axis" x={W - R} y={H - 2} text-anchor="end">layer</text>
          <path class="band" d={band(rows) ?? ""} /><path class="noise" d={noise(rows) ?? ""} /><path class="error" d={error(rows) ?? ""} />
          {rows.map((r, i) => r.rel_l2 !== null && <circle class={`dot${i === at ? " on" : ""}`} cx={x(i)} cy={clamp(r.rel_l2)} r={rows.length > 60 ? 2 : 3.5} />)}
          {rows.map((r, i) => <rect class="catch" x={x(i) - (W - L - R) / rows.length / 2} y={T} width={(W - L - R) / rows.length} height={H - B - T} onMouseEnter={() => setAt(i)} onClick={() => select({ layer: r.layer, stage: "layer_out" })} />)}
        </svg>
        <figcaption><span class="key error">accumulated error</span>{hasNoise && <span class="key noise">noise of the reference</span>}<span class="told">{told}</span></figcaption>
      </figure>
    </Section>
  );
}
