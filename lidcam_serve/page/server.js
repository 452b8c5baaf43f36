// Results from `lidcam serve`, over /v1.

import { start } from "./page.js";

const server = {
  promise: "They are sent only to this server.",
  crf: true,
  docs: "docs",
  engines: [],
  token: "",
  limits: null, // of a request: {max_body, ...}

  // The answer to a request as JSON; waits while the server is busy.
  async ask(url, say, options = {}) {
    const headers = { ...options.headers, ...(this.token && { Authorization: `Bearer ${this.token}` }) };
    for (;;) {
      const answer = await fetch(url, { ...options, headers });
      if (answer.status === 429) {
        say("The server is busy; trying again.");
        await new Promise((done) => setTimeout(done, 1000 * (Number(answer.headers.get("Retry-After")) || 1)));
        continue;
      }
      const told = await answer.json().catch(() => ({ error: `the server answered with status ${answer.status} and without JSON` }));
      if (!answer.ok || told.error) throw Object.assign(new Error(told.error), { login: answer.status === 401 });
      return told;
    }
  },

  async open(say) {
    const told = await this.ask("v1/models", say);
    this.limits = told.limits;
    return told;
  },

  async localize(file, { model, refine, classId, say }) {
    const { max_body } = this.limits;
    if (file.size > max_body) {
      throw new Error(`${megabytes(file.size)} is more than the ${megabytes(max_body)} that the server accepts`);
    }
    const query = new URLSearchParams({ model: model.name, version: model.version, map: 1, refine });
    if (classId !== null) query.set("labels", labelOf(model.classes, classId));
    const headers = { "Content-Type": "application/octet-stream" };
    const result = await this.ask(`v1/localize?${query}`, say, { method: "POST", body: file, headers });
    const plain = result.unrefined ?? result;
    result.before = { map: await greyOf(plain.map.png), histogram: plain.map.histogram, threshold: plain.threshold, box: plain.box };
    result.after = result.unrefined
      ? { map: await greyOf(result.map.png), threshold: result.threshold, box: result.box }
      : null;
    return result;
  },
};

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

// A class as the server expects it: it tries names before numbers, and a number may be the name of another class.
const labelOf = (classes, classId) => (classes.indexOf(classes[classId]) === classId ? classes[classId] : classId);

// The grey values of a PNG in base64.
const greyOf = async (png) => {
  const bytes = Uint8Array.from(atob(png), (c) => c.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }), {
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const grey = new Uint8Array(pixels.length / 4);
  for (let i = 0; i < grey.length; i++) grey[i] = pixels[4 * i];
  return grey;
};

start(server);
