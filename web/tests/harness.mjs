// What the browser tests share: a server, a hub that can misbehave, a browser, and the native program to compare with.

import { execFile } from "node:child_process";
import { createReadStream, existsSync, mkdirSync, readFileSync, readdirSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
export const SITE = join(ROOT, "target/web");
export const TINY = join(ROOT, "assets/tiny");
export const SHOTS = join(ROOT, "target/web-screenshots");
export const NATIVE = process.env.BLOCKPRUNER ?? join(ROOT, "target/debug/blockpruner");
const SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json";
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm", ".json": "application/json" };

/** Serves `folders` by their first path segments, "" being the rest. Returns its address and a way to close it. */
export async function serve(folders, handle = () => false) {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    if (handle(request, response, path)) return;
    const [, first] = path.split("/");
    const [folder, rest] = first && folders[first] ? [folders[first], path.slice(first.length + 1)] : [folders[""], path];
    const file = join(folder ?? "/nowhere", normalize(rest.endsWith("/") ? `${rest}index.html` : rest));
    if (!existsSync(file) || !statSync(file).isFile()) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream", "content-length": statSync(file).size });
    createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** Serves the page, with `script` ahead of that of its worker. */
export const servePatched = (script) =>
  serve({ "": SITE }, (request, response, path) => {
    if (!/\/worker-[^/]*\.js$/.test(path)) return false;
    response.writeHead(200, { "content-type": TYPES[".js"] }).end(script + readFileSync(join(SITE, path), "utf8"));
    return true;
  });

/**
 * Plays a model hub on another origin: `/MODE/name/resolve/main/FILE` is a file of the tiny model, served as MODE says.
 * `requests` lists what was asked for, by path, and by mode and file; `missing` the paths of what is not there. The good
 * hub, as the real one, lists a repository's files.
 */
export async function hub() {
  const [requests, missing] = [[], []];
  const sharded = shards(readFileSync(join(TINY, "model.safetensors")));
  const broken = new Map();
  const server = await serve({}, (request, response, path) => {
    const [, mode, , , , , file = ""] = path.split("/");
    const cors = { "access-control-allow-origin": "*", "access-control-allow-headers": "range", "access-control-expose-headers": "content-range" };
    if (request.method === "OPTIONS") {
      response.writeHead(204, cors).end();
      return true;
    }
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    requests.push({ path, mode, file, range: range?.[0] ?? null });
    if (path === "/good/api/models/someone/tiny/revision/main") {
      const siblings = readdirSync(TINY).map((rfilename) => ({ rfilename }));
      response.writeHead(200, { ...cors, "content-type": TYPES[".json"] }).end(JSON.stringify({ siblings }));
      return true;
    }
    const name = join(TINY, file);
    const made = mode === "sharded" ? sharded.get(file) : file === INDEX && INDICES[mode] ? indexOf(INDICES[mode]) : undefined;
    if (mode === "gated") {
      response.writeHead(401, cors).end();
      return true;
    }
    const withoutWeights = file === "model.safetensors" && (mode === "sharded" || INDICES[mode]);
    if (!made && (mode === "nothing" || withoutWeights || !existsSync(name) || file === "")) {
      missing.push(path);
      response.writeHead(404, cors).end();
      return true;
    }
    let bytes = made ?? readFileSync(name);
    if (mode === "truncated" && file === "model.safetensors") bytes = bytes.subarray(0, 3_000_000);
    if (mode === "foreign" && file === "config.json") {
      bytes = Buffer.from(JSON.stringify({ ...JSON.parse(bytes), model_type: "mamba", architectures: ["MambaForCausalLM"] }));
    }
    if (mode === "hidden") delete cors["access-control-expose-headers"];
    if (mode === "refused" && range) {
      response.writeHead(416, cors).end();
      return true;
    }
    if (!range || mode === "ignored") {
      response.writeHead(200, { ...cors, "content-length": bytes.length }).end(bytes);
      return true;
    }
    const [start, end] = [Number(range[1]), Math.min(Number(range[2]), bytes.length - 1)];
    response.writeHead(206, { ...cors, "content-range": `bytes ${start}-${end}/${bytes.length}`, "content-length": end - start + 1 });
    // `broken` breaks off in the middle for ever, `flaky` only the first time that a range is asked for.
    const key = `${mode} ${file} ${range[0]}`;
    const breaks = end - start > 1000 && (mode === "broken" || (mode === "flaky" && !broken.has(key)));
    broken.set(key, true);
    if (breaks) {
      response.write(bytes.subarray(start, start + 500));
      setTimeout(() => response.destroy(), 20);
    } else response.end(bytes.subarray(start, end + 1));
    return true;
  });
  return { ...server, requests, missing };
}

const INDEX = "model.safetensors.index.json";
/** Shard files that hubs of these modes name, though they have none. */
const INDICES = {
  climbing: ["model-1.safetensors", "../../../../good/tiny/resolve/main/model.safetensors"],
  many: Array.from({ length: 40 }, (_, index) => `model-${index}.safetensors`),
};
const indexOf = (names) => Buffer.from(JSON.stringify({ weight_map: Object.fromEntries(names.map((name, index) => [`tensor.${index}`, name])) }));

/** A safetensors file as two shards and their index, by name. */
function shards(bytes) {
  const begin = 8 + Number(bytes.readBigUInt64LE());
  const { __metadata__, ...header } = JSON.parse(bytes.subarray(8, begin));
  const files = new Map();
  const weight_map = {};
  for (const [number, name] of ["model 1 of 2.safetensors", "model 2 of 2.safetensors"].entries()) {
    const tensors = Object.entries(header).filter((_, index) => index % 2 === number);
    const parts = tensors.map(([, { data_offsets: [from, to] }]) => bytes.subarray(begin + from, begin + to));
    let end = 0;
    const entries = tensors.map(([tensor, info], index) => [tensor, { ...info, data_offsets: [end, (end += parts[index].length)] }]);
    const text = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    files.set(name, Buffer.concat([length, text, ...parts]));
    for (const [tensor] of tensors) weight_map[tensor] = name;
  }
  return files.set(INDEX, Buffer.from(JSON.stringify({ weight_map })));
}

const FLAGS = [
  "--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

/** Chromium with WebGPU on SwiftShader; without WebGPU if so wanted. */
export const launch = ({ webgpu = true } = {}) =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: webgpu ? FLAGS : [...FLAGS.filter((flag) => !flag.includes("webgpu")), "--disable-features=WebGPU", "--disable-gpu"],
    ignoreDefaultArgs: ["--disable-gpu"],
  });

/** How long a test waits for anything, in milliseconds: software drivers are slow on a busy machine. */
export const PATIENCE = 300_000;

/** A new page that waits patiently. */
export async function open(browser, options) {
  const page = await browser.newPage(options);
  page.setDefaultTimeout(PATIENCE);
  return page;
}

/** A page with the package alone: `api`, the tiny model as `files` and `checkpoint`, and `windows` of the sample text. */
export async function libraryPage(windowOptions) {
  const blank = (request, response, path) => path === "/" && response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>API</title>");
  const site = await serve({ pkg: join(ROOT, "web/pkg"), tiny: TINY }, blank);
  const browser = await launch();
  const close = async () => {
    await browser.close();
    site.close();
  };
  try {
    const page = await open(browser);
    await page.goto(site.url);
    await page.evaluate(async (windowOptions) => {
      const api = await import("/pkg/blockpruner_web.js");
      await api.default();
      const files = {};
      for (const name of ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]) {
        files[name] = new Uint8Array(await (await fetch(`/tiny/${name}`)).arrayBuffer());
      }
      const checkpoint = await api.Checkpoint.fromFiles("tiny", files);
      const windows = checkpoint.windows(api.CalibrationText.sample(), windowOptions);
      Object.assign(globalThis, { api, files, checkpoint, windows });
    }, windowOptions);
    return { page, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Waits for the result of a search on the page, and for the comparison that comes with it; on a busy machine, agrees to it. */
export async function result(page) {
  await page.waitForSelector("#result:visible, #question:visible", { timeout: PATIENCE });
  if (await page.isVisible("#question")) {
    await page.click("#question-yes");
    await page.waitForSelector("#result:visible", { timeout: PATIENCE });
  }
  await compared(page);
}

/** Waits until the models before and after have been compared. */
export const compared = (page) => page.waitForSelector("#continue:not([aria-busy])", { timeout: PATIENCE });

/** Runs the native program on SwiftShader with the kernel that browsers get, and returns its JSON. */
export async function native(args, { kernel = "tile" } = {}) {
  const { stdout } = await promisify(execFile)(NATIVE, [...args, "--kernel", kernel, "--tier", "baseline", "--json"], {
    cwd: ROOT,
    env: { ...process.env, VK_DRIVER_FILES: SWIFTSHADER },
    maxBuffer: 1 << 28,
  });
  return JSON.parse(stdout);
}

/** A plan without what may differ between two runs of one search: time, and how candidates were grouped. */
export function essence(plan) {
  for (const step of plan.steps) {
    delete step.seconds;
    delete step.work;
  }
  return plan;
}

/** A screenshot to look at. */
export async function shot(page, name) {
  mkdirSync(SHOTS, { recursive: true });
  await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true });
}

export function close(actual, expected, tolerance, what) {
  const difference = Math.abs(actual - expected) / Math.abs(expected);
  if (!(difference <= tolerance)) throw new Error(`${what}: ${actual} instead of ${expected} (relative difference ${difference})`);
}
