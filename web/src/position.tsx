// What both engines would say next at the selected position.
import type { Part } from "./app";
import type { Choice } from "./data";
import { figure, percent, tokenText, visible } from "./format";
import { Section } from "./section";
import { engineName } from "./verdict";

function Side({ choices, other, text, name }: { choices: Choice[]; other: Choice[]; text: (c: Choice) => string; name: string }) {
  const rank = new Map(other.map((c, i) => [c.token, i]));
  return (
    <table class="choices">
      <caption>{name}</caption>
      <thead><tr><th scope="col">#</th><th scope="col">token</th><th scope="col" class="num">probability</th><th scope="col" class="bar"></th><th scope="col">other's rank</th></tr></thead>
      <tbody>
        {choices.map((c, i) => {
          const there = rank.get(c.token);
          return (
            <tr class={there === i ? "" : "moved"}>
              <td>{i + 1}</td>
              <td class="tok"><bdi>{text(c)}</bdi></td>
              <td class="num">{percent(c.logp)}</td>
              <td class="bar"><span style={{ width: `${Math.max(1, 100 * Math.exp(c.logp ?? -99))}%` }} /></td>
              <td>{there === undefined ? "not in its " + other.length : there === i ? "same" : String(there + 1)}</td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

export function PositionPanel({ model, selected }: Part) {
  const token = model.tokens(selected.prompt)[selected.position];
  const row = token?.row;
  if (!token) return null;
  const text = (c: Choice) => tokenText(model.text(c.token, c.text), c.token);
  const limit = model.limit("kl.worst"), gapLimit = model.limit("gap.change");
  const candidate = engineName(model, 0), reference = engineName(model, 1);
  return (
    <Section id="position" title={`After position ${token.position}`} about={<>
      Both have read up to <bdi class="tok inline" id="selected-token">{tokenText(token.text, token.id)}</bdi>{" "}
      (token {token.id}{token.decoded ? ", a decode step" : ""}); what each would say next.</>}>
      {!row ? <p>No logits were compared here.</p> : !row.finite ? <p>The logits are not finite here.</p> : <>
        <dl class="figures" aria-live="polite">
          <div class={limit !== null && (row.kl ?? 0) > limit ? "beyond" : ""}><dt>KL</dt><dd id="kl" data-value={String(row.kl)}>{figure(row.kl)} <small>nats{limit !== null && `, limit ${figure(limit)}`}</small></dd></div>
          <div><dt>margin of {visible(reference)}</dt><dd id="margin">{figure(row.gap.reference)} <small>nats between its first two</small></dd></div>
          <div class={gapLimit !== null && row.top1.candidate !== row.top1.reference && (row.gap.change ?? 0) > gapLimit ? "beyond" : ""}><dt>change of the margin</dt><dd>{figure(row.gap.change)} <small>nats{gapLimit !== null && `, limit ${figure(gapLimit)}`}</small></dd></div>
          <div><dt>rel-L2</dt><dd>{figure(row.rel_l2)}</dd></div>
          <div><dt>cosine</dt><dd>{row.cosine === null ? "not finite" : row.cosine.toFixed(6)}</dd></div>
          <div><dt>largest change of a log-probability</dt><dd>{figure(row.max_abs)}</dd></div>
          <div><dt>shared among the best {row.top_k.reference.length}</dt><dd>{row.top_k_overlap}</dd></div>
        </dl>
        <div class="pair">
          <div class="scroll"><Side choices={row.top_k.candidate} other={row.top_k.reference} text={text} name={`${candidate}, the candidate`} /></div>
          <div class="scroll"><Side choices={row.top_k.reference} other={row.top_k.candidate} text={text} name={`${reference}, the reference`} /></div>
        </div>
      </>}
    </Section>
  );
}
