// The page: what the visitor chose goes to the worker, what the worker says is shown.

import type { Candidate, ModelInfo, Plan, SearchEvent, SearchState, Step, WindowsInfo } from "../pkg/blockpruner_web.js";
import * as format from "./format";
import { chooseHub } from "./hub";
import { LayerMap } from "./map";
import { PerplexityPlot } from "./plot";
import type { Job, ModelSource, Reply, Request, SavedJob, Settings, TextSource } from "./protocol";
import workerScript from "./worker.ts?worker&url";

const $ = <T extends HTMLElement = HTMLElement>(id: string): T => {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element as T;
};
const input = (id: string) => $<HTMLInputElement>(id);

let worker: Worker | null = null;
const ask = (request: Request) => worker?.postMessage(request);

const map = new LayerMap($("map"), { low: $("legend-low"), high: $("legend-high") });
const plot = new PerplexityPlot($("plot"));

let local: { name: string; files: Record<string, File> } | null = null;
let saved: SavedJob | null = null;
let model: ModelInfo | null = null;
let outcome: { plan: string; order: string } | null = null;

/** The run that is shown. */
interface Run {
  settings: Required<Settings>;
  windows: WindowsInfo;
  dense: number;
  steps: Step[];
  candidates: Candidate[];
  /** Share of the step under way. */
  share: number;
  begun: number;
  /** Work that a resumed run had behind it. */
  behind: number;
  paused: boolean;
}
let shown: Run | null = null;

// ---- What the visitor chooses

const choice = (name: string) => document.querySelector<HTMLInputElement>(`input[name="${name}"]:checked`)!.value;
const choose = (name: string, value: string) => {
  document.querySelector<HTMLInputElement>(`input[name="${name}"][value="${value}"]`)!.checked = true;
};
const number = (id: string) => (input(id).value === "" ? undefined : input(id).valueAsNumber);

function modelSource(): ModelSource | string {
  switch (choice("model")) {
    case "files":
      return local ? { kind: "files", ...local } : "Choose a model folder or a .gguf file first.";
    case "hub": {
      const repository = input("repository").value.trim().replace(/^https?:\/\/huggingface\.co\//, "").replace(/\/+$/, "");
      if (!/^[\w.-]+\/[\w.-]+(\/[\w./-]+\.gguf)?$/.test(repository)) return "Give a repository as organisation/name.";
      return { kind: "hub", repository };
    }
    default:
      return { kind: "tiny" };
  }
}

async function textSource(): Promise<TextSource | string> {
  switch (choice("text")) {
    case "file": {
      const file = input("text-file").files?.[0];
      if (!file) return "Choose a text file first.";
      const field = /\.(json|jsonl|ndjson)$/i.test(file.name) ? input("field").value.trim() || undefined : undefined;
      return { kind: "text", name: file.name, text: await file.text(), field };
    }
    case "paste":
      return { kind: "text", name: "pasted.txt", text: $<HTMLTextAreaElement>("pasted").value };
    default:
      return { kind: "sample" };
  }
}

/** What the form asks for; null, with a complaint, if something is missing. From here on nothing else can be asked. */
async function job(): Promise<Job | null> {
  working(true);
  const [source, text] = [modelSource(), await textSource()];
  for (const problem of [source, text]) {
    if (typeof problem === "string") {
      working(false);
      complain(problem);
      return null;
    }
  }
  const blockTypes = $<HTMLSelectElement>("types").value as Settings["blockTypes"];
  const settings: Settings = { blockTypes, remove: number("remove"), window: number("window") ?? 128, windows: number("windows") };
  return { source: source as ModelSource, text: text as TextSource, settings };
}

function takeFiles(name: string, files: Iterable<File>): void {
  const taken = Object.fromEntries(Array.from(files, (file) => [file.name, file]));
  if (Object.keys(taken).length === 0) {
    complain("There are no files in that folder.");
    return;
  }
  local = { name, files: taken };
  choose("model", "files");
  const size = Object.values(taken).reduce((sum, file) => sum + file.size, 0);
  const count = Object.keys(taken).length;
  $("chosen").textContent = `${name}: ${count} ${count === 1 ? "file" : "files"}, ${format.bytes(size)}`;
}

input("folder").addEventListener("change", () => {
  const files = Array.from(input("folder").files ?? []);
  // Only the folder itself: names of files in folders below it could collide.
  const top = files.filter((file) => file.webkitRelativePath.split("/").length <= 2);
  if (files.length > 0) takeFiles(files[0]!.webkitRelativePath.split("/")[0] || "model", top);
});
input("gguf").addEventListener("change", () => {
  const file = input("gguf").files?.[0];
  if (file) takeFiles(file.name, [file]);
});

addEventListener("dragover", (event: DragEvent) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event: DragEvent) => {
  if (event.relatedTarget === null) document.body.classList.remove("dragging");
});
addEventListener("drop", (event: DragEvent) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const entries = Array.from(event.dataTransfer?.items ?? [], (item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  void dropped(entries).catch((error: Error) => complain(`The dropped files cannot be read: ${error.message}`));
});

async function dropped(entries: FileSystemEntry[]): Promise<void> {
  const file = (entry: FileSystemFileEntry) => new Promise<File>((resolve, reject) => entry.file(resolve, reject));
  const [folder] = entries.filter((entry): entry is FileSystemDirectoryEntry => entry.isDirectory);
  let found = entries;
  if (folder) {
    found = [];
    const reader = folder.createReader();
    const some = () => new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    for (let batch = await some(); batch.length > 0; batch = await some()) found.push(...batch);
  }
  const files = await Promise.all(found.filter((entry): entry is FileSystemFileEntry => entry.isFile).map(file));
  takeFiles(folder?.name ?? files[0]?.name ?? "model", files);
}

// ---- Actions

$("setup").addEventListener("submit", async (event) => {
  event.preventDefault();
  const wanted = await job();
  if (!wanted) return;
  open("run");
  ask({ type: "start", job: wanted });
});
$("measure").addEventListener("click", async () => {
  const wanted = await job();
  if (!wanted) return;
  ask({ type: "perplexity", job: wanted });
});
$("resume").addEventListener("click", () => {
  if (!saved) return;
  let source: ModelSource;
  if (saved.model.kind === "files") {
    if (!local) {
      choose("model", "files");
      complain(`The browser cannot open ${saved.model.name} again by itself: choose it under “From this computer”, then press Resume.`);
      return;
    }
    source = { kind: "files", ...local };
  } else source = saved.model;
  working(true);
  open("run");
  ask({ type: "resume", source });
});
$("discard").addEventListener("click", () => ask({ type: "discard" }));
$("pause").addEventListener("click", () => {
  if (!shown) return;
  if (shown.paused) {
    shown.paused = false;
    // Time stood still meanwhile.
    shown.begun = performance.now();
    shown.behind = workDone(shown);
    $("pause").textContent = "Pause";
    ask({ type: "continue" });
  } else {
    say("Pausing");
    ask({ type: "pause" });
  }
});
$("stop").addEventListener("click", () => {
  say("Stopping");
  ask({ type: "stop" });
});
$("continue").addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = input("prompt").value;
  for (const id of ["dense-text", "pruned-text"]) {
    const bold = document.createElement("b");
    bold.textContent = prompt;
    $(id).replaceChildren(bold, document.createTextNode(""));
  }
  working(true);
  ask({ type: "generate", prompt, maxTokens: number("max-tokens") ?? 32 });
});
const exportFormat = () => $<HTMLSelectElement>("format").value as "hf" | "hf-zeroed";
$("zip").addEventListener("click", () => {
  working(true);
  ask({ type: "export", format: exportFormat() });
});
if ("showDirectoryPicker" in window) {
  $("to-folder").hidden = false;
  $("to-folder").addEventListener("click", async () => {
    const pick = (window as unknown as { showDirectoryPicker(options: object): Promise<FileSystemDirectoryHandle> }).showDirectoryPicker;
    // Refused when the visitor closes the picker.
    const folder = await pick.call(window, { mode: "readwrite" }).catch(() => null);
    if (!folder) return;
    working(true);
    ask({ type: "export", format: exportFormat(), folder });
  });
}
$("plan").addEventListener("click", () => outcome && download("plan.json", new Blob([outcome.plan], { type: "application/json" })));
$("order").addEventListener("click", () => outcome && download("order.json", new Blob([outcome.order], { type: "application/json" })));

function download(name: string, blob: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// ---- What the page shows

function open(id: "run" | "result"): void {
  $(id).hidden = false;
  $(id).focus({ preventScroll: true });
  $(id).scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

function say(text: string, share?: number): void {
  $("status").textContent = share === undefined ? text : `${text}, ${Math.floor(share * 100)} %`;
  const bar = $<HTMLProgressElement>("progress");
  if (share === undefined) bar.removeAttribute("value");
  else bar.value = share;
}

function complain(message: string, more: string[] = []): void {
  const list = document.createElement("ul");
  list.append(...more.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
  const text = Object.assign(document.createElement("p"), { textContent: message });
  $("problem").replaceChildren(text, ...(more.length > 0 ? [list] : []));
  $("problem").hidden = false;
  $("problem").scrollIntoView({ block: "nearest" });
}

let searching = false;
/** Whether the worker is at something: only one thing at a time can be asked of it. */
function working(on: boolean): void {
  if (on) $("problem").hidden = true;
  for (const id of ["start", "measure", "resume", "discard", "zip", "to-folder"]) $<HTMLButtonElement>(id).disabled = on;
  $<HTMLButtonElement>("continue").querySelector("button")!.disabled = on;
  if (!on) searching = false;
  for (const id of ["pause", "stop"]) $<HTMLButtonElement>(id).disabled = !(on && searching);
}

function showSaved(job: SavedJob | null): void {
  saved = job;
  $("saved").hidden = job === null;
  if (!job) return;
  const name = job.model.kind === "tiny" ? "the built-in model" : job.model.kind === "hub" ? job.model.repository : job.model.name;
  const when = new Date(job.at).toLocaleString();
  $("saved-text").textContent = `${name}, ${job.stepsDone} of ${job.settings.remove} blocks removed, saved ${when}.`;
}

function begin(settings: Required<Settings>, windows: WindowsInfo, state: SearchState): void {
  searching = true;
  working(true);
  $("saved").hidden = true;
  $("result").hidden = true;
  $("unsaved").hidden = true;
  $("run").hidden = false;
  $("pause").textContent = "Pause";
  if (model) map.reset(model);
  shown = {
    settings, windows, steps: state.steps, candidates: state.candidates, dense: state.dense?.perplexity ?? Number.NaN,
    share: 0, begun: performance.now(), behind: 0, paused: false,
  };
  shown.share = total(shown) > 0 ? state.candidates.length / total(shown) : 0;
  shown.behind = workDone(shown);
  const { source, tokens } = windows;
  $("f-text").textContent = `${source}: ${windows.windows} × ${windows.window} of ${format.grouped(tokens)} tokens`;
  draw();
  drawMap();
  drawPlot();
}

/** Candidates of the step under way. */
const total = (run: Run) => {
  const of = (block: string) => run.settings.blockTypes === "mix" || block.startsWith(run.settings.blockTypes);
  return (model?.blocks.filter(({ block }) => of(block)).length ?? 0) - run.steps.length;
};

/** Candidates scored so far, all steps together. */
function workDone(run: Run): number {
  const first = total(run) + run.steps.length;
  const before = run.steps.reduce((sum, _, index) => sum + first - index, 0);
  return before + run.share * total(run);
}

function workAhead(run: Run): number {
  const first = total(run) + run.steps.length;
  let all = 0;
  for (let step = 0; step < run.settings.remove; step += 1) all += first - step;
  return all - workDone(run);
}

function draw(): void {
  if (!shown) return;
  const { steps, settings, dense } = shown;
  const now = steps.at(-1)?.perplexity ?? dense;
  $("f-step").textContent = `${Math.min(steps.length + 1, settings.remove)} of ${settings.remove}`;
  $("f-perplexity").textContent = Number.isNaN(now) ? "–" : steps.length > 0 ? `${format.perplexity(now)} (dense ${format.perplexity(dense)})` : format.perplexity(now);
  const seconds = (performance.now() - shown.begun) / 1000;
  const done = workDone(shown) - shown.behind;
  const ahead = workAhead(shown);
  if (done > 0 && seconds > 0.5) {
    const tokens = shown.windows.windows * shown.windows.window;
    $("f-speed").textContent = format.grouped((done * tokens) / seconds);
    $("f-left").textContent = ahead > 0 ? format.duration((ahead / done) * seconds) : "–";
  }
  if (searching && !shown.paused) {
    const share = workDone(shown) / Math.max(1, workDone(shown) + ahead);
    say(Number.isNaN(dense) ? "Scoring the whole model" : `Step ${Math.min(steps.length + 1, settings.remove)}: scoring candidates`, share);
  }
}

function drawMap(): void {
  if (!shown) return;
  const current = shown.candidates.length > 0 ? shown.candidates : (shown.steps.at(-1)?.candidates ?? []);
  const removed = shown.steps.map((step) => step.removed);
  const base = (shown.candidates.length > 0 ? shown.steps.at(-1) : shown.steps.at(-2))?.perplexity ?? shown.dense;
  if (!Number.isNaN(base)) map.show(removed, current, base, shown.candidates.length > 0);
  const rank = (candidate: Candidate) => candidate.perplexity ?? candidate.atLeast ?? Number.POSITIVE_INFINITY;
  const ranked = [...current].sort((a, b) => rank(a) - rank(b));
  const step = shown.candidates.length > 0 ? shown.steps.length + 1 : shown.steps.length;
  $("ranking-title").textContent = step > 0 ? `Ranking of step ${step}` : "Ranking of this step";
  const listed = ranked.slice(0, 8);
  const last = listed.at(-1);
  const most = last ? Math.log(rank(last) / base) : 0;
  $("ranking").querySelector("tbody")!.replaceChildren(
    ...listed.map((candidate) => {
      const row = document.createElement("tr");
      const meter = document.createElement("span");
      meter.className = "meter";
      meter.style.width = `${Math.max(2, Math.min(100, (Math.log(rank(candidate) / base) / Math.max(most, 1e-9)) * 100))}%`;
      const exact = candidate.perplexity !== null;
      row.append(...[candidate.block, exact ? format.perplexity(rank(candidate)) : candidate.atLeast !== null ? `≥ ${format.perplexity(rank(candidate))}` : candidate.state].map((text) => Object.assign(document.createElement("td"), { textContent: text })));
      row.children[1]!.className = "number";
      const bar = document.createElement("td");
      bar.append(meter);
      bar.setAttribute("aria-hidden", "true");
      row.append(bar);
      return row;
    }),
  );
}

function drawPlot(): void {
  if (!shown || Number.isNaN(shown.dense)) return;
  plot.show([shown.dense, ...shown.steps.map((step) => step.perplexity)], shown.settings.remove);
}

// Many candidates may come at once: the screen is drawn once a frame.
let pending = false;
function drawSoon(): void {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    draw();
    drawMap();
  });
}

function happened(event: SearchEvent): void {
  if (!shown) return;
  switch (event.type) {
    case "dense":
      shown.dense = event.perplexity;
      shown.begun = performance.now();
      drawPlot();
      break;
    case "candidate":
      shown.candidates = [...shown.candidates.filter(({ block }) => block !== event.candidate.block), event.candidate];
      shown.share = Math.max(shown.share, event.done / event.total);
      break;
    case "progress":
      if (event.step > 0) shown.share = event.done;
      break;
    case "step":
      shown.steps = [...shown.steps, event];
      shown.candidates = [];
      shown.share = 0;
      map.clearScores();
      drawPlot();
      break;
  }
  drawSoon();
}

function showResult(plan: Plan, seconds: number): void {
  const last = plan.steps.at(-1);
  if (!last || !model) return;
  const { parameters } = plan.model;
  $("summary").textContent =
    `${plan.steps.length} of ${model.blocks.length} blocks removed in ${format.duration(seconds)}: ` +
    `${format.grouped(parameters)} parameters became ${format.grouped(last.params_left)} (${format.percent(last.ratio_removed)} less), ` +
    `perplexity ${format.perplexity(plan.dense.perplexity)} became ${format.perplexity(last.perplexity)}.`;
  const rows = [["0", "–", format.perplexity(plan.dense.perplexity), format.grouped(parameters), format.percent(0)]].concat(
    plan.steps.map((step) => [String(step.step), step.removed, format.perplexity(step.perplexity), format.grouped(step.params_left), format.percent(step.ratio_removed)]),
  );
  $("steps").querySelector("tbody")!.replaceChildren(
    ...rows.map((cells) => {
      const row = document.createElement("tr");
      row.append(...cells.map((text, column) => Object.assign(document.createElement("td"), { textContent: text, className: column === 1 ? "" : "number" })));
      return row;
    }),
  );
  $("exported").textContent = "";
  for (const id of ["dense-text", "pruned-text"]) $(id).textContent = "";
  open("result");
}

function showScore({ perplexity, windows, seconds }: Extract<Reply, { type: "score" }>): void {
  const value = document.createElement("data");
  // All digits, for programs; people see some.
  value.value = String(perplexity);
  value.textContent = format.perplexity(perplexity);
  const count = windows.windows === 1 ? "1 window" : `${windows.windows} windows`;
  $("score").replaceChildren("Perplexity ", value, ` on ${count} of ${windows.window} tokens of ${windows.source}, in ${format.duration(seconds)}.`);
}

/** What would fit where a device's limit is too small: scratch grows with the window. */
function advice(reply: Extract<Reply, { type: "error" }>): string[] {
  switch (reply.code) {
    case "too-large": {
      const window = number("window") ?? 128;
      const fits = Math.floor((window * (reply.limit ?? 0)) / (reply.bytes ?? 1));
      const limit = `This device takes ${format.bytes(reply.limit ?? 0)} in one piece.`;
      return [limit, fits >= 2 ? `Windows of ${fits} tokens would fit.` : "Choose a model with smaller layers."];
    }
    case "out-of-memory":
      return ["Choose fewer or shorter windows, or a smaller model, and close other tabs that use the GPU."];
    case "device-lost":
      return [reply.resumable ? "What was found so far is saved: press Resume to go on." : "Start again."];
    case "internal":
      return ["Reload the page. What was found so far is saved."];
    case "no-device":
      return browsers();
    default:
      return [];
  }
}

const browsers = () => [
  "Chrome and Edge have WebGPU on Windows, macOS, ChromeOS and Android; on Linux switch on chrome://flags/#enable-unsafe-webgpu and #enable-vulkan.",
  "Safari has it from version 26 on; before, under Develop, Feature Flags, WebGPU.",
  "Firefox has it on Windows and on Macs with Apple silicon; elsewhere set dom.webgpu.enabled in about:config.",
  "Hardware acceleration must be on in the browser’s settings, and the page must come from https or localhost.",
];

function heard(data: Reply): void {
  switch (data.type) {
    case "saved":
      if (!searching) showSaved(data.job);
      break;
    case "status":
      say(data.text, data.share);
      $("exported").textContent = $("result").hidden ? "" : data.text;
      if ($("run").hidden) $("score").textContent = data.share === undefined ? `${data.text}…` : `${data.text}, ${Math.floor(data.share * 100)} %`;
      break;
    case "model":
      model = data.info;
      $("f-model").textContent = `${data.info.name}, ${format.grouped(data.info.parameters)} parameters`;
      break;
    case "device":
      $("device").textContent = `${data.info.name} (${data.info.backend}), kernel ${data.info.kernel}, bindings up to ${format.bytes(data.info.maxBindingBytes)}`;
      break;
    case "begin":
      begin(data.settings, data.windows, data.state);
      break;
    case "event":
      happened(data.event);
      break;
    case "paused":
      if (shown) shown.paused = true;
      $("pause").textContent = "Continue";
      say("Paused; the search is saved", shown ? workDone(shown) / (workDone(shown) + workAhead(shown)) : 0);
      break;
    case "stopped":
      working(false);
      say("Stopped; the search is saved", 0);
      break;
    case "finished":
      working(false);
      outcome = { plan: data.plan, order: data.order };
      showSaved(null);
      draw();
      say("Finished", 1);
      $("f-left").textContent = "–";
      showResult(JSON.parse(data.plan) as Plan, data.seconds);
      break;
    case "score":
      working(false);
      say("", 0);
      showScore(data);
      break;
    case "text":
      $(data.which === "dense" ? "dense-text" : "pruned-text").lastChild!.textContent += data.part;
      break;
    case "generated":
      working(false);
      break;
    case "exported":
      working(false);
      say("Finished", 1);
      if (data.blob) download(data.name, data.blob);
      $("exported").textContent = `Wrote ${data.name}, ${format.bytes(data.bytes)} of weights.`;
      break;
    case "unsaved":
      $("unsaved").textContent = `The search goes on, but cannot be saved (${data.reason}): it would be lost with this page. Free some storage of this site to change that.`;
      $("unsaved").hidden = false;
      break;
    case "error":
      working(false);
      say("", 0);
      $("score").textContent = "";
      if (!shown) $("run").hidden = true;
      complain(data.message.replace(/; try again, or use another device$/, ""), advice(data));
      break;
  }
}

/** Starts the worker from a blob: only so does the page's content security policy hold for it too. */
function startWorker(): Worker {
  const script = `import ${JSON.stringify(new URL(workerScript, location.href).href)};`;
  const started = new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })), { type: "module" });
  started.onmessage = ({ data }: MessageEvent<Reply>) => heard(data);
  started.onerror = (event) => {
    working(false);
    complain(`The program could not be loaded: ${event.message || "the worker did not start"}.`, ["Reload the page."]);
  };
  return started;
}

// ---- The beginning

async function greet(): Promise<void> {
  if (!isSecureContext) {
    complain("WebGPU is only there on pages from https or localhost.", browsers());
  } else if (!navigator.gpu) {
    complain("This browser does not offer WebGPU, which the search runs on.", browsers());
  } else {
    const adapter = await navigator.gpu.requestAdapter().catch(() => null);
    if (adapter) {
      const { vendor, architecture, description } = adapter.info;
      $("device").textContent = [vendor, description || architecture].filter(Boolean).join(" ") || "WebGPU device";
      const hub = await chooseHub(complain);
      worker = startWorker();
      ask({ type: "hello", hub });
      working(false);
      return;
    }
    complain("This browser offers WebGPU, but no graphics device that it could use.", browsers());
  }
  $("device").textContent = "No device";
}

void greet();
