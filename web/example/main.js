const worker = new Worker("worker.js", { type: "module" });
const log = (line) => document.getElementById("log").append(`${line}\n`);

worker.onmessage = ({ data }) => {
  switch (data.type) {
    case "dense":
      log(`dense perplexity ${data.perplexity}`);
      break;
    case "step":
      log(`without ${data.removed}: ${data.perplexity}`);
      break;
    case "plan":
      log(`done: ${JSON.parse(data.json).steps.length} blocks removed`);
      break;
    case "error":
      log(data.message);
      break;
  }
};

document.getElementById("folder").addEventListener("change", ({ target }) => {
  worker.postMessage({ type: "prune", files: Object.fromEntries(Array.from(target.files, (file) => [file.name, file])) });
});
document.getElementById("stop").addEventListener("click", () => worker.postMessage({ type: "stop" }));
