// What a visitor should know about numbers before trusting them.

import type { ModelInfo, WindowsInfo } from "../pkg/blockpruner_web.js";
import { element } from "./elements";
import * as format from "./format";

/** On fewer predicted tokens than this, which block is missed least is chance to a large part. */
const ENOUGH = 2000;

export function notesOn(model: ModelInfo, windows: WindowsInfo): string[] {
  const notes = [...model.notes];
  if (windows.window > model.maxPositions) {
    notes.push(`A window of ${format.grouped(windows.window)} tokens is more than the ${format.grouped(model.maxPositions)} that the model was made for.`);
  }
  const predicted = format.predicted(windows);
  if (predicted < ENOUGH) {
    notes.push(`This rests on ${format.grouped(predicted)} predicted tokens: enough to look at, too few to rely on. Choose more windows, for ${format.grouped(ENOUGH)} or more.`);
  }
  return notes;
}

export function showNotes(list: HTMLElement, notes: string[]): void {
  list.replaceChildren(...notes.map((note) => element("li", note)));
  list.hidden = notes.length === 0;
}
