/** What one load of some seconds came to. */
export interface Load {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly failed: number;
}

/** The longest time without an acknowledged write, since the last report. */
export interface Gap {
  readonly longestMs: number;
  readonly acked: number;
}

/** Clients that go on through changes of the leader: each attempt ends after 150 ms, and the next is at another member. */
export interface GapWatch {
  report(): Promise<Gap>;
  stop(): Promise<void>;
}

export interface Install {
  readonly seconds: number;
  readonly megabytesPerSecond: number;
}

/** Three members, each a process with a log of its own on the disk, and clients in another process. */
export interface Cluster {
  readonly name: 'etcd' | 'shoal';
  write(clients: number, seconds: number): Promise<Load>;
  /** CPU time of members and clients since the start. */
  cpuMs(): number;
  rssBytes(): number[];
  watchGaps(): Promise<GapWatch>;
  /** Kills the leader as the kernel does, without a word; `restart` brings that member back. */
  killLeader(): Promise<{ restart(): Promise<void> }>;
  /** Fills the store, and takes a fresh member in place of a follower; timed from the start of its process. */
  installSnapshot(): Promise<Install>;
  close(): Promise<void>;
}

/** Members that are killed are given so many attempts at once. */
export const GAP_CLIENTS = 8;
export const ATTEMPT_MS_MAX = 150;
export const VALUE_BYTES = 256;
/** The state that a fresh member gets: 100 MB. */
export const FILL_COUNT = 25_600;
export const FILL_VALUE_BYTES = 4_096;

export const fillMegabytes = (FILL_COUNT * FILL_VALUE_BYTES) / 1e6;
