// How much a run does where the visitor left it open, and which part of the text it keeps to be judged by.

import { CalibrationText } from "../pkg/blockpruner_web.js";
import type { Checkpoint, SearchOptions, Target, Windows } from "../pkg/blockpruner_web.js";
import type { Loaded } from "./model";
import { reply } from "./post";
import type { Job, Settled, TextSource } from "./protocol";
import { isQuantised } from "./written";

/** A run whose text was left open is sized to take about this long, in seconds, .. */
const BUDGET = 35;
/** .. never longer than this without a question, .. */
const PROMISE = 60;
/** .. and takes this many windows at most. */
const MOST_WINDOWS = 64;
/** One unit in so many is removed where the number was left open. */
const ONE_IN = 6;
/** Windows that are kept for judging, at most. */
const MOST_HELD_OUT = 8;

function textOf(source: TextSource): CalibrationText {
  if (source.kind === "sample") return CalibrationText.sample();
  return CalibrationText.fromBytes(source.name, source.bytes, source.field ? { field: source.field } : undefined);
}

/** The first windows of a text, as many as there are up to `windows`. */
export function cut(source: TextSource, checkpoint: Checkpoint, window: number, windows: number): Windows {
  const text = textOf(source);
  try {
    return checkpoint.windows(text, { window, maxWindows: windows });
  } finally {
    text.free();
  }
}

const heldOutFor = (windows: number) => Math.min(windows, MOST_HELD_OUT);

/** The windows behind those that a search scores, which it has not seen; null where the text ends there. */
export function heldOut(source: TextSource, checkpoint: Checkpoint, { window, windows }: Settled): Windows | null {
  const all = cut(source, checkpoint, window, windows + heldOutFor(windows));
  try {
    return all.info().windows > windows ? all.after(windows) : null;
  } finally {
    all.free();
  }
}

/** What the library is asked to search for. */
export function searchOptions({ target, units, blockTypes, strategy, strategySeed, format }: Settled): SearchOptions {
  return { ...target, units, blockTypes, strategy, strategySeed, format };
}

/**
 * Fills in what a job leaves open: the number of blocks by the model, the amount of text by the time that one window takes.
 * Asks, where even one window would take longer than the page promises; null if the visitor does not want that.
 */
export async function settle(job: Job, { checkpoint, session }: Loaded, signal: AbortSignal, agreed: () => Promise<boolean>): Promise<Settled | null> {
  const { units, blockTypes, window, windows } = job.settings;
  const info = checkpoint.info();
  const blocks = info.blocks.filter(({ block }) => blockTypes === "mix" || block.startsWith(blockTypes)).length;
  const all = units === "blocks" ? blocks : blocks / 2;
  const usual = { remove: Math.max(1, Math.floor(all / ONE_IN)) };
  const target = job.settings.target ?? usual;
  // As plain numbers, what was quantised would take more than before.
  const format: Settled["format"] = "fit" in target && isQuantised(info) ? "gguf" : undefined;
  if (windows !== undefined) return { ...job.settings, target, format, windows };

  reply({ type: "status", text: "Measuring how fast this device is" });
  const one = cut(job.text, checkpoint, window, 1);
  const pass = async () => {
    const start = performance.now();
    await session.perplexity(one, { signal });
    return (performance.now() - start) / 1000;
  };
  let seconds = await pass();
  // The first one still finds something cold; where that matters, there is time for another.
  if (seconds < 2) seconds = await pass();
  const cost = (target: Target) => session.cost(one, searchOptions({ ...job.settings, target, format, windows: 1 }));
  const foreseen = await cost(target);
  // Where perplexity decides how many go, nobody knows: the time is that of the usual number.
  const assumed = foreseen.steps === null ? usual.remove : undefined;
  const { wholePasses } = assumed === undefined ? foreseen : await cost(usual);
  const perWindow = seconds * wholePasses;
  one.free();
  const fit = Math.max(1, Math.min(Math.floor(BUDGET / perWindow), MOST_WINDOWS));
  const text = cut(job.text, checkpoint, window, fit + heldOutFor(fit));
  const there = text.info().windows;
  text.free();
  // Of a short text a fifth is kept for judging.
  const some = Math.max(1, Math.min(fit, there - Math.max(1, Math.floor(there / 5))));
  const settings = { ...job.settings, target, format, windows: some };
  if (perWindow * some <= PROMISE) return settings;
  reply({ type: "estimate", seconds: perWindow * some, settings, assumed });
  return (await agreed()) ? settings : null;
}
