// Whether an engine computes what the artifact returned when the site was made. The picture is that of check.py.

export const pattern = (height, width) => {
  const rgb = new Uint8Array(height * width * 3);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      rgb[at++] = (x * x * 3 + y * 5) >> 3;
      rgb[at++] = (x * 7) ^ (y * 3);
      rgb[at++] = (x * y) >> 2;
    }
  }
  return { rgb, width, height };
};

const SHARE = 0.02; // of the range of the logits
const LEVELS = 3; // of 255, of the threshold

// Whether outputs {logits, threshold} are the expected ones, up to rounding.
export const agrees = (outputs, expected) => {
  const range = Math.max(...expected.logits) - Math.min(...expected.logits);
  const allowed = SHARE * Math.max(range, 1e-3);
  return (
    outputs.logits.length === expected.logits.length &&
    expected.logits.every((value, i) => Math.abs(outputs.logits[i] - value) <= allowed) &&
    Math.abs(outputs.threshold - expected.threshold) <= LEVELS
  );
};
