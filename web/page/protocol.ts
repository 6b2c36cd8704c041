// What the page and its worker say to each other.

import type { BlockTypes, Cost, DeviceInfo, ErrorCode, ExportOptions, ModelInfo, SearchEvent, SearchState, Step, Strategy, Target, Unit, Units, WindowsInfo } from "../pkg/blockpruner_web.js";

export type ModelSource =
  | { kind: "tiny" }
  | { kind: "files"; name: string; files: Record<string, File> }
  | { kind: "hub"; repository: string };

export type TextSource =
  | { kind: "sample" }
  | { kind: "text"; name: string; bytes: Uint8Array; field?: string };

/** What a run does. Without `target`, one unit in six goes; without `windows`, by as much text as a minute allows. */
export interface Settings {
  units: Units;
  blockTypes: BlockTypes;
  strategy: Strategy;
  /** What the strategy `random` draws from. */
  strategySeed?: number;
  target?: Target;
  window: number;
  windows?: number;
}

/** With nothing left open. */
export interface Settled extends Settings {
  target: Target;
  windows: number;
  /** How the model will be written, where its size is the target. */
  format?: ExportOptions["format"];
}

export interface Job {
  source: ModelSource;
  text: TextSource;
  settings: Settings;
}

/** A search that was not finished, as the browser keeps it. Files cannot be kept, only their folder's name. */
export interface SavedJob {
  model: Exclude<ModelSource, { kind: "files" }> | { kind: "files"; name: string };
  text: TextSource;
  settings: Settled;
  stepsDone: number;
  at: number;
  search: string;
}

export type Request =
  | { type: "hello"; hub: string }
  /** Where an unfinished search is saved, only `replace` starts another one. */
  | { type: "start"; job: Job; replace: boolean }
  /** Goes on with the saved search, to its target or to another. */
  | { type: "resume"; source: ModelSource; target: Target }
  /** Goes on likewise with the last search, finished or not. */
  | { type: "extend"; target: Target }
  | { type: "discard" }
  | { type: "perplexity"; job: Job }
  /** The answer to `estimate`. */
  | { type: "answer"; go: boolean }
  | { type: "pause" }
  | { type: "continue" }
  | { type: "stop" }
  /** Compares the model after a step with the whole one, until something else is asked for. */
  | { type: "compare"; step: number; prompt: string; maxTokens: number }
  /** The plan as a page for people. */
  | { type: "report"; planJson: string }
  | { type: "export"; step: number; format: ExportOptions["format"]; dtype: ExportOptions["dtype"]; folder?: FileSystemDirectoryHandle };

/** A search that has ended or was stopped, with at least one step. */
export interface Found {
  finished: boolean;
  planJson: string;
  orderJson: string;
  order: Unit[];
  /** What would have gone next, beyond the perplexity that the target allows. */
  beyond?: Pick<Step, "removed" | "perplexity">;
  seconds: number;
}

export type Reply =
  | { type: "saved"; job: SavedJob | null }
  | { type: "status"; text: string; share?: number }
  | { type: "model"; info: ModelInfo }
  | { type: "device"; info: DeviceInfo }
  /** An unfinished search would be replaced. */
  | { type: "unfinished"; job: SavedJob }
  /** The run that was asked for takes longer than the page promises. */
  | { type: "estimate"; seconds: number; settings: Settled; /** Units, where perplexity decides how many. */ assumed?: number }
  | { type: "begin"; settings: Settled; windows: WindowsInfo; state: SearchState }
  | { type: "event"; event: SearchEvent; cost: Cost | undefined }
  | { type: "paused" }
  /** It ended before there was a step to show. */
  | { type: "cancelled" }
  | { type: "found"; found: Found }
  | { type: "score"; perplexity: number; windows: WindowsInfo; seconds: number }
  /** On text that the search has not seen; null where there is none. */
  | { type: "heldOut"; step: number; scores: { tokens: number; before: number; after: number } | null }
  | { type: "continuing"; prompt: string }
  | { type: "text"; which: "dense" | "pruned"; part: string }
  | { type: "compared" }
  | { type: "report"; html: string }
  | { type: "exported"; name: string; blob?: Blob; bytes: number }
  | { type: "unsaved"; reason: string }
  | { type: "error"; code: ErrorCode | "busy" | "internal"; message: string; resumable: boolean; bytes?: number; limit?: number };
