// Bundles src/ into one HTML text and writes it as C++: node build.mjs NODE_MODULES OUT.cc
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const [modules, out] = process.argv.slice(2).map((path) => resolve(path));
const esbuild = createRequire(join(modules, "package.json"))("esbuild");

const common = { bundle: true, minify: true, write: false, legalComments: "none", charset: "ascii", logLevel: "warning" };
const script = await esbuild.build({
  ...common,
  entryPoints: [join(here, "src/main.tsx")],
  nodePaths: [modules],
  format: "iife",
  target: "es2021",
  jsx: "automatic",
  jsxImportSource: "preact",
});
const style = await esbuild.build({ ...common, entryPoints: [join(here, "src/style.css")] });

// The end of a script element must not stand inside it.
const code = script.outputFiles[0].text.replace(/<\/(script)/gi, "<\\/$1").replace(/<!--/g, "<\\!--");
const html = readFileSync(join(here, "src/index.html"), "utf8")
  .replace("/*STYLE*/", () => style.outputFiles[0].text.trim())
  .replace("/*SCRIPT*/", () => code.trim());
const pieces = html.split(/@TITLE@|@DATA@/);
if (pieces.length !== 3) throw new Error("index.html has one place for a title and one for the data, in this order");

// Of any text as C++: lines of limited length, everything beyond ASCII as octal escapes.
function literal(text) {
  const lines = [];
  const bytes = Buffer.from(text, "utf8");
  for (let i = 0; i < bytes.length; i += 96) {
    let line = "";
    for (const byte of bytes.subarray(i, i + 96)) {
      const c = String.fromCharCode(byte);
      if (c === "\\" || c === '"') line += "\\" + c;
      else if (byte < 32 || byte > 126 || c === "?") line += "\\" + byte.toString(8).padStart(3, "0");
      else line += c;
    }
    lines.push(`    "${line}"`);
  }
  return lines.join("\n");
}
const names = ["kBeforeTitle", "kBeforeData", "kAfterData"];
writeFileSync(
  out,
  `// The report's page, bundled of web/ by web/build.mjs.
#include "page/template.h"

namespace pb::page {

${names.map((name, i) => `const std::string_view ${name} =\n${literal(pieces[i])};`).join("\n\n")}

}  // namespace pb::page
`,
);
