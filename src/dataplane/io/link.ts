import { spawn } from 'node:child_process';
import { assert } from '../../base/assert.js';
import { netnsIdentity } from './netns.js';
import { SysError } from './sys.js';

/** How an overlay link in a task's namespace is to look. What is `undefined` is left as it is. */
export interface LinkConfig {
  readonly name: string;
  /** `02:42:0a:00:00:02`. */
  readonly mac?: string | undefined;
  /** Largest IP packet, bytes. */
  readonly mtuBytes?: number | undefined;
  /** With prefix length: `10.0.0.2/24`, `fd00::2/64`. */
  readonly addresses?: readonly string[] | undefined;
  /** Frames that wait in front of the TAP. */
  readonly transmitQueueLength?: number | undefined;
}

const NAME_PATTERN = /^[^\s/:]{1,15}$/;
/** How long iproute2 may take before it is given up, ms. */
const IPROUTE_TIMEOUT_MS = 10_000;
const OUTPUT_BYTES_MAX = 4096;

/**
 * Sets up a link and brings it and loopback up, in one run of iproute2. Repeating it is harmless.
 *
 * The addresses bring the routes to their own subnets and nothing more. There is no default route
 * through an overlay: no gateway stands behind it, and a task that has another way out would lose it.
 *
 * @param netns Namespace file; `undefined` is the caller's own namespace.
 * @throws SysError NETNS_NOT_FOUND, NETNS_INVALID, LINK_CHANGE_FAILED.
 */
export async function configureLink(netns: string | undefined, config: LinkConfig): Promise<void> {
  await runIpBatch(netns, linkCommands(config));
}

/** The lines for `ip -batch`, in an order in which the link comes up only when it is complete. */
export function linkCommands(config: LinkConfig): readonly string[] {
  assert(NAME_PATTERN.test(config.name), 'a link name is one word');
  const { name } = config;
  const lines = ['link set dev lo up'];
  const settings = [
    config.mac === undefined ? '' : `address ${config.mac}`,
    config.mtuBytes === undefined ? '' : `mtu ${config.mtuBytes}`,
    config.transmitQueueLength === undefined ? '' : `txqueuelen ${config.transmitQueueLength}`,
  ].filter((text) => text !== '');
  if (settings.length > 0) lines.push(`link set dev ${name} ${settings.join(' ')}`);
  for (const address of config.addresses ?? []) {
    // Duplicates cannot exist, the swarm allocates: so an IPv6 address is usable at once.
    lines.push(`address replace ${address} dev ${name}${address.includes(':') ? ' nodad' : ''}`);
  }
  lines.push(`link set dev ${name} up`);
  return lines;
}

/** Brings loopback up, without which no query reaches 127.0.0.11. */
export async function raiseLoopback(netns: string | undefined): Promise<void> {
  await runIpBatch(netns, ['link set dev lo up']);
}

/** Routes and rules for clients outside; an odd number, which nobody else has taken. */
export const OUTSIDE_TABLE = 9474;
/** Stand for the VTEP in a task's namespace; link-local, so they are nobody's elsewhere. */
const GATEWAY4 = '169.254.94.74';
const GATEWAY6 = 'fe80::9474';
/** Asks for neighbours on behalf of addresses that are not the host's. Its own one the kernel would first see unopposed for a second. */
const ASKER6 = 'fe80::9475/64';

/**
 * Makes a task answer clients outside, who speak to an address of its, through this link: to `mac`, whose owner
 * knows where they are. What the task begins by itself goes its usual way. An IPv6 address is given to the link by this.
 *
 * @throws SysError NETNS_NOT_FOUND, LINK_CHANGE_FAILED.
 */
export async function answerOutside(
  netns: string | undefined,
  name: string,
  cidr: string,
  mac: string,
): Promise<void> {
  const table = `table ${OUTSIDE_TABLE}`;
  const address = cidr.replace(/\/.*$/, '');
  const isV6 = address.includes(':');
  const gateway = isV6 ? GATEWAY6 : GATEWAY4;
  await runWithRule(
    netns,
    [
      ...(isV6 ? [`address replace ${cidr} dev ${name} nodad`] : []),
      `neigh replace ${gateway} lladdr ${mac} dev ${name} nud permanent`,
      `route replace default via ${gateway} dev ${name} onlink src ${address} ${table}`,
      // Whatever has a route of its own keeps it: only the default route is another.
      `rule add from ${address} table main suppress_prefixlength 0 pref ${OUTSIDE_TABLE}`,
      `rule add from ${address} ${table} pref ${OUTSIDE_TABLE + 1}`,
    ],
    isV6,
  );
}

/**
 * Makes the host take what comes by this link for its own, whomever it is addressed to: answers to
 * connections that it makes from its clients' addresses, of the family of `cidr`, its own address there.
 * An IPv6 address is given to the link by this.
 *
 * @throws SysError LINK_CHANGE_FAILED.
 */
export async function deliverForeign(name: string, cidr: string): Promise<void> {
  const isV6 = cidr.includes(':');
  const all = allOf(isV6);
  const table = `table ${OUTSIDE_TABLE}`;
  await runWithRule(
    undefined,
    [
      ...(isV6 ? [cidr, ASKER6] : []).map((own) => `address replace ${own} dev ${name} nodad`),
      `route replace local ${all} dev lo ${table}`,
      `rule add from ${all} iif ${name} ${table} pref ${OUTSIDE_TABLE}`,
    ],
    isV6,
  );
}

/** Takes back what `deliverForeign` did, as far as it was done. */
export async function undeliverForeign(name: string): Promise<void> {
  for (const isV6 of [false, true]) {
    const all = allOf(isV6);
    const table = `table ${OUTSIDE_TABLE}`;
    const rule = `rule del from ${all} iif ${name} ${table} pref ${OUTSIDE_TABLE}`;
    const route = `route del local ${all} dev lo ${table}`;
    for (const line of [rule, route])
      await runIpBatch(undefined, [line], isV6).catch(() => undefined);
  }
}

/** The last lines add rules, which cannot be replaced: those that are there are left. */
async function runWithRule(
  netns: string | undefined,
  lines: readonly string[],
  isV6: boolean,
): Promise<void> {
  try {
    await runIpBatch(netns, lines, isV6);
  } catch (error) {
    const isThere = error instanceof SysError && error.detail.code === 'LINK_CHANGE_FAILED';
    if (!isThere || !/File exists/.test(error.detail.output)) throw error;
  }
}

/**
 * Adds rules of one family; those that are there are left.
 *
 * @throws SysError NETNS_NOT_FOUND, LINK_CHANGE_FAILED.
 */
export async function addIpRules(
  netns: string,
  lines: readonly string[],
  isV6: boolean,
): Promise<void> {
  for (const line of lines) await runWithRule(netns, [line], isV6);
}

function allOf(isV6: boolean): string {
  return isV6 ? '::/0' : '0.0.0.0/0';
}

/** Deletes a link. One that is gone, alone or with its namespace, is no error. */
export async function deleteLink(netns: string | undefined, name: string): Promise<void> {
  assert(NAME_PATTERN.test(name), 'a link name is one word');
  try {
    await runIpBatch(netns, [`link delete dev ${name}`]);
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    const { detail } = error;
    if (detail.code === 'NETNS_NOT_FOUND') return;
    if (detail.code === 'LINK_CHANGE_FAILED' && /cannot find device/i.test(detail.output)) return;
    throw error;
  }
}

/**
 * Runs iproute2 once over many lines, each an `ip` command without the word `ip`.
 *
 * @param isV6 Rules are of IPv6, which their addresses do not tell iproute2.
 * @throws SysError NETNS_NOT_FOUND, NETNS_INVALID; LINK_CHANGE_FAILED with the first line that failed
 *   (lines before it are in effect).
 */
export async function runIpBatch(
  netns: string | undefined,
  lines: readonly string[],
  isV6 = false,
): Promise<void> {
  if (netns !== undefined) netnsIdentity(netns);
  const ip = ['ip', ...(isV6 ? ['-6'] : []), '-batch', '-'];
  const [command = '', ...args] =
    netns === undefined ? ip : ['nsenter', `--net=${netns}`, '--', ...ip];
  const { code, output } = await run(command, args, `${lines.join('\n')}\n`);
  if (code === 0) return;
  throw new SysError({ code: 'LINK_CHANGE_FAILED', output }, describeFailure(lines, output));
}

/** `Command failed -:3` is iproute2's way to name line 3. */
function describeFailure(lines: readonly string[], output: string): string {
  const line = lines[Number(/Command failed -:(\d+)/.exec(output)?.[1] ?? 0) - 1];
  const reason = output
    .split('\n')
    .filter((text) => text !== '' && !text.startsWith('Command failed'))
    .join(' ')
    .replace(/^(Error|RTNETLINK answers): /, '');
  return `ip ${line ?? ''}: ${reason === '' ? 'failed without a word' : reason}`;
}

function run(
  command: string,
  args: readonly string[],
  input: string,
): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ['pipe', 'ignore', 'pipe'],
      timeout: IPROUTE_TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    let output = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (output.length < OUTPUT_BYTES_MAX) output += text;
    });
    // It may end before it has read everything; its exit code tells.
    child.stdin.on('error', () => {});
    child.on('error', (error) => {
      const message = `${command} cannot be run (${error.message}): install iproute2 and util-linux`;
      reject(new SysError({ code: 'LINK_CHANGE_FAILED', output: '' }, message, { cause: error }));
    });
    child.on('close', (code) => resolve({ code, output: output.trim() }));
    child.stdin.end(input);
  });
}
