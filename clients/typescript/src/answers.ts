/** What an answer of the API means: its data, or the error it stands for. */

import { printable } from "./printable.js";
import type { components } from "./schema.js";

type Job = components["schemas"]["Job"];
export type Problem = components["schemas"]["Problem"];

/**
 * The service refused a request; `problem` (RFC 9457) says why and names each field. `retryAfter`:
 * the seconds after which it may be asked again, where it says so.
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

/** A job that was waited for failed or was cancelled. */
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

/** Whether there are as many open streams as there may be: one is free when another one ends. */
export function isFull(error: unknown): error is ApiError {
  return error instanceof ApiError && error.status === 429;
}

/** Whether the same request may succeed a moment later: nobody answered, or not now. */
export function mayPass(error: unknown): boolean {
  if (error instanceof ApiError) return [502, 503, 504].includes(error.status);
  return error instanceof TypeError; // What fetch throws for a connection that fails.
}

function isProblem(error: unknown): error is Problem {
  return typeof error === "object" && error !== null && "title" in error && "status" in error;
}

/** Something between the client and the service answered. */
function unknown(response: Response): Problem {
  return { title: `HTTP status ${response.status}`, status: response.status } as Problem;
}
