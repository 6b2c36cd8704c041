// The device is lost at the n-th submit, or the n-th read-back, of everything that a small search does from opening the device
// on: each time a typed error, what was found is kept, and the resumed plan is that of an undisturbed search. A sample of n; every n
// with `BLOCKPRUNER_EVERY_FAULT=1 node --test tests/faults.test.mjs`, which takes an hour.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { essence, libraryPage } from "./harness.mjs";

let page, close;
before(async () => {
  ({ page, close } = await libraryPage({ window: 16, maxWindows: 2 }));
  await page.evaluate(() => {
    const calls = { submit: 0, mapAsync: 0 };
    let fault = null;
    let lost = null;
    const { requestDevice } = GPUAdapter.prototype;
    let current;
    GPUAdapter.prototype.requestDevice = async function (...args) {
      return (current = await requestDevice.apply(this, args));
    };
    for (const [prototype, call] of [[GPUQueue.prototype, "submit"], [GPUBuffer.prototype, "mapAsync"]]) {
      const original = prototype[call];
      prototype[call] = function (...args) {
        calls[call] += 1;
        if (fault?.call === call && fault.number === calls[call]) {
          lost = stage;
          current.destroy();
        }
        return original.apply(this, args);
      };
    }
    let stage;
    const prune = (session, saved) => session.search(windows, { remove: 2, blockTypes: "mha" }, saved);
    const ended = (search) => ({ plan: search.plan(), order: search.order() });
    /** Searches on a new device until the end or the fault. Without one, the session stays for `resume`. */
    globalThis.attempt = async (at) => {
      [fault, lost, calls.submit, calls.mapAsync, stage] = [at, null, 0, 0, "opening"];
      const reached = {};
      let search, saved;
      try {
        const session = await api.Session.open(checkpoint);
        reached.opening = { ...calls };
        stage = "loading";
        await session.preload();
        stage = "searching";
        reached.loading = { ...calls };
        search = await prune(session);
        // What is saved is the search as of the last event, as on the page.
        saved = search.save();
        for await (const event of search) saved = search.save();
        globalThis.resume = async (saved) => {
          const search = await prune(session, saved);
          for await (const event of search) void event;
          return ended(search);
        };
        return { reached: { ...reached, searching: { ...calls } }, lost, ...ended(search) };
      } catch (error) {
        return { error: [error.name, error.code], message: error.message, lost, saved, kept: search?.save() === saved };
      }
    };
  });
});
after(() => close?.());

test("wherever the device is lost, the error says so and the search goes on to the same plan", async (t) => {
  const whole = await page.evaluate(() => attempt(null));
  essence(whole.plan);
  t.diagnostic(JSON.stringify(whole.reached));
  const total = whole.reached.searching;
  const every = (call) => Array.from({ length: total[call] }, (_, index) => ({ call, number: index + 1 }));
  // While the kernels are tested, early in the search, in its second step, at its end.
  const { opening, loading } = whole.reached;
  const within = (call, share) => ({ call, number: loading[call] + Math.ceil((total[call] - loading[call]) * share) });
  const sample = [{ call: "submit", number: opening.submit }, within("mapAsync", 0.2), within("submit", 0.7), within("mapAsync", 1)];
  for (const fault of process.env.BLOCKPRUNER_EVERY_FAULT ? [...every("submit"), ...every("mapAsync")] : sample) {
    const what = `lost at ${fault.call} ${fault.number} of ${total[fault.call]}`;
    const disturbed = await page.evaluate((fault) => attempt(fault), fault);
    if (disturbed.plan) {
      assert.equal(disturbed.lost, null, `${what}: the search ended as if nothing had happened`);
      // How many submits there are depends on how fast the device is just then.
      t.diagnostic(`${what}: not reached`);
      continue;
    }
    assert.deepEqual(disturbed.error, ["BlockPrunerError", "device-lost"], `${what}: ${disturbed.message}`);
    if (disturbed.saved) {
      const resumed = await page.evaluate((saved) => resume(saved), disturbed.saved);
      assert.deepEqual(essence(resumed.plan), whole.plan, what);
      assert.deepEqual(resumed.order, whole.order, what);
    }
    const { steps, candidates } = disturbed.saved ? JSON.parse(disturbed.saved).search : { steps: [], candidates: [] };
    if (disturbed.lost === "searching") assert.ok(disturbed.kept, `${what}: the state after the error is not that of the last event`);
    t.diagnostic(`${what}, while ${disturbed.lost}: kept ${steps.length} steps and ${candidates.length} candidates`);
  }
});
