// From a picture's file to the network's input, as lidcam_rt/image does it. `input` is that of the manifest.

import { halfToEven, resample } from "./resize.js";

// {rgb, width, height}: RGB bytes [height, width, 3], upright, transparency composited over white.
export const decode = async (file, maxPixels) => {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" }).catch(() => {
    throw new Error("not a picture, or damaged, or in a format that this browser does not show");
  });
  const { width, height } = bitmap;
  try {
    if (width * height > maxPixels) throw new Error(`${width}x${height} is over the limit of ${maxPixels} pixels`);
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0);
    const rgba = context.getImageData(0, 0, width, height).data;
    const rgb = new Uint8Array(width * height * 3);
    for (let i = 0, at = 0; at < rgb.length; i += 4) {
      rgb[at++] = rgba[i];
      rgb[at++] = rgba[i + 1];
      rgb[at++] = rgba[i + 2];
    }
    return { rgb, width, height };
  } finally {
    bitmap.close();
  }
};

// Columns and rows that a picture takes in the network's input, from its upper left corner.
export const placement = (width, height, input) => {
  if (input.resize === "stretch") return [input.width, input.height];
  const scale = Math.min(input.width / width, input.height / height);
  const side = (length, limit) => Math.max(1, Math.min(limit, halfToEven(length * scale)));
  return [side(width, input.width), side(height, input.height)];
};

// The network's input without its batch: Uint8Array [height, width, 3], or Float32Array [3, height, width].
export const networkInput = ({ rgb, width, height }, input) => {
  const [columns, rows] = placement(width, height, input);
  let pixels = resample(rgb, width, height, columns, rows, input.interpolation);
  if (columns !== input.width || rows !== input.height) {
    const fill = input.mean.map((value) => Math.min(255, Math.max(0, halfToEven(value))));
    const canvas = new Uint8Array(input.width * input.height * 3);
    for (let i = 0; i < canvas.length; i++) canvas[i] = fill[i % 3];
    for (let y = 0; y < rows; y++) canvas.set(pixels.subarray(y * columns * 3, (y + 1) * columns * 3), y * input.width * 3);
    pixels = canvas;
  }
  if (input.dtype === "uint8") return pixels;
  const plane = input.width * input.height;
  const scaled = new Float32Array(3 * plane);
  for (let c = 0; c < 3; c++) {
    const mean = Math.fround(input.mean[c]);
    const std = Math.fround(input.std[c]);
    for (let i = 0; i < plane; i++) scaled[c * plane + i] = Math.fround(pixels[3 * i + c] - mean) / std;
  }
  return scaled;
};
