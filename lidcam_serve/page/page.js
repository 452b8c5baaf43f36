// The page of `lidcam serve` and `lidcam web`: pictures in, class, box, mask and map out; PaS is recomputed here when a
// slider moves. Results come from the source that `start` is given:
//   promise           what happens to the pictures, one sentence
//   crf, docs         whether it refines with a dense CRF; the address of its documentation, or null
//   engines           names of engines to choose from, the one in use first; it may change
//   token             set to what a user enters after an error whose `login` is true
//   open(say)         {models, default, refine}: what /v1/models returns
//   localize(file, {model, refine, engine, classId, say})   what /v1/localize returns; `before` and `after` the CRF:
//                     {map, histogram, threshold, box}, the map as bytes at the picture's size; `after` may be null

import { cocoRle, largestBox, level, maskOf } from "./pas.js";

const $ = (id) => document.getElementById(id);
const [MIN_SIDE, MAX_SIDE] = [820, 1280]; // of the canvas, pixels
const items = []; // {file, url, bitmap, results, classId, failed}
let source = null;
let models = [];
let chosen = -1;
let sequence = 0;

// Talking to the source

const say = (text, bad = false) => {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
};

const open = async () => {
  try {
    const told = await source.open(say);
    models = told.models.filter((model) => model.task !== "segmentation");
    $("login").hidden = true;
    $("model").replaceChildren(
      ...models.map((model, i) => new Option(`${model.name} ${model.version}`, i, false, model.name === told.default)),
    );
    if (told.refine) {
      if (![...$("refine").options].some((option) => option.value === told.refine)) $("refine").add(new Option(told.refine));
      $("refine").value = told.refine;
    }
    listEngines();
    exported();
    say(models.length ? "" : "This server has no classifier to localize with.", !models.length);
  } catch (error) {
    if (error.login) $("login").hidden = false;
    say(error.message, true);
  }
};

const listEngines = () => {
  const shown = [...$("engine").options].map((option) => option.value);
  if (shown.join() !== source.engines.join()) $("engine").replaceChildren(...source.engines.map((name) => new Option(name)));
  $("engines").hidden = source.engines.length < 2;
};

const model = () => models[Number($("model").value)];

const settings = () => [$("model").value, $("engine").value, $("refine").value];

const key = (classId, at = settings()) => [...at, classId ?? "best"].join("/");

// The result of a picture for a class (null: the predicted one), from the source or an earlier one.
const localize = async (item, classId) => {
  const known = item.results.get(key(classId));
  if (known) return known;
  const at = settings();
  const [, engine, refine] = at;
  const result = await source.localize(item.file, { model: model(), refine, engine, classId, say });
  listEngines();
  if (!source.engines.includes(engine)) at[1] = $("engine").value; // another one took over
  item.results.set(key(classId, at), result);
  if (classId === null) item.results.set(key(result.class_id, at), result);
  return result;
};

// What is shown

const current = () => {
  const item = items[chosen];
  const result = item?.results.get(key(item.classId));
  if (!result) return null;
  const after = result.after && document.querySelector("[name=side]:checked").value === "after";
  const view = after ? result.after : result.before;
  const { width, height } = result;
  let threshold = view.threshold;
  const pas = model().pas;
  const changed = Number($("percentile").value) !== pas.percentile || Number($("theta").value) !== pas.theta;
  if (!after && changed) {
    threshold =
      pas.mode === "normalize"
        ? Math.trunc(Number($("theta").value) * 255)
        : level(view.histogram, Number($("percentile").value), Number($("theta").value));
  }
  const recomputed = !after && changed;
  const mask = maskOf(view.map, Math.floor(threshold));
  const box = recomputed ? largestBox(mask, width, height) : view.box;
  return { item, result, view, width, height, threshold, mask, box, after };
};

const show = () => {
  $("drop").classList.toggle("empty", !items.length);
  $("pictures").hidden = $("remove").hidden = !items.length;
  const state = current();
  $("work").hidden = !state;
  if (!state) return;
  const { result, box, mask, threshold, after } = state;
  const pas = model().pas;
  $("class").textContent = result.class_name;
  $("score").textContent = `${(100 * result.score).toFixed(1)} %`;
  $("box").textContent = box ? box.join(", ") : "none: the mask is empty";
  const count = mask.reduce((a, b) => a + b, 0);
  $("pixels").textContent = `${count} pixels, ${((100 * count) / mask.length).toFixed(1)} %`;
  $("threshold").textContent = `${Math.round(threshold * 10) / 10} of 255`;
  $("ran").textContent = result.engine;
  $("percentile-value").textContent = Number($("percentile").value);
  $("theta-value").textContent = Number($("theta").value).toFixed(2);
  $("sides").hidden = !result.after;
  $("pas").disabled = after;
  $("percentile").disabled = pas.mode === "normalize" || pas.where === "raw";
  $("pas-note").textContent = after
    ? "The CRF starts from the exported threshold. Choose 'before CRF' to move it."
    : $("percentile").disabled
      ? "This model takes its percentile from the map before it is normalized: only the share can be changed here."
      : "";
  $("topk").replaceChildren(...result.topk.map((entry) => classButton(entry, result)));
  draw(state);
};

const classButton = (entry, result) => {
  const row = document.createElement("li");
  const button = document.createElement("button");
  const name = document.createElement("span");
  const bar = document.createElement("meter");
  name.textContent = entry.class_name;
  bar.value = entry.score;
  const share = document.createElement("small");
  share.textContent = `${(100 * entry.score).toFixed(1)} %`;
  button.type = "button";
  button.append(name, share, bar);
  button.setAttribute("aria-pressed", entry.class_id === result.class_id);
  button.disabled = !model().labels && entry.class_id !== result.class_id;
  button.onclick = () => select(chosen, entry.class_id);
  row.append(button);
  return row;
};

// Google's Turbo colours, by the polynomials of its authors (Mikhailov, 2019).
const TURBO = Array.from({ length: 256 }, (_, i) => {
  const x = i / 255;
  const poly = (c) => Math.max(0, Math.min(255, 255 * c.reduceRight((sum, value) => sum * x + value, 0)));
  return [
    poly([0.13572138, 4.6153926, -42.66032258, 132.13108234, -152.94239396, 59.28637943]),
    poly([0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604]),
    poly([0.1066733, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973]),
  ];
});

const draw = ({ item, view, width, height, mask, box, result }) => {
  const longest = Math.max(width, height);
  const scale = Math.min(Math.max(1, MIN_SIDE / longest), MAX_SIDE / longest);
  const canvas = $("stage");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.drawImage(item.bitmap, 0, 0, canvas.width, canvas.height);
  const layer = new ImageData(canvas.width, canvas.height);
  const columns = Int32Array.from({ length: canvas.width }, (_, x) => Math.min(width - 1, Math.floor((x + 0.5) / scale)));
  const rows = Int32Array.from({ length: canvas.height }, (_, y) => Math.min(height - 1, Math.floor((y + 0.5) / scale)) * width);
  const inside = (x, y) => x >= 0 && y >= 0 && x < canvas.width && y < canvas.height && mask[rows[y] + columns[x]];
  for (let y = 0, at = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++, at += 4) {
      const pixel = rows[y] + columns[x];
      if ($("show-mask").checked && mask[pixel] && !(inside(x - 2, y) && inside(x + 2, y) && inside(x, y - 2) && inside(x, y + 2))) {
        layer.data.set([255, 255, 255, 255], at);
      } else if ($("show-map").checked) {
        layer.data.set(TURBO[view.map[pixel]], at);
        layer.data[at + 3] = view.map[pixel] * 0.55;
      }
    }
  }
  const over = new OffscreenCanvas(canvas.width, canvas.height);
  over.getContext("2d").putImageData(layer, 0, 0);
  context.drawImage(over, 0, 0);
  if ($("show-box").checked && box) {
    const line = Math.max(2, Math.min(canvas.width, canvas.height) / 180);
    for (const [colour, wide] of [["#000", line + 2], ["#28e678", line]]) {
      context.strokeStyle = colour;
      context.lineWidth = wide;
      context.strokeRect(box[0] * scale, box[1] * scale, (box[2] - box[0]) * scale, (box[3] - box[1]) * scale);
    }
  }
  canvas.setAttribute("aria-label", `${item.file.name}: ${result.class_name}, box ${box ? box.join(", ") : "none"}`);
};

// Choosing

// A picture no larger than the canvas shows it: many large ones would fill the memory.
const preview = async (file) => {
  const full = await createImageBitmap(file);
  const scale = MAX_SIDE / Math.max(full.width, full.height);
  if (scale >= 1) return full;
  const [resizeWidth, resizeHeight] = [full.width, full.height].map((side) => Math.max(1, Math.round(side * scale)));
  const small = await createImageBitmap(full, { resizeWidth, resizeHeight, resizeQuality: "high" });
  full.close();
  return small;
};

const select = async (index, classId = items[index]?.classId ?? null) => {
  chosen = index;
  const item = items[index];
  [...$("pictures").children].forEach((child, i) => child.setAttribute("aria-selected", i === index));
  $("pictures").children[index]?.scrollIntoView({ block: "nearest", inline: "nearest" });
  if (!item) {
    show();
    return;
  }
  const turn = ++sequence;
  say(`Localizing in ${item.file.name} …`);
  try {
    item.bitmap ??= await preview(item.file);
    await localize(item, classId);
    item.classId = classId;
    item.failed = false;
    if (turn === sequence) say("");
  } catch (error) {
    item.failed = !item.results.size;
    if (turn === sequence) say(`${item.file.name}: ${error.message}`, true);
  }
  $("pictures").children[items.indexOf(item)]?.classList.toggle("failed", item.failed);
  if (turn === sequence) show();
};

const add = (files) => {
  const first = items.length;
  for (const file of files) {
    const item = { file, url: URL.createObjectURL(file), bitmap: null, results: new Map(), classId: null, failed: false };
    items.push(item);
    const option = document.createElement("div");
    const picture = document.createElement("img");
    picture.src = item.url;
    picture.alt = file.name;
    option.setAttribute("role", "option");
    option.append(picture);
    option.onclick = () => select(items.indexOf(item));
    $("pictures").append(option);
  }
  if (items.length > first) select(first);
  show();
};

const remove = () => {
  const [item] = items.splice(chosen, 1);
  if (!item) return;
  URL.revokeObjectURL(item.url);
  item.bitmap?.close();
  $("pictures").children[chosen].remove();
  select(Math.min(chosen, items.length - 1));
};

const exported = () => {
  const pas = model()?.pas;
  if (!pas) return;
  $("percentile").value = pas.percentile;
  $("theta").value = pas.theta;
  show();
};

// Downloads

const save = (blob, suffix) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = items[chosen].file.name.replace(/\.[^.]*$/, "") + suffix;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};

const saveMask = async () => {
  const { mask, width, height } = current();
  const canvas = new OffscreenCanvas(width, height);
  const picture = new ImageData(width, height);
  mask.forEach((value, i) => picture.data.set(value ? [255, 255, 255, 255] : [0, 0, 0, 255], 4 * i));
  canvas.getContext("2d").putImageData(picture, 0, 0);
  save(await canvas.convertToBlob({ type: "image/png" }), "_mask.png");
};

const resultOf = () => {
  const { result, mask, box, threshold, width, height, after } = current();
  const { class_id, class_name, score, topk, engine } = result;
  return {
    image: items[chosen].file.name,
    model: result.model,
    version: result.version,
    width,
    height,
    class_id,
    class_name,
    score,
    box,
    threshold,
    percentile: Number($("percentile").value),
    theta: Number($("theta").value),
    crf: after ? result.crf : null,
    mask: cocoRle(mask, width, height),
    topk,
    engine,
  };
};

const saveJson = (value, suffix) => save(new Blob([JSON.stringify(value, null, 1)], { type: "application/json" }), suffix);

const cocoOf = () => {
  const { box, class_id, score, mask } = resultOf();
  const [x0, y0, x1, y1] = box ?? [0, 0, 0, 0];
  return [{ image_id: 0, category_id: class_id, bbox: [x0, y0, x1 - x0, y1 - y0], score, segmentation: mask }];
};

// Events

$("files").onchange = (event) => {
  add(event.target.files);
  event.target.value = "";
};
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
addEventListener("dragleave", () => $("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  add(event.dataTransfer.files);
});
addEventListener("paste", (event) => add(event.clipboardData.files));
for (const id of ["show-map", "show-mask", "show-box"]) $(id).onchange = show;
let waiting = 0;
for (const id of ["percentile", "theta"]) {
  $(id).oninput = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(show);
  };
}
for (const radio of document.querySelectorAll("[name=side]")) radio.onchange = show;
$("reset").onclick = exported;
$("remove").onclick = remove;
$("model").onchange = () => {
  for (const item of items) item.classId = null;
  exported();
  select(chosen);
};
for (const id of ["refine", "engine"]) $(id).onchange = () => select(chosen);
$("save-mask").onclick = saveMask;
$("save-json").onclick = () => saveJson(resultOf(), ".json");
$("save-coco").onclick = () => saveJson(cocoOf(), "_coco.json");
$("login").onsubmit = (event) => {
  event.preventDefault();
  source.token = $("token").value;
  open();
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input:not([type=checkbox])")) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && items.length) {
    event.preventDefault();
    select(Math.max(0, Math.min(items.length - 1, chosen + step)));
  } else if (event.key === "Delete") remove();
  else if (event.key === "r") exported();
  else if (event.key === "c" && current()?.result.after) {
    document.querySelector("[name=side]:not(:checked)").click();
  } else if ("mkb".includes(event.key)) $({ m: "show-map", k: "show-mask", b: "show-box" }[event.key]).click();
  else if (/^[1-5]$/.test(event.key)) $("topk").querySelectorAll("button")[event.key - 1]?.click();
});

export const start = (given) => {
  source = given;
  $("promise").textContent = source.promise;
  $("crf").hidden = !source.crf;
  $("docs").hidden = !source.docs;
  if (source.docs) $("docs").href = source.docs;
  return open();
};
