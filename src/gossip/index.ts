import type { Duplex } from 'node:stream';
import { assert } from '../base/assert.js';
import { SwarmError } from '../base/swarm-error.js';
import { type Member, MemberBook, type MemberChange } from './io/member-book.js';
import { RecordPlane, type RecordPlaneStats, type Records } from './io/record-plane.js';
import type { GossipKey } from './io/seal.js';
import { openSwim, type Swim } from './io/swim.js';
import type { ShellStats, SwimProfile } from './io/swim-shell.js';
import type { TunnelHandler } from './io/tunnel.js';
import { isMemberId, type MemberState } from './wire/claim.js';
import { canonicalAddress } from './wire/endpoint.js';

export {
  type AcknowledgementInput,
  type AcknowledgementReady,
  Acknowledgements,
  ASKED_FACTS_MAX,
} from './core/acknowledgements.js';
export type { Member, MemberChange } from './io/member-book.js';
export type { GossipRecord, RecordPlaneStats, Records } from './io/record-plane.js';
export type { GossipKey } from './io/seal.js';
export type { MemberState } from './wire/claim.js';

/** The part of pino's Logger that gossip uses. */
export interface Logger {
  debug(obj: object, msg: string): void;
  info(obj: object, msg: string): void;
  warn(obj: object, msg: string): void;
  error(obj: object, msg: string): void;
}

export interface GossipConfig {
  /** This member's id: 1 to 64 printable ASCII characters; in a swarm, the node's id. */
  readonly self: string;
  /** `0.0.0.0`, `::` (both families), or one address of this host. */
  readonly bindAddress: string;
  /** UDP for membership and TCP for records. */
  readonly port: number;
  /** Where the others reach us: an address literal. */
  readonly advertiseAddress: string;
  readonly advertisePort: number;
  readonly profile: SwimProfile;
  /** One to three. The first seals, all open. */
  readonly keys: readonly GossipKey[];
  /** 32-byte Ed25519 seed of the node's key, from which the libp2p peer id is made. */
  readonly seed: Uint8Array;
  readonly log: Logger;
}

export interface GossipStats extends ShellStats {
  /** How many members are in each state, ourselves included. */
  readonly members: Readonly<Record<MemberState, number>>;
  readonly records: RecordPlaneStats;
}

/** Who is alive, and small records to everyone. */
export class Gossip {
  readonly #swim: Swim;
  readonly #book: MemberBook;
  readonly #plane: RecordPlane;
  #isClosed = false;
  #isPlaneDue = false;

  /** @throws SwarmError SWARM_PORT_TAKEN, SWARM_BAD_ADDRESS */
  static async open(config: GossipConfig): Promise<Gossip> {
    const { self, bindAddress, port, profile, keys, log } = config;
    assert(isMemberId(self), 'a member id is 1 to 64 printable characters');
    const advertise = { address: advertisedAddress(config), port: config.advertisePort };
    const book = new MemberBook({ id: self, ...advertise, state: 'alive', incarnation: 0 });
    book.onChange((change) => logChange(log, self, change));
    const shell = { self, bindAddress, port, advertise, profile, keys };
    const swim = await openSwim(shell, book);
    let plane: RecordPlane;
    try {
      plane = await RecordPlane.open({ self, seed: config.seed, bindAddress, port, log });
    } catch (error) {
      await swim.close();
      throw error;
    }
    return new Gossip(swim, book, plane);
  }

  private constructor(swim: Swim, book: MemberBook, plane: RecordPlane) {
    this.#swim = swim;
    this.#book = book;
    this.#plane = plane;
    book.onChange(() => this.#tellPlane());
    this.#tellPlane();
  }

  /** Our libp2p peer id, made from the seed. */
  get peerId(): string {
    return this.#plane.peerId;
  }

  /** Small records to everyone, by topic. */
  get records(): Records {
    return this.#plane.records;
  }

  /** Who may speak with the record plane: peer ids by member id. The others are refused. */
  setAdmitted(members: ReadonlyMap<string, string>): void {
    this.#plane.setAdmitted(members);
  }

  /**
   * A stream of bytes to another admitted member, whose agent must be listening with `onTunnel`.
   *
   * @throws SwarmError SWARM_UNREACHABLE, SWARM_EXHAUSTED
   */
  openTunnel(member: string, signal: AbortSignal): Promise<Duplex> {
    return this.#plane.tunnels.open(member, signal);
  }

  /** Called with the tunnels that others open to here. @returns Ends it: then they are refused. */
  onTunnel(handler: TunnelHandler): () => void {
    return this.#plane.tunnels.onTunnel(handler);
  }

  /** A hint from elsewhere, such as a session that broke: is this member gone? Asked at once. */
  check(member: string): void {
    if (isMemberId(member)) this.#swim.check(member);
  }

  /** Asks the seeds until a member answers, and again whenever nobody is left. */
  join(seeds: readonly { readonly address: string; readonly port: number }[]): void {
    this.#swim.join(seeds.map(({ address, port }) => ({ address, port })));
  }

  /** One to three keys: the first seals from now on, all open. */
  setKeys(keys: readonly GossipKey[]): void {
    this.#swim.setKeys(keys);
  }

  /** Everybody known, ourselves included; the dead and the left stay for a day. */
  members(): readonly Member[] {
    return this.#book.all();
  }

  /** @returns Ends the subscription. */
  onMembers(listener: (change: MemberChange) => void): () => void {
    return this.#book.onChange(listener);
  }

  /** As of at most a second ago. */
  stats(): GossipStats {
    return {
      ...this.#swim.stats(),
      members: this.#book.countByState(),
      records: this.#plane.stats(),
    };
  }

  /** Tells the others, then stops; stops anyway after `timeoutMs`. */
  async leave(timeoutMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const expired = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([this.#swim.leave(), expired]);
    clearTimeout(timer);
    await this.close();
  }

  /** Stops without a word: the others will find us gone. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#swim.close();
    await this.#plane.close();
  }

  /** Once per turn of the loop, however many members changed in it. */
  #tellPlane(): void {
    if (this.#isPlaneDue) return;
    this.#isPlaneDue = true;
    setImmediate(() => {
      this.#isPlaneDue = false;
      if (!this.#isClosed) this.#plane.setMembers(this.#book.all());
    });
  }
}

function advertisedAddress({ advertiseAddress }: GossipConfig): string {
  const address = canonicalAddress(advertiseAddress);
  if (address !== undefined) return address;
  throw new SwarmError(
    { code: 'SWARM_BAD_ADDRESS', kind: 'advertise' },
    `${advertiseAddress} is not an IP address: advertise one that the others can reach`,
  );
}

function logChange(log: Logger, self: string, { member, from, forgotten }: MemberChange): void {
  if (member.id === self) return;
  const { id, address, port, state, incarnation } = member;
  const detail = { member: id, address, port, from, state, incarnation };
  if (forgotten) log.debug(detail, 'member forgotten');
  else if (state === 'suspect' || from === 'suspect') log.debug(detail, `member is ${state}`);
  else log.info(detail, `member is ${state}`);
}
