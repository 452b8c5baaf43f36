// From the network's outputs to what the page shows, as lidcam_rt/pipeline.py does it (`Pipeline.finish`).

import { largestBox, maskOf } from "./pas.js";
import { placement } from "./picture.js";
import { resizeLinear } from "./resize.js";

const TOP = 5;

export const scoresOf = (logits, task) => {
  const values = Float64Array.from(logits);
  if (task === "multilabel") return values.map((value) => 1 / (1 + Math.exp(-value)));
  const most = values.reduce((a, b) => Math.max(a, b));
  const powers = values.map((value) => Math.exp(value - most));
  const total = powers.reduce((a, b) => a + b);
  return powers.map((value) => value / total);
};

// The map at the picture's size; the margin of a letterboxed one is cut off first.
export const mapAtSize = (map8, width, height, input) => {
  const [columns, rows] = placement(width, height, input);
  let part = map8;
  if (columns !== input.width || rows !== input.height) {
    part = new Uint8Array(columns * rows);
    for (let y = 0; y < rows; y++) part.set(map8.subarray(y * input.width, y * input.width + columns), y * columns);
  }
  return resizeLinear(part, columns, rows, width, height);
};

// outputs: {logits, classId, map8, threshold} of one picture and class.
export const finish = (outputs, { width, height }, model) => {
  if (![...outputs.logits, outputs.threshold].every(Number.isFinite)) throw new Error("the network returned numbers that are not finite");
  const scores = scoresOf(outputs.logits, model.task);
  const entry = (id) => ({ class_id: id, class_name: model.classes[id], score: scores[id] });
  const best = [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b).slice(0, TOP);
  const map = mapAtSize(outputs.map8, width, height, model.input);
  const histogram = new Array(256).fill(0);
  for (const value of outputs.map8) histogram[value]++;
  const { threshold } = outputs;
  const box = largestBox(maskOf(map, Math.floor(threshold)), width, height);
  return {
    model: model.name,
    version: model.version,
    width,
    height,
    ...entry(outputs.classId),
    box,
    threshold,
    topk: best.map(entry),
    before: { map, histogram, threshold, box },
    after: null,
  };
};
