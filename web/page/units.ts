// What a step removes.

import type { BlockId, Unit, Units } from "../pkg/blockpruner_web.js";
import * as format from "./format";

/** The blocks that go together. */
export const blocksOf = (unit: Unit) => unit.split(",") as BlockId[];

/** What one of them is called. */
export const UNIT: Record<Units, string> = { blocks: "block", pairs: "pair of blocks", layers: "layer" };

/** So many of them. */
export const counted = (number: number, units: Units): string => `${format.grouped(number)} ${number === 1 ? UNIT[units] : units}`;
