// Runs an artifact in onnxruntime-web: node onnxruntime_web.mjs FOLDER, which has node_modules, model.onnx, image.bin and
// labels.bin; writes one .bin file per output.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, packages, ...shape] = process.argv.slice(2);
const require = createRequire(join(packages, "x.js"));
const ort = await import(pathToFileURL(require.resolve("onnxruntime-web")));
ort.env.wasm.numThreads = 1;
const read = (name) => {
  const bytes = readFileSync(join(folder, name));
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
};
const [n, height, width, k] = shape.map(Number);
const session = await ort.InferenceSession.create(read("model.onnx"));
const outputs = await session.run({
  image: new ort.Tensor("uint8", new Uint8Array(read("image.bin")), [n, height, width, 3]),
  labels: new ort.Tensor("int64", new BigInt64Array(read("labels.bin")), [n, k]),
});
for (const [name, tensor] of Object.entries(outputs)) {
  writeFileSync(join(folder, `${name}.bin`), new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength));
}
console.log(process.version, ort.env.versions?.web ?? "");
