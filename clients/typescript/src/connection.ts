/** What requests are sent with, and when one is sent again. */

/** Throws for what `fetch` would take for a path, or for another protocol's address. */
export function serviceUrl(url: string): string {
  if (/^https?:\/\/[^/]/.test(url) && URL.canParse(url)) return url;
  throw new Error("the service's address must begin with http:// or https://, like http://127.0.0.1:8000");
}

/** What goes with every request: a page of another origin can't send it unless it is let in. */
export const REQUESTED = { "X-Requested-With": "dualprocess" };

/** The header that carries the key. Throws for what no header can carry, and never repeats it. */
export function bearer(key: string | undefined): Record<string, string> {
  const value = key?.trim();
  if (!value) return {};
  if (!/^[\x20-\x7e]+$/.test(value)) {
    throw new Error("the API key has a line break or another character that can't be sent");
  }
  return { Authorization: `Bearer ${value}` };
}

/**
 * Asks again, once, where `fetch` fails: the server may just have closed a connection that was kept
 * for it. Only for what may arrive twice.
 */
export async function twice<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return await ask();
  }
}
