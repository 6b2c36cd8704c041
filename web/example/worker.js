// All that takes time, away from the page: the library, the device and the search. (With a bundler: import from "blockpruner".)

import init, { CalibrationText, Checkpoint, Session } from "../pkg/blockpruner_web.js";

/** Ends the search that runs, if one does. */
let stop = new AbortController();

async function prune(files) {
  await init();
  const checkpoint = await Checkpoint.fromFiles("my model", files);
  const { signal } = (stop = new AbortController());
  const session = await Session.open(checkpoint, { signal, onProgress: (progress) => postMessage(progress) });
  try {
    const windows = checkpoint.windows(CalibrationText.sample(), { window: 64, maxWindows: 1 });
    const search = await session.search(windows, { remove: 2, signal });
    for await (const event of search) postMessage(event);
    postMessage({ type: "plan", json: search.planJson() });
  } finally {
    session.destroy();
  }
}

onmessage = ({ data }) => {
  if (data.type === "stop") stop.abort();
  else prune(data.files).catch((error) => postMessage({ type: "error", message: String(error) }));
};
