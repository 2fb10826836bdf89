// Clerk's SDK as a client: calls any of its methods and reports the result.
import { answer } from './lines.mjs';

const { createClerkClient } = await import('@clerk/backend');
const clients = new Map();

await answer({
  // call calls the method ["invitations", "createInvitation"] of a client of the API at url.
  async call({ url, key, method: [api, name], args }) {
    const id = `${url} ${key}`;
    if (!clients.has(id)) {
      clients.set(id, createClerkClient({ secretKey: key, apiUrl: url, telemetry: { disabled: true } }));
    }
    try {
      return { value: await clients.get(id)[api][name](...args) };
    } catch (e) {
      if (e.name !== 'ClerkAPIResponseError') throw e;
      const { status, clerkTraceId, retryAfter, errors } = e;
      return { error: { status, clerkTraceId, retryAfter, errors } };
    }
  },
  // reach reports why a URL cannot be reached.
  async reach(url) {
    return fetch(url).then(
      (response) => `answered ${response.status}`,
      (e) => `${e.cause?.message}`,
    );
  },
});
