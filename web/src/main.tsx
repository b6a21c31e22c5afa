// Reads the data and draws the page.
import { render } from "preact";
import { App } from "./app";
import { Model, readData } from "./data";

const root = document.getElementById("page")!;
readData().then(
  (data) => {
    root.textContent = "";
    render(<App model={new Model(data)} />, root);
    document.documentElement.dataset.ready = "yes";
  },
  (error: unknown) => {
    root.textContent = `This report cannot be shown: ${String(error)}. It needs a browser of 2023 or later.`;
    document.documentElement.dataset.ready = "failed";
  },
);
// On paper everything is open.
const opened: HTMLDetailsElement[] = [];
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll<HTMLDetailsElement>("details:not([open])")) {
    details.open = true;
    opened.push(details);
  }
});
addEventListener("afterprint", () => {
  for (const details of opened.splice(0)) details.open = false;
});
