// The strategies, and what they measure of candidates.

import type { Candidate, Strategy } from "../pkg/blockpruner_web.js";
import * as format from "./format";

/** What is measured of a candidate: the lowest goes. */
export interface Measure {
  /** Of all blocks. */
  title: string;
  /** Of one. */
  column: string;
  /** A value, as it stands in tables. */
  value(value: number): string;
  /** The same of a block, or of the pair that it belongs to. */
  says(value: string, what: string): string;
  /** Where a value lies on the scale of colours. */
  place(value: number): number;
  /** What lies there. */
  at(place: number): number;
  /** What perplexities are compared with; other values have nothing. */
  base?: "step before" | "whole model";
}

// Perplexities span orders of magnitude, so colour follows the logarithm.
const logarithmic = { value: format.perplexity, place: Math.log, at: Math.exp };
const linear = { value: (value: number) => value.toPrecision(4), place: (value: number) => value, at: (place: number) => place };

const PERPLEXITY: Measure = {
  ...logarithmic,
  title: "Perplexity without each block",
  column: "Perplexity without it",
  says: (value, what) => `perplexity ${value} without ${what}`,
  base: "step before",
};
const ALONE: Measure = {
  ...logarithmic,
  title: "Perplexity without each block alone",
  column: "Perplexity without it alone",
  says: (value, what) => `perplexity ${value} without ${what} alone`,
  base: "whole model",
};
const COSINE: Measure = {
  ...linear,
  title: "Cosine distance of the hidden states before and behind each block",
  column: "Cosine distance",
  says: (value, what) => `cosine distance ${value} across ${what}`,
};
const MAGNITUDE: Measure = {
  ...linear,
  title: "What each block adds to the hidden states, relative to them",
  column: "Relative magnitude",
  says: (value, what) => `relative magnitude ${value} of ${what}`,
};
const DRAWN: Measure = {
  ...linear,
  title: "Number drawn for each block",
  column: "Number drawn",
  says: (value, what) => `${value} drawn for ${what}`,
};

/** Each with half a line on what it is, and whether it measures candidates in the first step only, or never. */
export const STRATEGIES: Record<Strategy, { about: string; measure: Measure; measures: "always" | "once" | "never" }> = {
  exact: { about: "the published search, without the work that cannot matter", measure: PERPLEXITY, measures: "always" },
  exhaustive: { about: "the published search to the letter: the same result, slower", measure: PERPLEXITY, measures: "always" },
  racing: { about: "drops candidates that fall behind early: faster, approximate", measure: PERPLEXITY, measures: "always" },
  "one-shot": { about: "perplexity without each alone, measured once", measure: ALONE, measures: "once" },
  "short-gpt": { about: "layers that turn the hidden states least (ShortGPT), measured once", measure: COSINE, measures: "once" },
  cosine: { about: "what turns the hidden states least (LLM-Drop), measured once", measure: COSINE, measures: "once" },
  "relative-magnitude": { about: "what adds least to the hidden states, measured once", measure: MAGNITUDE, measures: "once" },
  random: { about: "chance, which the others have to beat", measure: DRAWN, measures: "never" },
};

/** What is done in a step. */
export function doing(strategy: Strategy, step: number, unit: string): string {
  const { measure, measures } = STRATEGIES[strategy];
  if (measures === "never" || (measures === "once" && step > 1)) return "scoring what is left";
  return measure.base ? `scoring the model without each ${unit}` : `measuring each ${unit}`;
}

/** How something was chosen that was chosen "by" so many tokens; the published search needs no name. */
export const chosenBy = (strategy: Strategy): string => (strategy === "exact" ? "by" : `by the strategy ${strategy} on`);

/** A candidate's value, or a bound below it; null where it is not known, or the candidate cannot go. */
export const measured = ({ state, value, atLeast }: Candidate): number | null => (state === "complete" ? value : atLeast);
