// The page of many verdicts: tables, and parts that are folded away.
import { useEffect } from "preact/hooks";
import { CopyLine } from "./commands";
import type { Cell, Model, Part, Table } from "./data";
import { visible } from "./format";
import { Section } from "./section";
import { TONES, Verdict } from "./verdict";

// Opens what a link leads to, and goes on from there by keyboard.
function reveal(id: string) {
  const part = document.getElementById(id);
  if (!(part instanceof HTMLDetailsElement)) return;
  part.open = true;
  part.querySelector("summary")?.focus();
  part.scrollIntoView({ block: "nearest" });
}
// A jump of the browser's own would take the focus away again.
function follow(event: MouseEvent, id: string) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  history.replaceState(null, "", `#${id}`);
  reveal(id);
}

function Tag({ text, tone }: { text: string; tone: string }) {
  const known = TONES[tone];
  return <span class={`tag ${known?.tone ?? tone}`}>{known && <span aria-hidden="true">{known.glyph} </span>}{visible(text)}</span>;
}

function CellView({ cell }: { cell: Cell }) {
  if (typeof cell === "string") return <>{visible(cell)}</>;
  const shown = cell.tone ? <Tag text={cell.text} tone={cell.tone} /> : visible(cell.text);
  return (
    <>
      {cell.leads_to ? <a href={`#${cell.leads_to}`} onClick={(event) => follow(event, cell.leads_to)}>{shown}</a> : shown}
      {cell.more && <span class="more"> {visible(cell.more)}</span>}
    </>
  );
}

function TableView({ table }: { table: Table }) {
  return (
    <Section id={table.id} title={table.title} about={table.about}>
      {table.rows.length > 0 && <div class="scroll" tabIndex={0} role="region" aria-labelledby={`${table.id}-title`}><table class="many">
        <thead><tr>{table.columns.map((c) => <th scope="col" class={c.is_number ? "num" : ""}>{visible(c.name)}</th>)}</tr></thead>
        <tbody>{table.rows.map((row) => (
          <tr>{row.map((cell, i) => (i === 0
            ? <th scope="row"><CellView cell={cell} /></th>
            : <td class={table.columns[i]!.is_number ? "num" : ""}><CellView cell={cell} /></td>))}</tr>))}</tbody>
      </table></div>}
      {table.rows.length === 0 && <p>None.</p>}
    </Section>
  );
}

function PartView({ part }: { part: Part }) {
  return (
    <details class="part" id={part.id}>
      <summary><b>{visible(part.title)}</b> <CellView cell={part.state} /></summary>
      {part.text && <p class="why">{visible(part.text)}</p>}
      <dl class="digests">{part.facts.map(([name, value]) => <><dt>{name}</dt><dd><code>{visible(value)}</code></dd></>)}</dl>
      {part.commands.map((c) => <CopyLine command={c.command} purpose={c.purpose} />)}
    </details>
  );
}

export function Tables({ model }: { model: Model }) {
  const { tables = [], parts } = model.page;
  useEffect(() => reveal(location.hash.slice(1)), []);
  return (
    <>
      <Verdict model={model} />
      {tables.map((table) => <TableView table={table} />)}
      {parts && parts.title && <Section id="parts" title={parts.title} about={parts.about}>
        {parts.list.map((part) => <PartView part={part} />)}
        {parts.list.length === 0 && <p>None.</p>}
      </Section>}
    </>
  );
}
