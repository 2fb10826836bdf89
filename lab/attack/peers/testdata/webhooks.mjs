// Signers and verifiers of webhooks, on a clock that the test sets.
import { answer } from './lines.mjs';

const { verifyWebhook } = await import('@clerk/backend/webhooks');
const { Webhook: Svix } = await import('svix');
const { Webhook: Standard } = await import('standardwebhooks');

// Errors about a signature. All others are about the body.
const aboutSignature = /No matching signature|timestamp too (old|new)|Invalid Signature Headers|Missing required/;

async function verdict(verify) {
  try {
    const event = await verify();
    return { accepted: true, event: event ?? null };
  } catch (e) {
    return { accepted: !aboutSignature.test(e.message), error: e.message };
  }
}

// A secret or header that a library cannot use is refused, regardless of the body.
function made(make) {
  try {
    return [make()];
  } catch (e) {
    return [null, { accepted: false, error: `${e}` }];
  }
}

await answer({
  // sign returns the signature of each library for the same message.
  sign(messages) {
    return messages.map(({ secret, id, at, body }) => {
      const when = new Date(at);
      return [Svix, Standard].map((Webhook) => new Webhook(secret).sign(id, when, Buffer.from(body, 'base64')));
    });
  },

  // verify returns the verdicts of each library. headers are pairs in their order. Repeated headers are joined, as node does.
  async verify({ now, deliveries }) {
    const real = Date.now;
    const out = [];
    for (const [i, { secret, headers, body }] of deliveries.entries()) {
      const bytes = Buffer.from(body, 'base64');
      const joined = {};
      for (const [name, value] of headers) {
        const key = name.toLowerCase();
        joined[key] = key in joined ? `${joined[key]}, ${value}` : value;
      }
      const renamed = {}; // Standard Webhooks has other names for the same headers
      for (const name of ['id', 'timestamp', 'signature']) {
        renamed[`webhook-${name}`] = joined[`svix-${name}`] ?? joined[`webhook-${name}`];
      }
      const [svix, noSvix] = made(() => new Svix(secret));
      const [standard, noStandard] = made(() => new Standard(secret));
      const [request, noRequest] = made(() => new Request('http://127.0.0.1/', { method: 'POST', headers, body: bytes }));
      Date.now = () => now[i];
      try {
        out.push({
          svix: noSvix ?? (await verdict(() => svix.verify(bytes, joined))),
          standard: noStandard ?? (await verdict(() => standard.verify(bytes, renamed))),
          clerk: noStandard ?? noRequest ?? (await verdict(() => verifyWebhook(request, { signingSecret: secret }))),
        });
      } finally {
        Date.now = real;
      }
    }
    return out;
  },
});
