import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { runIpBatch } from './link.js';
import { linkNames } from './netns.js';
import { SysError } from './sys.js';

/** In the agent's namespace; what hangs on it does not see each other. */
export const OUTSIDE_BRIDGE = 'shoal-out';
const BRIDGE = OUTSIDE_BRIDGE;
/** Of a namespace's way out, followed by its number: its address follows from it. */
const PORT_PREFIX = 'shoal-o';
/** In the namespace itself. */
const INSIDE = 'out0';
/** Its default route gives way to any other. */
const METRIC = 500;
/** One of these that the host has no route to yet, as far as it has any. */
const SUBNETS = Array.from({ length: 14 }, (_, i) => `172.${31 - i}`);
const PREFIX_BITS = 16;
/** Namespaces with a way out on one node; further ones have none. */
export const WAYS_OUT_MAX = 4_096;
const COMMAND_MS_MAX = 10_000;
const FORWARDING = '/proc/sys/net/ipv4/ip_forward';

interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * The way of tasks to the world outside: a bridge on this node, behind which the node's own address
 * stands for theirs. Nobody outside reaches them by it, and they do not reach each other.
 */
export class Outside {
  #turn: Promise<unknown> = Promise.resolve();
  /** The first two bytes of its addresses. */
  #subnet: Promise<string> | undefined;

  /**
   * Gives a namespace its way out; one that has it already keeps it.
   *
   * @param netns `/proc/PID/ns/net`.
   * @throws SysError LINK_CHANGE_FAILED
   */
  join(netns: string): Promise<void> {
    const joined = this.#turn.then(() => this.#join(netns));
    this.#turn = joined.catch(() => undefined);
    return joined;
  }

  /** Takes the bridge away, and with it every way out. */
  async remove(): Promise<void> {
    await this.#turn;
    this.#subnet = undefined;
    const subnet = await heldSubnet();
    if (subnet === undefined) return;
    await command('ip', ['link', 'delete', 'dev', BRIDGE]);
    for (const { remove } of rulesOf(subnet)) await command('iptables', ['-w', ...remove]);
    await command('nft', ['delete', 'table', 'ip', 'shoal_out']);
  }

  async #join(netns: string): Promise<void> {
    const [, pid] = /^\/proc\/(\d+)\/ns\/net$/.exec(netns) ?? [];
    if (pid === undefined || linkNames(netns).includes(INSIDE)) return;
    this.#subnet ??= openBridge();
    let subnet: string;
    try {
      subnet = await this.#subnet;
    } catch (error) {
      // Asked again by the next.
      this.#subnet = undefined;
      throw error;
    }
    const taken = new Set(linkNames(undefined));
    let number = 1;
    while (taken.has(`${PORT_PREFIX}${number}`)) number += 1;
    if (number > WAYS_OUT_MAX) throw failed(`${WAYS_OUT_MAX} namespaces have a way out already`);
    const port = `${PORT_PREFIX}${number}`;
    const host = number + 1;
    await runIpBatch(undefined, [
      `link add name ${port} type veth peer name ${INSIDE} netns ${pid}`,
      `link set dev ${port} master ${BRIDGE}`,
      `link set dev ${port} type bridge_slave isolated on`,
      `link set dev ${port} up`,
    ]);
    await runIpBatch(netns, [
      `address replace ${subnet}.${host >> 8}.${host & 255}/${PREFIX_BITS} dev ${INSIDE}`,
      `link set dev ${INSIDE} up`,
      `route replace default via ${subnet}.0.1 dev ${INSIDE} metric ${METRIC}`,
    ]);
  }
}

/** Makes the bridge and its rules, or takes over what an agent before this one has made. */
async function openBridge(): Promise<string> {
  const held = await heldSubnet();
  const subnet = held ?? (await freeSubnet());
  if (held === undefined) {
    const lines = [
      `address replace ${subnet}.0.1/${PREFIX_BITS} dev ${BRIDGE}`,
      `link set dev ${BRIDGE} up`,
    ];
    const isThere = linkNames(undefined).includes(BRIDGE);
    await runIpBatch(undefined, [
      ...(isThere ? [] : [`link add name ${BRIDGE} type bridge`]),
      ...lines,
    ]);
  }
  const hasForwarded = readFileSync(FORWARDING, 'utf8').trim() === '1';
  if (!(await byIptables(subnet, hasForwarded))) await byNft(subnet, hasForwarded);
  if (!hasForwarded) writeFileSync(FORWARDING, '1');
  return subnet;
}

/** Of a bridge that is there. */
async function heldSubnet(): Promise<string | undefined> {
  const { stdout } = await command('ip', ['-o', '-4', 'address', 'show', 'dev', BRIDGE]);
  return /inet (172\.\d+)\.0\.1\//.exec(stdout)?.[1];
}

async function freeSubnet(): Promise<string> {
  const { stdout } = await command('ip', ['-o', '-4', 'route', 'show', 'table', 'all']);
  const free = SUBNETS.find((subnet) => !new RegExp(`(?:^|\\s)${subnet}\\.`, 'm').test(stdout));
  if (free === undefined) throw failed('no subnet of 172.18.0.0 to 172.31.0.0 is free');
  return free;
}

/** Each as it is looked for and made, and as it is taken away. */
function rulesOf(subnet: string) {
  const out = ['-i', BRIDGE, '!', '-o', BRIDGE, '-j', 'ACCEPT'];
  const back = ['-o', BRIDGE, '-m', 'conntrack', '--ctstate', 'RELATED,ESTABLISHED'];
  const rules = [
    { table: 'filter', chain: 'FORWARD', rule: ['-o', BRIDGE, '-j', 'DROP'] },
    { table: 'filter', chain: 'FORWARD', rule: [...back, '-j', 'ACCEPT'] },
    { table: 'filter', chain: 'FORWARD', rule: out },
    {
      table: 'nat',
      chain: 'POSTROUTING',
      rule: ['-s', `${subnet}.0.0/${PREFIX_BITS}`, '!', '-o', BRIDGE, '-j', 'MASQUERADE'],
    },
  ];
  return rules.map(({ table, chain, rule }) => ({
    check: ['-t', table, '-C', chain, ...rule],
    // Each in front of those before it, and of whatever drops all.
    insert: ['-t', table, '-I', chain, ...rule],
    remove: ['-t', table, '-D', chain, ...rule],
  }));
}

/** @returns Whether there is iptables here. @throws SysError */
async function byIptables(subnet: string, hasForwarded: boolean): Promise<boolean> {
  for (const { check, insert } of rulesOf(subnet)) {
    const found = await command('iptables', ['-w', ...check]);
    if (found.code === MISSING) return false;
    if (found.code === 0) continue;
    const { code, stderr } = await command('iptables', ['-w', ...insert]);
    if (code !== 0) throw failed(`iptables: ${stderr.trim()}`);
  }
  // A host that forwarded nothing is no router now, as with Docker.
  if (!hasForwarded) await command('iptables', ['-w', '-P', 'FORWARD', 'DROP']);
  return true;
}

async function byNft(subnet: string, hasForwarded: boolean): Promise<void> {
  const rules = `
    table ip shoal_out
    delete table ip shoal_out
    table ip shoal_out {
      chain forward {
        type filter hook forward priority 0; policy ${hasForwarded ? 'accept' : 'drop'};
        iifname "${BRIDGE}" oifname != "${BRIDGE}" accept
        oifname "${BRIDGE}" ct state established,related accept
        oifname "${BRIDGE}" drop
      }
      chain postrouting {
        type nat hook postrouting priority 100;
        ip saddr ${subnet}.0.0/${PREFIX_BITS} oifname != "${BRIDGE}" masquerade
      }
    }`;
  const { code, stderr } = await command('nft', ['-f', '-'], rules);
  if (code === MISSING) throw failed('neither iptables nor nft is here: install one');
  if (code !== 0) throw failed(`nft: ${stderr.trim()}`);
}

const failed = (why: string) =>
  new SysError(
    { code: 'LINK_CHANGE_FAILED', output: '' },
    `no way to the outside for tasks: ${why}`,
  );

/** Of a command that is not installed. */
const MISSING = 127;

function command(name: string, args: readonly string[], input = ''): Promise<Finished> {
  return new Promise((resolve) => {
    const child = execFile(name, args, { timeout: COMMAND_MS_MAX }, (error, stdout, stderr) => {
      const code = error === null ? 0 : error.code === 'ENOENT' ? MISSING : Number(error.code ?? 1);
      resolve({ code: Number.isNaN(code) ? 1 : code, stdout, stderr });
    });
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}
