/** Numbers of Linux on x86 and arm. */
const SIGNALS: Readonly<Record<string, number>> = {
  HUP: 1,
  INT: 2,
  QUIT: 3,
  ILL: 4,
  TRAP: 5,
  ABRT: 6,
  BUS: 7,
  FPE: 8,
  KILL: 9,
  USR1: 10,
  SEGV: 11,
  USR2: 12,
  PIPE: 13,
  ALRM: 14,
  TERM: 15,
  STKFLT: 16,
  CHLD: 17,
  CONT: 18,
  STOP: 19,
  TSTP: 20,
  TTIN: 21,
  TTOU: 22,
  URG: 23,
  XCPU: 24,
  XFSZ: 25,
  VTALRM: 26,
  PROF: 27,
  WINCH: 28,
  IO: 29,
  PWR: 30,
  SYS: 31,
};
const RT_MIN = 34;
const SIGNAL_NUMBER_MAX = 64;

export const SIGTERM = 15;

/** `SIGTERM`, `term`, `15`, `RTMIN+3`: as `--stop-signal` takes them; `undefined`: none of these. */
export function signalOf(text: string): number | undefined {
  if (/^\d+$/.test(text)) {
    const number = Number(text);
    return number >= 1 && number <= SIGNAL_NUMBER_MAX ? number : undefined;
  }
  const name = text.toUpperCase().replace(/^SIG/, '');
  const realTime = /^RT(MIN|MAX)(?:([+-])(\d+))?$/.exec(name);
  if (realTime !== null) {
    const base = realTime[1] === 'MIN' ? RT_MIN : SIGNAL_NUMBER_MAX;
    const number = base + Number(`${realTime[2] ?? '+'}${realTime[3] ?? 0}`);
    return number >= RT_MIN && number <= SIGNAL_NUMBER_MAX ? number : undefined;
  }
  return Object.hasOwn(SIGNALS, name) ? SIGNALS[name] : undefined;
}
