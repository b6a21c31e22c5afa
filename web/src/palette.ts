// Colours of figures, for both themes. A step at 1 parts what is within a limit from what is beyond.
import { scaleLinear } from "d3-scale";
import { useEffect, useMemo, useState } from "preact/hooks";

interface Shades { none: string; zero: string; within: [string, string]; beyond: string[]; size: string[]; ink: string; paper: string }
const LIGHT: Shades = {
  none: "transparent", zero: "#f1f4f8", within: ["#e3ebf4", "#a3c0de"], beyond: ["#f5c26b", "#e2703a", "#bf2a20", "#7d1220"],
  size: ["#eef2f7", "#b9cbe4", "#7f9bd0", "#5566b3", "#4b2f80"], ink: "#1b2330", paper: "#ffffff",
};
const DARK: Shades = {
  none: "transparent", zero: "#1c2430", within: ["#1f2c3d", "#3d6290"], beyond: ["#b98226", "#d2622b", "#e04a3c", "#ff9384"],
  size: ["#1d2632", "#2b4468", "#4368a6", "#7f93dd", "#cbb8ff"], ink: "#e8edf4", paper: "#12171f",
};

function luminance(color: string): number {
  const part = (color.startsWith("#") ? [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16)) : (color.match(/\d+(\.\d+)?/g) ?? []).map(Number))
    .map((v) => { const c = v / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * (part[0] ?? 0) + 0.7152 * (part[1] ?? 0) + 0.0722 * (part[2] ?? 0);
}

export class Palette {
  private within: (t: number) => string;
  private beyond: (t: number) => string;
  private sizes: (t: number) => string;
  constructor(readonly dark: boolean) {
    const s = this.shades;
    this.within = scaleLinear<string>().domain([-3, 0]).range(s.within).clamp(true);
    this.beyond = scaleLinear<string>().domain([0, 1.5, 3, 6]).range(s.beyond).clamp(true);
    this.sizes = scaleLinear<string>().domain([-8, -6, -4, -2, 0]).range(s.size).clamp(true);
  }
  get shades(): Shades { return this.dark ? DARK : LIGHT; }
  private pair(fill: string): { fill: string; ink: string } {
    const dark = "#141a23", light = "#ffffff", y = luminance(fill);
    return { fill, ink: (y + 0.05) / (luminance(dark) + 0.05) >= 1.05 / (y + 0.05) ? dark : light };
  }
  // Of a figure over its limit.
  over(ratio: number | null): { fill: string; ink: string } {
    if (ratio === null || Number.isNaN(ratio)) return { fill: this.shades.none, ink: this.shades.ink };
    if (ratio === 0) return { fill: this.shades.zero, ink: this.shades.ink };
    const t = Math.log10(ratio);
    return this.pair(ratio > 1 ? this.beyond(Math.min(t, 9)) : this.within(t));
  }
  // Of a relative error without a limit, from 1e-8 to 1.
  size(error: number | null): { fill: string; ink: string } {
    if (error === null || Number.isNaN(error)) return { fill: this.shades.none, ink: this.shades.ink };
    if (error === 0) return { fill: this.shades.zero, ink: this.shades.ink };
    return this.pair(this.sizes(Math.min(Math.log10(error), 3)));
  }
}

function isDark(): boolean {
  const set = document.documentElement.dataset.theme;
  return set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

export function useTheme(): Palette {
  const [dark, setDark] = useState(isDark);
  useEffect(() => {
    const update = () => setDark(isDark());
    const media = matchMedia("(prefers-color-scheme: dark)");
    media.addEventListener("change", update);
    addEventListener("theme", update);
    return () => { media.removeEventListener("change", update); removeEventListener("theme", update); };
  }, []);
  return useMemo(() => new Palette(dark), [dark]);
}
