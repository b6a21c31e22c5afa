// The two engines, and what each understood of the model.
import type { Engine, Fact, Facts, Model } from "./data";
import { basename } from "./format";
import { Section } from "./section";

// Facts that say which program it was, and not what it computes.
const BUILD = /^(path\.|digest\.|build$|cpu\.libraries$|commit$)/;
// Facts in which engines may differ without any of it being arithmetic of the model.
const INCIDENTAL = /^(name|version|isa|threads|n_ctx|ubatch|noise\.|overwrite\.|promise\.|act\.products)/;

interface Row { key: string; facts: (Fact | undefined)[]; differs: boolean }
function rowsOf(facts: Facts[]): Row[] {
  const keys = [...new Set(facts.flatMap((f) => Object.keys(f)))].filter((key) => !BUILD.test(key));
  return keys.map((key) => {
    const pair = facts.map((f) => f[key]);
    return { key, facts: pair, differs: pair[0] !== undefined && pair[1] !== undefined && pair[0].value !== pair[1].value };
  });
}

function Cell({ fact }: { fact: Fact | undefined }) {
  if (!fact) return <td class="none">not told</td>;
  return <td><span class="value">{fact.value === "" ? "none" : fact.value.length > 300 ? fact.value.slice(0, 300) + "\u2026" : fact.value}</span> <span class="origin">[{fact.origin}]</span></td>;
}

function FactTable({ rows, heads }: { rows: Row[]; heads: string[] }) {
  return (
    <div class="scroll">
      <table class="facts">
        <thead><tr><th scope="col">fact</th>{heads.map((h) => <th scope="col">{h}</th>)}</tr></thead>
        <tbody>
          {rows.map((row) => (
            <tr class={row.differs ? "differs" : ""}>
              <th scope="row">{row.key}{row.differs && <span class="mark">differs</span>}</th>
              {row.facts.map((fact) => <Cell fact={fact} />)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Card({ engine, role }: { engine: Engine; role: string }) {
  const d = engine.description;
  const words = [d["version"]?.value, d["isa"]?.value, d["threads"] && `${d["threads"].value} thread${d["threads"].value === "1" ? "" : "s"}`].filter(Boolean);
  return (
    <div class="card">
      <h3>{role}</h3>
      <p class="name">{d["name"]?.value ?? engine.spec}</p>
      <p class="sub">{words.join(" \u00b7 ")}</p>
      <p class="sub" title={engine.model.path}>{basename(engine.model.path)}{engine.model.sha256 && <> <code>{engine.model.sha256.slice(0, 12)}</code></>}</p>
      {engine.error && <p class="error">{engine.error}</p>}
      {engine.last_words && <pre class="words">{engine.last_words}</pre>}
    </div>
  );
}

function Traces({ model }: { model: Model }) {
  const traces = model.report.traces!;
  const keys = ["folder", "engine", "version", "isa", "n_tokens", "n_prefill", "level", "complete", "n_records"] as const;
  const rows = keys.map((key) => {
    const facts = traces.map((t) => ({ value: String(t[key]), origin: "recorded" }));
    return { key, facts, differs: key !== "folder" && facts[0]?.value !== facts[1]?.value } as Row;
  });
  rows.push({ key: "model", facts: traces.map((t) => ({ value: `${t.model.path} ${t.model.sha256.slice(0, 12)}`, origin: "recorded" })), differs: traces[0]?.model.sha256 !== traces[1]?.model.sha256 });
  return <Section id="engines" title="The two traces"><FactTable rows={rows} heads={traces.map((t) => t.role)} /></Section>;
}

export function Engines({ model }: { model: Model }) {
  const { report } = model;
  if (report.traces) return <Traces model={model} />;
  const engines = report.engines ?? [];
  const heads = engines.map((e) => e.role);
  const rows = rowsOf(engines.map((e) => ({ ...e.model_facts, ...e.session_facts })));
  const differing = rows.filter((r) => r.differs && !INCIDENTAL.test(r.key));
  const others = rows.filter((r) => !differing.includes(r));
  return (
    <Section id="engines" title={heads[1] === "arbiter" ? "The engine and the arbiter" : "The two engines"}>
      <div class="cards">{engines.map((e) => <Card engine={e} role={e.role} />)}</div>
      {rows.length > 0 && (differing.length > 0
        ? <><h3>What they understood differently</h3><FactTable rows={differing} heads={heads} /></>
        : <p class="about">Both understood the model and their settings alike.</p>)}
      {others.length > 0 && <details><summary>{others.length} other facts, with where each comes from</summary><FactTable rows={others} heads={heads} /></details>}
      {engines.some((e) => e.plugin_sha256) && <details>
        <summary>Digests and files</summary>
        <dl class="digests">
          {engines.map((e) => <>
            <dt>{e.role}</dt><dd><code>{e.plugin}</code><br /><code>{e.plugin_sha256}</code></dd>
            {Object.entries(e.description).filter(([key]) => /^(path\.|digest\.|build$|commit$)/.test(key)).map(([key, fact]) => <><dt>{key}</dt><dd><code>{fact.value}</code></dd></>)}
            <dt>model</dt><dd><code>{e.model.path}</code><br /><code>{e.model.sha256}</code></dd>
          </>)}
        </dl>
      </details>}
    </Section>
  );
}
