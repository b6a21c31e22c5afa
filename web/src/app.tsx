// The page from top to bottom, and what is selected in it.
import { useMemo, useState } from "preact/hooks";
import type { Model } from "./data";
import { basename } from "./format";
import { Commands } from "./commands";
import { Diagnoses } from "./diagnosis";
import { Engines } from "./engines";
import { Coverage, Floor, Limits, Notes } from "./facts";
import { GrowthChart } from "./growth";
import { Heat } from "./heat";
import { Points } from "./points";
import { PositionPanel } from "./position";
import { Tables } from "./tables";
import { Tokens } from "./tokens";
import { Verdict } from "./verdict";

export interface Selection { prompt: number; position: number; layer: number | null; stage: string | null }
export interface Part { model: Model; selected: Selection; select: (change: Partial<Selection>) => void }

// Where a reader looks first: the first divergence, else the token that differs most.
function firstSelection(model: Model): Selection {
  const first = model.report.first_divergence;
  if (first) return { prompt: first.prompt, position: first.position, layer: first.layer, stage: first.stage };
  let worst = { prompt: 0, position: 0, layer: null, stage: null } as Selection, kl = -1;
  for (const row of model.positions)
    if ((row.kl ?? Infinity) > kl) {
      kl = row.kl ?? Infinity;
      worst = { ...worst, prompt: row.prompt, position: row.position };
    }
  return worst;
}

type Theme = "auto" | "light" | "dark";
function ThemeButton() {
  const [theme, setTheme] = useState<Theme>("auto");
  const order: Theme[] = ["auto", "light", "dark"];
  const next = order[(order.indexOf(theme) + 1) % 3]!;
  const change = () => {
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    setTheme(next);
    dispatchEvent(new Event("theme"));
  };
  return <button type="button" class="quiet noprint" onClick={change} aria-label={`colours: ${theme}; change to ${next}`}>colours: {theme}</button>;
}

function SaveButton({ model }: { model: Model }) {
  const save = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(model.report, null, 2)], { type: "application/json" }));
    link.download = "paritybit-report.json";
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return <button type="button" class="quiet noprint" onClick={save}>save as JSON</button>;
}

// What a comparison comes to, from the verdict to where its limits come from.
function Comparison({ model }: { model: Model }) {
  const [selected, setSelected] = useState(() => firstSelection(model));
  const select = (change: Partial<Selection>) => setSelected((now) => ({ ...now, ...change }));
  const part: Part = { model, selected, select };
  const hasTokens = model.promptCount() > 0 && model.tokens(selected.prompt).length > 0;
  return (
    <>
      <Verdict model={model} />
      <Engines model={model} />
      {hasTokens && <Tokens {...part} />}
      {hasTokens && model.positions.length > 0 && <PositionPanel {...part} />}
      <Heat {...part} />
      <GrowthChart {...part} />
      <Diagnoses model={model} />
      <Points {...part} />
      <Coverage model={model} />
      <Limits model={model} />
      <Floor model={model} />
      <Commands model={model} />
      <Notes model={model} />
    </>
  );
}

export function App({ model }: { model: Model }) {
  const file = useMemo(() => basename(model.report.model?.path ?? model.report.traces?.[1]?.model.path ?? ""), [model]);
  return (
    <>
      <header class="top">
        <span class="brand">paritybit <b>{model.page.command}</b></span>
        <span class="file" title={model.report.model?.path}>{file}</span>
        <span class="when">{model.page.created}</span>
        <span class="grow" />
        <SaveButton model={model} />
        <ThemeButton />
      </header>
      <main>
        {model.page.tables ? <><Tables model={model} /><Commands model={model} /></> : <Comparison model={model} />}
      </main>
      <footer>
        Written by paritybit {model.page.tool_version}. This file asks nothing of the network; the figures in it are those of the JSON report, and docs/numerics.md defines them.
      </footer>
    </>
  );
}
