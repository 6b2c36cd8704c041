// What the page and its worker say to each other.

import type { BlockTypes, DeviceInfo, ErrorCode, ExportOptions, ModelInfo, SearchEvent, SearchState, WindowsInfo } from "../pkg/blockpruner_web.js";

export type ModelSource =
  | { kind: "tiny" }
  | { kind: "files"; name: string; files: Record<string, File> }
  | { kind: "hub"; repository: string };

export type TextSource =
  | { kind: "sample" }
  | { kind: "text"; name: string; text: string; field?: string };

/** What a run does. Without `windows`, a measured pass decides how much text and how many blocks a minute allows. */
export interface Settings {
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
  | { type: "start"; job: Job }
  | { type: "resume"; source: ModelSource }
  | { type: "discard" }
  | { type: "perplexity"; job: Job }
  | { type: "pause" }
  | { type: "continue" }
  | { type: "stop" }
  | { type: "generate"; prompt: string; maxTokens: number }
  | { type: "export"; format: NonNullable<ExportOptions["format"]>; folder?: FileSystemDirectoryHandle };

export type Reply =
  | { type: "saved"; job: SavedJob | null }
  | { type: "status"; text: string; share?: number }
  | { type: "model"; info: ModelInfo }
  | { type: "device"; info: DeviceInfo }
  | { type: "begin"; settings: Required<Settings>; windows: WindowsInfo; state: SearchState; resumed: boolean }
  | { type: "event"; event: SearchEvent }
  | { type: "paused" }
  | { type: "stopped" }
  | { type: "finished"; plan: string; order: string; seconds: number }
  | { type: "score"; perplexity: number; windows: WindowsInfo; seconds: number }
  | { type: "text"; which: "dense" | "pruned"; part: string }
  | { type: "generated" }
  | { type: "exported"; name: string; blob?: Blob; bytes: number }
  | { type: "unsaved"; reason: string }
  | { type: "error"; code: ErrorCode | "busy" | "internal"; message: string; resumable: boolean; bytes?: number; limit?: number };
