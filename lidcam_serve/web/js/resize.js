// Resizing with the runtime's bits: Pillow's resampling for the network's input, OpenCV's bilinear one for maps.
// The references are lidcam_gpu/resample.py and lidcam_rt/image/resize.py.

const BITS = 22; // of Pillow's fixed point: 32, less 8 of a byte, less 2

const FILTERS = {
  bilinear: { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    reach: 2,
    weight: (signed) => {
      const a = -0.5;
      const x = Math.abs(signed);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    },
  },
};

// For each position on one axis of the result: its first source, how many sources, and `taps` weights in 1 / 2^22.
const tableOf = (before, after, interpolation) => {
  const { reach, weight } = FILTERS[interpolation];
  const scale = before / after;
  const widened = Math.max(scale, 1);
  const support = reach * widened;
  const taps = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(after);
  const count = new Int32Array(after);
  const weights = new Int32Array(after * taps);
  const real = new Float64Array(taps);
  for (let i = 0; i < after; i++) {
    const centre = (i + 0.5) * scale;
    first[i] = Math.max(0, Math.trunc(centre - support + 0.5));
    count[i] = Math.min(before, Math.trunc(centre + support + 0.5)) - first[i];
    let total = 0;
    for (let k = 0; k < count[i]; k++) {
      real[k] = weight((k + first[i] - centre + 0.5) * (1 / widened));
      total += real[k];
    }
    for (let k = 0; k < count[i]; k++) {
      const scaled = (total === 0 ? real[k] : real[k] / total) * 2 ** BITS;
      weights[i * taps + k] = Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    }
  }
  return { first, count, weights, taps };
};

const byteOf = (sum) => Math.min(255, Math.max(0, sum >> BITS));

const acrossColumns = (rgb, width, height, after, interpolation) => {
  const { first, count, weights, taps } = tableOf(width, after, interpolation);
  const out = new Uint8Array(after * height * 3);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < after; x++, at += 3) {
      let red = 1 << (BITS - 1);
      let green = red;
      let blue = red;
      let from = (y * width + first[x]) * 3;
      for (let k = x * taps, end = k + count[x]; k < end; k++, from += 3) {
        const weight = weights[k];
        red += rgb[from] * weight;
        green += rgb[from + 1] * weight;
        blue += rgb[from + 2] * weight;
      }
      out[at] = byteOf(red);
      out[at + 1] = byteOf(green);
      out[at + 2] = byteOf(blue);
    }
  }
  return out;
};

const acrossRows = (rgb, width, height, after, interpolation) => {
  const { first, count, weights, taps } = tableOf(height, after, interpolation);
  const row = width * 3;
  const out = new Uint8Array(after * row);
  const sums = new Int32Array(row);
  for (let y = 0; y < after; y++) {
    sums.fill(1 << (BITS - 1));
    for (let k = 0; k < count[y]; k++) {
      const weight = weights[y * taps + k];
      const from = (first[y] + k) * row;
      for (let i = 0; i < row; i++) sums[i] += rgb[from + i] * weight;
    }
    for (let i = 0; i < row; i++) out[y * row + i] = byteOf(sums[i]);
  }
  return out;
};

// RGB bytes [height, width, 3] resampled as PIL.Image.Image.resize does. Pillow 13 takes the rows first where a picture
// loses more than twice as many rows as columns; Pillow 12 never did.
export const resample = (rgb, width, height, toWidth, toHeight, interpolation) => {
  const rowsFirst = height > toHeight && height - toHeight > 2 * (width - toWidth);
  let out = rgb;
  if (rowsFirst) out = acrossRows(out, width, height, toHeight, interpolation);
  if (width !== toWidth) out = acrossColumns(out, width, rowsFirst ? toHeight : height, toWidth, interpolation);
  if (!rowsFirst && height !== toHeight) out = acrossRows(out, toWidth, height, toHeight, interpolation);
  return out;
};

// The nearest whole number; of two equally near, the even one.
export const halfToEven = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

// For each position on one axis: two sources and their weights in 1 / 2048. Along x a position outside takes the edge;
// along y the two rows are clamped one by one.
const linearTable = (before, after, alongX) => {
  const scale = 1 / (after / before);
  const table = { first: new Int32Array(after), second: new Int32Array(after), a: new Int32Array(after), b: new Int32Array(after) };
  const clamped = (i) => Math.min(Math.max(i, 0), before - 1);
  for (let i = 0; i < after; i++) {
    const position = Math.fround((i + 0.5) * scale - 0.5);
    let first = Math.floor(position);
    let share = Math.fround(position - first);
    if (alongX && (first < 0 || first >= before - 1)) {
      first = clamped(first);
      share = 0;
    }
    table.first[i] = clamped(first);
    table.second[i] = clamped(first + 1);
    table.a[i] = halfToEven(Math.fround(1 - share) * 2048);
    table.b[i] = halfToEven(share * 2048);
  }
  return table;
};

// Grey bytes [height, width] resized as cv2.resize does with INTER_LINEAR.
export const resizeLinear = (grey, width, height, toWidth, toHeight) => {
  if (width === toWidth && height === toHeight) return grey.slice();
  const out = new Uint8Array(toWidth * toHeight);
  if (width === 2 * toWidth && height === 2 * toHeight) {
    for (let y = 0, at = 0; y < toHeight; y++) {
      for (let x = 0, from = 2 * y * width; x < toWidth; x++, from += 2) {
        out[at++] = (grey[from] + grey[from + 1] + grey[from + width] + grey[from + width + 1] + 2) >> 2;
      }
    }
    return out;
  }
  const columns = linearTable(width, toWidth, true);
  const rows = linearTable(height, toHeight, false);
  const cache = new Map();
  const rowOf = (y) => {
    let sums = cache.get(y);
    if (!sums) {
      if (cache.size > 1) cache.delete(cache.keys().next().value);
      sums = new Int32Array(toWidth);
      const from = y * width;
      for (let x = 0; x < toWidth; x++) {
        sums[x] = (grey[from + columns.first[x]] * columns.a[x] + grey[from + columns.second[x]] * columns.b[x]) >> 4;
      }
      cache.set(y, sums);
    }
    return sums;
  };
  for (let y = 0, at = 0; y < toHeight; y++) {
    const above = rowOf(rows.first[y]);
    const below = rowOf(rows.second[y]);
    const a = rows.a[y];
    const b = rows.b[y];
    for (let x = 0; x < toWidth; x++) out[at++] = (((above[x] * a) >> 16) + ((below[x] * b) >> 16) + 2) >> 2;
  }
  return out;
};
