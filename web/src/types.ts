/// <reference lib="esnext.disposable" />
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
/** The published search in three ways, and what it is compared with. */
export type Strategy = "exact" | "exhaustive" | "racing" | "one-shot" | "short-gpt" | "cosine" | "relative-magnitude" | "random";
/** What a strategy measures of candidates. */
export type Objective = "perplexity" | "cosine-distance" | "relative-magnitude" | "random";
export type BlockTypes = "mix" | "mha" | "mlp";
/** What a step removes: a block, a pair of neighbours, or both blocks of a layer; pairs and layers leave an ordinary model. */
export type Units = "blocks" | "pairs" | "layers";
/** What a step has removed: `mha:25`, or `mha:4,mlp:3`. */
export type Unit = BlockId | `mha:${number},mlp:${number}`;

/** What a call is doing before its own work, or while it writes a model. */
export type Progress =
  /** The device is opened, and what the model needs is tested on it: seconds, on software drivers. */
  | { stage: "open" }
  /** Weights come to the device: parameters. */
  | { stage: "load"; done: number; total: number }
  /** Shaders are compiled. */
  | { stage: "compile" }
  /** Bytes are written. */
  | { stage: "write"; done: number; total: number };

/** What every call takes that may last. Options that a call does not know are refused. */
export interface CallOptions {
  onProgress?: (progress: Progress) => void;
  /** Ends the call early: its promise is rejected with the signal's reason. The session stays usable. */
  signal?: AbortSignal;
}

/** The keys and values of a text, as f16. */
export interface KvCache {
  bytesPerToken: number;
  /** The longest text that the model was made for, in tokens, and */
  context: number;
  /** the bytes for that; a sliding window takes no more than the window. */
  bytes: number;
}

export interface ModelInfo {
  name: string;
  family: string;
  layers: number;
  hiddenSize: number;
  intermediateSize: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  vocabSize: number;
  /** The longest text that it was made for, in tokens. */
  maxPositions: number;
  /** Whether the head is the embedding. */
  tiedEmbeddings: boolean;
  parameters: number;
  kvCache: KvCache;
  /** Bytes of all weights, as they are stored. */
  bytes: number;
  /** Tensors by the type that they are stored in. */
  dtypes: Record<string, number>;
  /** In the published order; `absent` ones are not among them. */
  blocks: { block: BlockId; parameters: number }[];
  /** Blocks that an earlier pruning took out. */
  absent: BlockId[];
  /** Why text cannot be tokenised, or null. */
  tokenizerProblem: string | null;
  /** What was found on opening that may matter, in sentences. */
  notes: string[];
}

export interface UrlOptions {
  signal?: AbortSignal;
  /**
   * The names of the folder's files, if known. Otherwise a Hugging Face hub is asked for them; of other servers each file
   * that a model may have is asked for, and the console tells of those that are not there.
   */
  files?: string[];
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
  maxWindows?: number;
}

export interface WindowsInfo {
  source: string;
  rows: number;
  /** Tokens of the whole text. */
  tokens: number;
  windows: number;
  window: number;
  /** Tokens that are predicted: all but the first of each window. */
  predicted: number;
  /** What one should know of them, in sentences: that they are few, or longer than the model was made for. */
  notes: string[];
}

export interface SessionOptions extends CallOptions {
  tier?: "baseline" | "subgroups";
  kernel?: "tile" | "panel" | "panel-subgroup";
  /** Store weights in shards of at most this many bytes. */
  maxBindingBytes?: number;
  /** What to call a device whose name the browser hides. */
  name?: string;
}

export interface DeviceInfo {
  name: string;
  backend: string;
  driver: string;
  tier: string;
  kernel: string;
  maxBindingBytes: number;
}

/** A device that the browser offers. */
export interface AdapterInfo extends DeviceInfo {
  index: number;
  /** `cpu` is a software driver. */
  kind: "discrete" | "integrated" | "virtual" | "cpu" | "other";
  /** Smallest and largest subgroup, in lanes; 0 without subgroups. */
  subgroupSizes: [number, number];
  /** null where nobody tells, as in browsers. */
  memoryBytes: number | null;
  maxBufferBytes: number;
  maxWorkgroupBytes: number;
  maxWorkgroupInvocations: number;
  /** Whether it computes in f16. */
  f16: boolean;
}

export interface ScoreOptions extends CallOptions {
  /** Blocks to leave out. */
  without?: Unit[];
}

export interface Score {
  perplexity: number;
  /** Nats a token. */
  meanNll: number;
  /** Mean of each window. */
  windows: number[];
}

/** How much a search removes: exactly one of these. */
export type Target =
  /** So many units. */
  | { remove: number }
  /** This share of all parameters, above 0 and up to 1: up to the first step that reaches it. */
  | { ratio: number }
  /** Until the written weights take at most so many bytes, in the format, type and quantisation of these options. */
  | { fit: number }
  /** For as long as the perplexity rises by at most this share of the whole model's: 0.2 is a fifth. */
  | { maxIncrease: number }
  /** For as long as the perplexity is at most this. */
  | { maxPerplexity: number };

export type SearchOptions = Target & {
  /** How the model will be written, as for an export: for `fit`, and the `bytes` of the plan. */
  format?: ExportOptions["format"];
  dtype?: ExportOptions["dtype"];
  quantize?: ExportOptions["quantize"];
  /** `blocks` by default, `layers` of the strategy `short-gpt`, which knows no others. */
  units?: Units;
  /** Which blocks may go, one by one. */
  blockTypes?: BlockTypes;
  /**
   * `exact` by default; `exhaustive` runs the published loop literally, `racing` is approximate. The others remove by what was measured
   * once of the whole model, or by chance.
   */
  strategy?: Strategy;
  /** What the strategy `random` draws from; 0 by default. */
  strategySeed?: number;
  /** Ends the search: what waits for its next event is rejected with the signal's reason. What was found stays. */
  signal?: AbortSignal;
};

export interface Candidate {
  block: Unit;
  /** What the objective measures of it, on every token. The lowest goes. */
  value: number | null;
  /** Perplexity without it, if that was measured on every token: of what goes, always. */
  perplexity: number | null;
  /** A lower bound of that, if it was dropped early. */
  atLeast: number | null;
  state: "complete" | "bounded" | "raced" | "rejected";
  /** Target tokens that the head was computed for, a part of the vocabulary by its share. */
  headTokens: number;
  reason?: string;
}

export interface Step {
  /** From 1. */
  step: number;
  removed: Unit;
  /** The value of what goes. */
  value: number;
  /** Without all blocks removed so far. */
  perplexity: number;
  candidates: Candidate[];
  work: { blockTokens: number; headTokens: number };
  paramsLeft: number;
  /** Share of all parameters, 0 to 1. */
  ratioRemoved: number;
  seconds: number;
}

export type SearchEvent =
  /** The weights come to the device, if they are not there yet. */
  | ({ type: "prepare" } & Progress)
  | { type: "dense"; perplexity: number; meanNll: number }
  | { type: "candidate"; step: number; candidate: Candidate; done: number; total: number }
  /** Share of a step that is done, 0 to 1; step 0 is the dense pass. Nothing new to save comes with it. */
  | { type: "progress"; step: number; done: number }
  | ({ type: "step" } & Step)
  /** What would go next is beyond the perplexity that the target allows: it stays, and the search ends. */
  | ({ type: "beyond" } & Step);

/** A running search: `for await (const event of await session.search(windows, { remove: 4 }))`. Leaving the loop stops it. */
export interface Search extends AsyncIterableIterator<SearchEvent, void> {}

/** What a search takes, as far as it can be foreseen. */
export interface Cost {
  /** Of the whole search, a guess for `ratio` and `fit`; null where the perplexity decides: all that follows is of the search up to the end of the step under way, and `done` of that step. */
  steps: number | null;
  /** Passes that the published loop would run, or that another strategy runs. */
  passes: number;
  /** The arithmetic of all of it, in passes of the whole model over the text: more time than it will take, where one was measured. */
  wholePasses: number;
  /** Share of the arithmetic that is done, 0 to 1; never less than it was. */
  done: number;
  /** That candidates are scored on, where every candidate counts as a whole pass; null before candidates were measured. */
  tokensPerSecond: number | null;
  /** null before candidates were measured. */
  secondsLeft: number | null;
}

/** What has been found so far. */
export interface SearchState {
  dense: { perplexity: number; meanNll: number } | null;
  steps: Step[];
  /** Of the step under way. */
  candidates: Candidate[];
}

/** `plan.json`, its keys as the file spells them. */
export interface Plan {
  format: `blockpruner-plan/${number}`;
  status: "searching" | "stopped" | "finished";
  /** The command that made it; none if a program did. */
  command?: string;
  model: {
    name: string;
    family: string;
    layers: number;
    parameters: number;
    absent: BlockId[];
    kv_cache: { bytes_per_token: number; context: number; bytes: number };
    bytes: number;
  };
  calibration: { source: string; rows: number; tokens: number; windows: number; window: number };
  settings: { units: Units; block_types: BlockTypes; target: Record<string, number>; remove: number; written_as: string; objective: Objective; strategy: Strategy; strategy_seed?: number; approximate: boolean };
  device: { name: string; backend: string; driver: string; tier: string; kernel: string };
  dense: { perplexity: number; mean_nll: number };
  steps: {
    step: number;
    removed: Unit;
    value: number;
    perplexity: number;
    candidates: {
      block: Unit;
      value: number | null;
      perplexity: number | null;
      at_least: number | null;
      state: Candidate["state"];
      head_tokens: number;
      reason?: string;
    }[];
    work: { block_tokens: number; head_tokens: number };
    params_left: number;
    ratio_removed: number;
    /** Of the weight files, at most. */
    bytes: number;
    kv_cache: Plan["model"]["kv_cache"];
    seconds: number;
  }[];
  /** The step that would have come next, which is beyond the perplexity that the target allows. */
  beyond?: Plan["steps"][number];
  /** What all steps did to a text that the search has not seen, if the command line measured that. */
  evaluation?: { text: string; window: number; windows: number; tokens: number; dense_perplexity: number; perplexity: number };
}

/** Where an export's files go. Calls come one at a time: beginFile, any number of write, endFile, for each file. */
export interface FolderSink {
  beginFile(name: string): Promise<void>;
  write(bytes: Uint8Array): Promise<void>;
  endFile(): Promise<void>;
}

export interface ExportOptions extends CallOptions {
  /** Blocks to take out. */
  without?: Unit[];
  /**
   * `plain`: an ordinary model of fewer layers, where what is left is one; `hf`: the blocks are gone, loads with a program beside
   * it; `hf-zeroed`: loads anywhere, saves nothing. By default the first of these that is possible. `deci`: the blocks are gone, for
   * MLX, vLLM and SGLang, of models that compute what Llama does. `gguf`: a file for llama.cpp,
   * an ordinary model where it can be, else one of an architecture whose layers may lack a block, else `gguf-zeroed`.
   */
  format?: "plain" | "hf" | "hf-zeroed" | "deci" | "gguf" | "gguf-zeroed";
  /** Convert all tensors; by default they keep their type, and quantised ones become bf16. */
  dtype?: "bf16" | "f16" | "f32";
  /** Quantise the weights, in a GGUF file. */
  quantize?: "q8_0" | "q4_0";
}

export interface ExportSummary {
  files: string[];
  tensors: number;
  bytes: number;
  /** Of the written model: where it holds all blocks, as zeros, that of the whole one. */
  kvCache: KvCache;
}

export interface GenerateOptions extends ScoreOptions {
  /** New tokens at most, 128 by default. */
  maxTokens?: number;
  /** Is given the text as it becomes certain. */
  onText?: (part: string) => void;
}

export interface Continuation {
  text: string;
  tokens: number[];
  finishReason: "end_of_sequence" | "max_tokens" | "positions";
}
