/** What an error is about; errors that this module throws are `Error`s with this `code`. */
export type ErrorCode =
  | "no-device"
  | "device-lost"
  | "out-of-memory"
  | "too-large"
  | "device"
  | "input"
  | "network"
  | "cannot-resume"
  /** A loss or a logit is not finite. */
  | "not-finite"
  /** The same of every candidate of a step. */
  | "no-candidate"
  | "write";

export interface BlockPrunerError extends Error {
  name: "BlockPrunerError";
  code: ErrorCode;
  /** For `too-large`: what does not fit, and the bytes that it needs and that the device allows in one piece. */
  what?: string;
  bytes?: number;
  limit?: number;
}

/** `mha:25` is the attention block of layer 25, `mlp:7` the feed-forward block of layer 7. Layers count from 0. */
export type BlockId = `mha:${number}` | `mlp:${number}`;
export type Strategy = "exact" | "exhaustive" | "racing";
export type BlockTypes = "mix" | "mha" | "mlp";

export interface ModelInfo {
  name: string;
  family: string;
  layers: number;
  hidden_size: number;
  intermediate_size: number;
  heads: number;
  kv_heads: number;
  head_dim: number;
  vocab_size: number;
  max_positions: number;
  /** Whether the head is the embedding. */
  tied_embeddings: boolean;
  parameters: number;
  /** Tensors by the type that they are stored in. */
  dtypes: Record<string, number>;
  /** In the published order; `absent` ones are not among them. */
  blocks: { block: BlockId; parameters: number }[];
  /** Blocks that an earlier pruning took out. */
  absent: BlockId[];
  /** Why text cannot be tokenised, or null. */
  tokenizer_problem: string | null;
}

export interface TextOptions {
  /** Field of a JSON or JSON Lines file's rows that holds the text; `text` by default. */
  field?: string;
  /** Take the first rows only. */
  samples?: number;
  /** Draw the rows with this seed instead of taking the first. */
  seed?: number;
}

export interface WindowOptions {
  /** Tokens a window, at least 2; by default 2048, or the model's maximum if smaller. */
  window?: number;
  /** Score the first windows only. */
  max_windows?: number;
}

export interface WindowsInfo {
  source: string;
  rows: number;
  /** Tokens of the whole text. */
  tokens: number;
  windows: number;
  window: number;
}

export interface DeviceOptions {
  tier?: "baseline" | "subgroups";
  kernel?: "tile" | "panel" | "panel-subgroup";
  /** Store weights in shards of at most this many bytes. */
  max_binding_bytes?: number;
  /** What to call a device whose name the browser hides. */
  name?: string;
}

export interface DeviceInfo {
  name: string;
  backend: string;
  driver: string;
  tier: string;
  kernel: string;
  max_binding_bytes: number;
}

export interface Score {
  perplexity: number;
  /** Nats a token. */
  mean_nll: number;
  /** Mean of each window. */
  windows: number[];
}

export interface PruneOptions {
  /** Blocks to remove. */
  remove: number;
  block_types?: BlockTypes;
  /** `exact` by default; `exhaustive` runs the published loop literally, `racing` is approximate. */
  strategy?: Strategy;
}

export interface Candidate {
  block: BlockId;
  /** Perplexity without it, if every token was scored. */
  perplexity: number | null;
  /** A lower bound of that, if it was dropped early. */
  at_least: number | null;
  state: "complete" | "bounded" | "raced" | "rejected";
  /** Target tokens that the head was computed for, a part of the vocabulary by its share. */
  head_tokens: number;
  reason?: string;
}

export interface Step {
  /** From 1. */
  step: number;
  removed: BlockId;
  /** Without all blocks removed so far. */
  perplexity: number;
  candidates: Candidate[];
  work: { block_tokens: number; head_tokens: number };
  params_left: number;
  /** Share of all parameters, 0 to 1. */
  ratio_removed: number;
  seconds: number;
}

export type SearchEvent =
  | { type: "dense"; perplexity: number; mean_nll: number }
  | { type: "candidate"; step: number; candidate: Candidate; done: number; total: number }
  /** Share of a step that is done, 0 to 1; step 0 is the dense pass. Nothing new to save comes with it. */
  | { type: "progress"; step: number; done: number }
  | ({ type: "step" } & Step);

/** A running search: `for await (const event of await model.prune(windows, { remove: 4 }))`. Leaving the loop stops it. */
export interface Search extends AsyncIterableIterator<SearchEvent, void> {}

/** What has been found so far. */
export interface SearchState {
  dense: { perplexity: number; mean_nll: number } | null;
  steps: Step[];
  /** Of the step under way. */
  candidates: Candidate[];
}

/** `plan.json`. */
export interface Plan {
  format: "blockpruner-plan/1";
  model: { name: string; family: string; layers: number; parameters: number; absent: BlockId[] };
  calibration: { source: string; rows: number; tokens: number; windows: number; window: number };
  settings: { block_types: BlockTypes; remove: number; strategy: Strategy };
  device: { name: string; backend: string; driver: string; tier: string; kernel: string };
  dense: { perplexity: number; mean_nll: number };
  steps: Step[];
}

/** Where an export's files go. Calls come one at a time: beginFile, any number of write, endFile, for each file. */
export interface FolderSink {
  beginFile(name: string): Promise<void>;
  write(bytes: Uint8Array): Promise<void>;
  endFile(): Promise<void>;
}

export interface ExportOptions {
  /** Blocks to take out. */
  removed: BlockId[];
  /** `hf`: really gone; `hf-zeroed`: loads anywhere, saves nothing. */
  format?: "hf" | "hf-zeroed";
  /** Convert all tensors; by default they keep their type, and quantised ones become f32. */
  dtype?: "bf16" | "f16" | "f32";
}

export interface ExportSummary {
  files: string[];
  tensors: number;
  bytes: number;
}

export interface GenerateOptions {
  /** New tokens at most, 128 by default. */
  max_tokens?: number;
  /** Blocks to leave out. */
  without?: BlockId[];
}

export interface Continuation {
  text: string;
  tokens: number[];
  finish_reason: "end_of_sequence" | "max_tokens" | "positions";
}

/** Called with what is done and what there is. */
export type Progress = (done: number, total: number) => void;
