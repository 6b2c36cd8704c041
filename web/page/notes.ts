// What a visitor should know about numbers before trusting them.

import type { ModelInfo, WindowsInfo } from "../pkg/blockpruner_web.js";
import { element } from "./elements";
import * as format from "./format";

export function notesOn(model: ModelInfo, windows: WindowsInfo): string[] {
  return [...model.notes, ...windows.notes].map(format.sentence);
}

export function showNotes(list: HTMLElement, notes: string[]): void {
  list.replaceChildren(...notes.map((note) => element("li", note)));
  list.hidden = notes.length === 0;
}
