/** Runs one job and saves its LoRA: `node build/example/red-circle.js http://127.0.0.1:8000 red-circle.safetensors` */

import { writeFile } from "node:fs/promises";

import { DualProcess, printable } from "dualprocess";

const [url = "http://127.0.0.1:8000", path = "red-circle.safetensors", steps = "150"] =
  process.argv.slice(2);
const service = new DualProcess(url);
const queued = await service.submit({
  prompt: "a circle",
  questions: [{ question: "Is the circle red?", answer: "Yes" }],
  generator: "tiny-flux",
  vlm: "tiny-idefics2",
  optimizer: { steps: Number(steps) },
});
const job = await service.wait(queued.id, (event) => {
  if (event.type === "step") console.log(`step ${event.step}: loss ${event.loss.toFixed(3)}`);
});
const lora = await service.download(job.id, "pytorch_lora_weights.safetensors");
await writeFile(path, new Uint8Array(lora));
console.log(`${job.status}: ${path}, ${lora.byteLength} bytes`);
const { drift, diversity } = job.scores ?? {};
const told = (value?: number | null) => value?.toFixed(2) ?? "not measured";
console.log(`drift ${told(drift)}, diversity ${told(diversity)}`);
for (const sentence of job.warnings ?? []) console.warn(printable(sentence));
