// Results from the artifact itself, which ONNX Runtime runs in this browser: the source of `lidcam web`.

import { start } from "./page.js";

const PATIENCE = 60000; // milliseconds that WebGPU, once loaded, may take to start before WebAssembly takes over

const browser = {
  promise: "They stay in this browser.",
  crf: false,
  docs: null,
  engines: [],
  model: null,
  running: null, // what `run` returns

  async open() {
    const answer = await fetch("model.json");
    if (!answer.ok) throw new Error(`model.json cannot be loaded (status ${answer.status})`);
    this.model = (await answer.json()).model;
    this.engines = ["wasm"];
    const adapter = this.model.webgpu ? await navigator.gpu?.requestAdapter().catch(() => null) : null;
    if (adapter) this.engines[adapter.info?.isFallbackAdapter ? "push" : "unshift"]("webgpu"); // in software it is slow
    return { models: [this.model], default: this.model.name, refine: null };
  },

  async localize(file, { engine, classId, say }) {
    if (this.running?.engine !== engine || this.running.failed) {
      this.running?.worker.terminate();
      say(`Loading onnxruntime-web and ${this.model.file} (${this.model.megabytes} MB) …`);
      this.running = run(this.model, engine);
    }
    const { running } = this;
    try {
      await running.ready;
      return await running.ask(file, classId);
    } catch (error) {
      if (!error.engine) throw error; // the picture is at fault
      if (running === this.running) this.running = null;
      running.worker.terminate();
      if (engine === "wasm") throw error;
      this.engines = this.engines.filter((name) => name !== engine);
      return this.localize(file, { engine: "wasm", classId, say });
    }
  },
};

// A worker with its engine. It is started from a blob so that it inherits the page's Content-Security-Policy, which a
// worker with a URL does not.
const run = (model, engine) => {
  const module = new URL("static/worker.js", document.baseURI).href;
  const script = URL.createObjectURL(new Blob([`import ${JSON.stringify(module)};`], { type: "text/javascript" }));
  const worker = new Worker(script, { type: "module" });
  const waiting = new Map();
  const ready = new Promise((resolve, reject) => waiting.set(undefined, { resolve, reject }));
  const running = { engine, ready, worker, failed: false };
  const told = (text, ofEngine) => Object.assign(new Error(text), { engine: ofEngine });
  const fail = (text) => {
    running.failed = true;
    for (const { reject } of waiting.values()) reject(told(text, true));
    waiting.clear();
  };
  worker.onmessage = ({ data: { number, result, error, engine: ofEngine, loaded } }) => {
    if (loaded) {
      const { reject } = waiting.get(undefined);
      setTimeout(() => reject(told("WebGPU did not start", true)), PATIENCE);
      return;
    }
    const asked = waiting.get(number);
    waiting.delete(number);
    if (error === undefined) asked?.resolve(result);
    else asked?.reject(told(error, ofEngine));
  };
  worker.onerror = (event) => fail(event.message || "the thread that runs the model could not be started");
  worker.postMessage({ model, engine, base: document.baseURI });
  let count = 0;
  running.ask = (file, classId) =>
    new Promise((resolve, reject) => {
      waiting.set(++count, { resolve, reject });
      worker.postMessage({ number: count, file, classId });
    });
  return running;
};

start(browser);
