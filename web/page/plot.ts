// Perplexity against what was removed.

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { perplexity } from "./format";

export class PerplexityPlot {
  private plot?: uPlot;
  private values: (number | null)[] = [];
  private goal = 1;
  private what = "";

  constructor(private element: HTMLElement) {
    new ResizeObserver(() => this.plot?.setSize({ width: this.element.clientWidth, height: 220 })).observe(element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Perplexity after 0, 1, .. of `goal` steps, each of which removes one of `what`. */
  show(values: number[], goal: number, what: string): void {
    this.values = values;
    this.goal = goal;
    this.what = what;
    this.draw();
  }

  private draw(): void {
    this.plot?.destroy();
    if (this.element.clientWidth === 0) return;
    const colour = (name: string) => {
      // The variables hold light-dark(), which only a used value resolves.
      const probe = document.createElement("i");
      probe.style.color = `var(${name})`;
      this.element.append(probe);
      const { color } = getComputedStyle(probe);
      probe.remove();
      return color;
    };
    const [ink, line, accent, surface] = ["--soft", "--line", "--accent", "--surface"].map(colour) as [string, string, string, string];
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" };
    const x = Array.from({ length: this.goal + 1 }, (_, index) => index);
    const y = x.map((index) => this.values[index] ?? null);
    const known = this.values as number[];
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const room = Math.max((high - low) * 0.12, high * 0.005);
    this.plot = new uPlot(
      {
        width: this.element.clientWidth,
        height: 220,
        legend: { show: false },
        cursor: { y: false, points: { size: 9 } },
        scales: { x: { time: false, range: [0, this.goal] }, y: { range: [low - room, high + room] } },
        axes: [
          { ...axis, incrs: [1, 2, 5, 10, 20, 50], label: `${this.what} removed`, labelSize: 20, labelFont: "12px system-ui, sans-serif" },
          { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => perplexity(tick)) },
        ],
        series: [{}, { stroke: accent, width: 2, points: { show: true, size: 7, fill: surface, stroke: accent, width: 2 } }],
      },
      [x, y],
      this.element,
    );
    this.element.setAttribute("aria-label", `Perplexity after 0 to ${known.length - 1} ${this.what} removed: ${known.map(perplexity).join(", ")}`);
  }
}
