// Answers each line of JSON on stdin, [operation, arguments], with one on stdout: {result} or {failure}.
import net from 'node:net';
import readline from 'node:readline';

// Whatever a library tries: no connection leaves this machine.
const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...args) {
  const options = Array.isArray(args[0]) ? args[0][0] : args[0];
  const host = typeof options === 'object' ? options.host : args[1];
  if (host !== '127.0.0.1') {
    throw new Error(`no connection to ${host} from a test`);
  }
  return connect.apply(this, args);
};

// JSON has no undefined, but a field that a library left undefined is worth knowing.
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
