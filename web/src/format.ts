// Figures and texts as they are shown.

// Two digits after the first, as the terminal shows them: 4.95e-07.
export function figure(value: number | null | undefined, digits = 2): string {
  if (value === null || value === undefined) return "not finite";
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return value > 0 ? "infinite" : "not finite";
  const [mantissa = "", exponent = "0"] = value.toExponential(digits - 1).split("e");
  const e = Number(exponent);
  return `${mantissa}e${e < 0 ? "-" : "+"}${String(Math.abs(e)).padStart(2, "0")}`;
}

// Of a bound: 0.33 x, 5.2e+06 x.
export function times(ratio: number | null | undefined): string {
  if (ratio === null || ratio === undefined) return "not finite";
  if (ratio === 0) return "0";
  if (!Number.isFinite(ratio)) return "infinite";
  const text = ratio >= 0.01 && ratio < 10000 ? String(Number(ratio.toPrecision(2))) : figure(ratio);
  // Rounding must not move a figure to the other side of its limit.
  return ratio > 1 && text === "1" ? "1.0+" : text;
}

export function percent(logp: number | null | undefined): string {
  if (logp === null || logp === undefined) return "";
  const p = 100 * Math.exp(logp);
  return p >= 99.95 && p < 100 ? "99.9 %" : p >= 10 ? `${p.toFixed(1)} %` : p >= 0.01 ? `${p.toPrecision(2)} %` : "< 0.01 %";
}

export function count(n: number, one: string): string { return `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`; }

// Characters that would change or hide their surroundings become visible.
export function visible(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g, (c) => {
    if (c === "\n") return "\u23ce";
    if (c === "\t") return "\u21e5";
    return `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
// Of a token: blanks too.
export function tokenText(text: string | undefined, id: number): string {
  if (text === undefined) return `#${id}`;
  if (text === "") return "\u2205";
  return visible(text).replace(/ /g, "\u00b7");
}

export function basename(path: string): string { return path.slice(path.lastIndexOf("/") + 1); }
