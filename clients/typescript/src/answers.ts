/** Turns an answer of the API into its data, or into an error. */

import { printable } from "./printable.js";
import type { components } from "./schema.js";

type Job = components["schemas"]["Job"];
export type Problem = components["schemas"]["Problem"];

/**
 * The service refused a request; `problem` (RFC 9457) says why and names each field. `retryAfter`
 * is the seconds to wait before the next try, if the service says so.
 */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly problem: Problem,
    readonly retryAfter?: number,
  ) {
    const lines = (problem.errors ?? []).map(({ field, message }) => `${field}: ${message}`);
    const head = problem.detail ? `${problem.title}: ${problem.detail}` : problem.title;
    super(printable([head, ...lines].join("\n")));
    this.name = "ApiError";
  }
}

/** The awaited job failed or was cancelled. */
export class JobEndedBadly extends Error {
  constructor(readonly job: Job) {
    super(printable(`job ${job.id} ${job.status}${job.error ? `: ${job.error}` : ""}`));
    this.name = "JobEndedBadly";
  }
}

/** The data of an answer. Throws `ApiError` for a refusal. */
export function told<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  const { data, error, response } = answer;
  if (response.ok) return data as T;
  const seconds = response.headers.get("Retry-After") ?? "";
  const retryAfter = /^\d+$/.test(seconds) ? Number(seconds) : undefined;
  throw new ApiError(response.status, isProblem(error) ? error : unknown(response), retryAfter);
}

/** Whether too many event streams are open. There is a place when one of them ends. */
export function isFull(error: unknown): error is ApiError {
  return error instanceof ApiError && error.status === 429;
}

/** Whether the same request may succeed soon: nobody answered, or the service is away for now. */
export function mayPass(error: unknown): boolean {
  if (error instanceof ApiError) return [502, 503, 504].includes(error.status);
  return error instanceof TypeError; // fetch throws it if the connection fails.
}

function isProblem(error: unknown): error is Problem {
  return typeof error === "object" && error !== null && "title" in error && "status" in error;
}

/** The problem if something other than the service answered, like a proxy. */
function unknown(response: Response): Problem {
  const at = URL.canParse(response.url) ? `; the request went to ${new URL(response.url).origin}` : "";
  const detail =
    `The answer does not come from a dualprocess service. Check the service's address${at}. ` +
    "If a proxy is in front of the service, check that as well.";
  return { title: `HTTP status ${response.status}`, status: response.status, detail } as Problem;
}
