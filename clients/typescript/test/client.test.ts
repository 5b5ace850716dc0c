/** Tests against the service at DUALPROCESS_URL, which has a succeeded job DUALPROCESS_JOB. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { EventSourceParserStream } from "eventsource-parser/stream";

import { ApiError, DualProcess, JobEndedBadly, printable } from "dualprocess";

const url = process.env["DUALPROCESS_URL"] ?? "";
const jobId = process.env["DUALPROCESS_JOB"] ?? "";

async function ids(service: DualProcess): Promise<string[]> {
  const heard = [];
  for await (const record of service.events(jobId)) heard.push(record.id);
  return heard;
}

/** Ends with an error after this many events. */
function cut(body: ReadableStream<Uint8Array<ArrayBuffer>>, events: number): ReadableStream {
  const messages = body
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream())
    .getReader();
  const encoder = new TextEncoder();
  let left = events;
  const pull = async (controller: ReadableStreamDefaultController): Promise<void> => {
    const { value } = await messages.read();
    if (left-- === 0 || value === undefined) controller.error(new TypeError("terminated"));
    else controller.enqueue(encoder.encode(`id: ${value.id}\ndata: ${value.data}\n\n`));
  };
  return new ReadableStream({ pull }, { highWaterMark: 0 });
}

test("a stream that breaks is taken up where it broke", async () => {
  const asked: (string | null)[] = [];
  const breaking = async (request: Request): Promise<Response> => {
    asked.push(request.headers.get("Last-Event-ID"));
    const response = await fetch(request);
    const { body } = response;
    return asked.length === 1 && body ? new Response(cut(body, 3), response) : response;
  };
  const whole = await ids(new DualProcess(url));
  assert.ok(whole.length > 3);
  assert.deepEqual(await ids(new DualProcess(url, { fetch: breaking })), whole);
  assert.deepEqual(asked, [null, whole[2]]);
});

test("a quiet job is followed over any number of cut connections", async () => {
  let connections = 0;
  const cutting = async (request: Request): Promise<Response> => {
    const response = await fetch(request);
    if (!request.url.endsWith("/events") || ++connections > 7) return response;
    await response.body?.cancel();
    const body = new ReadableStream({
      pull: (controller) => controller.error(new TypeError("terminated")),
    });
    return new Response(body, response);
  };
  const whole = await ids(new DualProcess(url));
  assert.deepEqual(await ids(new DualProcess(url, { fetch: cutting })), whole);
  assert.equal(connections, 8);
});

test("a dry run tells a job's work and queues nothing", async () => {
  const service = new DualProcess(url);
  const newest = async () => (await service.api.GET("/v1/jobs")).data?.jobs[0]?.id;
  const before = await newest();
  const told = await service.dryRun({
    prompt: "a circle",
    questions: [{ question: "Is the circle red?", answer: "Yes" }],
    generator: "tiny-flux",
    vlm: "tiny-idefics2",
  });
  assert.equal(told.jobs, 1);
  assert.ok(told.work > 0);
  assert.equal(await newest(), before);
});

test("a stream behind the end of a job brings nothing and ends", async () => {
  const last = (await ids(new DualProcess(url))).at(-1);
  const statuses: number[] = [];
  const counting = async (request: Request): Promise<Response> => {
    const response = await fetch(request);
    statuses.push(response.status);
    return response;
  };
  for await (const record of new DualProcess(url, { fetch: counting }).events(jobId, last)) {
    assert.fail(record.id);
  }
  assert.deepEqual(statuses, [204]);
});

test("a stream that can't be had yet is asked for again; waiting reads the job meanwhile", async () => {
  let refused = 0;
  const full = (times: number) => async (request: Request): Promise<Response> => {
    if (!request.url.endsWith("/events") || refused === times) return fetch(request);
    refused += 1;
    const problem = { title: "All event streams of this key are taken", status: 429 };
    return Response.json(problem, { status: 429, headers: { "Retry-After": "0" } });
  };
  const whole = await ids(new DualProcess(url));
  assert.deepEqual(await ids(new DualProcess(url, { fetch: full(7) })), whole);
  assert.equal(refused, 7);
  refused = 0;
  const job = await new DualProcess(url, { fetch: full(Infinity) }).wait(jobId);
  assert.equal(job.status, "succeeded");
  assert.equal(refused, 1);
});

test("a request is sent again where the connection broke, under one key", async () => {
  const keys: (string | null)[] = [];
  const breaking = async (request: Request): Promise<Response> => {
    keys.push(request.headers.get("Idempotency-Key"));
    if (keys.length === 1) throw new TypeError("fetch failed");
    return fetch(request);
  };
  const service = new DualProcess(`${url}/`, { fetch: breaking });
  const job = await service.submit({
    prompt: "a circle",
    questions: [{ question: "Is the circle red?", answer: "Yes" }],
    generator: "tiny-flux",
    vlm: "tiny-idefics2",
  });
  assert.equal(keys.length, 2);
  assert.ok(keys[0]);
  assert.equal(keys[0], keys[1]);
  await service.cancel(job.id);
});

test("what nothing can be sent with is said at once, without the key", () => {
  for (const wrong of ["localhost:8000", "service.example", "//service", "ftp://service", ""]) {
    assert.throws(() => new DualProcess(wrong), /must begin with http/);
  }
  for (const apiKey of ["dp_secret\nx", "dp_secret\r\nX: y", "dp_secr\u00e9t"]) {
    assert.throws(
      () => new DualProcess(url, { apiKey }),
      (error: Error) => /line break/.test(error.message) && !error.message.includes("dp_s"),
    );
  }
});

test("a refusal names the field", async () => {
  const spec = {
    prompt: "a circle",
    questions: [{ question: "Is the circle red?", answer: "Yes" }],
    generator: "tiny-flax",
    vlm: "tiny-idefics2",
  };
  await assert.rejects(new DualProcess(url).submit(spec), (error) => {
    assert.ok(error instanceof ApiError);
    assert.equal(error.status, 422);
    assert.deepEqual(error.problem.errors?.map(({ field }) => field), ["generator"]);
    return true;
  });
});

test("a job that was cancelled is an error to who waits for it", async () => {
  const service = new DualProcess(url);
  const job = await service.submit({
    prompt: "a circle",
    questions: [{ question: "Is the circle red?", answer: "Yes" }],
    generator: "tiny-flux",
    vlm: "tiny-idefics2",
    optimizer: { steps: 5000 },
  });
  await service.cancel(job.id);
  await assert.rejects(service.wait(job.id), JobEndedBadly);
});

test("where nobody answers, the error is fetch's", async () => {
  await assert.rejects(new DualProcess("http://127.0.0.1:9").job(jobId), TypeError);
});

test("a change says that no page of another origin sent it", async () => {
  let asked: Request | undefined;
  const noting = async (request: Request): Promise<Response> => {
    asked = request;
    return new Response("{}", { status: 200 });
  };
  await new DualProcess(url, { fetch: noting }).cancel(jobId);
  assert.equal(asked?.method, "POST");
  assert.equal(asked.headers.get("X-Requested-With"), "dualprocess");
});

test("an error's message has nothing that a terminal obeys", async () => {
  const hostile = "\x1b[2J\x9bgone\u202e\u200b\ttab\r\nline 👩\u200d🔬";
  const body = { title: hostile, status: 404, errors: [{ field: hostile, message: hostile }] };
  const refusing = async (): Promise<Response> => Response.json(body, { status: 404 });
  const error = await new DualProcess(url, { fetch: refusing }).job(jobId).catch((one) => one);
  assert.ok(error instanceof ApiError);
  assert.equal(error.problem.title, hostile);
  const shown = "[2Jgone tab\nline 👩\u200d🔬";
  assert.equal(error.message, `${shown}\n${shown}: ${shown}`);
  assert.equal(printable(hostile), shown);
});
