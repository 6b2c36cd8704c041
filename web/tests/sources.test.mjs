// Models from wherever: local files, a hub that behaves, and many that do not.

import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { PATIENCE, ROOT, TINY, hub, launch, libraryPage, open, servePatched, shot } from "./harness.mjs";

/** Counts the requests that the worker has under way. */
const PATCH = `
  {
    let underWay = 0;
    globalThis.mostUnderWay = 0;
    const { fetch } = globalThis;
    globalThis.fetch = async (...args) => {
      globalThis.mostUnderWay = Math.max(globalThis.mostUnderWay, (underWay += 1));
      try {
        return await fetch(...args);
      } finally {
        underWay -= 1;
      }
    };
  }
`;

let site, browser, models, folder;
before(async () => {
  site = await servePatched(PATCH);
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
  await page.click("#other-hub-use");
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

  const remote = await visit();
  assert.equal(number(await fromHub(remote)), expected);
  await remote.close();
  // Every byte once: no range is asked for twice, and no file of the good hub is fetched whole.
  const weights = models.requests.filter(({ mode, file }) => mode === "good" && file === "model.safetensors").map(({ range }) => range);
  assert.deepEqual(weights.filter((range, at) => weights.indexOf(range) !== at), []);
  assert.ok(weights.length >= 2 && weights.every((range) => range !== null), String(weights));
  // What the hub lists is what is asked for: the console stays clean.
  assert.deepEqual(models.missing.filter((path) => path.startsWith("/good/")), []);

  const local = await visit();
  await local.setInputFiles("#folder", TINY);
  assert.equal(number(await outcome(local)), expected);
  assert.match(await local.textContent("#chosen"), /^tiny: /);
  await local.close();
});

test("whatever a hub does with ranges, the model is the same", async () => {
  const { page, close: end } = await libraryPage({ window: 64, maxWindows: 1 });
  try {
    const measured = await page.evaluate(async (hub) => {
      const measure = async (checkpoint) => {
        const session = await api.Session.open(checkpoint);
        const { perplexity } = await session.perplexity(windows);
        session.destroy();
        return perplexity;
      };
      const found = { here: await measure(checkpoint) };
      for (const mode of ["good", "flaky", "ignored", "refused", "hidden", "sharded"]) {
        found[mode] = await measure(await api.Checkpoint.fromUrl(mode, `${hub}/${mode}/someone/tiny/resolve/main/`));
      }
      return found;
    }, models.url);
    for (const [mode, perplexity] of Object.entries(measured)) assert.equal(perplexity, measured.here, mode);
  } finally {
    await end();
  }
});

test("a GGUF file is measured", async () => {
  const page = await visit();
  await page.setInputFiles("#gguf", join(ROOT, "tests/fixtures/gguf-k-quants/model.gguf"));
  assert.ok(number(await outcome(page)));
  await page.close();
});

test("the parts of a split GGUF file are the whole one", async () => {
  const split = join(ROOT, "core/src/model/testdata/gguf-split");
  const measure = async (files) => {
    const page = await visit();
    await page.setInputFiles("#gguf", files);
    const said = await outcome(page);
    await page.close();
    return said;
  };
  const parts = readdirSync(split).map((name) => join(split, name));
  const whole = await measure([join(ROOT, "tests/fixtures/gguf-mistral/model.gguf")]);
  assert.equal(parts.length, 3);
  assert.ok(number(whole), whole);
  assert.equal(number(await measure(parts)), number(whole));
  assert.match(await measure(parts.slice(0, 2)), /split-00003-of-00003\.gguf/);
});

test("weights that PyTorch pickled, whole or in shards, are those that safetensors hold", async () => {
  const fixture = join(ROOT, "tests/fixtures/window-2048");
  const pickled = join(ROOT, "core/src/model/testdata/pytorch");
  const shards = readdirSync(pickled).filter((name) => name !== "pytorch_model.bin");
  const weights = { safetensors: [join(fixture, "model.safetensors")], whole: [join(pickled, "pytorch_model.bin")], shards: shards.map((name) => join(pickled, name)) };
  const measured = {};
  for (const [kind, files] of Object.entries(weights)) {
    const model = join(folder, kind);
    mkdirSync(model);
    for (const file of [join(fixture, "config.json"), join(fixture, "tokenizer.json"), ...files]) copyFileSync(file, join(model, basename(file)));
    const page = await visit();
    await page.setInputFiles("#folder", model);
    measured[kind] = await outcome(page);
    await page.close();
  }
  assert.equal(shards.length, 3);
  assert.ok(number(measured.safetensors), measured.safetensors);
  for (const [kind, said] of Object.entries(measured)) assert.equal(number(said), number(measured.safetensors), `${kind}: ${said}`);
});

test("what a hub refuses is named", async () => {
  const cases = [
    ["gated", /config\.json.*private or gated/s],
    ["nothing", /no model here/],
    ["broken", /model\.safetensors|tokenizer\.json/],
    ["truncated", /model\.safetensors.*(cut short|bytes)/s],
    ["foreign", /config\.json.*mamba.*not supported/s],
    ["climbing", /index\.json.*`\.\.\/\.\.\/\.\.\/\.\.\/good.*no plain name/s],
    ["many", /index\.json but none of its shards/],
  ];
  for (const [mode, expected] of cases) {
    const page = await visit(mode);
    assert.match(await fromHub(page), expected, mode);
    if (mode === "many") assert.equal(await page.workers()[0].evaluate(() => globalThis.mostUnderWay), 6);
    await page.close();
  }
  const climbed = models.requests.filter(({ path }) => !/^\/\w+\/(someone\/tiny\/resolve\/main\/[\w .-]+|api\/models\/someone\/tiny\/revision\/main)$/.test(path));
  assert.deepEqual(climbed, [], "only the list and files beside the index are asked for");
  const page = await open(browser);
  await page.goto(`${site.url}/?hub=http://127.0.0.1:9`);
  await page.click("#other-hub-use");
  assert.match(await fromHub(page), /no answer/);
  await page.fill("#repository", "nonsense");
  await page.click("#measure");
  assert.match(await page.textContent("#problem"), /organisation\/name/);
  await page.close();
});

test("a link's own server is named, and asked for nothing unless the visitor agrees", async () => {
  const before = models.requests.length;
  const page = await open(browser);
  await page.goto(`${site.url}/?hub=${models.url}/good`);
  await page.waitForSelector("#other-hub:visible");
  assert.ok((await page.textContent("#other-hub")).includes(`names ${new URL(models.url).host} as the server`));
  assert.ok(await page.isDisabled("#start"));
  await shot(page, "desktop-other-hub");
  await page.click("#other-hub-decline");
  assert.match(await fromHub(page), /https:\/\/huggingface\.co\/someone\/tiny/);
  assert.equal(await page.textContent("#hub-label"), "From Hugging Face");

  await page.reload();
  await page.click("#other-hub-use");
  await page.waitForSelector("#start:enabled");
  assert.equal(await page.textContent("#hub-label"), `From ${new URL(models.url).host}`);
  assert.equal(models.requests.length, before);

  for (const wrong of ["javascript:alert(1)", "ftp://example.org", "//example.org", "", "https://huggingface.co@example.org/"]) {
    await page.goto(`${site.url}/?hub=${encodeURIComponent(wrong)}`);
    await page.waitForSelector("#start:enabled");
    assert.match(await page.textContent("#problem"), /no plain http or https address/, wrong);
    assert.ok(await page.isHidden("#other-hub"), wrong);
  }
  await page.close();
});

test("what the policy does not allow is refused, in the page and in its worker", async () => {
  const page = await open(browser);
  await page.goto(site.url);
  await page.waitForSelector("#start:enabled");
  const refused = await page.evaluate(
    () =>
      new Promise((resolve) => {
        document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
        const script = document.createElement("script");
        script.textContent = "globalThis.injected = true";
        document.body.append(script);
      }),
  );
  assert.equal(refused, "script-src-elem");
  assert.equal(await page.evaluate(() => globalThis.injected), undefined);
  const before = models.requests.length;
  const ask = (url) => fetch(url).then(() => "answered", () => "refused");
  for (const place of [page, page.workers()[0]]) assert.equal(await place.evaluate(ask, `${models.url}/good/someone/tiny/resolve/main/config.json`), "refused");
  assert.equal(models.requests.length, before);
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

  // One file that is no model is named when it is chosen.
  await page.setInputFiles("#gguf", { name: "picture.png", mimeType: "image/png", buffer: Buffer.from([0x89, 0x50, 0x4e, 0x47]) });
  assert.match(await page.textContent("#problem"), /picture\.png is no model: choose a \.gguf file, or the folder/);
  await page.setInputFiles("#gguf", join(TINY, "model.safetensors"));
  assert.match(await page.textContent("#problem"), /model\.safetensors is only a part of a model/);

  await page.check('input[name="model"][value="tiny"]');
  await page.check('input[name="text"][value="paste"]');
  assert.match(await outcome(page), /Paste a text first/);
  await page.fill("#pasted", "too short");
  assert.match(await outcome(page), /less than one window/);
  await page.check('input[name="text"][value="file"]');
  const picture = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d, 0x49, 0x48, 0x44, 0x52, 0xff, 0xfe, 0x80]);
  await page.setInputFiles("#text-file", { name: "picture.txt", mimeType: "text/plain", buffer: picture });
  assert.match(await outcome(page), /picture\.txt/);
  assert.ok(await page.isVisible("#problem"));
  await page.setInputFiles("#text-file", { name: "rows.jsonl", mimeType: "application/json", buffer: Buffer.from('{"body": "x"}') });
  assert.match(await outcome(page), /no field `text`.*`body`/s);
  await page.check('input[name="text"][value="sample"]');
  assert.ok(number(await outcome(page)), "after all that, a good choice works");
  assert.match(await page.textContent("#score-notes"), /63 predicted tokens/);
  await page.fill("#window", "600");
  assert.ok(number(await outcome(page)));
  assert.match(await page.textContent("#score-notes"), /window of 600 tokens is more than the 512 that the model was made for/);
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
