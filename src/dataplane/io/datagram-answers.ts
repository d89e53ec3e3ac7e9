import { execFile } from 'node:child_process';
import { addIpRules, OUTSIDE_TABLE } from './link.js';
import { SysError } from './sys.js';

/** Flows of datagrams that one task answers by the ingress network at a time, in the kernel's table of its namespace. */
const ANSWERED_FLOWS_MAX = 65_536;
/** Proxies forget a flow after two minutes of silence. */
const ANSWERED_SECONDS = 150;
/** Behind those of the tables `main` and `default`: it is asked where these know no way. */
const LAST_RULE = 33_000;
const TABLE = 'shoal_answers';
const COMMAND_MS_MAX = 10_000;

/** What the tools call each family's own. */
interface FamilyWords {
  readonly nft: string;
  readonly type: string;
  /** Anywhere in the world. */
  readonly outside: string;
}
const V4: FamilyWords = { nft: 'ip', type: 'ipv4_addr', outside: '192.0.2.1' };
const V6: FamilyWords = { nft: 'ip6', type: 'ipv6_addr', outside: '2001:db8::1' };

/** What is to be answered by an overlay link. */
export interface DatagramAnswers {
  /** Of the link in the task's namespace. */
  readonly name: string;
  /** The task's address on it, with prefix length. */
  readonly address: string;
  /** At which the task is asked. */
  readonly ports: readonly number[];
}

/**
 * Makes a task answer datagrams of clients outside by the link that they came by, after `answerOutside`. Who is bound to all
 * addresses answers from the one that the routes say, so the kernel remembers who has asked (nftables), and has
 * such answers leave from the address that was asked. All else that the program sends from its port goes its usual way.
 *
 * A socket that is connected to its client has the address of the usual way, and is given what comes at that.
 * Where there is no such way, a rule on the port is enough.
 *
 * @throws SysError NETNS_NOT_FOUND, LINK_CHANGE_FAILED: there is no `nft`, or no nftables.
 */
export async function answerDatagrams(netns: string, answers: DatagramAnswers): Promise<void> {
  const isV6 = answers.address.includes(':');
  const words = isV6 ? V6 : V4;
  const rules = answers.ports.map(
    (port) => `rule add ipproto udp sport ${port} table ${OUTSIDE_TABLE} pref ${LAST_RULE}`,
  );
  await addIpRules(netns, rules, isV6);
  const usual = await usualAddress(netns, words);
  if (usual === undefined) return;
  const nft = [`--net=${netns}`, '--', 'nft'];
  // Of an agent before this one: who has asked stays known.
  const held = await command('nsenter', [...nft, 'list', 'chain', words.nft, TABLE, 'out'], '');
  if (held.isOk) return;
  const { isOk, output } = await command(
    'nsenter',
    [...nft, '-f', '-'],
    answerRules(answers, usual, words),
  );
  if (!isOk) throw new SysError({ code: 'LINK_CHANGE_FAILED', output }, `nft: ${output}`);
}

/** The rules for `nft -f`. */
function answerRules(
  { name, address }: DatagramAnswers,
  usual: string,
  { nft: ip, type }: FamilyWords,
): string {
  const [own = ''] = address.split('/');
  const asker = `${ip} saddr . udp sport . udp dport`;
  const asked = `${ip} daddr . udp dport . udp sport`;
  return `
    table ${ip} ${TABLE} {
      set asked {
        type ${type} . inet_service . inet_service
        flags dynamic,timeout
        size ${ANSWERED_FLOWS_MAX}
        timeout ${ANSWERED_SECONDS}s
      }
      chain in {
        type filter hook input priority -10
        iifname "${name}" ${ip} saddr != ${address} meta l4proto udp update @asked { ${asker} } goto local
      }
      chain local {
        socket wildcard 0 return
        ${ip} daddr set ${usual}
        socket wildcard 0 return
        socket wildcard 1 return
        ${ip} daddr set ${own}
      }
      chain out {
        type route hook output priority -10
        meta l4proto udp ${asked} @asked update @asked { ${asked} } ${ip} saddr set ${own}
      }
    }
`;
}

/** The address that the namespace speaks to the world from, if it can. */
async function usualAddress(netns: string, { outside }: FamilyWords): Promise<string | undefined> {
  const argv = [`--net=${netns}`, '--', 'ip', 'route', 'get', outside];
  const { isOk, output } = await command('nsenter', argv, '');
  return isOk ? / src ([\d.a-f:]+)/.exec(output)?.[1] : undefined;
}

function command(
  name: string,
  argv: readonly string[],
  input: string,
): Promise<{ readonly isOk: boolean; readonly output: string }> {
  return new Promise((resolve) => {
    const child = execFile(name, argv, { timeout: COMMAND_MS_MAX }, (error, stdout, stderr) =>
      resolve({ isOk: error === null, output: error === null ? stdout : stderr.trim() }),
    );
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}
