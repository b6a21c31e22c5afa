// Whose fault it is and why: what blame rests on, and every variation that was tried.
import type { Diagnosis, Evidence, Model } from "./data";
import { figure, times } from "./format";
import { Section } from "./section";

// A bound of zeros: exact zeros are expected there.
const bound = (b: number | null) => (b !== null && b < 1e-30 ? "exact zeros" : figure(b));
const over = (e: { bound_ratio: number | null; bound?: number | null }) => (e.bound !== undefined && e.bound !== null && e.bound < 1e-30 && (e.bound_ratio ?? 2) > 1 ? "beyond" : times(e.bound_ratio));

export function EvidenceTable({ rows }: { rows: Evidence[] }) {
  const numbers = rows.some((r) => r.bound !== 0 || r.error !== 0);
  return (
    <div class="scroll">
      <table class="evidence">
        <thead><tr><th scope="col">what was held against what</th>{numbers && <><th scope="col" class="num">error</th><th scope="col" class="num">bound</th><th scope="col" class="num">of bound</th></>}<th scope="col">outcome</th></tr></thead>
        <tbody>
          {rows.map((e) => (
            <tr class={e.agrees ? "agrees" : "differs"}>
              <th scope="row">{e.what}</th>
              {numbers && <><td class="num">{figure(e.error)}</td><td class="num">{bound(e.bound)}</td><td class="num">{over(e)}</td></>}
              <td><span class={`tag ${e.agrees ? "good" : "bad"}`}>{e.agrees ? "agrees" : "differs"}</span>{e.note && <span class="more"> {e.note}</span>}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function One({ diagnosis: d, model, first }: { diagnosis: Diagnosis; model: Model; first: boolean }) {
  const restoring = d.hypotheses.filter((h) => h.restores).length;
  return (
    <div class="diagnosis">
      {!first && <><h3>{model.place(d.place)}</h3><p>{d.sentence}</p><EvidenceTable rows={d.evidence} /></>}
      {d.also && d.also.length > 0 && <p>The same explains {d.also.length} more point{d.also.length === 1 ? "" : "s"}: {d.also.slice(0, 12).map((p) => `layer ${p.layer} ${p.stage}`).join(", ")}{d.also.length > 12 && ", \u2026"}.</p>}
      {d.codes && <><h3>Activation codes</h3><ul>{d.codes.sentences.map((s) => <li>{s}</li>)}</ul></>}
      {d.hypotheses.length > 0 && <>
        <h3>What was tried</h3>
        <p class="about">{d.hypotheses.length} variation{d.hypotheses.length === 1 ? "" : "s"} of the op, computed anew from the same inputs; {restoring === 0 ? "none restores" : restoring === 1 ? "one restores" : `${restoring} restore`} agreement.</p>
        <div class="scroll"><table>
          <thead><tr><th scope="col">variation</th><th scope="col">of</th><th scope="col" class="num">error</th><th scope="col" class="num">of bound</th><th scope="col">outcome</th></tr></thead>
          <tbody>{d.hypotheses.map((h) => (
            <tr class={h.restores ? "agrees" : ""}>
              <th scope="row">{h.text} <code>{h.name}</code>{h.n_fitted > 0 && ` (${h.n_fitted} fitted)`}{h.n_rows < h.of_rows && ` (on ${h.n_rows} of ${h.of_rows} rows)`}</th>
              <td>{h.side}</td><td class="num">{figure(h.error)}</td><td class="num">{times(h.bound_ratio)}</td>
              <td><span class={`tag ${h.restores ? "good" : "plain"}`}>{h.restores ? "restores agreement" : "does not"}</span></td>
            </tr>))}</tbody>
        </table></div>
      </>}
      {d.recomputed.length > 0 && <p>Computed by the arbiter, as an engine does not show it: {d.recomputed.join(", ")}.</p>}
      {d.file_differences.length > 0 && <><h3>What the files differ in</h3><ul>{d.file_differences.map((t) => <li>{t}</li>)}</ul></>}
      {d.shared.length > 0 && <><h3>What this does not judge</h3><ul>{d.shared.map((t) => <li>{t}</li>)}</ul></>}
    </div>
  );
}

export function Diagnoses({ model }: { model: Model }) {
  const list = model.report.findings?.length ? model.report.findings : model.report.diagnosis ? [model.report.diagnosis] : [];
  if (list.length === 0) return null;
  return <Section id="diagnosis" title={list.length > 1 ? `Diagnosis, ${list.length} findings` : "Diagnosis"}>{list.map((d, i) => <One diagnosis={d} model={model} first={i === 0} />)}</Section>;
}
