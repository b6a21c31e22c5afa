// Command lines that can be copied.
import { useState } from "preact/hooks";
import type { Model } from "./data";
import { Section } from "./section";

async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // A page from disk may not have the clipboard.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

export function CopyLine({ command, purpose }: { command: string; purpose?: string | undefined }) {
  const [state, setState] = useState("copy");
  const onClick = async () => {
    setState((await copy(command)) ? "copied" : "select it");
    setTimeout(() => setState("copy"), 2000);
  };
  return (
    <div class="command">
      {purpose && <span class="purpose">{purpose}</span>}
      <div class="line">
        <code tabIndex={0}>{command.split(" ").map((word, i) => <>{i > 0 && " "}<span class="word">{word}</span></>)}</code>
        <button type="button" class="noprint" onClick={onClick} aria-label={`copy the command${purpose ? ": " + purpose : ""}`}>{state}</button>
      </div>
    </div>
  );
}

export function Commands({ model }: { model: Model }) {
  const { report, page } = model;
  if (!page.again && report.next.length === 0) return null;
  return (
    <Section id="commands" title="Commands">
      {page.again && <CopyLine command={page.again} purpose={page.tables ? "all of it again" : "this comparison again"} />}
      {report.next.map((command, i) => <CopyLine command={command} purpose={report.next_for[i]} />)}
    </Section>
  );
}
