// Runs the artifact in a thread beside the page. Messages in: {model, engine, base} once, then {number, file, classId};
// out: {loaded} when all is downloaded, {ready} with the engine's name, {number, result}, or {number, error, engine}:
// what is wrong, and whether the engine is at fault rather than the picture.

import { agrees, pattern } from "./check.js";
import { decode, networkInput } from "./picture.js";
import { finish } from "./result.js";

let ort = null;
let session = null;
let model = null;
let name = "";

const open = async (asked, engine, base) => {
  model = asked;
  const library = engine === "webgpu" ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
  ort = await import(new URL(`static/ort/${library}`, base));
  ort.env.wasm.numThreads = crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  const file = await fetch(new URL(model.file, base));
  if (!file.ok) throw new Error(`${model.file} cannot be loaded (status ${file.status})`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (engine === "webgpu") {
    const binary = await fetch(new URL("static/ort/ort-wasm-simd-threaded.asyncify.wasm", base));
    ort.env.wasm.wasmBinary = await binary.arrayBuffer();
    postMessage({ loaded: true });
  }
  session = await ort.InferenceSession.create(bytes, { executionProviders: [engine], logSeverityLevel: 3 });
  const threads = ort.env.wasm.numThreads;
  const on = engine === "webgpu" ? "webgpu" : `wasm, ${threads} thread${threads > 1 ? "s" : ""}`;
  name = `onnxruntime-web ${ort.env.versions.web} on ${on}, ${model.precision}`;
  if (engine === "webgpu") {
    const outputs = await run(networkInput(pattern(model.input.height, model.input.width), model.input), null);
    if (!agrees(outputs, model.expected)) throw new Error("WebGPU's results differ from the expected ones here");
  }
};

const run = async (pixels, classId) => {
  const { height, width, dtype } = model.input;
  const shape = dtype === "uint8" ? [1, height, width, 3] : [1, 3, height, width];
  const feeds = { image: new ort.Tensor(dtype, pixels, shape) };
  if (model.labels) {
    const labels = new BigInt64Array(model.top_k).fill(-1n);
    if (classId !== null) labels[0] = BigInt(classId);
    feeds.labels = new ort.Tensor("int64", labels, [1, model.top_k]);
  }
  const outputs = await session.run(feeds, ["logits", "class_ids", "map8", "threshold"]);
  return {
    logits: outputs.logits.data,
    classId: Number(outputs.class_ids.data[0]),
    map8: outputs.map8.data.subarray(0, height * width),
    threshold: outputs.threshold.data[0],
  };
};

const ofTheEngine = (error) => {
  throw Object.assign(new Error(error?.message ?? String(error)), { engine: true });
};

const localize = async (file, classId) => {
  const times = [performance.now()];
  const picture = await decode(file, model.max_pixels);
  times.push(performance.now());
  const pixels = networkInput(picture, model.input);
  times.push(performance.now());
  const outputs = await run(pixels, classId).catch(ofTheEngine);
  times.push(performance.now());
  const result = { ...finish(outputs, picture, model), engine: name };
  times.push(performance.now());
  const stages = ["decode", "preprocess", "network", "finish"];
  result.milliseconds = Object.fromEntries(stages.map((stage, i) => [stage, times[i + 1] - times[i]]));
  return result;
};

// One at a time: a session cannot start a run while another is in progress.
let last = Promise.resolve();
const next = (work) => (last = last.then(work));

onmessage = ({ data: { number, file, classId, ...opening } }) =>
  next(async () => {
    try {
      if (number === undefined) {
        await open(opening.model, opening.engine, opening.base).catch(ofTheEngine);
        postMessage({ ready: name });
      } else {
        const result = await localize(file, classId);
        postMessage({ number, result }, [result.before.map.buffer]);
      }
    } catch (error) {
      postMessage({ number, error: error.message, engine: Boolean(error.engine) });
    }
  });
