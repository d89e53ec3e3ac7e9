import type { GenericResource } from '../base/swarm-model.js';

/**
 * `gpu=UUID1` for each piece that has a name, or `ssd=3` once for so many that are alike, as Docker
 * reads them.
 *
 * @returns What is wrong, in one sentence, or the resources.
 */
export function parseGenericResources(
  texts: readonly string[],
): readonly GenericResource[] | string {
  const byName = new Map<string, string[]>();
  for (const text of texts) {
    const [, name, value] = /^([^=\s,]+)=([^=\s,]+)$/.exec(text) ?? [];
    if (name === undefined || value === undefined)
      return `'${text}' must be KIND=VALUE: gpu=UUID1 for a piece with a name, ssd=3 for three alike`;
    byName.set(name, [...(byName.get(name) ?? []), value]);
  }
  const resources: GenericResource[] = [];
  for (const [name, values] of byName) {
    const [first = ''] = values;
    const count = Number(first);
    if (values.length === 1 && isNumber(first)) {
      if (!Number.isSafeInteger(count) || count < 0)
        return `'${name}=${first}' must be a number from 0 up`;
      resources.push({ kind: 'discrete', name, value: count });
    } else if (values.some(isNumber))
      return `${name} is given more than once: give one number, or a name for each piece`;
    else if (new Set(values).size < values.length)
      return `two pieces of ${name} have the same name`;
    else resources.push(...values.map((value) => ({ kind: 'named', name, value }) as const));
  }
  return resources;
}

/** `DOCKER_RESOURCE_GPU=UUID1,UUID2`: what a task got, as Docker tells it. */
export function resourceVariables(resources: readonly GenericResource[]): readonly string[] {
  const byName = new Map<string, string[]>();
  for (const { name, value } of resources)
    byName.set(name, [...(byName.get(name) ?? []), `${value}`]);
  return [...byName].map(
    ([name, values]) => `DOCKER_RESOURCE_${name.toUpperCase()}=${values.join(',')}`,
  );
}

const isNumber = (text: string) => /^[-+]?\d+$/.test(text);
