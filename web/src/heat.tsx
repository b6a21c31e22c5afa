// Where errors stand: tokens and layers of one stage, or all stages and layers at once.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Part } from "./app";
import type { Model, Point } from "./data";
import { figure, times, tokenText } from "./format";
import { useTheme, type Palette } from "./palette";
import { Section } from "./section";
import { Scale } from "./tokens";

type Kind = "local" | "accumulated" | "above-noise" | "noise";
const KINDS: { kind: Kind; name: string; about: string }[] = [
  { kind: "local", name: "local error over its bound", about: "each op on equal inputs: its own error, in units of what rounding may make of it" },
  { kind: "accumulated", name: "accumulated error", about: "rel-L2 of the tensor as it arrived, everything before it included" },
  { kind: "above-noise", name: "accumulated over noise", about: "the accumulated error in units of the largest that rounding alone made of the reference in any run" },
  { kind: "noise", name: "noise", about: "the largest rel-L2 of a token that rounding alone made of the reference in any run, by first token, prompt and decode steps" },
];
const isRatio = (kind: Kind) => kind === "local" || kind === "above-noise";

// What rounding alone makes of a tensor at a token of this class.
function noiseAt(model: Model, stage: string, layer: number, positions: string): number | null {
  const entry = model.report.noise_floor?.points.find((p) => p.stage === stage && p.positions === positions);
  const value = entry?.worst_row[Math.max(layer, 0)];
  return value === undefined ? null : value;
}
function classOf(position: number, nPrompt: number): string { return position === 0 ? "first" : position < nPrompt ? "prefill" : "decode"; }

interface View { columns: string[]; rows: string[]; value: (r: number, c: number) => number | null; column: number; row: number; choose: (r: number, c: number) => void; tall: boolean }

// One stage: a column each token, a row each layer.
function tokenView(part: Part, kind: Kind, stage: string): View | null {
  const { model, selected, select } = part;
  const grid = model.grid(kind === "local" ? "local" : "accumulated", selected.prompt, stage);
  if (!grid) return null;
  const tokens = model.tokens(selected.prompt), layers = grid.layers;
  const nPrompt = tokens.filter((t) => !t.decoded).length;
  const value = (r: number, c: number): number | null => {
    const layer = layers[r]!;
    if (kind === "noise") return noiseAt(model, stage, layer, classOf(c, nPrompt));
    const error = grid.at(layer, c);
    if (kind !== "above-noise") return error;
    const noise = noiseAt(model, stage, layer, classOf(c, nPrompt));
    return error === null || noise === null ? null : error === 0 ? 0 : noise === 0 ? Infinity : error / noise;
  };
  return {
    columns: Array.from({ length: grid.nPositions }, (_, c) => tokenText(tokens[c]?.text, tokens[c]?.id ?? -1)),
    rows: layers.map((l) => (l < 0 ? "" : String(l))),
    value, column: selected.position, row: Math.max(0, layers.indexOf(selected.layer ?? -1)),
    choose: (r, c) => select({ layer: layers[r]!, position: c, stage }), tall: false,
  };
}

export function ratioOf(p: Point): number | null {
  if (p.bound_ratio !== undefined) return p.bound_ratio === null ? Infinity : p.bound_ratio;
  const own = p.own_error;
  return own?.error === undefined || !own.bound ? null : own.error === null ? Infinity : own.error / own.bound;
}

// All stages: a column each, a row each layer; of a cell the worst point.
function stageView(part: Part, kind: Kind): View | null {
  const { model, select, selected } = part;
  const points = kind === "local" ? model.report.points : (model.report.accumulated ?? model.report.points);
  const worst = new Map<string, number>();
  const put = (stage: string, layer: number, value: number | null) => {
    const key = `${stage} ${layer}`, before = worst.get(key);
    if (value !== null && (before === undefined || value > before)) worst.set(key, value);
  };
  if (kind === "noise" || kind === "above-noise") {
    const noise = new Map<string, number>();
    for (const p of model.report.noise_floor?.points ?? [])
      p.worst_row.forEach((v, i) => {
        const layer = model.page.stages.find((s) => s.name === p.stage)?.per_layer ? i : -1, key = `${p.stage} ${layer}`;
        noise.set(key, Math.max(noise.get(key) ?? 0, v ?? Infinity));
      });
    if (kind === "noise") for (const [key, value] of noise) worst.set(key, value);
    else for (const p of points) {
      const error = typeof p.worst_row === "object" ? (p.worst_row?.error ?? Infinity) : p.worst_row, n = noise.get(`${p.stage} ${p.layer}`);
      put(p.stage, p.layer, error === null || n === undefined ? null : error === 0 ? 0 : n === 0 ? Infinity : error / n);
    }
  } else for (const p of points) put(p.stage, p.layer, kind === "local" ? ratioOf(p) : (p.rel_l2 ?? Infinity));
  if (worst.size === 0) return null;
  const known = new Set([...worst.keys()].map((k) => k.slice(0, k.lastIndexOf(" "))));
  const columns = [...model.page.stages.map((s) => s.name).filter((s) => known.has(s)), ...[...known].filter((s) => !model.stageText.has(s))];
  const layers = [...new Set([...worst.keys()].map((k) => Number(k.slice(k.lastIndexOf(" ") + 1))))].sort((a, b) => a - b);
  return {
    columns, rows: layers.map((l) => (l < 0 ? "outer" : String(l))),
    value: (r, c) => worst.get(`${columns[c]} ${layers[r]}`) ?? null,
    column: Math.max(0, columns.indexOf(selected.stage ?? "")), row: Math.max(0, layers.indexOf(selected.layer ?? -1)),
    choose: (r, c) => select({ layer: layers[r]!, stage: columns[c]! }), tall: true,
  };
}

const LEFT = 44, PAD = 1, LABELS = 56;

function draw(canvas: HTMLCanvasElement, view: View, kind: Kind, palette: Palette, w: number, h: number, top: number) {
  const nC = view.columns.length, nR = view.rows.length, scale = devicePixelRatio || 1;
  const width = LEFT + nC * w + PAD + (view.tall ? LABELS : 0), height = top + nR * h + PAD;
  canvas.width = Math.ceil(width * scale), canvas.height = Math.ceil(height * scale);
  canvas.style.width = `${width}px`, canvas.style.height = `${height}px`;
  const g = canvas.getContext("2d")!, style = getComputedStyle(canvas);
  g.scale(scale, scale);
  g.font = `11px ${style.fontFamily}`;
  const gap = w >= 8 && h >= 8 ? 1 : 0;
  for (let r = 0; r < nR; r++)
    for (let c = 0; c < nC; c++) {
      const value = view.value(r, c);
      if (value === null) continue;
      const { fill, ink } = isRatio(kind) ? palette.over(value) : palette.size(value);
      g.fillStyle = fill;
      g.fillRect(LEFT + c * w, top + r * h, w - gap, h - gap);
      // Beyond the limit is told by a mark too.
      if (isRatio(kind) && value > 1 && w >= 8 && h >= 8) {
        g.fillStyle = ink;
        g.fillRect(LEFT + c * w + (w - gap) / 2 - 1.5, top + r * h + (h - gap) / 2 - 1.5, 3, 3);
      }
    }
  g.fillStyle = style.color;
  g.textBaseline = "middle";
  g.textAlign = "right";
  const every = Math.max(1, Math.ceil(12 / h));
  view.rows.forEach((name, r) => { if (r % every === 0 || name === "outer") g.fillText(name, LEFT - 6, top + r * h + h / 2); });
  if (view.tall) {
    g.textAlign = "left";
    view.columns.forEach((name, c) => {
      g.save();
      g.translate(LEFT + c * w + w / 2, top - 6);
      g.rotate(-Math.PI / 3);
      g.fillText(name, 0, 0);
      g.restore();
    });
  } else {
    g.textAlign = "center";
    const step = Math.max(1, Math.ceil(36 / w));
    for (let c = 0; c < nC; c += step) g.fillText(String(c), LEFT + c * w + w / 2, top - 8);
  }
  g.strokeStyle = style.color;
  g.lineWidth = 2;
  if (view.column < nC && view.row < nR) g.strokeRect(LEFT + view.column * w - 1, top + view.row * h - 1, w - gap + 2, h - gap + 2);
}

function Map2({ view, kind, label }: { view: View; kind: Kind; label: string }) {
  const palette = useTheme();
  const canvas = useRef<HTMLCanvasElement>(null), box = useRef<HTMLDivElement>(null);
  const [room, setRoom] = useState(900);
  useEffect(() => {
    const observer = new ResizeObserver(() => setRoom(box.current?.clientWidth ?? 900));
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, []);
  const nC = view.columns.length, nR = view.rows.length;
  const w = Math.max(view.tall ? 20 : 2, Math.min(34, Math.floor((room - LEFT - (view.tall ? LABELS : 0)) / nC)));
  const h = Math.max(nR > 60 ? 7 : 12, Math.min(22, Math.floor(420 / nR)));
  const top = view.tall ? 128 : 20;
  useLayoutEffect(() => { draw(canvas.current!, view, kind, palette, w, h, top); });
  const cellOf = (event: MouseEvent): [number, number] | null => {
    const r = Math.floor((event.offsetY - top) / h), c = Math.floor((event.offsetX - LEFT) / w);
    return r >= 0 && r < nR && c >= 0 && c < nC ? [r, c] : null;
  };
  const words = (r: number, c: number): string => {
    const value = view.value(r, c);
    const what = value === null ? "no figure" : isRatio(kind) ? `${times(value)} times ${kind === "local" ? "its bound" : "the noise"}${value > 1 ? ", beyond it" : ""}` : figure(value);
    const layer = view.rows[r] === "" || view.rows[r] === "outer" ? "" : `layer ${view.rows[r]}, `;
    return `${layer}${view.tall ? view.columns[c] : `position ${c} (${view.columns[c]})`}: ${what}`;
  };
  const onKey = (event: KeyboardEvent) => {
    const by: Record<string, [number, number]> = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    const move = by[event.key];
    if (!move) return;
    event.preventDefault();
    view.choose(Math.max(0, Math.min(nR - 1, view.row + move[0])), Math.max(0, Math.min(nC - 1, view.column + move[1])));
  };
  const now = view.row < nR && view.column < nC ? words(view.row, view.column) : "";
  return (
    <>
      <div class="scroll heat" ref={box}>
        <canvas ref={canvas} tabIndex={0} role="img" aria-label={`${label}; ${now}`} onKeyDown={onKey}
          onClick={(e) => { const cell = cellOf(e); if (cell) view.choose(...cell); }}
          onMouseMove={(e) => { const cell = cellOf(e); canvas.current!.title = cell ? words(...cell) : ""; }} />
      </div>
      <p class="cell" aria-live="polite" id="cell">{now}</p>
    </>
  );
}

export function Heat(part: Part) {
  const { model, selected, select } = part;
  const [kind, setKind] = useState<Kind>("local");
  const [byToken, setByToken] = useState(false);
  const palette = useTheme();
  const stages = model.gridStages(kind === "local" ? "local" : "accumulated", selected.prompt);
  const stage = selected.stage && stages.includes(selected.stage) ? selected.stage : (stages[stages.length - 1] ?? "");
  const tokens = byToken && stages.length > 0;
  const view = useMemo(() => (tokens ? tokenView(part, kind, stage) : stageView(part, kind)), [model, kind, tokens, stage, selected]);
  const hasNoise = (model.report.noise_floor?.points.length ?? 0) > 0, hasAccumulated = (model.report.accumulated?.length ?? 0) > 0;
  const kinds = KINDS.filter((k) => (k.kind === "local" || (k.kind === "accumulated" && (hasAccumulated || !!model.report.traces)) || (hasNoise && (k.kind === "noise" || hasAccumulated))));
  if (model.report.points.length === 0) return null;
  const chosen = KINDS.find((k) => k.kind === kind)!;
  return (
    <Section id="heat" title="Where errors stand" about={`${chosen.name}: ${chosen.about}.`}>
      <div class="picks noprint">
        <label class="pick">figure <select id="kind" value={kind} onChange={(e) => setKind(e.currentTarget.value as Kind)}>{kinds.map((k) => <option value={k.kind}>{k.name}</option>)}</select></label>
        {model.gridStages("local", selected.prompt).length > 0 && <label class="pick">by <select id="by" value={tokens ? "tokens" : "stages"} onChange={(e) => setByToken(e.currentTarget.value === "tokens")}><option value="stages">all stages and layers</option><option value="tokens">tokens and layers of one stage</option></select></label>}
        {tokens && <label class="pick">stage <select id="stage" value={stage} onChange={(e) => select({ stage: e.currentTarget.value })}>{stages.map((s) => <option value={s}>{s}: {model.stage(s)}</option>)}</select></label>}
      </div>
      {view ? <Map2 view={view} kind={kind} label={chosen.name} /> : <p>This run has no such figures.</p>}
      {isRatio(kind) ? <Scale palette={palette} unit={kind === "local" ? "its bound" : "the noise"} /> : null}
      {tokens && <p class="about small">Figures of single tokens are within 3 %; those of whole tensors, in the table below, are exact.{model.page.n_left_out > 0 && ` ${model.page.n_left_out} rows were left out, as the page would be too large.`}</p>}
    </Section>
  );
}
