// Everything that takes time: the library, the device, files. The page only shows what comes from here.

import init, { CalibrationText, Checkpoint, Search, Session, Windows } from "../pkg/blockpruner_web.js";
import type { BlockId, BlockPrunerError, FolderSink, Progress } from "../pkg/blockpruner_web.js";
import type { Job, ModelSource, Reply, Request, SavedJob, Settings, TextSource } from "./protocol";
import { DirectorySink, ZipSink } from "./sinks";
import * as storage from "./storage";

/** A run without chosen amounts is sized to take about this long, in seconds, .. */
const BUDGET = 35;
/** .. and takes this many windows at most. */
const MOST_WINDOWS = 64;
/** A search is saved after every step, and otherwise this often, in milliseconds. */
const SAVE_EVERY = 1000;

const ready = init();
let hub: string;

interface Loaded {
  key: string;
  checkpoint: Checkpoint;
  session: Session;
}

let loaded: Loaded | null = null;
let search: Search | null = null;
let finished: { plan: string; order: string; removed: BlockId[] } | null = null;
/** What the visitor wants of the running search. */
let wish: "run" | "pause" | "stop" = "run";
let resumeLoop: (() => void) | null = null;
let busy = false;

function reply(message: Reply, transfer: Transferable[] = []): void {
  self.postMessage(message, { transfer });
}

/** A problem that the library does not know of. */
class Problem extends Error {
  constructor(readonly code: "busy" | "input", message: string) {
    super(message);
  }
}

/** The key by which a model that is on the device already is recognised. */
function keyOf(source: ModelSource): string {
  if (source.kind !== "files") return JSON.stringify(source);
  const files = Object.values(source.files).map((file) => [file.name, file.size, file.lastModified]);
  return JSON.stringify(["files", source.name, files]);
}

async function openCheckpoint(source: ModelSource): Promise<Checkpoint> {
  switch (source.kind) {
    case "tiny":
      return openTiny();
    case "files":
      return Checkpoint.fromFiles(source.name, source.files);
    case "hub": {
      const [owner, name, ...file] = source.repository.split("/");
      const path = file.map(encodeURIComponent).join("/");
      return Checkpoint.fromUrl(source.repository, `${hub}/${owner}/${name}/resolve/main/${path}`);
    }
  }
}

/** The model that comes with the page. */
async function openTiny(): Promise<Checkpoint> {
  const names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
  const file = async (name: string) => {
    const response = await fetch(new URL(`tiny/${name}`, pageUrl()));
    if (!response.ok) throw new Problem("input", `The page is incomplete: tiny/${name} is missing (status ${response.status}).`);
    return [name, await response.blob()] as const;
  };
  return Checkpoint.fromFiles("builtin:tiny", Object.fromEntries(await Promise.all(names.map(file))));
}

/** The worker's script lies in `assets/` beside the page; in development Vite serves it beside the page. */
function pageUrl(): URL {
  const script = import.meta.url;
  return new URL(import.meta.env.DEV ? "." : "..", script);
}

/** Opens a model and brings it to the device, unless it is there already. A device holds one model at a time. */
async function load(source: ModelSource): Promise<Loaded> {
  await ready;
  const key = keyOf(source);
  if (loaded?.key === key) {
    reply({ type: "model", info: loaded.checkpoint.info() });
    reply({ type: "device", info: loaded.session.device() });
    return loaded;
  }
  unload();
  reply({ type: "status", text: "Opening the model" });
  const checkpoint = await openCheckpoint(source);
  reply({ type: "model", info: checkpoint.info() });
  const session = await Session.open(checkpoint, { name: await deviceName(), onProgress });
  reply({ type: "device", info: session.device() });
  await session.preload({ onProgress });
  loaded = { key, checkpoint, session };
  return loaded;
}

const STAGES: Record<Progress["stage"], string> = {
  open: "Opening the device and testing it",
  load: "Loading weights",
  compile: "Compiling shaders",
  write: "Writing the model",
};

let told = 0;
/** Tells how far something is, a hundred times at most. */
function onProgress(progress: Progress): void {
  const share = "total" in progress ? progress.done / progress.total : undefined;
  if (share !== undefined && share > told && share - told < 0.01 && share < 1) return;
  told = share ?? 0;
  reply({ type: "status", text: STAGES[progress.stage], share });
}

function unload(): void {
  search?.free();
  search = null;
  if (loaded) {
    loaded.session.destroy();
    loaded.session.free();
    loaded.checkpoint.free();
  }
  loaded = null;
}

/** Browsers hide the device's name but tell its vendor and architecture. */
async function deviceName(): Promise<string> {
  const adapter = await navigator.gpu?.requestAdapter();
  const { vendor, architecture, description } = adapter?.info ?? {};
  return [vendor, description || architecture].filter(Boolean).join(" ") || "WebGPU device";
}

function textOf(source: TextSource): CalibrationText {
  if (source.kind === "sample") return CalibrationText.sample();
  return CalibrationText.fromString(source.name, source.text, source.field ? { field: source.field } : undefined);
}

function cut(job: { text: TextSource }, checkpoint: Checkpoint, window: number, windows?: number): Windows {
  const text = textOf(job.text);
  try {
    const most = Math.min(window, checkpoint.info().maxPositions);
    return checkpoint.windows(text, { window: most, maxWindows: windows });
  } finally {
    text.free();
  }
}

/**
 * Fills in what a job leaves open, by the time that one window takes. A candidate costs about 0.6 of a pass, because
 * candidates share what lies before their block.
 */
async function settle(job: Job, { checkpoint, session }: Loaded): Promise<Required<Settings>> {
  const { blockTypes, window } = job.settings;
  const blocks = checkpoint.info().blocks.filter(({ block }) => blockTypes === "mix" || block.startsWith(blockTypes)).length;
  let remove = job.settings.remove ?? Math.max(1, Math.floor(blocks / 6));
  if (job.settings.windows !== undefined) return { blockTypes, window, remove, windows: job.settings.windows };
  reply({ type: "status", text: "Measuring one pass" });
  const one = cut(job, checkpoint, window, 1);
  await session.perplexity(one);
  const start = performance.now();
  await session.perplexity(one);
  const seconds = (performance.now() - start) / 1000;
  one.free();
  const passes = (steps: number) => steps * blocks - (steps * (steps - 1)) / 2;
  const fit = (steps: number) => Math.floor(BUDGET / (0.6 * seconds * passes(steps)));
  if (job.settings.remove === undefined) while (remove > 1 && fit(remove) < 1) remove -= 1;
  const windows = Math.max(1, Math.min(fit(remove), MOST_WINDOWS));
  return { blockTypes, window, remove, windows };
}

async function start(job: Job, saved?: string): Promise<void> {
  const giveBack = await storage.take();
  if (!giveBack) {
    throw new Problem("busy", "Another tab of this browser is pruning and owns the saved search. Stop it there, or close that tab.");
  }
  try {
    const here = await load(job.source);
    const settings = await settle(job, here);
    const windows = cut(job, here.checkpoint, settings.window, settings.windows);
    const info = windows.info();
    const exact = { ...settings, windows: info.windows, window: info.window };
    search?.free();
    finished = null;
    reply({ type: "status", text: "Preparing the search" });
    search = await here.session.search(windows, { remove: settings.remove, blockTypes: settings.blockTypes }, saved);
    windows.free();
    wish = "run";
    reply({ type: "begin", settings: exact, windows: info, state: search.state(), resumed: saved !== undefined });
    await run(search, { ...job, settings: exact });
  } finally {
    giveBack();
  }
}

/** Pulls events out of the search until it ends or the visitor stops it. */
async function run(search: Search, job: Job & { settings: Required<Settings> }): Promise<void> {
  const begun = performance.now();
  let savedAt = 0;
  let stepsDone = search.state().steps.length;
  let warned = false;
  const keep = async () => {
    savedAt = performance.now();
    const { source } = job;
    const model: SavedJob["model"] = source.kind === "files" ? { kind: "files", name: source.name } : source;
    try {
      await storage.save({ model, text: job.text, settings: job.settings, stepsDone, at: Date.now(), search: search.save() });
    } catch (error) {
      if (!warned) reply({ type: "unsaved", reason: describe(error) });
      warned = true;
    }
  };
  try {
    for await (const event of search) {
      reply({ type: "event", event });
      if (event.type === "step") stepsDone = event.step;
      const worth = event.type === "step" || event.type === "dense";
      if (worth || (event.type === "candidate" && performance.now() - savedAt > SAVE_EVERY)) await keep();
      if (wish === "pause") {
        await keep();
        reply({ type: "paused" });
        await new Promise<void>((resolve) => (resumeLoop = resolve));
      }
      // Read through a function: it changes while this one waits.
      if (wished() === "stop") {
        await keep();
        break;
      }
    }
  } catch (error) {
    await keep();
    throw error;
  }
  if (stepsDone < job.settings.remove) {
    reply({ type: "stopped" });
    reply({ type: "saved", job: await storage.load().catch(() => null) });
    return;
  }
  finished = { plan: search.planJson(), order: search.orderJson(), removed: search.order() };
  await storage.discard().catch(() => {});
  reply({ type: "finished", plan: finished.plan, order: finished.order, seconds: (performance.now() - begun) / 1000 });
}

const wished = () => wish;

async function perplexity(job: Job): Promise<void> {
  const { checkpoint, session } = await load(job.source);
  const windows = cut(job, checkpoint, job.settings.window, job.settings.windows ?? 2);
  reply({ type: "status", text: "Measuring perplexity" });
  const start = performance.now();
  const score = await session.perplexity(windows);
  const seconds = (performance.now() - start) / 1000;
  reply({ type: "score", perplexity: score.perplexity, windows: windows.info(), seconds });
  windows.free();
}

function removedBlocks(): BlockId[] {
  if (!finished) throw new Problem("input", "There is no finished pruning yet.");
  return finished.removed;
}

async function generate(prompt: string, maxTokens: number): Promise<void> {
  const without = removedBlocks();
  const { session } = loaded!;
  await session.generate(prompt, { maxTokens, onText: (part) => reply({ type: "text", which: "dense", part }) });
  await session.generate(prompt, { maxTokens, without, onText: (part) => reply({ type: "text", which: "pruned", part }) });
  reply({ type: "generated" });
}

/** The layout of the command line's output folder: plan.json, order.json, model/. */
async function exportModel(format: "hf" | "hf-zeroed", folder?: FileSystemDirectoryHandle): Promise<void> {
  const removed = removedBlocks();
  const { checkpoint } = loaded!;
  const name = `${checkpoint.info().name.split(/[/:]/).pop()}-pruned-${removed.length}`;
  const write = async (sink: FolderSink, inner: FolderSink) => {
    for (const [file, text] of [["plan.json", finished!.plan], ["order.json", finished!.order]] as const) {
      await sink.beginFile(file);
      await sink.write(new TextEncoder().encode(text));
      await sink.endFile();
    }
    return checkpoint.export(inner, { without: removed, format, onProgress });
  };
  if (folder) {
    const sink = await DirectorySink.create(folder, name);
    try {
      const summary = await write(sink, await sink.inner("model"));
      reply({ type: "exported", name: sink.name, bytes: summary.bytes });
    } catch (error) {
      await sink.remove().catch(() => {});
      throw error;
    }
    return;
  }
  const sink = new ZipSink();
  const summary = await write(sink, sink.inner("model"));
  reply({ type: "exported", name: `${name}.zip`, blob: await sink.finish(), bytes: summary.bytes });
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function fail(error: unknown): Promise<void> {
  if (error instanceof Problem) {
    reply({ type: "error", code: error.code, message: error.message, resumable: false });
    return;
  }
  const known = error as Partial<BlockPrunerError>;
  const isKnown = known?.name === "BlockPrunerError";
  const code = isKnown ? known.code! : "internal";
  if (!isKnown || code === "device-lost" || code === "out-of-memory" || code === "device") {
    // What was on the device is gone or in doubt; so is everything that refers to it.
    try {
      unload();
    } catch {
      loaded = null;
      search = null;
    }
  }
  const job = await storage.load().catch(() => null);
  reply({ type: "error", code, message: describe(error), resumable: job !== null, bytes: known.bytes, limit: known.limit });
  reply({ type: "saved", job });
}

/** Runs one thing at a time. */
async function exclusively(task: () => Promise<void>): Promise<void> {
  if (busy) return;
  busy = true;
  try {
    await ready;
    await task();
  } catch (error) {
    await fail(error);
  } finally {
    busy = false;
  }
}

self.onmessage = ({ data }: MessageEvent<Request>) => {
  switch (data.type) {
    case "hello":
      hub = data.hub;
      void ready.then(
        async () => reply({ type: "saved", job: await storage.load().catch(() => null) }),
        (error) => reply({ type: "error", code: "internal", message: `The program could not be loaded: ${describe(error)}`, resumable: false }),
      );
      break;
    case "start":
      void exclusively(() => start(data.job));
      break;
    case "resume":
      void exclusively(async () => {
        const job = await storage.load();
        if (!job) throw new Problem("input", "There is no saved search any more.");
        await start({ source: data.source, text: job.text, settings: job.settings }, job.search);
      });
      break;
    case "discard":
      void storage.discard().then(() => reply({ type: "saved", job: null }), fail);
      break;
    case "perplexity":
      void exclusively(() => perplexity(data.job));
      break;
    case "generate":
      void exclusively(() => generate(data.prompt, data.maxTokens));
      break;
    case "export":
      void exclusively(() => exportModel(data.format, data.folder));
      break;
    case "pause":
      wish = "pause";
      break;
    case "continue":
    case "stop":
      wish = data.type === "stop" ? "stop" : "run";
      resumeLoop?.();
      resumeLoop = null;
      break;
  }
};

// A bug in the library ends it with a trap, and whatever waited for it would wait for ever.
self.addEventListener("unhandledrejection", (event) => void fail(event.reason));
self.addEventListener("error", (event) => void fail(event.error ?? event.message));
