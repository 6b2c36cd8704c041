// The map of layers: one column a layer, attention above feed-forward, coloured by what is measured of a block.

import type { BlockId, Candidate, ModelInfo, Unit } from "../pkg/blockpruner_web.js";
import { type Measure, measured } from "./strategies";
import { blocksOf } from "./units";

/** Of so many scores the scale takes in all, unless the rest lies more than as far beyond them again. */
const WITHIN = 0.9;

/** Where the scale of colours ends, so that a few blocks without which nothing works do not make all others look alike. */
function scaleEnd(scores: number[], low: number): number {
  const sorted = [...scores].sort((a, b) => a - b);
  const most = sorted.at(-1) ?? low;
  const usual = sorted[Math.ceil(sorted.length * WITHIN) - 1] ?? low;
  return most - low > 2 * (usual - low) ? usual : most;
}

export class LayerMap {
  private cells = new Map<BlockId, HTMLElement>();

  constructor(private list: HTMLElement, private legend: { low: HTMLElement; high: HTMLElement; beyond: HTMLElement }) {
    new ResizeObserver(() => this.markRows()).observe(list);
  }

  /** Draws a model's layers, nothing known yet. */
  reset(model: ModelInfo): void {
    this.cells.clear();
    this.list.style.setProperty("--layers", String(model.layers));
    const there = new Set(model.blocks.map(({ block }) => block));
    this.list.replaceChildren(
      ...Array.from({ length: model.layers }, (_, layer) => {
        const item = document.createElement("li");
        for (const block of [`mha:${layer}`, `mlp:${layer}`] as const) {
          const cell = document.createElement("span");
          cell.className = there.has(block) ? "cell" : "cell absent";
          cell.setAttribute("role", "img");
          this.cells.set(block, cell);
          this.label(block, there.has(block) ? "not scored yet" : "absent");
          item.append(cell);
        }
        item.append(String(layer));
        return item;
      }),
    );
    this.markRows();
  }

  /**
   * Shows what is known: removed blocks with their step, and what was measured in one step, with the perplexity that it is compared
   * with, if it is. While the step is under way, the block that would go is marked.
   */
  show(removed: Unit[], candidates: Candidate[], measure: Measure, base: number | undefined, underWay: boolean): void {
    const gone = removed.flatMap((unit, index) => blocksOf(unit).map((block) => ({ block, step: index + 1 })));
    for (const { block, step } of gone) {
      const cell = this.cells.get(block);
      if (cell) cell.className = "cell gone";
      this.label(block, `removed in step ${step}`);
    }
    const isGone = new Set(gone.map(({ block }) => block));
    const place = (candidate: Candidate) => {
      const value = measured(candidate);
      return value === null ? null : measure.place(value);
    };
    const known = candidates.map(place).filter((value) => value !== null);
    const compared = base === undefined ? [] : [measure.place(base)];
    const low = Math.min(...known, ...compared);
    const high = Math.max(scaleEnd(known, low), ...compared.map((value) => value + 0.05));
    let best: Candidate | undefined;
    // Of two pairs that a block belongs to, it shows the better one.
    const ranked = [...candidates].sort((a, b) => (place(b) ?? Number.POSITIVE_INFINITY) - (place(a) ?? Number.POSITIVE_INFINITY));
    for (const candidate of ranked) {
      const share = ((place(candidate) ?? low) - low) / (high - low || 1);
      if (candidate.state === "complete" && (!best || candidate.value! < best.value!)) best = candidate;
      for (const block of blocksOf(candidate.block)) {
        const cell = this.cells.get(block);
        if (!cell || isGone.has(block)) continue;
        const it = candidate.block === block ? "it" : candidate.block;
        cell.style.setProperty("--t", String(Math.min(share, 1)));
        if (candidate.state === "complete") {
          cell.className = "cell scored";
          this.label(block, measure.says(measure.value(candidate.value!), it));
        } else if (candidate.atLeast !== null) {
          cell.className = "cell bounded";
          this.label(block, measure.says(`of at least ${measure.value(candidate.atLeast)}`, it));
        } else {
          cell.className = "cell";
          this.label(block, candidate.reason ?? "rejected");
        }
        cell.classList.toggle("beyond", share > 1);
      }
    }
    if (best && underWay) for (const block of blocksOf(best.block)) this.cells.get(block)?.classList.add("best");
    if (known.length > 0) {
      this.legend.low.textContent = measure.value(measure.at(low));
      this.legend.high.textContent = measure.value(measure.at(high));
      this.legend.beyond.hidden = !known.some((value) => value > high);
    }
  }

  /** The next step begins: scores of the step before do not count any more. */
  clearScores(): void {
    for (const cell of this.cells.values()) {
      if (cell.classList.contains("gone") || cell.classList.contains("absent")) continue;
      cell.classList.remove("best");
      cell.title = cell.title.replace(/^([^:]+:\d+), /, "$1, in the step before: ");
    }
  }

  private label(block: BlockId, text: string): void {
    const cell = this.cells.get(block);
    if (!cell) return;
    cell.title = `${block}, ${text}`;
    cell.setAttribute("aria-label", cell.title);
  }

  /** The first layer of every line carries the names of its two rows. */
  private markRows(): void {
    let top = Number.NaN;
    for (const item of this.list.children as HTMLCollectionOf<HTMLElement>) {
      item.classList.toggle("first", item.offsetTop !== top);
      top = item.offsetTop;
    }
  }
}
