/** Submit a job, follow it, fetch its files; every other route is typed in `api`. */

import type { EventSourceMessage } from "eventsource-parser";
import { EventSourceParserStream } from "eventsource-parser/stream";
import createClient, { type Client } from "openapi-fetch";

import { isFull, JobEndedBadly, mayPass, told } from "./answers.js";
import { bearer, REQUESTED, serviceUrl, twice } from "./connection.js";
import type { components, paths } from "./schema.js";

export type JobSpec = components["schemas"]["JobSpec"];
export type Job = components["schemas"]["Job"];
export type DryRun = components["schemas"]["DryRun"];
export type JobEvent =
  | components["schemas"]["StatusEvent"]
  | components["schemas"]["StepEvent"]
  | components["schemas"]["SkippedStepEvent"]
  | components["schemas"]["PreviewEvent"]
  | components["schemas"]["ArtifactEvent"]
  | components["schemas"]["WarningEvent"];
/** An event and its place in the job's stream. */
export type EventRecord = { id: string; event: JobEvent };

export type Options = {
  /** Needed if the service asks for one. */
  apiKey?: string;
  /** Used instead of the global `fetch`, for example in tests. */
  fetch?: (request: Request) => Promise<Response>;
};

/** Pauses between the tries to continue a broken stream. After the last one the error is thrown. */
const RETRY_MILLISECONDS = [200, 500, 1000, 2000, 4000] as const;
/** The pause if a service with too many streams does not say how long to wait. */
const RETRY_AFTER_SECONDS = 4;
/** The longest pause, even if the service asks for a longer one. */
const LONGEST_PAUSE_SECONDS = 30;
const FINAL: readonly Job["status"][] = ["succeeded", "failed", "cancelled"];

export class DualProcess {
  /** Every route of the API, typed by its OpenAPI document. */
  readonly api: Client<paths>;

  /** `url` may have a path. Throws if `url` can't be a service's address, or the key can't be a key. */
  constructor(url: string, options: Options = {}) {
    const fetch = options.fetch ?? globalThis.fetch;
    const headers = { ...REQUESTED, ...bearer(options.apiKey) };
    this.api = createClient<paths>({ baseUrl: serviceUrl(url), headers, fetch });
  }

  /** Queues a job. A second call with the same key and spec returns the same job. */
  async submit(spec: JobSpec, idempotencyKey: string = crypto.randomUUID()): Promise<Job> {
    const header = { "idempotency-key": idempotencyKey };
    const sent = () => this.api.POST("/v1/jobs", { body: spec, params: { header } });
    return told(await twice(sent)) as Job;
  }

  /** What a job would come to: spec, work, queue, time, and how it would be refused. Nothing is queued. */
  async dryRun(spec: JobSpec): Promise<DryRun> {
    const query = { dry_run: true };
    const sent = () => this.api.POST("/v1/jobs", { body: spec, params: { query } });
    return told(await twice(sent)) as DryRun;
  }

  /** The job, as it is now. */
  async job(jobId: string): Promise<Job> {
    const params = { path: { job_id: jobId } };
    return told(await twice(() => this.api.GET("/v1/jobs/{job_id}", { params })));
  }

  /** Stops a job; what a running one learned so far is still exported. */
  async cancel(jobId: string): Promise<Job> {
    const params = { path: { job_id: jobId } };
    return told(await this.api.POST("/v1/jobs/{job_id}/cancel", { params }));
  }

  /**
   * Every event after `lastEventId`, as it arrives, up to the one that ends the job. A broken
   * connection is continued where it broke, however often: no event is missed or comes twice.
   * While too many event streams are open (429), the service is asked again until there is a place.
   */
  async *events(jobId: string, lastEventId?: string): AsyncGenerator<EventRecord> {
    for await (const record of this.#followed(jobId, lastEventId)) {
      if (record !== undefined) yield record;
    }
  }

  /** Waits for the job's end, and returns the job if it succeeded. Else throws `JobEndedBadly`. */
  async wait(jobId: string, heard: (event: JobEvent) => void = () => {}): Promise<Job> {
    for await (const record of this.#followed(jobId)) {
      if (record !== undefined) heard(record.event);
      else if (isFinal((await this.job(jobId)).status)) break;
    }
    const job = await this.job(jobId);
    if (job.status !== "succeeded") throw new JobEndedBadly(job);
    return job;
  }

  /** A file of the job. */
  async download(jobId: string, name: string): Promise<ArrayBuffer> {
    const params = { path: { job_id: jobId, name } };
    const route = "/v1/jobs/{job_id}/artifacts/{name}";
    return told(await twice(() => this.api.GET(route, { params, parseAs: "arrayBuffer" })));
  }

  /** The job's events; `undefined` each time that too many streams were open. */
  async *#followed(jobId: string, lastEventId?: string): AsyncGenerator<EventRecord | undefined> {
    let last = lastEventId;
    // A server that loses Redis or is stopped ends a connection early, and the job may end
    // meanwhile. So only a connection that began after the job's end and brought no event is the last.
    let hadEnded = false;
    for (let failed = 0; ; ) {
      try {
        let broughtSomething = false;
        const messages = await this.#connection(jobId, last);
        if (messages === undefined) return;
        failed = 0;
        for await (const message of messages) {
          const record = { id: message.id ?? "", event: JSON.parse(message.data) as JobEvent };
          last = record.id;
          broughtSomething = true;
          yield record;
          if (record.event.type === "status" && isFinal(record.event.status)) return;
        }
        if (hadEnded && !broughtSomething) return;
        hadEnded = isFinal((await this.job(jobId)).status);
        await paused(RETRY_MILLISECONDS[0]);
      } catch (error) {
        if (isFull(error)) {
          yield undefined;
          const seconds = error.retryAfter ?? RETRY_AFTER_SECONDS;
          await paused(Math.max(RETRY_MILLISECONDS[0], 1000 * Math.min(seconds, LONGEST_PAUSE_SECONDS)));
          continue;
        }
        const pause = RETRY_MILLISECONDS[failed++];
        if (!mayPass(error) || pause === undefined) throw error;
        await paused(pause);
      }
    }
  }

  /** A stream of events; `undefined` if the job has ended and `last` is its last event. */
  async #connection(
    jobId: string,
    last: string | undefined,
  ): Promise<ReadableStream<EventSourceMessage> | undefined> {
    const header = last === undefined ? {} : { "Last-Event-ID": last };
    const params = { path: { job_id: jobId }, header };
    const route = "/v1/jobs/{job_id}/events";
    const answer = await this.api.GET(route, { params, parseAs: "stream" });
    const body = told<unknown>(answer);
    if (answer.response.status === 204) return undefined;
    return (body as ReadableStream<Uint8Array<ArrayBuffer>>)
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(new EventSourceParserStream());
  }
}

function paused(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function isFinal(status: Job["status"]): boolean {
  return FINAL.includes(status);
}
