// Calls of the API: each ends in time, and says what came of it. And how long to wait before the next try.

const TIMEOUT_MS = 15000;
const BACKOFF_MAX_S = 15;

/** Somebody is signed in, as far as scripts may know. */
export const signedIn = () => /(?:^|; )flashsale-in=1/.test(document.cookie);

/**
 * Calls, and gives {status, body, retryAfter} with status 0 when nothing came back. Never throws.
 */
export async function call(method, path, { body, key, timeout = TIMEOUT_MS } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key !== undefined) headers["Idempotency-Key"] = key;
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(), timeout);
  try {
    const answer = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: ending.signal,
      credentials: "same-origin",
      cache: method === "GET" && !path.endsWith("/status") ? "no-store" : "default",
    });
    const text = await answer.text();
    let read = null;
    try {
      read = text ? JSON.parse(text) : null;
    } catch {
      if (answer.ok) return { status: 0, body: null, retryAfter: null }; // cut short on its way
    }
    const after = Number(answer.headers.get("Retry-After"));
    return { status: answer.status, body: read, retryAfter: after > 0 ? after : null };
  } catch {
    return { status: 0, body: null, retryAfter: null };
  } finally {
    clearTimeout(timer);
  }
}

/** Whether an answer is none: nothing came, or "come back later". The same request may be sent again. */
export const passing = (status) => status === 0 || status === 408 || status === 429 || status >= 500;

/**
 * Seconds to wait before try number `tries` (from 1 on): what the answer asked for and up to as much again by chance, so
 * that a crowd that was turned away together does not come back together.
 */
export function waitFor(retryAfter, tries, chance = Math.random()) {
  const asked = retryAfter ?? Math.min(BACKOFF_MAX_S, 2 ** (tries - 1));
  return asked * (1 + chance);
}
