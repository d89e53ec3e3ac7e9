import { parentPort, workerData } from 'node:worker_threads';
import { assert, unreachable } from '../../base/assert.js';
import type { Change } from '../core/membership.js';
import type { RoundTrip } from '../core/probe.js';
import type { MemberId } from '../wire/claim.js';
import type { Endpoint } from '../wire/endpoint.js';
import type { GossipKey } from './seal.js';
import { type ShellStats, SwimShell, type SwimShellConfig } from './swim-shell.js';

/** What the main thread asks of the worker. */
export type ToSwimWorker =
  | { readonly kind: 'join'; readonly seeds: readonly Endpoint[] }
  | { readonly kind: 'check'; readonly member: MemberId }
  | { readonly kind: 'keys'; readonly keys: readonly GossipKey[] }
  | { readonly kind: 'leave' };

/** What the worker tells: first `opened` or `failed`, then the others. */
export type FromSwimWorker =
  | { readonly kind: 'opened'; readonly stats: ShellStats }
  | { readonly kind: 'failed'; readonly code: unknown; readonly text: string }
  | { readonly kind: 'changes'; readonly changes: readonly Change[] }
  | { readonly kind: 'roundTrips'; readonly roundTrips: readonly RoundTrip[] }
  | { readonly kind: 'stats'; readonly stats: ShellStats }
  | { readonly kind: 'left' };

const STATS_INTERVAL_MS = 1_000;

/** Main is not woken for every round trip. */
const roundTrips = new Map<MemberId, RoundTrip>();

const port = parentPort;
assert(port !== null, 'this module is the main module of a worker thread');
const tell = (message: FromSwimWorker): void => port.postMessage(message);

async function run(): Promise<void> {
  const shell = await SwimShell.open(workerData as SwimShellConfig, {
    onChanges: (changes) => tell({ kind: 'changes', changes }),
    onRoundTrips: (news) => {
      for (const roundTrip of news) roundTrips.set(roundTrip.member, roundTrip);
    },
  });
  tell({ kind: 'opened', stats: shell.stats() });

  setInterval(() => {
    tell({ kind: 'stats', stats: shell.stats() });
    if (roundTrips.size > 0) tell({ kind: 'roundTrips', roundTrips: [...roundTrips.values()] });
    roundTrips.clear();
  }, STATS_INTERVAL_MS);

  port?.on('message', (message: ToSwimWorker) => {
    switch (message.kind) {
      case 'join':
        return shell.join(message.seeds);
      case 'check':
        return shell.check(message.member);
      case 'keys':
        return shell.setKeys(message.keys);
      case 'leave':
        return void shell.leave().then(() => tell({ kind: 'left' }));
      default:
        return unreachable(message);
    }
  });
}

run().catch((error: unknown) => {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  tell({ kind: 'failed', code, text: error instanceof Error ? error.message : String(error) });
});
