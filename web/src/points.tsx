// The table of points.
import { useMemo, useState } from "preact/hooks";
import type { Part } from "./app";
import type { Point } from "./data";
import { figure, times } from "./format";
import { ratioOf } from "./heat";
import { Section } from "./section";

const worstRow = (p: Point): number | null => (typeof p.worst_row === "object" ? (p.worst_row?.error ?? null) : p.worst_row);
const worstFeature = (p: Point): number | null => (typeof p.worst_feature === "object" ? (p.worst_feature?.error ?? null) : (p.worst_feature ?? null));
const boundOf = (p: Point): number | null => p.bound ?? p.own_error?.bound ?? null;
const isBeyond = (p: Point): boolean => (ratioOf(p) ?? 0) > 1;
const explained = (p: Point): string => (p.explained_by_codes ? "explained by codes" : p.explained_by_precision ? "explained by the schemes" : "");
const order: Record<string, (p: Point) => number> = {
  "of bound": (p) => ratioOf(p) ?? -1, error: (p) => worstRow(p) ?? Infinity, "rel-L2": (p) => p.rel_l2 ?? Infinity,
};
function outcome(p: Point): { text: string; tone: string } {
  if (p.own_error) {
    const state = p.own_error.state;
    if (p.equal) return { text: "equal bits", tone: "good" };
    return state === "above" ? { text: "beyond its bound", tone: "bad" } : state === "within" ? { text: "within its bound", tone: "good" } : state === "unknown" ? { text: "cannot be told", tone: "plain" } : { text: "inputs differ: not judged", tone: "plain" };
  }
  if (!isBeyond(p)) return { text: "within", tone: "good" };
  return explained(p) ? { text: explained(p), tone: "plain" } : { text: "beyond its bound", tone: "bad" };
}

export function Points({ model, selected, select }: Part) {
  const points = model.report.points;
  const nBeyond = useMemo(() => points.filter((p) => outcome(p).tone === "bad").length, [points]);
  const [which, setWhich] = useState(nBeyond > 0 ? "beyond" : "worst");
  const [sort, setSort] = useState<{ by: string; down: boolean } | null>(null);
  const [limit, setLimit] = useState(25);
  const rows = useMemo(() => {
    let list = points.map((p, i) => ({ p, i }));
    if (which === "beyond") list = list.filter(({ p }) => outcome(p).tone === "bad");
    if (which === "selected") list = list.filter(({ p }) => p.stage === selected.stage && p.layer === selected.layer);
    if (which === "worst") {
      const worst = new Map<string, { p: Point; i: number }>();
      for (const row of list) {
        const before = worst.get(row.p.stage);
        if (!before || (ratioOf(row.p) ?? worstRow(row.p) ?? 0) > (ratioOf(before.p) ?? worstRow(before.p) ?? 0)) worst.set(row.p.stage, row);
      }
      list = [...worst.values()];
    }
    if (sort) list = [...list].sort((a, b) => (sort.down ? -1 : 1) * (order[sort.by]!(a.p) - order[sort.by]!(b.p)));
    return list;
  }, [points, which, sort, selected]);
  if (points.length === 0) return null;
  const head = (name: string) => (
    <th scope="col" class="num" aria-sort={sort?.by === name ? (sort.down ? "descending" : "ascending") : "none"}>
      <button type="button" class="sort" onClick={() => setSort(sort?.by === name ? (sort.down ? { by: name, down: false } : null) : { by: name, down: true })}>{name}{sort?.by === name ? (sort.down ? " \u2193" : " \u2191") : ""}</button>
    </th>
  );
  const several = (model.report.prompts?.length ?? 1) > 1, steps = points.some((p) => p.step > 0);
  return (
    <Section id="points" title="Points" about={`${points.length} points, ${nBeyond} of them beyond ${nBeyond === 1 ? "its bound" : "their bounds"} and not explained. In the order of execution, unless a column is chosen.`}>
      <div class="picks noprint">
        <label class="pick">show <select id="which" value={which} onChange={(e) => setWhich(e.currentTarget.value)}>
          <option value="worst">the worst of every stage</option>
          {nBeyond > 0 && <option value="beyond">those beyond their bound</option>}
          {selected.stage && <option value="selected">the selected: {selected.layer !== null && selected.layer >= 0 ? `layer ${selected.layer}, ` : ""}{selected.stage}</option>}
          <option value="all">all {points.length}</option>
        </select></label>
      </div>
      <div class="scroll">
        <table class="points">
          <thead><tr>{several && <th scope="col">prompt</th>}{steps && <th scope="col">step</th>}<th scope="col" class="num">layer</th><th scope="col">op</th><th scope="col" class="num">position</th>{head("error")}<th scope="col" class="num">bound</th>{head("of bound")}{head("rel-L2")}<th scope="col">outcome</th></tr></thead>
          <tbody>
            {rows.slice(0, limit).map(({ p, i }) => {
              const { text, tone } = outcome(p), b = boundOf(p);
              return (
                <tr data-index={i} class={p.stage === selected.stage && p.layer === selected.layer ? "selected" : ""} onClick={() => select({ stage: p.stage, layer: p.layer })}>
                  {several && <td>{p.prompt}</td>}{steps && <td>{p.step}</td>}
                  <td class="num">{p.layer < 0 ? "" : p.layer}</td><td><code>{p.stage}</code> <span class="more">{model.stage(p.stage)}</span></td>
                  <td class="num">{typeof p.worst_row === "object" && p.worst_row ? p.worst_row.position : (p.worst_row_position ?? "")}</td>
                  <td class="num">{figure(Math.max(worstRow(p) ?? Infinity, worstFeature(p) ?? 0))}</td>
                  <td class="num">{b === null ? "" : b === 0 ? "" : b < 1e-30 ? "exact zeros" : figure(b)}</td>
                  <td class="num" data-ratio={String(p.bound_ratio)}>{ratioOf(p) === null ? "" : b !== null && b < 1e-30 && isBeyond(p) ? "beyond" : times(ratioOf(p))}</td>
                  <td class="num">{figure(p.rel_l2)}</td>
                  <td><span class={`tag ${tone}`}>{text}</span>{p.explanation && <span class="more"> {p.explanation}</span>}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
      {rows.length > limit && <button type="button" class="more-button noprint" onClick={() => setLimit(limit < 200 ? 200 : rows.length)}>show {limit < 200 ? `${Math.min(200, rows.length)}` : "all"} of {rows.length}</button>}
      {rows.length === 0 && <p>None.</p>}
    </Section>
  );
}
