import { assert } from '../../../base/assert.js';
import type { RaftConfig, RaftId } from './types.js';

/**
 * The defaults are for managers within some milliseconds of each other. An election timeout must be many
 * heartbeats, and a heartbeat several round trips; the window of bytes allows 40 MB/s at 100 ms.
 */
const DEFAULTS = {
  electionTimeoutMs: 500,
  heartbeatMs: 100,
  appendBytesMax: 262_144,
  inflightMessagesMax: 256,
  inflightBytesMax: 4_194_304,
  uncommittedBytesMax: 67_108_864,
  learnerLagMax: 100,
} satisfies Partial<RaftConfig>;

export function raftConfig(
  own: { readonly id: RaftId; readonly seed: number } & Partial<RaftConfig>,
): RaftConfig {
  const config = { ...DEFAULTS, ...own };
  validate(config);
  return config;
}

/** Configuration is ours, so what is wrong with it is a bug. @throws AssertionFailed */
export function validate(config: RaftConfig): void {
  const { electionTimeoutMs, heartbeatMs } = config;
  assert(config.id > 0 && config.id < 2 ** 48, 'a raft id is in (0, 2^48)');
  assert(heartbeatMs >= 1, 'a heartbeat takes time');
  assert(electionTimeoutMs >= 2 * heartbeatMs, 'a lost heartbeat does not make an election');
  assert(config.appendBytesMax > 0, 'appends hold something');
  assert(config.inflightMessagesMax > 0 && config.inflightBytesMax > 0, 'there is a window');
  assert(config.uncommittedBytesMax > 0, 'something may be uncommitted');
  assert(config.learnerLagMax >= 0, 'a lag is not negative');
}
