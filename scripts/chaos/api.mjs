// Requests to the managers' sockets, with what can be known of each outcome.
import { Agent, request } from 'node:http';

const NO_LEADER = /does not have a leader/;
const connections = new Agent({ keepAlive: true, maxSockets: 256, scheduling: 'lifo' });

export function closeConnections() {
  connections.destroy();
}

/**
 * Asks a manager.
 *
 * `answer`: what it said; `stale`: it could ask no quorum. `unsent`: it never got the request.
 * `unknown`: the request was sent, and nobody knows what became of it.
 */
export function ask(socketPath, method, path, { body, timeoutMs = 8_000 } = {}) {
  return new Promise((resolve) => {
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const headers = { host: 'shoal' };
    if (payload !== undefined) {
      headers['content-type'] = 'application/json';
      headers['content-length'] = Buffer.byteLength(payload);
    }
    const outgoing = request(
      { agent: connections, socketPath, method, path, headers },
      (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (chunk) => {
          text += chunk;
        });
        response.on('end', () => {
          clearTimeout(timer);
          resolve({
            kind: 'answer',
            status: response.statusCode,
            value: parsed(text),
            stale: response.headers['shoal-stale'] !== undefined,
          });
        });
        response.on('error', fail);
      },
    );
    const timer = setTimeout(() => outgoing.destroy(new Error('timeout')), timeoutMs);
    const fail = (error) => {
      clearTimeout(timer);
      const unsent = error.code === 'ECONNREFUSED' || error.code === 'ENOENT';
      resolve({ kind: unsent ? 'unsent' : 'unknown', why: error.code ?? error.message });
    };
    outgoing.on('error', fail);
    outgoing.end(payload);
  });
}

function parsed(text) {
  try {
    return text === '' ? undefined : JSON.parse(text);
  } catch {
    return text;
  }
}

/**
 * What an answer to a change says of it.
 *
 * `done`, `refused` (certainly nothing was changed), `exists`, `missing`, `conflict` (of versions),
 * `unknown`.
 */
export function outcomeOf(answer) {
  if (answer.kind === 'unsent') return 'refused';
  if (answer.kind === 'unknown') return 'unknown';
  const { status, value } = answer;
  const message = String(value?.message ?? '');
  if (status < 300) return 'done';
  if (status === 409) return 'exists';
  // What a manager without a quorum does not know is not missing.
  if (status === 404) return answer.stale ? 'refused' : 'missing';
  if (/out of sequence/.test(message)) return 'conflict';
  if (status === 503 || NO_LEADER.test(message)) return 'refused';
  return 'unknown';
}
