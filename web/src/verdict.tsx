// The first screen: the same or not, where, whose fault, why.
import type { Diagnosis, Model } from "./data";
import { CopyLine } from "./commands";
import { EvidenceTable } from "./diagnosis";

export const TONES: Record<string, { tone: string; glyph: string }> = {
  match: { tone: "good", glyph: "=" },
  "near-tie": { tone: "good", glyph: "\u2248" },
  drift: { tone: "good", glyph: "\u2248" },
  diverged: { tone: "bad", glyph: "\u2260" },
  incomplete: { tone: "open", glyph: "?" },
  invalid: { tone: "open", glyph: "!" },
  "engine-failed": { tone: "failed", glyph: "\u2715" },
  error: { tone: "failed", glyph: "\u2715" },
  failed: { tone: "bad", glyph: "\u2715" },
};

export function engineName(model: Model, role: number): string {
  const engine = model.report.engines?.[role];
  const trace = model.report.traces?.[role];
  const name = engine?.description["name"]?.value || engine?.spec || trace?.engine || trace?.folder || "";
  return name || (role === 0 ? "the candidate" : "the reference");
}

// Whose fault, in words.
function fault(model: Model, diagnosis: Diagnosis | undefined): { who: string; more: string } {
  const { report } = model;
  const blame = report.blame;
  if (blame === "candidate" || blame === "engine") return { who: `the ${blame}`, more: engineName(model, 0) };
  if (blame === "reference") return { who: "the reference", more: engineName(model, 1) };
  if (blame === "both") return { who: "both engines", more: "neither computes what the model declares" };
  if (blame === "model-file") return { who: "the model file", more: "" };
  if (blame === "undetermined") return { who: "not decided", more: diagnosis?.why_undetermined ?? "" };
  if (report.exit_code === 0) return { who: "nobody's", more: "" };
  return { who: "not judged", more: "" };
}

export function diagnosisOf(model: Model): Diagnosis | undefined {
  return model.report.diagnosis ?? model.report.findings?.[0] ?? undefined;
}

// The verdict's place without the blame, which has a field of its own.
function where(model: Model): string {
  return model.page.place.replace(/(; )?blame: [^;]*$/, "").replace(/^at /, "");
}

// The diagnosis without its place, which has a field of its own.
function why(model: Model, diagnosis: Diagnosis): string {
  const place = model.place(diagnosis.place) + ": ";
  return diagnosis.sentence.startsWith(place) ? diagnosis.sentence.slice(place.length) : diagnosis.sentence;
}

export function Verdict({ model }: { model: Model }) {
  const { report, page } = model;
  const { tone, glyph } = TONES[report.verdict] ?? { tone: "open", glyph: "?" };
  const diagnosis = diagnosisOf(model);
  const { who, more } = fault(model, diagnosis);
  const place = where(model);
  const passed = report.exit_code === 0;
  const others = report.reasons.slice(1);
  return (
    <section class={`verdict ${tone}`} aria-label="Verdict">
      <div class="headline">
        <span class="glyph" aria-hidden="true">{glyph}</span>
        <div>
          <h1 id="word">{page.word ?? report.verdict.toUpperCase()}</h1>
          <p class="sentence" id="sentence">{page.sentence}</p>
        </div>
      </div>
      <dl class="answers">
        {place && <div><dt>{page.place_name ?? (passed ? "What was compared" : "Where")}</dt><dd id="where">{place}</dd></div>}
        {!passed && report.blame !== undefined && <div><dt>Whose fault</dt><dd id="blame"><b>{who}</b>{more && <span class="more">{more}</span>}</dd></div>}
        {diagnosis && <div><dt>Why</dt><dd id="why">{why(model, diagnosis)}</dd></div>}
        <div><dt>Exit code</dt><dd id="exit">{report.exit_code}</dd></div>
      </dl>
      {diagnosis && diagnosis.evidence.length > 0 && <EvidenceTable rows={diagnosis.evidence} />}
      {report.reasons.length > 0 && !passed && !diagnosis && !page.sentence.includes(report.reasons[0]!.text.replace(/\.$/, "")) && <p class="reason">{report.reasons[0]!.text}</p>}
      {report.next.length > 0 && <div class="next"><h2>Next</h2><CopyLine command={report.next[0]!} purpose={report.next_for[0]} /></div>}
      {others.length > 0 && (
        <details class="reasons">
          <summary>All {report.reasons.length} reasons for this verdict</summary>
          <ul>{report.reasons.map((r) => <li><code>{r.code}</code> {r.outcome && r.outcome !== report.verdict && <em>{r.outcome}: </em>}{r.text}</li>)}</ul>
        </details>
      )}
    </section>
  );
}
