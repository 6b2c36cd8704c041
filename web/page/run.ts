// The running search: how far it is, and what every block is worth.

import type { Candidate, Cost, ModelInfo, SearchEvent, SearchState, Step, WindowsInfo } from "../pkg/blockpruner_web.js";
import { $, element } from "./elements";
import * as format from "./format";
import { LayerMap } from "./map";
import { notesOn, showNotes } from "./notes";
import { PerplexityPlot } from "./plot";
import type { Settled } from "./protocol";
import { type Measure, STRATEGIES, doing, measured } from "./strategies";
import { stepOf } from "./target";
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
  private finished = false;
  private measure: Measure;
  /** Whether the screen will be drawn with the next frame: many candidates may come at once. */
  private pending = false;

  constructor(
    readonly model: ModelInfo,
    readonly settings: Settled,
    readonly windows: WindowsInfo,
    { dense, steps, candidates }: SearchState,
  ) {
    this.steps = steps;
    this.candidates = candidates;
    if (dense) this.dense = dense.perplexity;
    this.measure = STRATEGIES[settings.strategy].measure;
    $("map-title").textContent = this.measure.title;
    $("ranking-value").textContent = this.measure.column;
    $("legend-bounded").hidden = this.measure.base !== "step before";
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
        $("announce").textContent = `Step ${this.stepOf(event.step)}: ${event.removed} removed, perplexity ${format.perplexity(event.perplexity)}.`;
        break;
      case "beyond":
        $("announce").textContent = `Step ${event.step} would remove ${event.removed} and bring perplexity to ${format.perplexity(event.perplexity)}, beyond the goal: it stays.`;
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
  end(finished: boolean): void {
    [this.over, this.finished] = [true, finished];
    // The result says it again.
    $("notes").hidden = true;
    this.draw();
    this.drawPlot();
    say(finished ? "Finished" : "Stopped; the search is saved", finished ? 1 : this.done());
    $("f-left").textContent = "–";
  }

  /** What was removed, for the result. */
  found(): { dense: number; steps: Step[] } {
    return { dense: this.dense, steps: this.steps };
  }

  private done(): number {
    return this.cost?.done ?? 0;
  }

  private stepOf(step: number): string {
    return stepOf(step, this.settings.target, this.cost?.steps);
  }

  private draw(): void {
    const { steps, settings, dense } = this;
    const now = steps.at(-1)?.perplexity ?? dense;
    const { target, strategy, units } = settings;
    const step = "remove" in target ? Math.min(steps.length + 1, target.remove) : steps.length + 1;
    $("f-step").textContent = this.finished ? `${steps.length} of ${steps.length}` : this.stepOf(step);
    $("f-perplexity").textContent = Number.isNaN(now) ? "–" : steps.length > 0 ? `${format.perplexity(now)} (whole model ${format.perplexity(dense)})` : format.perplexity(now);
    if (this.over || this.paused) return;
    const { tokensPerSecond, secondsLeft } = this.cost ?? {};
    if (tokensPerSecond) $("f-speed").textContent = format.grouped(tokensPerSecond);
    // Where perplexity decides, nobody knows more than the step under way.
    const within = this.cost?.steps === null ? " of this step" : "";
    $("f-left").textContent = secondsLeft ? `${format.duration(secondsLeft)}${within}` : "–";
    if (Number.isNaN(dense)) say("Scoring the whole model");
    else say(`Step ${step}: ${doing(strategy, step, UNIT[units])}`, this.done());
  }

  private drawMap(): void {
    const underWay = this.candidates.length > 0;
    const current = underWay ? this.candidates : (this.steps.at(-1)?.candidates ?? []);
    const { measure } = this;
    const before = (underWay ? this.steps.at(-1) : this.steps.at(-2))?.perplexity ?? this.dense;
    const base = measure.base && (measure.base === "step before" ? before : this.dense);
    if (!Number.isNaN(this.dense)) this.map.show(this.steps.map((step) => step.removed), current, measure, base, underWay);
    const step = underWay ? this.steps.length + 1 : this.steps.length;
    $("ranking-title").textContent = step > 0 ? `Ranking of step ${step}` : "Ranking of this step";
    const rank = (candidate: Candidate) => measured(candidate) ?? Number.POSITIVE_INFINITY;
    const listed = [...current].sort((a, b) => rank(a) - rank(b)).slice(0, 8);
    const behind = (value: number) => measure.place(value) - (base === undefined ? 0 : measure.place(base));
    const most = Math.max(1e-9, ...listed.map(measured).filter((value) => value !== null).map(behind));
    $("ranking").querySelector("tbody")!.replaceChildren(
      ...listed.map((candidate) => {
        const row = document.createElement("tr");
        const value = measured(candidate);
        const meter = element("span", "", "meter");
        meter.style.width = `${value === null ? 0 : Math.max(2, Math.min(100, (behind(value) / most) * 100))}%`;
        const bound = candidate.state === "complete" ? "" : "≥ ";
        const worth = value === null ? candidate.state : `${bound}${measure.value(value)}`;
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
    const { target, units } = this.settings;
    // Where the end is not known, there is room for the step under way at least.
    const foreseen = this.finished ? this.steps.length : "remove" in target ? target.remove : Math.max(this.cost?.steps ?? 0, this.steps.length + 1);
    this.plot.show([this.dense, ...this.steps.map((step) => step.perplexity)], Math.max(1, foreseen), units);
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
