// The package as another program uses it, without the page.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { close, libraryPage, native } from "./harness.mjs";

let page, end;
before(async () => ({ page, close: end } = await libraryPage({ window: 32, max_windows: 1 })));
after(() => end?.());

/** Compares what a kernel found with the native perplexities of the same text. */
async function agrees({ plan, without }, kernel) {
  const text = ["--text", "builtin:sample", "--window", "32", "--max-windows", "1"];
  const score = (blocks) => native(["perplexity", "--model", "builtin:tiny", ...text, "--without", blocks.join(",")], { kernel });
  const removed = plan.steps.map((step) => step.removed);
  const [expected, ...steps] = await Promise.all([score(["mha:2", "mlp:3"]), ...removed.map((_, index) => score(removed.slice(0, index + 1)))]);
  close(without.perplexity, expected.perplexity, 1e-5, "perplexity");
  for (const [index, { perplexity }] of plan.steps.entries()) close(perplexity, steps[index].perplexity, 1e-5, `step ${index + 1}`);
}

test("device, model, perplexity and search with each kernel are the native ones", async () => {
  const compared = [];
  for (const kernel of ["tile", "panel"]) {
    const found = await page.evaluate(async (kernel) => {
      const device = await api.Device.openFor(checkpoint, { kernel, name: "test device" });
      let loaded = [];
      const model = await device.load(checkpoint, (done, total) => (loaded = [done, total]));
      const without = await model.perplexity(windows, ["mha:2", "mlp:3"]);
      const search = await model.prune(windows, { remove: 2 });
      const events = [];
      for await (const event of search) events.push(event);
      const result = { info: device.info(), model: checkpoint.info(), loaded, without, events, plan: JSON.parse(search.plan()), order: search.order() };
      device.destroy();
      return result;
    }, kernel);
    assert.equal(found.info.kernel, kernel);
    assert.equal(found.loaded[0], found.loaded[1]);
    assert.equal(found.model.blocks.length, 24);
    const types = found.events.map((event) => event.type).filter((type, at, all) => type !== "progress" && type !== all[at - 1]);
    assert.deepEqual(types.filter((type) => type !== "candidate"), ["dense", "step", "step"]);
    const candidates = found.events.filter((event) => event.type === "candidate" && event.step === 1);
    assert.equal(new Set(candidates.map((event) => event.candidate.block)).size, 24);
    assert.deepEqual(found.events.filter((event) => event.type === "step").map((event) => event.removed), found.plan.steps.map((step) => step.removed));
    assert.deepEqual(Object.keys(JSON.parse(found.order)), ["1", "2"]);
    // Under way while the next kernel runs.
    compared.push(agrees(found, kernel));
  }
  await Promise.all(compared);
});

test("a search that is left can be gone on with, and only where it belongs", async () => {
  const found = await page.evaluate(async () => {
    const device = await api.Device.openFor(checkpoint);
    const model = await device.load(checkpoint);
    const order = async (saved) => {
      const search = await model.prune(windows, { remove: 2 }, saved);
      for await (const event of search) void event;
      return search.order();
    };
    const whole = await order();
    const search = await model.prune(windows, { remove: 2 });
    for await (const event of search) if (event.type === "step") break;
    const after = await search.next();
    const saved = search.save();
    // Stopping while an event is waited for ends the waiting.
    const other = await model.prune(windows, { remove: 2 });
    const waiting = other.next();
    await other.return();
    const ended = await waiting;
    const codes = [];
    const failing = async (call) => codes.push(await call().then(() => "none", (error) => [error.name, error.code, error instanceof Error]));
    await failing(() => model.prune(windows, { remove: 3 }, saved));
    await failing(() => model.prune(windows, { remove: 2 }, "{}"));
    await failing(() => model.prune(windows, { remove: 99 }));
    await failing(() => model.prune(windows, { remove: 2, typo: 1 }));
    await failing(() => model.perplexity(windows, ["mha:99"]));
    await failing(() => model.perplexity(windows, ["ffn:1"]));
    await failing(() => api.Checkpoint.fromFiles("x", { "x.gguf": new Blob(["nothing"]) }));
    const resumed = await order(saved);
    const running = await model.prune(windows, { remove: 2 });
    await running.next();
    device.destroy();
    await failing(async () => {
      for await (const event of running) void event;
    });
    return { whole, resumed, after, ended, codes, steps: JSON.parse(saved).search.steps.length };
  });
  assert.equal(found.resumed, found.whole);
  assert.equal(found.steps, 1);
  assert.deepEqual([found.after.done, found.ended.done], [true, true]);
  assert.deepEqual(found.codes, ["cannot-resume", "cannot-resume", "input", "input", "input", "input", "input", "device-lost"].map((code) => ["BlockPrunerError", code, true]));
});

test("text, windows, URL, continuation and export", async () => {
  const found = await page.evaluate(async () => {
    const remote = await api.Checkpoint.fromUrl("tiny", new URL("/tiny", location).href);
    const rows = api.Text.fromBytes("a.jsonl", new TextEncoder().encode('{"body":"one and two and three"}\n{"body":"four"}\n'), { field: "body", samples: 1 });
    const device = await api.Device.openFor(remote);
    const model = await device.load(remote);
    let streamed = "";
    const { text, tokens } = await model.generate("In the beginning", { max_tokens: 8 }, (part) => (streamed += part));
    const written = {};
    let file;
    const folder = {
      beginFile: async (name) => void (written[(file = name)] = 0),
      write: async (bytes) => void (written[file] += bytes.length),
      endFile: async () => {},
    };
    const summary = await remote.export(folder, { removed: ["mha:1"], dtype: "f32" });
    const full = await remote
      .export(
        { beginFile: async () => {}, write: async () => Promise.reject(new DOMException("the disk is full", "QuotaExceededError")), endFile: async () => {} },
        { removed: [] },
      )
      .catch((error) => [error.code, error.message]);
    device.destroy();
    return { info: api.Windows.cut(rows, remote, { window: 2 }).info(), text, streamed, tokens, written, summary, full };
  });
  const { text, tokens } = await native(["generate", "--model", "builtin:tiny", "--prompt", "In the beginning", "--max-tokens", "8"], { kernel: "panel" });
  assert.deepEqual([found.text, found.streamed, found.tokens], [text, text, tokens]);
  assert.equal(found.info.rows, 1);
  assert.ok(found.written["model.safetensors"] > found.summary.bytes && found.written["config.json"] > 0);
  assert.equal(found.full[0], "write");
  assert.match(found.full[1], /the disk is full.*free some space/s);
});
