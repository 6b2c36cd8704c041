// Models from wherever: local files, a hub that behaves, and many that do not.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { PATIENCE, ROOT, SITE, TINY, hub, launch, open, serve, shot } from "./harness.mjs";

let site, browser, models, folder;
before(async () => {
  site = await serve({ "": SITE });
  models = await hub();
  browser = await launch();
  folder = mkdtempSync(join(tmpdir(), "blockpruner-web-"));
});
after(async () => {
  await browser?.close();
  site?.close();
  models?.close();
});

async function visit(mode = "good") {
  const page = await open(browser, { viewport: { width: 1000, height: 800 } });
  await page.goto(`${site.url}/?hub=${models.url}/${mode}`);
  await page.fill("#window", "64");
  await page.fill("#windows", "1");
  return page;
}

/** What the page says in the end: a perplexity or a problem. */
async function outcome(page) {
  await page.click("#measure");
  await page.waitForFunction(() => !document.querySelector("#measure").disabled, null, { timeout: PATIENCE });
  const problem = (await page.isVisible("#problem")) ? await page.textContent("#problem") : "";
  return problem || (await page.textContent("#score"));
}

async function fromHub(page) {
  await page.check('input[name="model"][value="hub"]');
  await page.fill("#repository", "someone/tiny");
  return outcome(page);
}

const number = (text) => /^Perplexity ([\d.]+)/.exec(text)?.[1];

test("every way to the same model measures the same perplexity", async () => {
  const page = await visit();
  const expected = number(await outcome(page));
  assert.ok(expected, "the built-in model is measured");
  await page.close();

  for (const mode of ["good", "flaky", "ignored", "refused", "hidden"]) {
    const page = await visit(mode);
    const said = await fromHub(page);
    assert.equal(number(said), expected, `${mode}: ${said}`);
    await page.close();
  }
  // Every byte once: no range is asked for twice, and no file of the good hub is fetched whole.
  const weights = models.requests.filter(({ mode, file }) => mode === "good" && file === "model.safetensors").map(({ range }) => range);
  assert.deepEqual(weights.filter((range, at) => weights.indexOf(range) !== at), []);
  assert.ok(weights.length >= 2 && weights.every((range) => range !== null), String(weights));

  const local = await visit();
  await local.setInputFiles("#folder", TINY);
  assert.equal(number(await outcome(local)), expected);
  assert.match(await local.textContent("#chosen"), /^tiny: /);
  await local.close();
});

test("a GGUF file is measured", async () => {
  const page = await visit();
  await page.setInputFiles("#gguf", join(ROOT, "tests/fixtures/gguf-k-quants/model.gguf"));
  assert.ok(number(await outcome(page)));
  await page.close();
});

test("what a hub refuses is named", async () => {
  const cases = [
    ["gated", /config\.json.*private or gated/s],
    ["nothing", /no model here/],
    ["broken", /model\.safetensors|tokenizer\.json/],
    ["truncated", /model\.safetensors.*(cut short|bytes)/s],
    ["foreign", /config\.json.*mamba.*not supported/s],
  ];
  for (const [mode, expected] of cases) {
    const page = await visit(mode);
    assert.match(await fromHub(page), expected, mode);
    await page.close();
  }
  const page = await open(browser);
  await page.goto(`${site.url}/?hub=http://127.0.0.1:9`);
  assert.match(await fromHub(page), /no answer/);
  await page.fill("#repository", "nonsense");
  await page.click("#measure");
  assert.match(await page.textContent("#problem"), /organisation\/name/);
  await page.close();
});

test("wrong files are named, and the page goes on", async () => {
  const page = await visit();
  const wrong = join(folder, "holiday.gguf");
  writeFileSync(wrong, "not a model at all, only some text that is long enough");
  await page.setInputFiles("#gguf", wrong);
  assert.match(await outcome(page), /holiday\.gguf.*GGUF/s);

  const cut = join(folder, "cut.gguf");
  writeFileSync(cut, readFileSync(join(ROOT, "tests/fixtures/gguf-legacy/model.gguf")).subarray(0, 20_000));
  await page.setInputFiles("#gguf", cut);
  assert.match(await outcome(page), /cut\.gguf.*(cut short|ends)/s);
  await shot(page, "desktop-problem");

  await page.check('input[name="model"][value="tiny"]');
  await page.check('input[name="text"][value="paste"]');
  await page.fill("#pasted", "too short");
  assert.match(await outcome(page), /less than one window/);
  await page.check('input[name="text"][value="file"]');
  await page.setInputFiles("#text-file", { name: "rows.jsonl", mimeType: "application/json", buffer: Buffer.from('{"body": "x"}') });
  assert.match(await outcome(page), /no field `text`.*`body`/s);
  await page.check('input[name="text"][value="sample"]');
  assert.ok(number(await outcome(page)), "after all that, a good choice works");
  await page.close();
});

test("without WebGPU the page says which browsers have it", async () => {
  const plain = await launch({ webgpu: false });
  const page = await open(plain, { viewport: { width: 1000, height: 800 } });
  await page.addInitScript(() => delete Navigator.prototype.gpu);
  await page.goto(site.url);
  await page.waitForSelector("#problem:visible");
  assert.match(await page.textContent("#problem"), /does not offer WebGPU.*Chrome.*Safari.*Firefox/s);
  assert.ok(await page.isDisabled("#start"));
  await shot(page, "desktop-no-webgpu");
  await plain.close();
});
