// Reads lines of JSON, [operation, arguments], and writes a line for each: {result} or {failure}.
import net from 'node:net';
import readline from 'node:readline';

// No connection leaves this machine, whatever a library tries.
const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...args) {
  const options = Array.isArray(args[0]) ? args[0][0] : args[0];
  const host = typeof options === 'object' ? options.host : args[1];
  if (host !== '127.0.0.1') {
    throw new Error(`no connection to ${host} from a test`);
  }
  return connect.apply(this, args);
};

// JSON has no undefined, but the tests need to know which fields a library left undefined.
const visible = (_, value) => (value === undefined ? '(undefined)' : value);

export async function answer(operations) {
  for await (const line of readline.createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    const [operation, args] = JSON.parse(line);
    let out;
    try {
      out = { result: await operations[operation](args) };
    } catch (e) {
      out = { failure: String(e?.stack ?? e) };
    }
    process.stdout.write(JSON.stringify(out, visible) + '\n');
  }
}
