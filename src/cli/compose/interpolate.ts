import { composeError } from './error.js';

/** A variable's value; `undefined`: not set. */
export type Variables = (name: string) => string | undefined;

const NAME = /^[_a-zA-Z][_a-zA-Z0-9]*/;
const NESTING_MAX = 16;

/**
 * Fills in variables as the compose specification has it: `$NAME`, `${NAME}`, `${NAME:-default}`,
 * `${NAME-default}`, `${NAME:?error}`, `${NAME?error}`, `${NAME:+other}`, `${NAME+other}`; `$$` is a
 * dollar sign. Defaults may hold variables themselves.
 *
 * @param where Place in the file, for the message.
 * @param warn Is told of variables that are not set, which then are empty.
 * @throws CliError CLI_SPEC for a malformed reference, and where `?` asks for it.
 */
export function interpolate(
  text: string,
  variables: Variables,
  where: string,
  warn: (message: string) => void,
): string {
  const { value, rest } = fill(text, { variables, where, warn }, 0, false);
  if (rest !== '') throw composeError(where, `'}' without '\${' in '${text}'`);
  return value;
}

interface Context {
  readonly variables: Variables;
  readonly where: string;
  readonly warn: (message: string) => void;
}

/** Up to the end of the text, or to the brace that closes what is nested. */
function fill(text: string, context: Context, depth: number, nested: boolean): Filled {
  if (depth > NESTING_MAX) throw composeError(context.where, 'variables are nested too deep');
  let value = '';
  let rest = text;
  for (;;) {
    const at = rest.search(nested ? /[$}]/ : /\$/);
    if (at < 0) return { value: value + rest, rest: '' };
    value += rest.slice(0, at);
    rest = rest.slice(at);
    if (rest.startsWith('}')) return { value, rest };
    if (rest.startsWith('$$')) {
      value += '$';
      rest = rest.slice(2);
      continue;
    }
    const one = rest.startsWith('${') ? braced(rest, context, depth) : plain(rest, context);
    value += one.value;
    rest = one.rest;
  }
}

interface Filled {
  readonly value: string;
  readonly rest: string;
}

function plain(text: string, context: Context): Filled {
  const name = NAME.exec(text.slice(1))?.[0];
  if (name === undefined)
    throw composeError(context.where, `'$' before '${text.slice(1, 2)}': write '$$' for a dollar`);
  return { value: valueOfVariable(name, context), rest: text.slice(1 + name.length) };
}

function valueOfVariable(name: string, { variables, warn }: Context): string {
  const value = variables(name);
  if (value === undefined) warn(`the variable ${name} is not set: it is taken as empty`);
  return value ?? '';
}

function braced(text: string, context: Context, depth: number): Filled {
  const name = NAME.exec(text.slice(2))?.[0];
  if (name === undefined) throw composeError(context.where, `no variable's name in '${text}'`);
  const after = text.slice(2 + name.length);
  if (after.startsWith('}')) return { value: valueOfVariable(name, context), rest: after.slice(1) };
  const operator = /^:?[-?+]/.exec(after)?.[0];
  if (operator === undefined) throw composeError(context.where, `'\${${name}' is not closed`);
  // What is not taken is read over, and warns of nothing.
  const silent = { ...context, warn: () => {} };
  const word = fill(after.slice(operator.length), silent, depth + 1, true);
  if (!word.rest.startsWith('}')) throw composeError(context.where, `'\${${name}' is not closed`);
  const rest = word.rest.slice(1);
  const value = context.variables(name);
  const isThere = value !== undefined && !(operator.startsWith(':') && value === '');
  switch (operator.at(-1)) {
    case '-':
      return { value: isThere ? value : word.value, rest };
    case '+':
      return { value: isThere ? word.value : '', rest };
    default:
      if (isThere) return { value, rest };
      throw composeError(
        context.where,
        `required variable ${name} is missing a value${word.value === '' ? '' : `: ${word.value}`}`,
      );
  }
}

/** Every text in a tree of YAML values; keys stay as they are. */
export function interpolateTree(
  tree: unknown,
  variables: Variables,
  warn: (message: string) => void,
  where = '',
): unknown {
  if (typeof tree === 'string') return interpolate(tree, variables, where, warn);
  if (Array.isArray(tree))
    return tree.map((one, at) => interpolateTree(one, variables, warn, `${where}[${at}]`));
  if (typeof tree !== 'object' || tree === null) return tree;
  return Object.fromEntries(
    Object.entries(tree).map(([key, one]) => [
      key,
      interpolateTree(one, variables, warn, where === '' ? key : `${where}.${key}`),
    ]),
  );
}
