// The tokens as a strip of text, each coloured by its error; one is selected.
import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import type { Part } from "./app";
import type { Model, Token } from "./data";
import { figure, times, tokenText, visible } from "./format";
import { useTheme } from "./palette";
import { Section } from "./section";

// What a token is coloured by: how far beyond its limit.
export function severity(model: Model, prompt: number, token: Token): { ratio: number | null; text: string } {
  const limit = model.limit("kl.worst");
  if (token.row) {
    if (!token.row.finite || token.row.kl === null) return { ratio: Infinity, text: "logits are not finite" };
    if (limit) return { ratio: token.row.kl / limit, text: `KL ${figure(token.row.kl)} nats, limit ${figure(limit)}` };
    return { ratio: token.row.above_limit ? 10 : token.row.kl === 0 ? 0 : 0.1, text: `KL ${figure(token.row.kl)} nats` };
  }
  const worst = model.worstOf(prompt, token.position);
  return { ratio: worst, text: worst === null ? "no figure" : `worst op at ${times(worst)} of its bound` };
}

export function Tokens({ model, selected, select }: Part) {
  const palette = useTheme();
  const strip = useRef<HTMLDivElement>(null);
  const moved = useRef(false);
  const tokens = useMemo(() => model.tokens(selected.prompt), [model, selected.prompt]);
  const shown = useMemo(() => tokens.map((t) => ({ t, ...severity(model, selected.prompt, t) })), [model, tokens, selected.prompt]);
  const at = Math.min(selected.position, tokens.length - 1);
  const nFlipped = tokens.filter((t) => t.row && t.row.top1.candidate !== t.row.top1.reference).length;
  const nBeyond = shown.filter((s) => s.ratio !== null && s.ratio > 1).length;
  // The keyboard moves both selection and focus; at once, so that the next key finds the token that is selected.
  useLayoutEffect(() => {
    if (!moved.current) return;
    moved.current = false;
    strip.current?.querySelector<HTMLElement>('[aria-selected="true"]')?.focus();
  }, [at]);
  const onKey = (event: KeyboardEvent) => {
    const to: Record<string, number> = { ArrowRight: at + 1, ArrowDown: at + 10, ArrowLeft: at - 1, ArrowUp: at - 10, Home: 0, End: tokens.length - 1 };
    const next = to[event.key];
    if (next === undefined) return;
    event.preventDefault();
    moved.current = true;
    select({ position: Math.max(0, Math.min(tokens.length - 1, next)) });
  };
  const prompts = model.report.prompts ?? [];
  const byOps = model.positions.length === 0;
  return (
    <Section id="tokens" title="Tokens" about={<>
      {tokens.length} tokens; {byOps ? `${nBeyond} have an op beyond its bound` : `${nBeyond} ${nBeyond === 1 ? "is" : "are"} beyond the limit of a single position, ${nFlipped} ${nFlipped === 1 ? "has" : "have"} another first choice next (marked \u2260)`}.
      Click one, or move with the arrow keys.</>}>
      {prompts.length > 1 && (
        <label class="pick">prompt{" "}
          <select value={selected.prompt} onChange={(e) => select({ prompt: Number(e.currentTarget.value), position: 0 })}>
            {prompts.map((p, i) => <option value={i}>{i}: {visible(p.text.slice(0, 60))}</option>)}
          </select>
        </label>
      )}
      <div class="strip" role="listbox" aria-label="tokens of the prompt" aria-orientation="horizontal" ref={strip} onKeyDown={onKey}>
        {shown.map(({ t, ratio, text }) => {
          const { fill, ink } = palette.over(ratio);
          const flipped = t.row && t.row.top1.candidate !== t.row.top1.reference;
          return (
            <span role="option" class={`token${t.decoded ? " decoded" : ""}`} data-position={t.position}
              tabIndex={t.position === at ? 0 : -1} aria-selected={t.position === at}
              aria-label={`position ${t.position}, ${tokenText(t.text, t.id)}, ${text}${flipped ? ", another first choice" : ""}`}
              style={{ background: fill, color: ink }} title={`position ${t.position}: ${text}`}
              onClick={() => select({ position: t.position })}><bdi>{tokenText(t.text, t.id)}</bdi>{flipped && <sup aria-hidden="true">{"\u2260"}</sup>}</span>
          );
        })}
      </div>
      <Scale palette={palette} unit={byOps ? "of an op's bound" : "of the limit"} />
    </Section>
  );
}

export function Scale({ palette, unit }: { palette: ReturnType<typeof useTheme>; unit: string }) {
  const steps = [0, 0.001, 0.1, 1, 3, 1e2, 1e4, Infinity];
  const names = ["0", "0.001", "0.1", "1", "3", "100", "10\u2074", "\u221e"];
  return (
    <div class="scale" aria-hidden="true">
      {steps.map((s, i) => { const { fill, ink } = palette.over(s); return <span style={{ background: fill, color: ink }}>{names[i]}</span>; })}
      <em>times {unit}; above 1 is beyond it</em>
    </div>
  );
}
