export { ApiError, JobEndedBadly, type Problem } from "./answers.js";
export {
  DualProcess,
  type DryRun,
  type EventRecord,
  type Job,
  type JobEvent,
  type JobSpec,
  type Options,
} from "./client.js";
export { printable } from "./printable.js";
export type { components, paths } from "./schema.js";
