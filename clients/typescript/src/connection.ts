/** The address, headers and retries of requests. */

/** Throws for an address that `fetch` would take for a path, or that is of another protocol. */
export function serviceUrl(url: string): string {
  if (/^https?:\/\/[^/]/.test(url) && URL.canParse(url)) return url;
  throw new Error("the service's address must begin with http:// or https://, like http://127.0.0.1:8000");
}

/** A header of every request. A page of another origin can't send it, unless the service allows it. */
export const REQUESTED = { "X-Requested-With": "dualprocess" };

/** The header with the key. Throws for a key that can't be sent; the message never repeats it. */
export function bearer(key: string | undefined): Record<string, string> {
  const value = key?.trim();
  if (!value) return {};
  if (!/^[\x20-\x7e]+$/.test(value)) {
    throw new Error("the API key has a line break or another character that can't be sent");
  }
  return { Authorization: `Bearer ${value}` };
}

/**
 * Sends a request again, once, if `fetch` fails: the server may just have closed an idle connection.
 * Only for requests that may arrive twice.
 */
export async function twice<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return await ask();
  }
}
