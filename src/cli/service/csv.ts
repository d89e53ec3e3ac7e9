import { composeError } from '../compose/error.js';

/** `type=bind,source=/a,target=/b,readonly` as docker writes long flags; keys in lower case. */
export type CsvFields = ReadonlyMap<string, string>;

/** Fields may be quoted, where they hold commas themselves, as in CSV. */
export function parseFields(text: string, where: string): CsvFields {
  const fields = new Map<string, string>();
  for (const field of splitCsv(text, where)) {
    const at = field.indexOf('=');
    const key = (at < 0 ? field : field.slice(0, at)).trim().toLowerCase();
    if (key === '') throw composeError(where, `'${text}' has an empty field`);
    fields.set(key, at < 0 ? 'true' : field.slice(at + 1));
  }
  return fields;
}

function splitCsv(text: string, where: string): readonly string[] {
  const fields: string[] = [];
  let rest = text;
  for (;;) {
    const quoted = /^"(?<body>(?:[^"]|"")*)"(?<next>,|$)/.exec(rest);
    const plain = /^(?<body>[^",]*)(?<next>,|$)/.exec(rest);
    const match = quoted ?? plain;
    if (match === null) throw composeError(where, `the quotes in '${text}' do not match`);
    const { body = '', next } = match.groups ?? {};
    fields.push(quoted === null ? body : body.replaceAll('""', '"'));
    rest = rest.slice(match[0].length);
    if (next !== ',') return fields;
  }
}

/** Refuses keys that are none. */
export function checkKeys(fields: CsvFields, known: readonly string[], where: string): void {
  for (const key of fields.keys())
    if (!known.includes(key))
      throw composeError(where, `unknown field '${key}': it has ${known.join(', ')}`);
}
