import type { IncomingMessage } from 'node:http';

/** Of one line of an answer: events and progress are short. */
const LINE_CHARS_MAX = 1 << 20;

/** An answer line by line, without empty ones. */
export async function* linesOf(answer: IncomingMessage): AsyncGenerator<string> {
  let rest = '';
  answer.setEncoding('utf8');
  for await (const chunk of answer as AsyncIterable<string>) {
    const lines = (rest + chunk).split(/\r?\n/);
    rest = lines.pop() ?? '';
    if (rest.length > LINE_CHARS_MAX) throw new Error('a line of its answer is too long');
    for (const line of lines) if (line.trim() !== '') yield line;
  }
  if (rest.trim() !== '') yield rest;
}
