import { destination, type Logger, pino } from 'pino';
import type { AgentConfig } from './config.js';

export type Log = Logger;

/** The structured log: one JSON object a line, to standard output or to a file that is appended to. */
export function openLog(config: Pick<AgentConfig, 'logLevel' | 'logFile' | 'hostname'>): Log {
  const options = {
    level: config.logLevel,
    base: { node: config.hostname },
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label: string) => ({ level: label }) },
  };
  const to = destination({ dest: config.logFile ?? 1, append: true, sync: true, mkdir: true });
  return pino(options, to);
}
