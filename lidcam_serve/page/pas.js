// Percentile as a standard, boxes and run lengths in the page: the same numbers as lidcam_rt computes.
// The definitions are lidcam_rt/pas/reference.py, lidcam_rt/boxes.py (by contour) and lidcam_rt/interop.py.

// The greatest map value that is outside the mask: int(theta * Per_j(map)).
// histogram: how often each of the 256 values occurs in the network's map.
export const level = (histogram, percentile, theta) => {
  const total = histogram.reduce((a, b) => a + b, 0);
  const position = Math.round(percentile * 1000) * (total - 1);
  const low = Math.floor(position / 100000);
  const remainder = position - low * 100000;
  const at = (index) => {
    let seen = 0;
    return histogram.findIndex((count) => (seen += count) > index);
  };
  const a = at(low);
  const b = at(Math.min(low + 1, total - 1));
  const standard = (a * 100000 + (b - a) * remainder) / 100000;
  return Math.trunc((Math.round(theta * 1e6) / 1e6) * standard);
};

// 1 where the map is above the level, else 0.
export const maskOf = (map, above) => {
  const mask = new Uint8Array(map.length);
  for (let i = 0; i < map.length; i++) mask[i] = map[i] > above ? 1 : 0;
  return mask;
};

const DX = [1, 1, 0, -1, -1, -1, 0, 1]; // clockwise from the east, with y downwards
const DY = [0, 1, 1, 1, 0, -1, -1, -1];

// [x0, y0, x1, y1] of the component (8 neighbours) with the largest outer contour, or null. x1, y1: one past the last.
export const largestBox = (mask, width, height) => {
  const seen = new Uint8Array(mask.length);
  const stack = [];
  let best = null;
  let most = -1;
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || seen[start]) continue;
    let [x0, y0, x1, y1] = [width, height, 0, 0];
    seen[start] = 1;
    stack.push(start);
    while (stack.length) {
      const pixel = stack.pop();
      const x = pixel % width;
      const y = (pixel - x) / width;
      if (x < x0) x0 = x;
      if (x >= x1) x1 = x + 1;
      if (y < y0) y0 = y;
      if (y >= y1) y1 = y + 1;
      for (let d = 0; d < 8; d++) {
        const nx = x + DX[d];
        const ny = y + DY[d];
        if (nx < 0 || ny < 0 || nx >= width || ny >= height) continue;
        const next = ny * width + nx;
        if (mask[next] && !seen[next]) {
          seen[next] = 1;
          stack.push(next);
        }
      }
    }
    const area = twiceContourArea(mask, width, height, start % width, Math.floor(start / width));
    if (area >= most) {
      most = area;
      best = [x0, y0, x1, y1];
    }
  }
  return best;
};

// Twice the area of the polygon through the pixel centres of the outer border that starts at (x, y), the first pixel of
// its component. Border following: Suzuki and Abe (1985).
const twiceContourArea = (mask, width, height, startX, startY) => {
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x] === 1;
  let direction = -1;
  for (let i = 0; i < 8 && direction < 0; i++) {
    const d = (4 + i) % 8; // clockwise from the west
    if (inside(startX + DX[d], startY + DY[d])) direction = d;
  }
  if (direction < 0) return 0;
  const firstX = startX + DX[direction];
  const firstY = startY + DY[direction];
  let [x, y, from, area] = [startX, startY, direction, 0];
  for (;;) {
    let d = from;
    do d = (d + 7) % 8; // counterclockwise
    while (!inside(x + DX[d], y + DY[d]));
    const nx = x + DX[d];
    const ny = y + DY[d];
    area += x * ny - nx * y;
    if (nx === startX && ny === startY && x === firstX && y === firstY) return Math.abs(area);
    from = (d + 4) % 8;
    x = nx;
    y = ny;
  }
};

// A mask as COCO's compressed run lengths: {size: [height, width], counts}.
export const cocoRle = (mask, width, height) => {
  const runs = [];
  let value = 0;
  let run = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      if (mask[y * width + x] !== value) {
        runs.push(run);
        run = 0;
        value ^= 1;
      }
      run++;
    }
  }
  runs.push(run);
  let counts = "";
  runs.forEach((length, i) => {
    let left = i > 2 ? length - runs[i - 2] : length;
    let more = true;
    while (more) {
      const bits = left & 31;
      left >>= 5;
      more = left !== (bits & 16 ? -1 : 0);
      counts += String.fromCharCode(48 + (bits | (more ? 32 : 0)));
    }
  });
  return { size: [height, width], counts };
};
