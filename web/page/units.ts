// What a step removes.

import type { BlockId, Unit, Units } from "../pkg/blockpruner_web.js";

/** The blocks that go together. */
export const blocksOf = (unit: Unit) => unit.split(",") as BlockId[];

/** What one of them is called. */
export const UNIT: Record<Units, string> = { blocks: "block", pairs: "pair of blocks", layers: "layer" };
