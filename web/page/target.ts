// How much a search removes, in words.

import type { Target, Units } from "../pkg/blockpruner_web.js";
import * as format from "./format";
import { counted } from "./units";

/** What is searched for. */
export function goal(target: Target, units: Units): string {
  if ("remove" in target) return `${counted(target.remove, units)} removed`;
  if ("ratio" in target) return `${format.percent(target.ratio)} fewer parameters`;
  if ("fit" in target) return `weights of at most ${format.bytes(target.fit)}`;
  if ("maxIncrease" in target) return `a perplexity that is at most ${format.percent(target.maxIncrease)} higher`;
  return `a perplexity of at most ${target.maxPerplexity}`;
}

/** A step among all, as far as anybody knows how many there will be: `steps` is a guess, null where perplexity decides. */
export function stepOf(step: number, target: Target, steps: number | null | undefined): string {
  if ("remove" in target) return `${step} of ${target.remove}`;
  if (steps === undefined) return String(step);
  return steps === null ? `${step} of an unknown number` : `${step} of about ${steps}`;
}
