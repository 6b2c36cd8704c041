// What the visitor chooses.

import { $, choice, input } from "./elements";
import * as format from "./format";
import { complain } from "./problems";
import type { Job, ModelSource, SavedJob, TextSource } from "./protocol";
import { settings, takeSettings } from "./settings";
import { chosenBy } from "./strategies";
import { goal } from "./target";
import { counted } from "./units";

let local: { name: string; files: Record<string, File> } | null = null;

const choose = (name: string, value: string) => {
  document.querySelector<HTMLInputElement>(`input[name="${name}"][value="${value}"]`)!.checked = true;
};

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
      // As they are: what is no text is for the library to refuse.
      return { kind: "text", name: file.name, bytes: new Uint8Array(await file.arrayBuffer()), field };
    }
    case "paste": {
      const { value } = $<HTMLTextAreaElement>("pasted");
      if (value.trim() === "") return "Paste a text first, or choose another one.";
      return { kind: "text", name: "pasted.txt", bytes: new TextEncoder().encode(value) };
    }
    default:
      return { kind: "sample" };
  }
}

/** What the form asks for; null, with a complaint, if something is missing. */
export async function job(): Promise<Job | null> {
  const [source, text] = [modelSource(), await textSource().catch((error: Error) => `The text file cannot be read: ${error.message}`)];
  for (const problem of [source, text]) {
    if (typeof problem === "string") {
      complain(problem);
      return null;
    }
  }
  return { source: source as ModelSource, text: text as TextSource, settings: settings() };
}

/** The model of a saved search; null, with a complaint, if the visitor has to choose its files again. */
export function savedSource({ model }: SavedJob): ModelSource | null {
  if (model.kind !== "files") return model;
  if (local) return { kind: "files", ...local };
  choose("model", "files");
  complain(`The browser cannot open ${model.name} again by itself: choose it under “From this computer”, then press Resume.`);
  return null;
}

const KINDS = { mix: "both kinds of blocks", mha: "attention blocks", mlp: "feed-forward blocks", pairs: "pairs of blocks", layers: "layers" };

export function describe({ model, text, settings, stepsDone, at }: SavedJob): string {
  const name = model.kind === "tiny" ? "the built-in model" : model.kind === "hub" ? model.repository : model.name;
  const from = text.kind === "sample" ? "the built-in sample" : text.name;
  const { target, units, blockTypes, strategy } = settings;
  const done = "remove" in target ? `${stepsDone} of ${counted(target.remove, units)} removed` : `${counted(stepsDone, units)} removed, for ${goal(target, units)}`;
  return (
    `${name}, ${done}, saved ${new Date(at).toLocaleString()}. ` +
    `It chooses among ${KINDS[units === "blocks" ? blockTypes : units]} ${chosenBy(strategy)} ${format.count(settings.windows, "window")} of ${format.grouped(settings.window)} tokens of ${from}.`
  );
}

/** Why one file alone is no model; null if it may be one. */
function noModel(file: File): string | null {
  if (/\.gguf$/i.test(file.name)) return null;
  const folder = "the folder that holds config.json, model.safetensors and tokenizer.json";
  if (/\.(safetensors|json)$/i.test(file.name)) return `${file.name} is only a part of a model: choose ${folder}.`;
  return `${file.name} is no model: choose a .gguf file, or ${folder}.`;
}

function takeFiles(name: string, files: File[]): void {
  const problem = files.length === 0 ? "There are no files in that folder." : files.length === 1 ? noModel(files[0]!) : null;
  if (problem) {
    complain(problem);
    return;
  }
  local = { name, files: Object.fromEntries(files.map((file) => [file.name, file])) };
  choose("model", "files");
  const size = files.reduce((sum, file) => sum + file.size, 0);
  $("chosen").textContent = `${name}: ${format.count(files.length, "file")}, ${format.bytes(size)}`;
}

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

/** Files can be chosen, and dropped anywhere on the page. */
export function takeChoices(): void {
  takeSettings();
  input("folder").addEventListener("change", () => {
    const files = Array.from(input("folder").files ?? []);
    // Only the folder itself: names of files in folders below it could collide.
    const top = files.filter((file) => file.webkitRelativePath.split("/").length <= 2);
    if (files.length > 0) takeFiles(files[0]!.webkitRelativePath.split("/")[0] || "model", top);
  });
  input("gguf").addEventListener("change", () => {
    // Several are the parts of a split model.
    const files = Array.from(input("gguf").files ?? []);
    if (files.length > 0) takeFiles(files[0]!.name, files);
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
}
