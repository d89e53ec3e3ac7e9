/** How many descriptors a process may have: what it has taken for itself, and what it may take. */
export interface DescriptorLimits {
  readonly soft: number;
  readonly hard: number;
}

/** What the kernel lets a process ask and change about itself. */
export interface LimitCalls {
  get(): DescriptorLimits;
  /** @returns Whether the kernel took it. */
  set(limits: DescriptorLimits): boolean;
}

export interface RaisedDescriptors {
  /** What this process was started with, and what it starts is to get. */
  readonly started: DescriptorLimits;
  readonly now: DescriptorLimits;
}

/** Two for each of the connections that a node carries at most, one for each flow of datagrams, and as many again. */
const DESCRIPTORS_WANTED = 262_144;
/**
 * Raises both limits of descriptors as far as the kernel allows: to the wanted figure, else the soft one to the hard one.
 * A larger one stays.
 *
 * @param mostMax `fs.nr_open`, beyond which the kernel refuses.
 */
export function raiseLimits(
  calls: LimitCalls,
  startedSoft: number | undefined,
  mostMax: number,
): RaisedDescriptors {
  const before = calls.get();
  const started = { soft: Math.min(startedSoft ?? before.soft, before.hard), hard: before.hard };
  const wanted = Math.min(DESCRIPTORS_WANTED, mostMax);
  const isRaised = before.hard < wanted && calls.set({ soft: wanted, hard: wanted });
  if (!isRaised && before.soft < before.hard) calls.set({ soft: before.hard, hard: before.hard });
  return { started, now: calls.get() };
}
