// What paritybit puts into the page (src/report/page_report.cc), and how it is read.

export interface Reason { outcome?: string; code: string; text: string }
export interface Fact { value: string; origin: string }
export type Facts = Record<string, Fact>;
export interface Engine {
  role: string; spec: string; plugin: string; plugin_sha256: string; identity: string;
  description: Facts; model_facts: Facts; session_facts: Facts;
  model: { path: string; sha256: string };
  error?: string | null; last_words?: string;
}
export interface TraceOf {
  role: string; folder: string; engine: string; version: string; isa: string;
  model: { path: string; sha256: string };
  n_tokens: number; n_prefill: number; level: string; complete: boolean; n_records: number;
}
export interface Choice { token: number; text?: string; logp?: number | null }
export interface Position {
  prompt: number; position: number; phase: string; token: number; text?: string; finite: boolean;
  kl: number | null; rel_l2: number | null; max_abs: number | null; cosine: number | null;
  top1: { candidate: number; reference: number };
  gap: { candidate: number | null; reference: number | null; change: number | null };
  top_k_overlap: number;
  top_k: { candidate: Choice[]; reference: Choice[] };
  above_limit: boolean;
}
export interface Point {
  prompt?: number; step: number; stage: string; layer: number; first_position?: number; position?: number;
  n_rows: number; n_features?: number;
  n_non_finite?: { candidate: number; reference: number };
  rel_l2: number | null;
  worst_row: { error: number | null; position: number } | number | null;
  worst_row_position?: number;
  worst_feature?: { error: number | null; feature: number } | number | null;
  bound?: number | null; bound_ratio?: number | null;
  max_abs?: number | null; cosine?: number | null; scale?: number | null; offset?: number | null;
  explained_by_codes?: boolean; explained_by_precision?: boolean; explanation?: string;
  // of two traces
  confidence?: string; equal?: boolean;
  own_error?: { state: string; error?: number | null; bound?: number | null; origin?: string };
}
export interface Evidence { what: string; error: number | null; bound: number | null; bound_ratio: number | null; agrees: boolean; note: string }
export interface Hypothesis {
  name: string; side: string; text: string; restores: boolean; n_fitted: number; n_rows: number; of_rows: number;
  error: number | null; bound_ratio: number | null;
}
export interface Diagnosis {
  sentence: string; blame: string;
  place: { prompt: number; step: number; position: number; layer: number; stage: string | null; feature: number | null };
  why_undetermined: string | null; named: string | null;
  evidence: Evidence[]; hypotheses: Hypothesis[];
  codes: { sentences: string[] } | null;
  recomputed: string[]; file_differences: string[]; shared: string[];
  also?: { prompt: number; step: number; layer: number; stage: string }[];
}
export interface Limit { name: string; value: number | null; unit: string; origin: string; by_user?: boolean; window?: number }
export interface Prompt { text: string; origin: string; tokens: number[]; decoded: number[]; tokens_equal?: boolean; steps_asked: number }
export interface PointNoise { stage: string; positions: string; n_runs: number; n_rows: number; median: (number | null)[]; largest: (number | null)[]; worst_row: (number | null)[] }
export interface Growth { layer: number; rel_l2: number | null; worst_row: number | null; noise: { median: number | null; largest: number | null } | null }
export interface Report {
  schema: string; verdict: string; scope: string; exit_code: number; reasons: Reason[];
  next: string[]; next_for: string[];
  engines?: Engine[]; traces?: TraceOf[];
  model?: { path: string; sha256: string };
  paths?: { runs: { name: string; verdict: string | null; text: string }[]; not_taken: string[] };
  coverage: { unit: string; expected: number; compared: number; missing: string[]; unmapped: string[]; unobservable: string[] };
  first_divergence: { prompt: number; position: number; token: number; layer: number | null; stage: string | null; feature: number | null } | null;
  blame?: string;
  diagnosis?: Diagnosis | null; findings?: Diagnosis[]; recomputed?: string[];
  limits?: Limit[]; positions?: Position[]; points: Point[]; accumulated?: Point[]; growth?: Growth[]; prompts?: Prompt[];
  noise_floor?: null | {
    side: string; method: string; weaker: boolean; partial: boolean; n_runs: number; n_positions: number; n_calibration: number;
    mean_kl: number | null; worst_kl: number | null; worst_gap: number | null; sha256: string; points: PointNoise[];
  };
  distance?: null | { n_positions: number; n_runs: number; p: number; distinguishable: boolean; confidence: number; decidable: boolean };
  reference_default?: null | { "attn.flash": string; mean_kl: number | null; worst_kl: number | null; rel_l2: number | null; n_positions: number; n_top1_differs: number; error: string | null };
  choices?: { key: string; value: string; origin: string }[];
  notes: string[];
  host?: { os: string; cpu: string; isa: string; n_cpus: number };
  wall_seconds?: number | null;
  shapes_differ?: string[]; dtypes_differ?: string[]; n_equal?: number;
}
export interface Stage { name: string; text: string; per_layer: boolean }
// Figures of tokens, a byte each: 0 none, 1 zero, 255 infinite, else
// 10^((first + byte - 2.5) * step), within half a step.
export interface GridText { prompt: number; stage: string; layers: number[]; n_positions: number; first: number; step: number; cells: string }
// Of many verdicts (src/report/table_page.h).
export type Cell = string | { text: string; tone: string; more: string; leads_to: string };
export interface Table { id: string; title: string; about: string; columns: { name: string; is_number: boolean }[]; rows: Cell[][] }
export interface Part { id: string; title: string; state: Cell; text: string; facts: [string, string][]; commands: { command: string; purpose: string }[] }
export interface PageData {
  page: {
    command: string; tool_version: string; created: string; again: string;
    sentence: string; place: string;
    stages: Stage[];
    token_text: Record<string, string>;
    positions?: Position[];
    grids: { local: GridText[]; accumulated: GridText[] };
    n_left_out: number;
    word?: string;
    place_name?: string;
    tables?: Table[];
    parts?: { title: string; about: string; list: Part[] };
  };
  report: Report;
}

function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

export async function readData(): Promise<PageData> {
  const bytes = bytesOf(document.getElementById("data")?.textContent ?? "");
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text()) as PageData;
}

// One stage's figures over a prompt: of each layer and token.
export class Grid {
  private bytes: Uint8Array;
  private rows: Map<number, number>;
  constructor(private g: GridText) {
    this.bytes = bytesOf(g.cells);
    this.rows = new Map(g.layers.map((layer, i) => [layer, i]));
  }
  get nPositions() { return this.g.n_positions; }
  get layers() { return this.g.layers; }
  // null: there is none
  at(layer: number, position: number): number | null {
    const row = this.rows.get(layer);
    if (row === undefined || position >= this.g.n_positions) return null;
    const byte = this.bytes[row * this.g.n_positions + position] ?? 0;
    if (byte === 0) return null;
    if (byte === 1) return 0;
    if (byte === 255) return Infinity;
    return 10 ** ((this.g.first + byte - 2.5) * this.g.step);
  }
}

// Everything that the parts of the page ask for.
export class Model {
  readonly page: PageData["page"];
  readonly report: Report;
  readonly positions: Position[];
  readonly stageText: Map<string, string>;
  private grids = new Map<string, Grid>();

  constructor(readonly data: PageData) {
    this.page = data.page;
    this.report = data.report;
    this.positions = data.report.positions ?? data.page.positions ?? [];
    this.stageText = new Map(data.page.stages.map((s) => [s.name, s.text]));
    for (const kind of ["local", "accumulated"] as const)
      for (const g of data.page.grids[kind]) this.grids.set(`${kind} ${g.prompt} ${g.stage}`, new Grid(g));
  }

  grid(kind: "local" | "accumulated", prompt: number, stage: string): Grid | undefined {
    return this.grids.get(`${kind} ${prompt} ${stage}`);
  }
  // Stages with figures of tokens, in the order of execution.
  gridStages(kind: "local" | "accumulated", prompt: number): string[] {
    return this.page.stages.map((s) => s.name).filter((name) => this.grid(kind, prompt, name));
  }
  stage(name: string): string { return this.stageText.get(name) ?? name; }
  place(point: { layer: number | null; stage: string | null; feature?: number | null }): string {
    const words = [];
    if (point.layer !== null && point.layer >= 0) words.push(`layer ${point.layer}`);
    if (point.stage) words.push(`${this.stage(point.stage)} (${point.stage})`);
    if (point.feature !== null && point.feature !== undefined) words.push(`feature ${point.feature}`);
    return words.join(", ") || "the logits";
  }
  limit(name: string): number | null { return this.report.limits?.find((l) => l.name === name)?.value ?? null; }

  promptCount(): number { return this.report.prompts?.length ?? (this.positions.length ? 1 : 0); }
  tokens(prompt: number): Token[] {
    const rows = this.positions.filter((row) => row.prompt === prompt);
    const p = this.report.prompts?.[prompt];
    if (!p) return rows.map((row) => ({ position: row.position, id: row.token, text: this.text(row.token, row.text), decoded: row.phase === "decode", row }));
    const byPosition = new Map(rows.map((row) => [row.position, row]));
    return [...p.tokens, ...p.decoded].map((id, position) => {
      const row = byPosition.get(position);
      return { position, id, text: this.text(id, row?.text), decoded: position >= p.tokens.length, row };
    });
  }
  text(id: number, known?: string): string | undefined { return known ?? this.page.token_text[String(id)]; }

  // The largest local error of a token over its bound, of all stages and layers; null: not known.
  worstOf(prompt: number, position: number): number | null {
    let worst: number | null = null;
    for (const stage of this.gridStages("local", prompt)) {
      const grid = this.grid("local", prompt, stage)!;
      for (const layer of grid.layers) {
        const value = grid.at(layer, position);
        if (value !== null && (worst === null || value > worst)) worst = value;
      }
    }
    return worst;
  }
}

export interface Token { position: number; id: number; text: string | undefined; decoded: boolean; row: Position | undefined }
