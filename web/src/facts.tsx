// What was compared and what was not, where each limit comes from, and what else is to be known.
import type { Model } from "./data";
import { count, figure, visible } from "./format";
import { Section } from "./section";

export function Coverage({ model }: { model: Model }) {
  const { coverage, paths, prompts = [], recomputed = [] } = model.report;
  const steps = prompts.reduce((n, p) => n + p.decoded.length, 0);
  const lists: [string, string[]][] = [
    ["Not shown, so not compared", coverage.unobservable], ["Missing", coverage.missing], ["No op of the other side", coverage.unmapped],
    ["Shapes that differ", model.report.shapes_differ ?? []], ["Types that differ", model.report.dtypes_differ ?? []],
    ["Computed by the arbiter, as the engine does not show it", recomputed],
    ["Code paths that this did not go through (crossval --paths all runs what it can)", paths?.not_taken ?? []],
    ["Comparisons over other code paths", (paths?.runs ?? []).map((r) => `${r.name}: ${r.verdict ?? "not run"}: ${r.text}`)],
  ];
  return (
    <Section id="coverage" title="What was compared, and what was not">
      <p><b id="compared">{coverage.compared} of {coverage.expected}</b> {coverage.unit || "points"} were compared; scope: {model.report.scope === "local" ? "every op on equal inputs, then the logits" : "the logits alone: no path through the ops was taken"}.
        {prompts.length > 0 && ` ${count(prompts.length, "prompt")}, ${count(prompts.reduce((n, p) => n + p.tokens.length, 0), "token")}, ${steps === 0 ? "no decode steps: single-token passes were not taken" : count(steps, "decode step")}.`}</p>
      {lists.filter(([, list]) => list.length > 0).map(([title, list]) => (
        <details open={list.length <= 6}><summary>{title}: {list.length}</summary><ul>{list.map((t) => <li>{t}</li>)}</ul></details>
      ))}
      {prompts.length > 0 && <details><summary>Prompts</summary><ol start={0}>{prompts.map((p) => <li><bdi>{visible(p.text.slice(0, 2000))}</bdi> <span class="origin">[{p.origin}] {p.tokens.length} tokens{p.tokens_equal === false && ", which the engines read differently"}</span></li>)}</ol></details>}
    </Section>
  );
}

export function Limits({ model }: { model: Model }) {
  const { limits = [] } = model.report;
  return (
    <Section id="limits" title="Where each limit comes from">
      {limits.length > 0 && <div class="scroll"><table>
        <thead><tr><th scope="col">limit</th><th scope="col" class="num">value</th><th scope="col">unit</th><th scope="col">from</th></tr></thead>
        <tbody>{limits.map((l) => <tr><th scope="row"><code>{l.name}</code></th><td class="num">{figure(l.value)}</td><td>{l.unit}</td><td>{l.origin}{l.by_user && <span class="mark">given by the user</span>}</td></tr>)}</tbody>
      </table></div>}
      <p class="about">{limits.length === 0 && "No limit on the logits was in force. "}An op's bound follows from float32 summation: a constant of its class times the unit roundoff 2^-24 times the root of the number of terms; the table of points has each one.</p>
    </Section>
  );
}

export function Floor({ model }: { model: Model }) {
  const floor = model.report.noise_floor, distance = model.report.distance, byDefault = model.report.reference_default;
  if (!floor && !byDefault) return null;
  return (
    <Section id="floor" title="Noise of the reference">
      {floor && <p>{floor.n_runs} runs by {floor.method} over {count(floor.n_positions, "position")} ({floor.n_calibration} of calibration text), of the {floor.side}{floor.weaker && ", which is weaker than random rounding"}{floor.partial && "; as much of the floor as the verdict took"}: mean KL {figure(floor.mean_kl)}, worst {figure(floor.worst_kl)}, largest change of a gap {figure(floor.worst_gap)}. <code title="digest of the floor">{floor.sha256.slice(0, 16)}</code></p>}
      {distance && <p>Among {distance.n_runs} runs of the reference's own noise the candidate's distance has p = {distance.p.toPrecision(2)}: {distance.decidable ? (distance.distinguishable ? "it can be told from noise" : "it cannot be told from noise") : "too few runs to tell it from noise"}.</p>}
      {byDefault && !byDefault.error && <p>For information: the reference as it runs by default (attn.flash {byDefault["attn.flash"]}) lies from itself as compared by a mean KL of {figure(byDefault.mean_kl)}, worst {figure(byDefault.worst_kl)}, over {count(byDefault.n_positions, "position")}; {byDefault.n_top1_differs} first choices differ.</p>}
    </Section>
  );
}

export function Notes({ model }: { model: Model }) {
  const { notes, host, choices = [], wall_seconds } = model.report;
  return (
    <Section id="notes" title="Notes">
      {notes.length > 0 && <ul>{notes.map((n) => <li>{n}</li>)}</ul>}
      {choices.length > 0 && <details><summary>Settings, and who chose them</summary><div class="scroll"><table><tbody>{choices.map((c) => <tr><th scope="row">{c.key}</th><td>{visible(c.value.slice(0, 500))}</td><td class="origin">[{c.origin}]</td></tr>)}</tbody></table></div></details>}
      {host && <p class="about">{host.cpu}, {host.n_cpus} processors, {host.os}{typeof wall_seconds === "number" && `; ${wall_seconds.toFixed(1)} s`}</p>}
    </Section>
  );
}
