// The worker's model: opened from wherever it lies, and brought to the device.

import { Checkpoint, Session } from "../pkg/blockpruner_web.js";
import type { Progress } from "../pkg/blockpruner_web.js";
import { Problem, reply } from "./post";
import type { ModelSource } from "./protocol";

export interface Loaded {
  key: string;
  checkpoint: Checkpoint;
  session: Session;
}

/** One at a time: a device's memory goes with its session. */
let loaded: Loaded | null = null;

/** The key by which a model that is on the device already is recognised. */
function keyOf(source: ModelSource): string {
  if (source.kind !== "files") return JSON.stringify(source);
  const files = Object.values(source.files).map((file) => [file.name, file.size, file.lastModified]);
  return JSON.stringify(["files", source.name, files]);
}

async function openCheckpoint(source: ModelSource, hub: string, signal: AbortSignal): Promise<Checkpoint> {
  switch (source.kind) {
    case "tiny":
      return openTiny();
    case "files":
      return Checkpoint.fromFiles(source.name, source.files);
    case "hub": {
      const [owner, name, ...file] = source.repository.split("/");
      const path = file.map(encodeURIComponent).join("/");
      return Checkpoint.fromUrl(source.repository, `${hub}/${owner}/${name}/resolve/main/${path}`, { signal });
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

const STAGES: Record<Progress["stage"], string> = {
  open: "Opening the device and testing it",
  load: "Loading weights",
  compile: "Compiling shaders",
  write: "Writing the model",
};

let told = 0;
/** Tells how far something is, a hundred times at most. */
export function onProgress(progress: Progress): void {
  const share = "total" in progress ? progress.done / progress.total : undefined;
  if (share !== undefined && share > told && share - told < 0.01 && share < 1) return;
  told = share ?? 0;
  reply({ type: "status", text: STAGES[progress.stage], share });
}

/** Opens a model and brings it to the device, unless it is there already. */
export async function load(source: ModelSource, hub: string, signal: AbortSignal): Promise<Loaded> {
  const key = keyOf(source);
  if (loaded?.key === key) {
    reply({ type: "model", info: loaded.checkpoint.info() });
    reply({ type: "device", info: loaded.session.device() });
    return loaded;
  }
  unload();
  reply({ type: "status", text: "Opening the model" });
  const checkpoint = await openCheckpoint(source, hub, signal);
  reply({ type: "model", info: checkpoint.info() });
  const session = await Session.open(checkpoint, { name: await deviceName(), signal, onProgress });
  loaded = { key, checkpoint, session };
  reply({ type: "device", info: session.device() });
  try {
    await session.preload({ signal, onProgress });
  } catch (error) {
    unload();
    throw error;
  }
  return loaded;
}

/** Gives the device back, and everything on it. */
export function unload(): void {
  const old = loaded;
  loaded = null;
  if (!old) return;
  old.session.destroy();
  old.session.free();
  old.checkpoint.free();
}

/** Browsers hide the device's name but tell its vendor and architecture. */
async function deviceName(): Promise<string> {
  const adapter = await navigator.gpu?.requestAdapter();
  const { vendor, architecture, description } = adapter?.info ?? {};
  return [vendor, description || architecture].filter(Boolean).join(" ") || "WebGPU device";
}
