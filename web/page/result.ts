// What a search found, finished or not: every step can be compared with the whole model, and downloaded.

import type { ModelInfo, Step } from "../pkg/blockpruner_web.js";
import { $, element, input, number } from "./elements";
import * as format from "./format";
import { notesOn, showNotes } from "./notes";
import type { Found, Reply, Request } from "./protocol";
import type { RunView } from "./run";
import { chosenBy } from "./strategies";
import { goal } from "./target";
import { blocksOf } from "./units";
import { type DType, type Format, written } from "./written";

const exportFormat = () => ($<HTMLSelectElement>("format").value || undefined) as Format;
const dtype = () => ($<HTMLSelectElement>("dtype").value || undefined) as DType | undefined;

export class ResultView {
  private found: Found | null = null;
  private model: ModelInfo | null = null;
  private dense = Number.NaN;
  private steps: Step[] = [];
  private comparing = false;

  constructor(private ask: (request: Request) => void, private begins: { exporting(): void; extending(): void }) {
    $("steps").addEventListener("change", () => {
      this.tellStep();
      this.compare();
    });
    for (const id of ["format", "dtype"]) $(id).addEventListener("change", () => this.tellSize());
    $("continue").addEventListener("submit", (event) => {
      event.preventDefault();
      this.compare();
    });
    $("extend").addEventListener("submit", (event) => {
      event.preventDefault();
      this.begins.extending();
      this.ask({ type: "extend", target: { remove: input("extend-remove").valueAsNumber } });
    });
    $("zip").addEventListener("click", () => this.export());
    if ("showDirectoryPicker" in window) {
      $("to-folder").hidden = false;
      $("to-folder").addEventListener("click", async () => {
        const pick = (window as unknown as { showDirectoryPicker(options: object): Promise<FileSystemDirectoryHandle> }).showDirectoryPicker;
        // Refused when the visitor closes the picker.
        const folder = await pick.call(window, { mode: "readwrite" }).catch(() => null);
        if (folder) this.export(folder);
      });
    }
    const file = (text: string | undefined) => new Blob([text ?? ""], { type: "application/json" });
    $("report").addEventListener("click", () => this.found && this.ask({ type: "report", planJson: this.found.planJson }));
    $("plan").addEventListener("click", () => download("plan.json", file(this.found?.planJson)));
    $("order").addEventListener("click", () => download("order.json", file(this.found?.orderJson)));
  }

  show(found: Found, run: RunView): void {
    this.found = found;
    this.model = run.model;
    const { dense, steps } = run.found();
    [this.dense, this.steps] = [dense, steps];
    // As the search has foreseen it, where the size was its target.
    $<HTMLSelectElement>("format").value = run.settings.format ?? "";
    $<HTMLSelectElement>("dtype").value = "";
    $("exported").textContent = "";
    $("held-out").textContent = "";
    this.tellRun(run, found);
    this.listSteps(run.model);
    const more = steps.length + 1;
    const { target } = run.settings;
    Object.assign(input("extend-remove"), { min: more, value: "remove" in target ? Math.max(more, target.remove) : more });
    this.tellStep();
    this.compare();
  }

  heard(reply: Extract<Reply, { type: "heldOut" | "continuing" | "text" | "compared" }>): void {
    switch (reply.type) {
      case "continuing":
        for (const id of ["dense-text", "pruned-text"]) $(id).replaceChildren(element("b", reply.prompt), document.createTextNode(""));
        break;
      case "text":
        $(reply.which === "dense" ? "dense-text" : "pruned-text").lastChild!.textContent += reply.part;
        break;
      case "heldOut":
        this.tellHeldOut(reply);
        break;
      case "compared":
        this.comparing = false;
        $("continue").removeAttribute("aria-busy");
        break;
    }
  }

  /** Whether there is something to show, in this run. */
  get isThere(): boolean {
    return this.found !== null;
  }

  /** Another search begins. */
  clear(): void {
    this.found = null;
  }

  exported({ name, blob, bytes }: Extract<Reply, { type: "exported" }>): void {
    // What the export cut short.
    if (this.comparing) this.compare();
    if (blob) download(name, blob);
    $("exported").textContent = `Wrote ${name}, ${format.bytes(bytes)} of weights.`;
  }

  /** The step whose model is shown and downloaded. */
  private get step(): number {
    return Number(document.querySelector<HTMLInputElement>('#steps input[name="step"]:checked')?.value ?? this.steps.length);
  }

  private compare(): void {
    this.comparing = true;
    $("held-out").textContent = "";
    $("continue").setAttribute("aria-busy", "true");
    this.ask({ type: "compare", step: this.step, prompt: input("prompt").value, maxTokens: number("max-tokens") ?? 32 });
  }

  private export(folder?: FileSystemDirectoryHandle): void {
    this.begins.exporting();
    this.ask({ type: "export", step: this.step, format: exportFormat(), dtype: dtype(), folder });
  }

  private tellRun({ model, windows, settings }: RunView, { finished, seconds, beyond }: Found): void {
    const { target, units, strategy } = settings;
    $("result-title").textContent = finished ? "Result" : "Result so far";
    const blocks = `${this.gone(this.steps.length)} of ${model.blocks.length} blocks removed`;
    const chosen = `chosen ${chosenBy(strategy)} ${format.grouped(windows.predicted)} predicted tokens (${format.windows(windows)})`;
    const told = [finished ? `${blocks} in ${format.duration(seconds)}, ${chosen}.` : `Stopped with ${blocks}, ${chosen}. The search can be resumed.`];
    if (!("remove" in target)) told.push(`The goal was ${goal(target, units)}.`);
    if (beyond) told.push(`Without ${beyond.removed} as well, perplexity would be ${format.perplexity(beyond.perplexity)}: it stays.`);
    $("searched").textContent = told.join(" ");
    showNotes($("result-notes"), notesOn(model, windows));
  }

  private listSteps({ parameters }: ModelInfo): void {
    const row = (step: number, removed: string, value: number, left: number, ratio: number) => {
      const cells = [element("td", String(step), "number"), element("td", removed), element("td", format.perplexity(value), "number"), element("td", format.grouped(left), "number"), element("td", format.percent(ratio), "number")];
      const choice = document.createElement("td");
      if (step > 0) {
        const radio = Object.assign(document.createElement("input"), { type: "radio", name: "step", value: String(step), checked: step === this.steps.length });
        radio.setAttribute("aria-label", `the model after step ${step}`);
        choice.append(radio);
      }
      const line = document.createElement("tr");
      line.append(choice, ...cells);
      return line;
    };
    $("steps").querySelector("tbody")!.replaceChildren(
      row(0, "–", this.dense, parameters, 0),
      ...this.steps.map((step) => row(step.step, step.removed, step.perplexity, step.paramsLeft, step.ratioRemoved)),
    );
  }

  /** How many blocks the first steps have removed. */
  private gone(steps: number): number {
    return this.steps.slice(0, steps).flatMap((step) => blocksOf(step.removed)).length;
  }

  private tellStep(): void {
    const step = this.steps[this.step - 1];
    if (!step || !this.model) return;
    $("summary").textContent =
      `Without ${format.count(this.gone(step.step), "block")}, ${format.grouped(this.model.parameters)} parameters become ${format.grouped(step.paramsLeft)} ` +
      `(${format.percent(step.ratioRemoved)} less), and perplexity ${format.perplexity(this.dense)} becomes ${format.perplexity(step.perplexity)}.`;
    this.tellSize();
  }

  private tellSize(): void {
    const step = this.steps[this.step - 1];
    if (!step || !this.model) return;
    const before = this.model.bytes;
    const after = written(this.model, step.paramsLeft, exportFormat(), dtype());
    const larger = after > before ? " That is more than before: the weights were packed, and are written as plain numbers." : "";
    $("size").textContent = `After step ${step.step}: ${format.bytes(before)} of weights become about ${format.bytes(after)}.${larger}`;
  }

  private tellHeldOut({ step, scores }: Extract<Reply, { type: "heldOut" }>): void {
    if (step !== this.step) return;
    $("held-out").textContent = scores
      ? `On ${format.grouped(scores.tokens)} tokens of the same text that the search has not seen, perplexity ${format.perplexity(scores.before)} becomes ${format.perplexity(scores.after)}.`
      : "The text ends where the search stopped reading: there is nothing left of it to judge the result by.";
  }
}

export function download(name: string, blob: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
