// The page: what the visitor chose goes to the worker, what the worker says is shown.

import type { ModelInfo } from "../pkg/blockpruner_web.js";
import { nameOf, isSoftware } from "./device";
import { $, input } from "./elements";
import { describe, job, savedSource, takeChoices } from "./form";
import * as format from "./format";
import { chooseHub } from "./hub";
import { notesOn, showNotes } from "./notes";
import { allIsWell, browsers, complain, question, tellTrouble, withdrawQuestion } from "./problems";
import type { Job, Reply, Request, SavedJob } from "./protocol";
import { ResultView, download } from "./result";
import { RunView, say } from "./run";
import { goal } from "./target";
import { counted } from "./units";
import workerScript from "./worker.ts?worker&url";

let worker: Worker | null = null;
const ask = (request: Request) => worker?.postMessage(request);

let saved: SavedJob | null = null;
let model: ModelInfo | null = null;
let run: RunView | null = null;
/** Where it shows how far the worker is. */
let place: "status" | "score" | "exported" = "status";
const result = new ResultView(ask, {
  exporting() {
    place = "exported";
    working(true);
  },
  extending: beginWork,
});

/** What `start` was asked for, until the visitor has agreed to what it takes. */
let wanted: Job | null = null;

// ---- Actions

/** Whether the worker is at something: only one thing at a time can be asked of it. */
function working(on: boolean): void {
  if (on) allIsWell();
  for (const id of ["start", "measure", "resume", "discard", "extend-go", "zip", "to-folder"]) $<HTMLButtonElement>(id).disabled = on;
  if (!on) for (const id of ["pause", "stop"]) $<HTMLButtonElement>(id).disabled = true;
}

/** A search is on its way: its place is shown, and it can be stopped. */
function beginWork(): void {
  working(true);
  place = "status";
  $("result").hidden = true;
  $<HTMLButtonElement>("stop").disabled = false;
  say("Starting");
  open("run");
}

async function startFrom(asked: Promise<Job | null>, replace: boolean): Promise<void> {
  withdrawQuestion();
  working(true);
  const job = await asked;
  if (!job) {
    working(false);
    return;
  }
  wanted = job;
  beginWork();
  ask({ type: "start", job, replace });
}

$("setup").addEventListener("submit", (event) => {
  event.preventDefault();
  void startFrom(job(), false);
});
$("measure").addEventListener("click", async () => {
  working(true);
  place = "score";
  const asked = await job();
  if (asked) ask({ type: "perplexity", job: asked });
  else working(false);
});
$("resume").addEventListener("click", () => {
  withdrawQuestion();
  const source = saved && savedSource(saved);
  if (!saved || !source || !input("saved-remove").reportValidity()) return;
  const { target } = saved.settings;
  beginWork();
  ask({ type: "resume", source, target: "remove" in target ? { remove: input("saved-remove").valueAsNumber } : target });
});
$("discard").addEventListener("click", () => ask({ type: "discard" }));
$("pause").addEventListener("click", () => {
  if (run?.isPaused) {
    run.goOn();
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

// ---- What the worker says

function open(id: "run" | "result"): void {
  $(id).hidden = false;
  $(id).focus({ preventScroll: true });
  $(id).scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

function showSaved(job: SavedJob | null): void {
  saved = job;
  $("saved").hidden = job === null;
  if (!job) return;
  $("saved-text").textContent = describe(job);
  const { target } = job.settings;
  const more = "remove" in target;
  // Only a number can be changed; required where it is not shown, it could not be given.
  Object.assign(input("saved-remove"), { min: Math.max(1, job.stepsDone), value: more ? target.remove : "", required: more });
  $("saved-number").hidden = !more;
}

function showScore({ perplexity, windows, seconds }: Extract<Reply, { type: "score" }>): void {
  const value = document.createElement("data");
  // All digits, for programs; people see some.
  value.value = String(perplexity);
  value.textContent = format.perplexity(perplexity);
  $("score").replaceChildren("Perplexity ", value, ` on ${format.windows(windows)}, in ${format.duration(seconds)}.`);
  if (model) showNotes($("score-notes"), notesOn(model, windows));
}

async function heard(data: Reply): Promise<void> {
  switch (data.type) {
    case "saved":
      showSaved(data.job);
      break;
    case "status":
      if (place === "status") say(data.text, data.share);
      else $(place).textContent = data.share === undefined ? `${data.text}…` : `${data.text}, ${Math.floor(data.share * 100)} %`;
      break;
    case "model":
      model = data.info;
      break;
    case "device": {
      const { name, backend, kernel, maxBindingBytes } = data.info;
      $("device").dataset.kernel = kernel;
      $("device").title = `${name} (${backend}), kernel ${kernel}, bindings up to ${format.bytes(maxBindingBytes)}`;
      break;
    }
    case "unfinished":
      working(false);
      $("result").hidden = !result.isThere;
      say("Not started", 0);
      showSaved(data.job);
      if (await question({ title: "Replace the unfinished search?", text: `Only one is kept, and this one would be lost: ${describe(data.job)}`, yes: "Replace it", no: "Keep it" })) {
        if (wanted) void startFrom(Promise.resolve(wanted), true);
      } else if (!run) $("run").hidden = true;
      break;
    case "estimate": {
      const { target, units, windows, window } = data.settings;
      const what = "remove" in target ? `Removing ${counted(target.remove, units)}` : `The search for ${goal(target, units)}`;
      const assumed = data.assumed === undefined ? "" : ` if ${counted(data.assumed, units)} can go`;
      const text = `${what}, chosen by ${format.count(windows, "window")} of ${window} tokens, takes about ${format.duration(data.seconds)} on this device${assumed}, more than the promised minute. Fewer blocks, shorter windows or a smaller model take less.`;
      say("Waiting for your answer", 0);
      ask({ type: "answer", go: await question({ title: "This takes longer than a minute", text, yes: "Go on", no: "Cancel" }) });
      break;
    }
    case "begin":
      working(true);
      result.clear();
      $("saved").hidden = true;
      $("unsaved").hidden = true;
      $("pause").textContent = "Pause";
      for (const id of ["pause", "stop"]) $<HTMLButtonElement>(id).disabled = false;
      if (model) run = new RunView(model, data.settings, data.windows, data.state);
      break;
    case "event":
      run?.happened(data.event, data.cost);
      break;
    case "paused":
      run?.pause();
      $("pause").textContent = "Continue";
      break;
    case "cancelled":
      withdrawQuestion();
      working(false);
      result.clear();
      say("Stopped", 0);
      if (!run) $("run").hidden = true;
      break;
    case "found":
      working(false);
      if (data.found.finished) showSaved(null);
      run?.end(data.found.finished);
      if (run) result.show(data.found, run);
      open("result");
      break;
    case "score":
      working(false);
      showScore(data);
      break;
    case "heldOut":
    case "continuing":
    case "text":
    case "compared":
      result.heard(data);
      break;
    case "report":
      download("report.html", new Blob([data.html], { type: "text/html" }));
      break;
    case "exported":
      working(false);
      result.exported(data);
      break;
    case "unsaved":
      $("unsaved").textContent = `The search goes on, but cannot be saved (${data.reason}): it would be lost with this page. Free some storage of this site to change that.`;
      $("unsaved").hidden = false;
      break;
    case "error":
      withdrawQuestion();
      working(false);
      $("score").textContent = "";
      $("exported").textContent = "";
      if (place === "status") say("", 0);
      if ($("result").hidden) result.clear();
      if (!run) $("run").hidden = true;
      tellTrouble(data);
      break;
  }
}

/** Starts the worker from a blob: only so does the page's content security policy hold for it too. */
function startWorker(): Worker {
  const script = `import ${JSON.stringify(new URL(workerScript, location.href).href)};`;
  const started = new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })), { type: "module" });
  started.onmessage = ({ data }: MessageEvent<Reply>) => void heard(data);
  started.onerror = (event) => {
    working(false);
    complain(`The program could not be loaded: ${event.message || "the worker did not start"}.`, ["Reload the page."]);
  };
  return started;
}

// ---- The beginning

async function greet(): Promise<void> {
  takeChoices();
  if (!isSecureContext) {
    complain("WebGPU is only there on pages from https or localhost.", browsers());
  } else if (!navigator.gpu) {
    complain("This browser does not offer WebGPU, which the search runs on.", browsers());
  } else {
    const adapter = await navigator.gpu.requestAdapter().catch(() => null);
    if (adapter) {
      $("device").textContent = nameOf(adapter);
      if (isSoftware(adapter)) $("where").textContent = "this computer’s processor, slowly, because the browser offers no GPU";
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
