// The running search: how far it is, and what every block is worth.

import type { Candidate, Cost, ModelInfo, SearchEvent, SearchState, Step, WindowsInfo } from "../pkg/blockpruner_web.js";
import { $, element } from "./elements";
import * as format from "./format";
import { LayerMap } from "./map";
import { notesOn, showNotes } from "./notes";
import { PerplexityPlot } from "./plot";
import type { Settings } from "./protocol";
import { UNIT } from "./units";

export class RunView {
  private map = new LayerMap($("map"), { low: $("legend-low"), high: $("legend-high"), beyond: $("legend-beyond") });
  private plot = new PerplexityPlot($("plot"));
  private dense = Number.NaN;
  private steps: Step[];
  private candidates: Candidate[];
  private cost: Cost | undefined;
  private paused = false;
  private over = false;
  /** Whether the screen will be drawn with the next frame: many candidates may come at once. */
  private pending = false;

  constructor(
    readonly model: ModelInfo,
    private settings: Required<Settings>,
    readonly windows: WindowsInfo,
    { dense, steps, candidates }: SearchState,
  ) {
    this.steps = steps;
    this.candidates = candidates;
    if (dense) this.dense = dense.perplexity;
    this.map.reset(model);
    $("f-model").textContent = `${format.name(model.name)}, ${format.grouped(model.parameters)} parameters`;
    $("f-text").textContent = format.windows(windows);
    for (const id of ["f-speed", "f-left", "legend-low", "legend-high"]) $(id).textContent = "–";
    $("announce").textContent = "";
    showNotes($("notes"), notesOn(model, windows));
    this.draw();
    this.drawMap();
    this.drawPlot();
  }

  happened(event: SearchEvent, cost: Cost | undefined): void {
    this.cost = cost;
    switch (event.type) {
      case "dense":
        this.dense = event.perplexity;
        this.drawPlot();
        break;
      case "candidate":
        this.candidates = [...this.candidates.filter(({ block }) => block !== event.candidate.block), event.candidate];
        break;
      case "step":
        this.steps = [...this.steps, event];
        this.candidates = [];
        this.map.clearScores();
        this.drawPlot();
        $("announce").textContent = `Step ${event.step} of ${this.settings.remove}: ${event.removed} removed, perplexity ${format.perplexity(event.perplexity)}.`;
        break;
    }
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.draw();
      this.drawMap();
    });
  }

  pause(): void {
    this.paused = true;
    say("Paused; the search is saved", this.done());
  }

  goOn(): void {
    this.paused = false;
  }

  get isPaused(): boolean {
    return this.paused;
  }

  /** It ended, or was stopped. */
  end(words: string): void {
    this.over = true;
    // The result says it again.
    $("notes").hidden = true;
    this.draw();
    say(words, this.done());
    $("f-left").textContent = "–";
  }

  /** How many blocks it was asked to remove. */
  get wanted(): number {
    return this.settings.remove;
  }

  /** What was removed, for the result. */
  found(): { dense: number; steps: Step[] } {
    return { dense: this.dense, steps: this.steps };
  }

  private done(): number {
    return this.cost?.done ?? 0;
  }

  private draw(): void {
    const { steps, settings, dense } = this;
    const now = steps.at(-1)?.perplexity ?? dense;
    const step = Math.min(steps.length + 1, settings.remove);
    $("f-step").textContent = `${step} of ${settings.remove}`;
    $("f-perplexity").textContent = Number.isNaN(now) ? "–" : steps.length > 0 ? `${format.perplexity(now)} (whole model ${format.perplexity(dense)})` : format.perplexity(now);
    if (this.over || this.paused) return;
    const { tokensPerSecond, secondsLeft } = this.cost ?? {};
    if (tokensPerSecond) $("f-speed").textContent = format.grouped(tokensPerSecond);
    $("f-left").textContent = secondsLeft ? format.duration(secondsLeft) : "–";
    if (Number.isNaN(dense)) say("Scoring the whole model");
    else say(`Step ${step}: scoring the model without each ${UNIT[settings.units ?? "blocks"]}`, this.done());
  }

  private drawMap(): void {
    const underWay = this.candidates.length > 0;
    const current = underWay ? this.candidates : (this.steps.at(-1)?.candidates ?? []);
    const base = (underWay ? this.steps.at(-1) : this.steps.at(-2))?.perplexity ?? this.dense;
    if (!Number.isNaN(base)) this.map.show(this.steps.map((step) => step.removed), current, base, underWay);
    const step = underWay ? this.steps.length + 1 : this.steps.length;
    $("ranking-title").textContent = step > 0 ? `Ranking of step ${step}` : "Ranking of this step";
    const rank = (candidate: Candidate) => candidate.perplexity ?? candidate.atLeast ?? Number.POSITIVE_INFINITY;
    const listed = [...current].sort((a, b) => rank(a) - rank(b)).slice(0, 8);
    const last = listed.at(-1);
    const most = last ? Math.log(rank(last) / base) : 0;
    $("ranking").querySelector("tbody")!.replaceChildren(
      ...listed.map((candidate) => {
        const row = document.createElement("tr");
        const meter = element("span", "", "meter");
        meter.style.width = `${Math.max(2, Math.min(100, (Math.log(rank(candidate) / base) / Math.max(most, 1e-9)) * 100))}%`;
        const worth = candidate.perplexity !== null ? format.perplexity(rank(candidate)) : candidate.atLeast !== null ? `≥ ${format.perplexity(rank(candidate))}` : candidate.state;
        const bar = document.createElement("td");
        bar.append(meter);
        bar.setAttribute("aria-hidden", "true");
        row.append(element("td", candidate.block), element("td", worth, "number"), bar);
        return row;
      }),
    );
  }

  private drawPlot(): void {
    if (Number.isNaN(this.dense)) return;
    this.plot.show([this.dense, ...this.steps.map((step) => step.perplexity)], this.settings.remove);
  }
}

/** What is being done, and how far it is; without a share, nobody knows. */
export function say(text: string, share?: number): void {
  const within = share !== undefined && share > 0 && share < 1;
  $("status").textContent = within ? `${text}, ${Math.floor(share * 100)} %` : text;
  document.title = `${within ? `${Math.floor(share * 100)} % – ` : ""}BlockPruner on WebGPU`;
  const bar = $<HTMLProgressElement>("progress");
  if (share === undefined) bar.removeAttribute("value");
  else bar.value = share;
}
