// Everything that takes time: the library, the device, files. The page only shows what comes from here.

import init, { report } from "../pkg/blockpruner_web.js";
import type { BlockPrunerError, FolderSink, Search } from "../pkg/blockpruner_web.js";
import * as format from "./format";
import { type Loaded, load, onProgress, unload } from "./model";
import { Problem, reply } from "./post";
import type { Job, Request, SavedJob, Settled } from "./protocol";
import { DirectorySink, ZipSink } from "./sinks";
import { cut, heldOut, searchOptions, settle } from "./sizing";
import * as storage from "./storage";

/** A search is saved after every step, and otherwise this often, in milliseconds. */
const SAVE_EVERY = 1000;

const ready = init();
let hub: string;

/** The last search: what can be exported, and compared with the whole model. */
let last: { here: Loaded; search: Search; job: SettledJob } | null = null;
type SettledJob = Job & { settings: Settled };

let paused = false;
let resumeLoop: (() => void) | null = null;
let answer: ((go: boolean) => void) | null = null;

/** What runs now; only one thing at a time does. What is `aside` makes way for anything else. */
let running: { control: AbortController; aside: boolean; ended: Promise<void> } | null = null;

async function start(job: Job, signal: AbortSignal, { replace, saved }: { replace: boolean; saved?: string }): Promise<void> {
  const giveBack = await storage.take();
  if (!giveBack) {
    throw new Problem("busy", "Another tab of this browser is pruning and owns the saved search. Stop it there, or close that tab.");
  }
  try {
    const unfinished = replace ? null : await storage.load().catch(() => null);
    if (unfinished) {
      reply({ type: "unfinished", job: unfinished });
      return;
    }
    forget();
    const here = await load(job.source, hub, signal);
    const agreed = () =>
      new Promise<boolean>((resolve) => {
        answer = resolve;
        signal.addEventListener("abort", () => resolve(false), { once: true });
      });
    const settings = await settle(job, here, signal, agreed);
    if (!settings) {
      reply({ type: "cancelled" });
      return;
    }
    const windows = cut(job.text, here.checkpoint, settings.window, settings.windows);
    const info = windows.info();
    const exact = { ...settings, windows: info.windows };
    reply({ type: "status", text: "Preparing the search" });
    const search = await here.session.search(windows, searchOptions(settings), saved);
    windows.free();
    signal.throwIfAborted();
    last = { here, search, job: { ...job, settings: exact } };
    paused = false;
    reply({ type: "begin", settings: exact, windows: info, state: search.state() });
    signal.addEventListener("abort", () => {
      continueLoop();
      void search.return();
    });
    await run(search, last.job);
  } finally {
    giveBack();
  }
}

/** Pulls events out of the search until it ends or is stopped. */
async function run(search: Search, job: SettledJob): Promise<void> {
  const begun = performance.now();
  let savedAt = 0;
  let warned = false;
  const stepsDone = () => search.state().steps.length;
  const keep = async () => {
    savedAt = performance.now();
    const { source } = job;
    const model: SavedJob["model"] = source.kind === "files" ? { kind: "files", name: source.name } : source;
    try {
      await storage.save({ model, text: job.text, settings: job.settings, stepsDone: stepsDone(), at: Date.now(), search: search.save() });
    } catch (error) {
      if (!warned) reply({ type: "unsaved", reason: describe(error) });
      warned = true;
    }
  };
  try {
    for await (const event of search) {
      reply({ type: "event", event, cost: search.cost() });
      const worth = event.type === "step" || event.type === "dense";
      if (worth || (event.type === "candidate" && performance.now() - savedAt > SAVE_EVERY)) await keep();
      if (paused) {
        await keep();
        reply({ type: "paused" });
        await new Promise<void>((resolve) => (resumeLoop = resolve));
      }
    }
  } catch (error) {
    await keep();
    throw error;
  }
  const steps = stepsDone();
  const { status, beyond } = search.plan();
  const finished = status === "finished";
  if (finished) await storage.discard().catch(() => {});
  else {
    await keep();
    reply({ type: "saved", job: await storage.load().catch(() => null) });
  }
  if (steps === 0) {
    if (beyond) throw new Problem("input", `Nothing can go: without ${beyond.removed}, the first that would, perplexity is ${format.perplexity(beyond.perplexity)}. Allow more.`);
    reply({ type: "cancelled" });
    return;
  }
  const seconds = (performance.now() - begun) / 1000;
  reply({ type: "found", found: { finished, planJson: search.planJson(), orderJson: search.orderJson(), order: search.order(), beyond: beyond && { removed: beyond.removed, perplexity: beyond.perplexity }, seconds } });
}

function continueLoop(): void {
  paused = false;
  resumeLoop?.();
  resumeLoop = null;
}

/** Lets go of the last search. */
function forget(): void {
  last?.search.free();
  last = null;
}

async function perplexity(job: Job, signal: AbortSignal): Promise<void> {
  const here = await load(job.source, hub, signal);
  if (last?.here !== here) forget();
  const { checkpoint, session } = here;
  const windows = cut(job.text, checkpoint, job.settings.window, job.settings.windows ?? 2);
  reply({ type: "status", text: "Measuring perplexity" });
  const start = performance.now();
  const score = await session.perplexity(windows, { signal });
  const seconds = (performance.now() - start) / 1000;
  reply({ type: "score", perplexity: score.perplexity, windows: windows.info(), seconds });
  windows.free();
}

function found() {
  if (!last) throw new Problem("input", "The model is not on the device any more: resume the search, or prune again.");
  return last;
}

/** The model after a step beside the whole one: on text that was kept for that, and as they go on from a prompt. */
async function compare(step: number, prompt: string, maxTokens: number, signal: AbortSignal): Promise<void> {
  const { here, search, job } = found();
  const { session, checkpoint } = here;
  const without = search.order().slice(0, step);
  reply({ type: "continuing", prompt });
  const windows = heldOut(job.text, checkpoint, job.settings);
  if (windows) {
    try {
      const { windows: count, window } = windows.info();
      const before = (await session.perplexity(windows, { signal })).perplexity;
      const after = (await session.perplexity(windows, { without, signal })).perplexity;
      reply({ type: "heldOut", step, scores: { tokens: count * (window - 1), before, after } });
    } finally {
      windows.free();
    }
  } else reply({ type: "heldOut", step, scores: null });
  await session.generate(prompt, { maxTokens, signal, onText: (part) => reply({ type: "text", which: "dense", part }) });
  await session.generate(prompt, { maxTokens, without, signal, onText: (part) => reply({ type: "text", which: "pruned", part }) });
  reply({ type: "compared" });
}

/** The layout of the command line's output folder: plan.json, order.json, report.html, model/. */
async function exportModel({ step, format, dtype, folder }: Extract<Request, { type: "export" }>, signal: AbortSignal): Promise<void> {
  const { here, search } = found();
  const { checkpoint } = here;
  const without = search.order().slice(0, step);
  const name = `${checkpoint.info().name.split(/[/:]/).pop()}-pruned-${step}`;
  const write = async (sink: FolderSink, inner: FolderSink) => {
    const planJson = search.planJson();
    for (const [file, text] of [["plan.json", planJson], ["order.json", search.orderJson()], ["report.html", report([planJson])]] as const) {
      await sink.beginFile(file);
      await sink.write(new TextEncoder().encode(text));
      await sink.endFile();
    }
    return checkpoint.export(inner, { without, format, dtype, signal, onProgress });
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
      forget();
      unload();
    } catch {
      last = null;
    }
  }
  const job = await storage.load().catch(() => null);
  reply({ type: "error", code, message: describe(error), resumable: job !== null, bytes: known.bytes, limit: known.limit });
  reply({ type: "saved", job });
}

/** Runs a task, if nothing else runs but what is aside. */
async function alone(task: (signal: AbortSignal) => Promise<void>, aside = false): Promise<void> {
  if (running && !running.aside) return;
  const before = running;
  const control = new AbortController();
  const { signal } = control;
  before?.control.abort();
  const work = async () => {
    try {
      await before?.ended;
      await ready;
      signal.throwIfAborted();
      await task(signal);
    } catch (error) {
      if (!signal.aborted) await fail(error);
      else if (!aside) reply({ type: "cancelled" });
    }
  };
  const mine = { control, aside, ended: work() };
  running = mine;
  await mine.ended;
  if (running === mine) running = null;
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
      void alone((signal) => start(data.job, signal, { replace: data.replace }));
      break;
    case "resume":
      void alone(async (signal) => {
        const job = await storage.load();
        if (!job) throw new Problem("input", "There is no saved search any more.");
        const settings = { ...job.settings, target: data.target };
        await start({ source: data.source, text: job.text, settings }, signal, { replace: true, saved: job.search });
      });
      break;
    case "extend":
      void alone(async (signal) => {
        const { job, search } = found();
        await start({ ...job, settings: { ...job.settings, target: data.target } }, signal, { replace: true, saved: search.save() });
      });
      break;
    case "discard":
      void storage.discard().then(() => reply({ type: "saved", job: null }), fail);
      break;
    case "perplexity":
      void alone((signal) => perplexity(data.job, signal));
      break;
    case "compare":
      void alone((signal) => compare(data.step, data.prompt, data.maxTokens, signal), true);
      break;
    case "report":
      void ready.then(() => reply({ type: "report", html: report([data.planJson]) })).catch(fail);
      break;
    case "export":
      void alone((signal) => exportModel(data, signal));
      break;
    case "answer":
      answer?.(data.go);
      answer = null;
      break;
    case "pause":
      paused = true;
      break;
    case "continue":
      continueLoop();
      break;
    case "stop":
      if (running && !running.aside) running.control.abort();
      break;
  }
};

// A bug in the library ends it with a trap, and whatever waited for it would wait for ever.
self.addEventListener("unhandledrejection", (event) => void fail(event.reason));
self.addEventListener("error", (event) => void fail(event.error ?? event.message));
