// Numbers and names for people.

import type { WindowsInfo } from "../pkg/blockpruner_web.js";

export const perplexity = (value: number): string => (value < 1e6 ? value.toPrecision(value < 1000 ? 5 : 6) : value.toExponential(3));

export const grouped = (value: number): string => Math.round(value).toLocaleString("en");

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(value, 1)) / 10));
  return `${power === 0 ? value : (value / 1024 ** power).toFixed(1)} ${units[power]}`;
}

export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.ceil(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;

export const count = (number: number, what: string): string => `${grouped(number)} ${what}${number === 1 ? "" : "s"}`;

/** What the library calls its own. */
const BUILT_IN: Record<string, string> = { "builtin:tiny": "the built-in model", "builtin:sample": "the built-in sample" };

export const name = (name: string): string => BUILT_IN[name] ?? name;

export const windows = (info: WindowsInfo): string => `${count(info.windows, "window")} of ${grouped(info.window)} tokens of ${name(info.source)}`;

/** A message of the library's as a sentence. */
export const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`;
