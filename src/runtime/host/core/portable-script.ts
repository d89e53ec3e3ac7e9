import type { PlanRecord } from '../wire/plan.js';

/**
 * A plan as scripts for `sh` with the tools of util-linux and coreutils, for machines on which the native shim could not be
 * built. They do what `native/steps.cc` and `native/command.cc` do, as far as these tools can.
 */
export interface PortableScripts {
  /** Builds the task's view; holds secrets, so it is only ever piped. */
  readonly setup: string;
  /** One run of the command, as the first process of its PID namespace; says on descriptor 3 if it cannot start. */
  readonly run: string;
  /** The command alone: of `exec`. */
  readonly command: string;
  readonly folder: string;
  readonly hostname: string;
  readonly namespaces: number;
  readonly cgroups: readonly string[];
  readonly oomEvents: string | undefined;
  readonly log: { readonly fileBytesMax: number; readonly filesMax: number } | undefined;
  readonly hasTerminal: boolean;
  readonly target: { readonly pid: number; readonly startTime: string } | undefined;
}

const decoder = new TextDecoder();

const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOEXEC = 8;
const MS_BIND = 4096;
const MS_REC = 16_384;
const MS_PRIVATE = 1 << 18;
const MS_SLAVE = 1 << 19;

/** Names that `prlimit` has for the numbers of linux/resource.h. */
const LIMITS = [
  'cpu',
  'fsize',
  'data',
  'stack',
  'core',
  'rss',
  'nproc',
  'nofile',
  'memlock',
  'as',
  'locks',
  'sigpending',
  'msgqueue',
  'nice',
  'rtprio',
  'rttime',
];

/** Signals that a first process passes on; the rest cannot be, or mean something to a shell itself. */
const FORWARDED =
  'HUP INT QUIT USR1 USR2 PIPE ALRM TERM CONT TSTP TTIN TTOU URG WINCH IO PWR'.split(' ');

export const quote = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

/** Shell functions for what takes more than one command. */
const FUNCTIONS = `
fail() { echo "E $1" >&3; exit 125; }
covers=''
is_ours() { case " $covers " in *" $(stat -c %d "$1") "*) return 0;; esac; return 1; }
bind_entries() {
  for entry in "$1"/* "$1"/.*; do
    name=\${entry##*/}
    case $name in .|..|'*'|'.*') continue;; esac
    if [ -L "$entry" ]; then ln -s "$(readlink "$entry")" "$2/$name"; continue; fi
    if [ -d "$entry" ]; then mkdir "$2/$name"; else : > "$2/$name"; fi
    mount --rbind "$entry" "$2/$name" 2>/dev/null || rm -rf "$2/$name"
  done
}
cover() {
  mount --rbind "$1" "$folder/hold" || return 1
  mount -t tmpfs -o "mode=$(stat -c %a "$1"),uid=$(stat -c %u "$1"),gid=$(stat -c %g "$1"),size=64m" shoal "$1" || return 1
  covers="$covers $(stat -c %d "$1")"
  covered="$covered
$1"
  bind_entries "$folder/hold" "$1"
  umount -l "$folder/hold"
}
make_entry() {
  if [ "$2" = d ]; then mkdir -p "$1"; else mkdir -p "\${1%/*}/" && : >> "$1"; fi
}
mount_point() {
  [ -e "$1" ] && return 0
  wanted=$(readlink -m "$1")
  above=$wanted
  while [ ! -e "$above" ]; do above=\${above%/*}; [ -n "$above" ] || above=/; done
  is_ours "$above" || cover "$above" || return 1
  make_entry "$wanted" "$2"
}
read_only() {
  mount -o remount,bind,ro "$1" || return 1
  [ "$2" = 1 ] || return 0
  cut -d ' ' -f 5 /proc/self/mountinfo | while read -r point; do
    case $point in "\${1%/}"/*) mount -o remount,bind,ro "$point" 2>/dev/null;; esac
  done
  return 0
}
cover_root() {
  mount -t tmpfs -o mode=755,size=64m shoal "$1" || return 1
  covers="$covers $(stat -c %d "$1")"
  bind_entries '' "$1"
  cd "$1" && pivot_root . . && umount -l . && cd /
}
detach_all() {
  grep " - $1 " /proc/self/mountinfo | cut -d ' ' -f 5 | while read -r point; do umount -l "$point"; done
}
`;

function mountCommand(
  [target = '', source = '', type = '', flagText = '', data = '']: string[],
  sources: ReadonlyMap<string, string>,
): string {
  const flags = Number(flagText);
  const recursive = (flags & MS_REC) !== 0 ? 'r' : '';
  const at = quote(target);
  const from = quote(sources.get(source) ?? source);
  if ((flags & MS_BIND) !== 0) return `mount --${recursive}bind ${from} ${at}`;
  if ((flags & MS_PRIVATE) !== 0) return `mount --make-${recursive}private ${at}`;
  if ((flags & MS_SLAVE) !== 0) return `mount --make-${recursive}slave ${at}`;
  const options = [
    ...((flags & MS_RDONLY) !== 0 ? ['ro'] : []),
    ...((flags & MS_NOSUID) !== 0 ? ['nosuid'] : []),
    ...((flags & MS_NODEV) !== 0 ? ['nodev'] : []),
    ...((flags & MS_NOEXEC) !== 0 ? ['noexec'] : []),
    ...(data === '' ? [] : [data]),
  ];
  const wanted = options.length > 0 ? `-o ${quote(options.join(','))}` : '';
  return `mount -t ${quote(type)} ${wanted} ${from} ${at}`;
}

/** Bytes in a script: octal escapes would be four times as long. */
function base64Of(bytes: Uint8Array): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
  let text = '';
  for (let i = 0; i < bytes.length; i += 3) {
    const [a = 0, b, c] = bytes.subarray(i, i + 3);
    const word = (a << 16) | ((b ?? 0) << 8) | (c ?? 0);
    text += alphabet[word >> 18];
    text += alphabet[(word >> 12) & 63];
    text += b === undefined ? '=' : alphabet[(word >> 6) & 63];
    text += c === undefined ? '=' : alphabet[word & 63];
    if (i % 57 === 54) text += '\n';
  }
  return text;
}

function stepCommand(
  op: string,
  values: readonly Uint8Array[],
  sources: Map<string, string>,
): string | undefined {
  const texts = values.slice(0, 4).map((value) => decoder.decode(value));
  const [first = '', second = '', third = '', fourth = ''] = texts;
  const kind = () => {
    const source = sources.get(second);
    if (source === undefined) return second;
    return `"$(if [ -d ${quote(source)} ]; then echo d; else echo f; fi)"`;
  };
  switch (op) {
    case 'o':
      sources.set(`@${first}`, second);
      return `[ -e ${quote(second)} ]`;
    case 'm':
      return mountCommand([...texts, decoder.decode(values[4])], sources);
    case 'a':
      return `read_only ${quote(first)} ${second}`;
    case 'p':
      return `mount_point ${quote(first)} ${kind()}`;
    case 'k':
      return `{ [ -e ${quote(first)} ] || make_entry ${quote(first)} ${kind()}; }`;
    case 'f': {
      const at = quote(first);
      const contents = base64Of(values[4] ?? new Uint8Array());
      return `{ printf %s ${quote(contents)} | base64 -d > ${at} && chown ${third}:${fourth} ${at} && chmod ${second} ${at}; }`;
    }
    case 'w':
      return `{ printf %s ${quote(second)} > ${quote(first)}; }`;
    case 'l':
      return `ln -s ${quote(second)} ${quote(first)}`;
    case 'q':
      return `cover_root ${quote(first)}`;
    case 'x':
      return `detach_all ${quote(first)}`;
    case 'u':
      return 'ip link set lo up';
    case 'z':
      return `{ printf '%s\\n' "$covered" | while read -r point; do [ -z "$point" ] || mount -o remount,bind,ro "$point"; done; }`;
    default:
      return undefined;
  }
}

/** How many values a step has where it must not fail. */
const COUNTS: Readonly<Record<string, number>> = { m: 5, f: 5, a: 3, o: 3, x: 1, q: 1, u: 1, z: 1 };

/** @returns The scripts; `undefined` where the plan holds what is none. */
export function portableScriptsOf(records: readonly PlanRecord[]): PortableScripts | undefined {
  const settings = new Map<string, string[][]>();
  const steps: string[][] = [[], []];
  const sources = new Map<string, string>();
  let part = 0;
  for (const [op, ...values] of records) {
    const bytes = values.map((value) =>
      typeof value === 'string' ? new TextEncoder().encode(value) : value,
    );
    if (op >= 'A' && op <= 'Z') {
      const known = settings.get(op) ?? [];
      known.push(bytes.map((value) => decoder.decode(value)));
      settings.set(op, known);
    } else if (op === 'y') part = 1;
    else {
      const command = stepCommand(op, bytes, sources);
      if (command === undefined) return undefined;
      const mayFail = bytes.length > (COUNTS[op] ?? 2);
      const about = decoder.decode(bytes[op === 'o' ? 1 : 0]);
      const line = mayFail
        ? `${command} 2>/dev/null || :`
        : `${command} || fail ${quote(`${about}: cannot be set up`)}`;
      steps[part]?.push(line);
    }
  }
  const one = (op: string) => settings.get(op)?.[0]?.[0];
  const all = (op: string) => (settings.get(op) ?? []).map(([value = '']) => value);
  const folder = one('D') ?? '';
  const before = `${FUNCTIONS}folder=${quote(folder)}\n`;
  const log = settings.get('L')?.[0];
  const target = settings.get('X')?.[0];
  const command = commandScript(settings, all, one);
  return {
    setup: `${before}${steps[0]?.join('\n')}\necho R >&3\nexec sleep infinity </dev/null >/dev/null 2>&1 3>&-\n`,
    run: `${before}${steps[1]?.join('\n')}\n${runScript(command, one('I') !== '0')}`,
    command: `fail() { echo "$1" >&2; exit "$2"; }\n${command}`,
    folder,
    hostname: one('H') ?? '',
    namespaces: Number(one('N') ?? 0),
    cgroups: all('G'),
    oomEvents: one('O'),
    log: log === undefined ? undefined : { fileBytesMax: Number(log[0]), filesMax: Number(log[1]) },
    hasTerminal: settings.has('T'),
    target:
      target === undefined ? undefined : { pid: Number(target[0]), startTime: target[1] ?? '' },
  };
}

/** Becomes the command; `fail WORDS CODE` where that cannot be. */
function commandScript(
  settings: ReadonlyMap<string, readonly string[][]>,
  all: (op: string) => string[],
  one: (op: string) => string | undefined,
): string {
  const [name = '', ...args] = all('A');
  const env = all('E');
  const path = env.find((entry) => entry.startsWith('PATH='))?.slice(5) ?? '/usr/bin:/bin';
  const [uid = '0', gid = '0'] = settings.get('U')?.[0] ?? [];
  const groups = all('V');
  const privileges = [
    `--reuid ${uid}`,
    `--regid ${gid}`,
    groups.length > 0 ? `--groups ${groups.join(',')}` : '--clear-groups',
    '--inh-caps -all',
    `--bounding-set ${capabilityList(BigInt(`0x${one('C') ?? '0'}`))}`,
    ...(one('P') === '1' ? ['--no-new-privs'] : []),
  ];
  const limits = (settings.get('R') ?? []).map(([resource = '', soft = '', hard = '']) => {
    const value = (text: string) => (text === '-1' ? 'unlimited' : text);
    return `prlimit --pid $$ --${LIMITS[Number(resource)]}=${value(soft)}:${value(hard)} || fail ulimit 126\n`;
  });
  const score = one('S');
  const oom =
    score === undefined
      ? ''
      : `echo ${score} > /proc/self/oom_score_adj || fail oom_score_adj 126\n`;
  return `
find_program() {
  case $1 in */*) program=$1; [ -e "$1" ] || return 127; [ -f "$1" ] && [ -x "$1" ] && return 0; return 126;; esac
  code=127
  old=$IFS; IFS=:
  set -f
  for part in $2; do
    program=\${part:-.}/$1
    [ -f "$program" ] || continue
    code=126
    if [ -x "$program" ]; then IFS=$old; set +f; return 0; fi
  done
  IFS=$old; set +f
  return $code
}
${limits.join('')}${oom}cd ${quote(one('W') ?? '/')} || fail 'working directory' 126
find_program ${quote(name)} ${quote(path)} || {
  code=$?
  if [ $code = 127 ]; then fail ${quote(`exec: "${name}": executable file not found in $PATH`)} 127; fi
  fail ${quote(`exec: "${name}": Permission denied`)} 126
}
set -- ${args.map(quote).join(' ')}
umask 022
become() {
  exec setpriv ${privileges.join(' ')} env -i --default-signal ${env.map(quote).join(' ')} "$program" "$@"
}
`;
}

/** As `setpriv` wants them: by number, so that it need not know the newer ones by name. */
function capabilityList(bits: bigint): string {
  const kept = Array.from({ length: 64 }, (_, i) => i).filter(
    (i) => ((bits >> BigInt(i)) & 1n) === 1n,
  );
  return ['-all', ...kept.map((i) => `+cap_${i}`)].join(',');
}

function runScript(command: string, withInit: boolean): string {
  const fail = 'fail() { echo "X$2 $1" >&3; exit "$2"; }\n';
  if (!withInit) return `${fail}${command}echo S >&3\nexec 3>&- </dev/null\nbecome "$@"\n`;
  const traps = FORWARDED.map((name) => `trap 'kill -${name} "$child" 2>/dev/null' ${name}`);
  return `${fail}${command}
echo S >&3
exec 3>&- </dev/null
become "$@" &
child=$!
exec >/dev/null 2>&1
${traps.join('\n')}
while :; do
  wait "$child"
  code=$?
  kill -0 "$child" 2>/dev/null || break
done
exit $code
`;
}
