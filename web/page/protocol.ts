// What the page and its worker say to each other.

import type { BlockTypes, Cost, DeviceInfo, ErrorCode, ExportOptions, ModelInfo, SearchEvent, SearchState, Unit, Units, WindowsInfo } from "../pkg/blockpruner_web.js";

export type ModelSource =
  | { kind: "tiny" }
  | { kind: "files"; name: string; files: Record<string, File> }
  | { kind: "hub"; repository: string };

export type TextSource =
  | { kind: "sample" }
  | { kind: "text"; name: string; bytes: Uint8Array; field?: string };

/** What a run does. Without `remove`, one unit in six; without `windows`, as much text as a minute allows. */
export interface Settings {
  /** Not there in searches that were saved before there was a choice: blocks. */
  units?: Units;
  blockTypes: BlockTypes;
  remove?: number;
  window: number;
  windows?: number;
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
  /** With nothing left open. */
  settings: Required<Settings>;
  stepsDone: number;
  at: number;
  search: string;
}

export type Request =
  | { type: "hello"; hub: string }
  /** Where an unfinished search is saved, only `replace` starts another one. */
  | { type: "start"; job: Job; replace: boolean }
  /** Goes on with the saved search, until `remove` blocks are removed. */
  | { type: "resume"; source: ModelSource; remove: number }
  /** Goes on likewise with the last search, finished or not. */
  | { type: "extend"; remove: number }
  | { type: "discard" }
  | { type: "perplexity"; job: Job }
  /** The answer to `estimate`. */
  | { type: "answer"; go: boolean }
  | { type: "pause" }
  | { type: "continue" }
  | { type: "stop" }
  /** Compares the model after a step with the whole one, until something else is asked for. */
  | { type: "compare"; step: number; prompt: string; maxTokens: number }
  | { type: "export"; step: number; format: ExportOptions["format"]; dtype: ExportOptions["dtype"]; folder?: FileSystemDirectoryHandle };

/** A search that has ended or was stopped, with at least one step. */
export interface Found {
  finished: boolean;
  planJson: string;
  orderJson: string;
  reportHtml: string;
  order: Unit[];
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
  | { type: "estimate"; seconds: number; settings: Required<Settings> }
  | { type: "begin"; settings: Required<Settings>; windows: WindowsInfo; state: SearchState }
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
  | { type: "exported"; name: string; blob?: Blob; bytes: number }
  | { type: "unsaved"; reason: string }
  | { type: "error"; code: ErrorCode | "busy" | "internal"; message: string; resumable: boolean; bytes?: number; limit?: number };
