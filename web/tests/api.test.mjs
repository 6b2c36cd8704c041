// The package as another program uses it, without the page.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { close, libraryPage, native } from "./harness.mjs";

let page, end;
before(async () => ({ page, close: end } = await libraryPage({ window: 32, maxWindows: 1 })));
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
      const opening = [];
      const session = await api.Session.open(checkpoint, { kernel, name: "test device", onProgress: ({ stage }) => opening.push(stage) });
      const loading = [];
      await session.preload({ onProgress: (progress) => loading.push(progress) });
      const without = await session.perplexity(windows, { without: ["mha:2", "mlp:3"] });
      const search = await session.search(windows, { remove: 2 });
      const events = [];
      for await (const event of search) events.push(event);
      const files = { planJson: search.planJson(), orderJson: search.orderJson() };
      const result = { info: session.device(), model: checkpoint.info(), opening, loading, without, events, state: search.state(), plan: search.plan(), order: search.order(), ...files };
      session.destroy();
      return result;
    }, kernel);
    assert.equal(found.info.kernel, kernel);
    assert.ok(found.info.maxBindingBytes > 0);
    assert.deepEqual(found.opening, ["open"]);
    const loaded = found.loading.filter(({ stage }) => stage === "load").at(-1);
    assert.equal(loaded.done, loaded.total);
    assert.equal(found.loading.at(-1).stage, "compile");
    assert.equal(found.model.blocks.length, 24);
    assert.deepEqual([found.model.hiddenSize, found.model.maxPositions, found.model.tokenizerProblem], [128, 512, null]);
    assert.deepEqual(Object.keys(found.model.dtypes), ["BF16"]);
    assert.equal(found.model.bytes, 2 * found.model.parameters);
    const types = found.events.map((event) => event.type).filter((type, at, all) => type !== "progress" && type !== all[at - 1]);
    assert.deepEqual(types.filter((type) => type !== "candidate"), ["dense", "step", "step"]);
    const candidates = found.events.filter((event) => event.type === "candidate" && event.step === 1);
    assert.equal(new Set(candidates.map((event) => event.candidate.block)).size, 24);
    const steps = found.events.filter((event) => event.type === "step");
    assert.deepEqual(steps.map((event) => event.removed), found.plan.steps.map((step) => step.removed));
    assert.deepEqual(found.order, found.plan.steps.map((step) => step.removed));
    // JavaScript's own spelling, and that of the files.
    assert.deepEqual(steps.map((event) => event.paramsLeft), found.plan.steps.map((step) => step.params_left));
    assert.deepEqual(found.state.steps.map(({ ratioRemoved }) => ratioRemoved), found.plan.steps.map((step) => step.ratio_removed));
    assert.equal(found.state.dense.meanNll, found.plan.dense.mean_nll);
    assert.deepEqual(JSON.parse(found.planJson), found.plan);
    assert.match(found.planJson, /^\{\n {2}"format": "blockpruner-plan\/.*\n\}\n$/s);
    assert.deepEqual(Object.keys(JSON.parse(found.orderJson)), ["1", "2"]);
    // Under way while the next kernel runs.
    compared.push(agrees(found, kernel));
  }
  await Promise.all(compared);
});

test("a search that is left can be gone on with, and only where it belongs", async () => {
  const found = await page.evaluate(async () => {
    const session = await api.Session.open(checkpoint);
    const order = async (saved) => {
      const search = await session.search(windows, { remove: 2 }, saved);
      for await (const event of search) void event;
      return { order: search.orderJson(), plan: search.planJson() };
    };
    const whole = await order();
    const search = await session.search(windows, { remove: 2 });
    for await (const event of search) if (event.type === "step") break;
    const after = await search.next();
    const saved = search.save();
    const left = search.order();
    const [plan, cost] = [search.planJson(), search.cost()];
    // Stopping while an event is waited for ends the waiting.
    const other = await session.search(windows, { remove: 2 });
    const waiting = other.next();
    await other.return();
    const ended = await waiting;
    const failures = [];
    const failing = async (call) => failures.push(await call().then(() => "none", (error) => [error.name, error.code, error instanceof Error, error.message]));
    await failing(() => session.search(windows, { remove: 2, blockTypes: "mha" }, saved));
    await failing(() => session.search(windows, { remove: 2 }, "{}"));
    await failing(() => session.search(windows, { remove: 99 }));
    await failing(() => session.search(windows, { remove: 2, typo: 1 }));
    await failing(() => session.search(windows, { remove: 2, onprogress: () => {} }));
    await failing(() => session.perplexity(windows, { signal: "now" }));
    await failing(() => session.preload({ without: [] }));
    await failing(() => session.perplexity(windows, ["mha:1"]));
    await failing(() => session.perplexity(windows, { without: ["mha:99"] }));
    await failing(() => session.perplexity(windows, { without: ["ffn:1"] }));
    await failing(() => api.Checkpoint.fromFiles("x", { "x.gguf": new Blob(["nothing"]) }));
    const resumed = await order(saved);
    // A plan does as well, and a search that has found more than is asked for is done.
    const extended = await order(plan);
    const cut = await session.search(windows, { remove: 1 }, resumed.plan);
    const cutEnded = (await cut.next()).done;
    const running = await session.search(windows, { remove: 2 });
    await running.next();
    session.destroy();
    await failing(async () => {
      for await (const event of running) void event;
    });
    const orders = [whole, resumed, extended].map(({ order }) => order);
    return { orders, cost, cut: [cutEnded, cut.order().length], stopped: JSON.parse(plan).status, after, ended, left, failures, steps: JSON.parse(saved).search.steps.length };
  });
  assert.deepEqual(found.orders, Array(3).fill(found.orders[0]));
  assert.deepEqual([found.cut, found.stopped], [[true, 1], "stopped"]);
  assert.ok(found.cost.done > 0.4 && found.cost.done < 0.8 && found.cost.secondsLeft > 0 && found.cost.tokensPerSecond > 0, JSON.stringify(found.cost));
  assert.equal(found.steps, 1);
  assert.equal(found.left.length, 1);
  assert.deepEqual([found.after.done, found.ended.done], [true, true]);
  const codes = ["cannot-resume", "cannot-resume", ...Array(9).fill("input"), "device-lost"];
  assert.deepEqual(found.failures.map((failure) => failure.slice(0, 3)), codes.map((code) => ["BlockPrunerError", code, true]));
  for (const [index, name] of [[3, /`typo`/], [4, /`onprogress`/], [5, /`signal`: expected an AbortSignal/], [6, /`without`/]]) assert.match(found.failures[index][3], name);
});

test("a signal ends each call, and the session goes on", async () => {
  const found = await page.evaluate(async () => {
    const rejected = [];
    /** Aborts a call when it says so; what it is rejected with. */
    const aborted = async (call, reason) => {
      const control = new AbortController();
      const abort = () => control.abort(reason);
      rejected.push(await call(control.signal, abort).then(() => "none", (error) => error?.name ?? error));
    };
    const gone = AbortSignal.abort();
    await aborted(() => api.Session.open(checkpoint, { signal: gone }));
    await aborted((signal, abort) => api.Session.open(checkpoint, { signal, onProgress: () => setTimeout(abort) }));
    await aborted((signal, abort) => (setTimeout(abort), api.Checkpoint.fromUrl("tiny", new URL("/tiny", location).href, { signal })));
    const session = await api.Session.open(checkpoint);
    await aborted((signal, abort) => session.preload({ signal, onProgress: abort }));
    await aborted((signal, abort) => session.perplexity(windows, { signal, onProgress: ({ stage }) => stage === "compile" && setTimeout(abort) }));
    let told = 0;
    await aborted((signal, abort) => session.generate("In the beginning", { maxTokens: 100, signal, onText: () => (told += 1) === 3 && abort() }), "enough");
    const after = await session.perplexity(windows);
    // Far more than a fast machine ends before the timer's turn comes.
    const many = checkpoint.windows(api.CalibrationText.sample(), { window: 32, maxWindows: 64 });
    await aborted((signal, abort) => (setTimeout(abort), session.perplexity(many, { signal })));
    let search;
    const events = [];
    await aborted(async (signal, abort) => {
      search = await session.search(windows, { remove: 3, signal });
      for await (const event of search) {
        events.push(event.type);
        if (event.type === "candidate" && event.step === 2) setTimeout(abort);
      }
    });
    const [order, saved] = [search.order(), search.save()];
    const going = await session.search(windows, { remove: 3 }, saved);
    for await (const event of going) void event;
    const unbroken = await session.search(windows, { remove: 3 });
    for await (const event of unbroken) void event;
    const folder = { beginFile: async () => {}, write: async () => {}, endFile: async () => {} };
    await aborted((signal, abort) => checkpoint.export(folder, { signal, onProgress: abort }));
    const again = await session.perplexity(windows);
    session.destroy();
    return { rejected, told, after, again, order, orders: [going.orderJson(), unbroken.orderJson()] };
  });
  assert.deepEqual(found.rejected, [...Array(5).fill("AbortError"), "enough", ...Array(3).fill("AbortError")]);
  assert.ok(found.told < 10, `${found.told} parts were told`);
  assert.deepEqual(found.again, found.after);
  assert.ok(found.order.length >= 1 && found.order.length < 3, String(found.order));
  assert.equal(found.orders[0], found.orders[1]);
  const reference = await native(["perplexity", "--model", "builtin:tiny", "--text", "builtin:sample", "--window", "32", "--max-windows", "1"], { kernel: "panel" });
  close(found.after.perplexity, reference.perplexity, 1e-5, "perplexity after calls that were aborted");
});

test("text, windows, URL, continuation and export", async () => {
  const found = await page.evaluate(async () => {
    const names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    const remote = await api.Checkpoint.fromUrl("tiny", new URL("/tiny", location).href, { files: names });
    const json = '{"body":"one and two and three"}\n{"body":"four"}\n';
    const rows = api.CalibrationText.fromBytes("a.jsonl", new TextEncoder().encode(json), { field: "body", samples: 1 });
    const same = api.CalibrationText.fromString("a.jsonl", json, { field: "body", samples: 1 });
    const session = await api.Session.open(remote);
    let streamed = "";
    const { text, tokens, finishReason } = await session.generate("In the beginning", { maxTokens: 8, onText: (part) => (streamed += part) });
    const written = {};
    let file;
    const folder = {
      beginFile: async (name) => void (written[(file = name)] = 0),
      write: async (bytes) => void (written[file] += bytes.length),
      endFile: async () => {},
    };
    let progress;
    const summary = await remote.export(folder, { without: ["mha:1"], dtype: "f32", onProgress: (told) => (progress = told) });
    const plain = [];
    // What is left of pairs is an ordinary model.
    const pairs = await session.search(remote.windows(api.CalibrationText.sample(), { window: 16, maxWindows: 1 }), { remove: 1, units: "pairs" });
    for await (const event of pairs) void event;
    const listed = { beginFile: async (name) => void plain.push(name), write: async () => {}, endFile: async () => {} };
    await remote.export(listed, { without: pairs.order() });
    const full = await remote
      .export({ beginFile: async () => {}, write: async () => Promise.reject(new DOMException("the disk is full", "QuotaExceededError")), endFile: async () => {} })
      .catch((error) => [error.code, error.message]);
    const sample = api.CalibrationText.sample();
    const [first, behind] = [remote.windows(sample, { window: 32, maxWindows: 3 }), remote.windows(sample, { window: 32, maxWindows: 3 }).after(2)];
    const scores = [await session.perplexity(first), await session.perplexity(behind)];
    session.destroy();
    const infos = [rows, same].map((text) => remote.windows(text, { window: 2 }).info());
    return { pairs: pairs.order(), units: pairs.plan().settings.units, plain, infos, text, streamed, tokens, finishReason, written, summary, progress, full, scores, adapters: await api.adapters(), names: Object.keys(api) };
  });
  const { text, tokens } = await native(["generate", "--model", "builtin:tiny", "--prompt", "In the beginning", "--max-tokens", "8"], { kernel: "panel" });
  assert.deepEqual([found.text, found.streamed, found.tokens, found.finishReason], [text, text, tokens, "max_tokens"]);
  assert.equal(found.infos[0].rows, 1);
  assert.deepEqual(found.infos[0], found.infos[1]);
  assert.ok(found.written["model.safetensors"] > found.summary.bytes && found.written["config.json"] > 0);
  assert.deepEqual(found.progress, { stage: "write", done: found.summary.bytes, total: found.summary.bytes });
  assert.match(found.pairs[0], /^mha:\d+,mlp:\d+$/);
  assert.equal(found.units, "pairs");
  assert.ok(found.plain.includes("README.md") && !found.plain.includes("modeling_blockpruner.py"), `${found.plain}`);
  assert.equal(found.full[0], "write");
  assert.match(found.full[1], /the disk is full.*free some space/s);
  // The windows after the first two are the third.
  close(found.scores[1].meanNll, found.scores[0].windows[2], 1e-6, "loss of the last window");
  assert.ok(found.adapters.length >= 1 && found.adapters[0].maxBufferBytes > 0);
  assert.deepEqual(found.names.sort(), ["CalibrationText", "Checkpoint", "Search", "Session", "Windows", "adapters", "default", "initSync", "report"]);
});
