// The whole way of a visitor, by clicking; and the numbers against the native program on the same driver. Runs with no other
// test beside it, because it takes the time.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, readdirSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { after, before, test } from "node:test";
import { PATIENCE, close, compared, launch, native, open, result, servePatched, shot } from "./harness.mjs";

let site, browser, folder;
before(async () => {
  site = await servePatched(`(${listen})();`);
  browser = await launch();
  folder = mkdtempSync(join(tmpdir(), "blockpruner-web-"));
});
after(async () => {
  await browser?.close();
  site?.close();
});

/** Lists what the content security policy refuses. */
function listen() {
  globalThis.refused = [];
  addEventListener("securitypolicyviolation", (event) => globalThis.refused.push(`${event.effectiveDirective} ${event.blockedURI}`));
}

async function download(page, selector, name) {
  const [file] = await Promise.all([page.waitForEvent("download"), page.click(selector)]);
  await file.saveAs(join(folder, name));
  return join(folder, name);
}

test("one button prunes the built-in model, and the native program agrees", async (t) => {
  const page = await open(browser, { viewport: { width: 1280, height: 900 }, acceptDownloads: true });
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  await page.addInitScript(listen);
  await page.goto(site.url);
  await shot(page, "desktop-start");
  const start = performance.now();
  await page.waitForSelector("#start:enabled");
  assert.match(await page.textContent("#device"), /swiftshader: software \(CPU\), slow/i);
  assert.match(await page.textContent("header"), /runs on this computer’s processor/);
  await page.click("#start");
  await page.waitForSelector(".cell.scored, #question:visible", { timeout: PATIENCE });
  if (await page.isVisible("#question")) {
    assert.match(await page.textContent("#question-text"), /Removing 4 blocks, .* more than the promised minute/);
    await page.click("#question-yes");
    await page.waitForSelector(".cell.scored", { timeout: PATIENCE });
  }
  t.diagnostic(`time to first candidate: ${((performance.now() - start) / 1000).toFixed(1)} s`);
  await page.waitForSelector(".cell.gone", { timeout: PATIENCE });
  await shot(page, "desktop-running");
  await page.waitForSelector("#result:visible", { timeout: PATIENCE });
  t.diagnostic(`button to result: ${((performance.now() - start) / 1000).toFixed(1)} s`);

  // What the models say comes by itself.
  await result(page);
  await shot(page, "desktop-result");
  const plan = JSON.parse(readFileSync(await download(page, "#plan", "plan.json")));
  const order = JSON.parse(readFileSync(await download(page, "#order", "order.json")));
  assert.equal(plan.model.name, "builtin:tiny");
  const report = readFileSync(await download(page, "#report", "report.html"), "utf8");
  for (const step of plan.steps) assert.ok(report.includes(`<td>${step.perplexity.toFixed(4)}</td>`), `the report has step ${step.step}`);
  // One block in six, however fast the machine is; that gets less text.
  const removedBlocks = plan.steps.length;
  assert.equal(removedBlocks, 4);
  assert.equal(removedBlocks, plan.settings.remove);
  assert.equal(Object.keys(order).length, removedBlocks);
  assert.equal(await page.locator("#map .gone").count(), removedBlocks);

  const { window, windows } = plan.calibration;
  const { kernel } = plan.device;
  const text = ["--window", String(window), "--max-windows", String(windows)];
  const heldOut = Math.min(windows, 8);
  const read = ["--window", String(window), "--max-windows", String(windows + heldOut)];
  const removed = plan.steps.map((step) => step.removed).join(",");
  const prompt = "And it came to pass";
  const continued = (without) => native(["generate", "--model", "builtin:tiny", "--prompt", prompt, "--max-tokens", "32", ...without], { kernel });
  // Under way while the page writes.
  const references = Promise.all([
    native(
      ["prune", "--model", "builtin:tiny", "--calibration", "builtin:sample", "--remove", String(removedBlocks), ...text, "--out", join(folder, "native")],
      { kernel },
    ),
    continued([]),
    continued(["--without", removed]),
    native(["perplexity", "--model", "builtin:tiny", "--text", "builtin:sample", ...read], { kernel }),
    native(["perplexity", "--model", "builtin:tiny", "--text", "builtin:sample", ...read, "--without", removed], { kernel }),
  ]);

  // A block without which nothing works does not make all others look alike.
  const first = plan.steps[0].candidates.map(({ perplexity }) => perplexity);
  t.diagnostic(`first step: ${Math.min(...first).toFixed(1)} to ${Math.max(...first).toFixed(1)}; the scale ends at ${await page.textContent("#legend-high")}`);
  assert.ok(Number(await page.textContent("#legend-high")) < Math.max(...first));
  assert.ok((await page.locator("#map .cell.beyond").count()) >= 1);
  assert.match(await page.textContent("#size"), /^After step 4: 5\.\d MiB of weights become about [34]\.\d MiB\.$/);

  // What comes out loads in the native program, with the same perplexity.
  const formats = ["hf", "hf-zeroed", "gguf"];
  for (const format of formats) {
    await page.selectOption("#format", format);
    const zip = await download(page, "#zip", `${format}.zip`);
    execFileSync("unzip", ["-q", zip, "-d", join(folder, format)]);
    assert.deepEqual(JSON.parse(readFileSync(join(folder, format, "plan.json"))), plan);
  }
  // A folder, or one file beside its card.
  const modelIn = (format) => {
    const model = join(folder, format, "model");
    return join(model, readdirSync(model).find((file) => file.endsWith(".gguf")) ?? "");
  };
  const score = (format) => native(["perplexity", "--model", modelIn(format), "--text", "builtin:sample", ...text], { kernel });
  for (const [index, { perplexity }] of (await Promise.all(formats.map(score))).entries()) {
    close(perplexity, plan.steps.at(-1).perplexity, 1e-5, `perplexity of the ${formats[index]} download`);
  }

  // Into a folder goes what goes into the zip. Its picker wants a person: a folder of the browser's own stands in.
  await page.evaluate(async () => {
    const chosen = await (await navigator.storage.getDirectory()).getDirectoryHandle("chosen", { create: true });
    globalThis.showDirectoryPicker = async () => chosen;
  });
  await page.selectOption("#format", "hf");
  await page.click("#to-folder");
  await page.waitForFunction(() => /^Wrote tiny-pruned-\d+,/.test(document.querySelector("#exported").textContent));
  const inFolder = await page.evaluate(async () => {
    const digests = {};
    const walk = async (folder, path) => {
      for await (const [name, handle] of folder.entries()) {
        if (handle.kind === "directory") await walk(handle, [...path, name]);
        else {
          const digest = await crypto.subtle.digest("SHA-256", await (await handle.getFile()).arrayBuffer());
          digests[[...path, name].slice(1).join("/")] = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
        }
      }
    };
    await walk(await (await navigator.storage.getDirectory()).getDirectoryHandle("chosen"), []);
    return digests;
  });
  const inZip = readdirSync(join(folder, "hf"), { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const digest = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");
  assert.deepEqual(
    inFolder,
    Object.fromEntries(inZip.map(({ parentPath, name }) => [relative(join(folder, "hf"), join(parentPath, name)), digest(join(parentPath, name))])),
  );

  const [reference, dense, pruned, ...scores] = await references;
  // The windows behind those of the search, which it has not seen.
  const said = /^On ([\d,]+) tokens .* perplexity ([\d.]+) becomes ([\d.]+)\.$/.exec(await page.textContent("#held-out"));
  assert.equal(Number(said[1].replace(",", "")), heldOut * (window - 1));
  for (const [index, score] of scores.entries()) {
    // Of all windows that were read, less those of the search.
    const searched = Math.log(index === 0 ? plan.dense.perplexity : plan.steps.at(-1).perplexity) * windows;
    close(Number(said[2 + index]), Math.exp((score.mean_nll * (windows + heldOut) - searched) / heldOut), 1e-4, "held-out perplexity");
  }
  assert.match(await page.textContent("#searched"), new RegExp(`^4 of 24 blocks removed in .*, chosen by ${windows * (window - 1)} predicted tokens .* of the built-in sample`));
  assert.equal(await page.isVisible("#result-notes"), windows * (window - 1) < 2000);
  assert.deepEqual(plan.steps.map((step) => step.removed), reference.steps.map((step) => step.removed));
  close(plan.dense.perplexity, reference.dense.perplexity, 1e-5, "dense perplexity");
  plan.steps.forEach((step, index) => {
    close(step.perplexity, reference.steps[index].perplexity, 1e-5, `step ${index + 1}`);
    step.candidates.forEach((candidate, at) => {
      const other = reference.steps[index].candidates[at];
      assert.equal(candidate.block, other.block);
      if (candidate.perplexity !== null && other.perplexity !== null) {
        close(candidate.perplexity, other.perplexity, 1e-5, `step ${index + 1}, ${candidate.block}`);
      }
    });
  });
  for (const [id, { text }] of [["#dense-text", dense], ["#pruned-text", pruned]]) assert.equal(await page.textContent(id), prompt + text);

  // Any step can be had, in another type.
  await page.check('#steps input[value="2"]');
  await compared(page);
  assert.match(await page.textContent("#summary"), /^Without 2 blocks/);
  await page.selectOption("#dtype", "f32");
  const second = await download(page, "#zip", "second.zip");
  execFileSync("unzip", ["-q", second, "-d", join(folder, "second")]);
  const rescored = await native(["perplexity", "--model", join(folder, "second/model"), "--text", "builtin:sample", ...text], { kernel });
  close(rescored.perplexity, plan.steps[1].perplexity, 1e-5, "perplexity of the model after step 2");
  const weights = statSync(join(folder, "second/model/model.safetensors")).size;
  const promised = Number(/about ([\d.]+) MiB/.exec(await page.textContent("#size"))[1]) * 2 ** 20;
  close(weights, promised, 0.02, "the size that was told");

  assert.deepEqual(problems, []);
  for (const place of [page, page.workers()[0]]) assert.deepEqual(await place.evaluate(() => globalThis.refused), [], "the policy allows all that the page does");
  await page.close();
});

test("the page reads well on a phone, in the dark, and works by keyboard", async () => {
  const page = await open(browser, { viewport: { width: 390, height: 844 }, colorScheme: "dark" });
  await page.goto(site.url);
  await page.fill("#window", "32");
  await page.fill("#windows", "1");
  await page.fill("#amount", "2");
  await page.selectOption("#types", "mha");
  await page.waitForSelector("#start:enabled");
  await page.focus("#start");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#result:visible", { timeout: PATIENCE });
  await page.evaluate(() => scrollTo(0, 0));
  await shot(page, "phone-dark");
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 390, `the page is ${width} pixels wide`);
  // Everything that can be used has a name, and what the map shows is told in words.
  const nameless = await page.evaluate(() =>
    Array.from(document.querySelectorAll("button, input, select, textarea"))
      .filter((element) => !(element.textContent.trim() || element.labels?.length || element.ariaLabel))
      .map((element) => element.id),
  );
  assert.deepEqual(nameless, []);
  const labels = await page.locator("#map .cell").evaluateAll((cells) => cells.map((cell) => cell.ariaLabel));
  assert.equal(labels.length, 24);
  assert.equal(labels.filter((label) => /^mha:\d+, removed in step [12]$/.test(label)).length, 2);
  assert.ok(labels.some((label) => /^mha:\d+, perplexity (of at least )?\d/.test(label)));
  await page.close();
});
